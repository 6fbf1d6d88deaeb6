"""The walled place of runs: mount, process and IPC namespaces of its own for each, over a read-only base.

The tree is an overlay on the base, the temporary file systems are new, and all of it is gone with the namespaces:
nothing is copied and nothing has to be cleaned. It needs CAP_SYS_ADMIN in the runner; a run has no capability, and a
filter that keeps it from making namespaces or mounts of its own. See namespaces(7), overlayfs in the kernel's manual.
"""

import ctypes
import os
import signal
import struct
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from sandboxes.guest.bases import EMPTY_BASE, NOBODY
from sandboxes.guest.direct import Edit, kill_the_rest, other_processes
from sandboxes.guest.entering import prefer_as_victim
from sandboxes.guest.files import BYTES_PER_FILE, is_full, make_folder, write_entry

NEW_MOUNTS, NEW_IPC, NEW_PIDS = 0x20000, 0x8000000, 0x20000000
READ_ONLY, NO_SUID, NO_DEV, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MOUNT_FLAGS, DETACH = NO_SUID | NO_DEV, 2
MASKED = ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
"""What Docker hides under /proc."""


class NamespacePlace:
    """Runs share a container and nothing in it.

    The first process of a run's namespaces reads the request for it and writes the reply. The runner, which every run
    is a copy of, hears of neither: what came with one run cannot be found in the memory of another.
    """

    wall = "namespaces"
    separate = True
    user = NOBODY

    def __init__(self, options: Dict[str, Any], bases: Any) -> None:
        self.root, self.disk_bytes = options["root"], options["disk_bytes"]
        self.bases = bases
        self.doubt = ""
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def trial(self) -> str:
        """Why this container cannot do it; empty where it can."""
        said_r, said_w = os.pipe()
        try:
            self.apart(lambda: self.attempt(said_w))
        except OSError as error:
            return str(error)
        finally:
            os.close(said_w)
        with os.fdopen(said_r, "rb") as file:
            return file.read().decode()

    def attempt(self, said_w: int) -> int:
        try:
            self.build(self.bases.folder(EMPTY_BASE))
        except OSError as error:
            os.write(said_w, str(error).encode())
        return 0

    def apart(self, body: Callable[[], int]) -> int:
        """Call `body` in the first process of new process namespaces: the wait status. All others have then ended."""
        self.doubt = "processes are left" if other_processes() else ""
        self.call("unshare", NEW_PIDS)  # for the next child; and back, or the one after it could not be made
        try:
            pid = os.fork()
        except OSError:
            self.call("setns", self.own_pids, NEW_PIDS)
            raise
        if pid == 0:
            code = 70
            try:
                code = body()
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        self.call("setns", self.own_pids, NEW_PIDS)
        return os.waitpid(pid, 0)[1]

    # ---- in the first process

    def spawn(self, base: str, edits: Dict[str, Edit], body: Callable[[], None]) -> int:
        """Build the place and start a run: a process that calls `body`, which does not return. Its id. Raises
        RuntimeError where there is no place.
        """
        try:
            self.build(self.bases.folder(base))
            self.edit(edits)
            pid = os.fork()
        except OSError as error:
            raise RuntimeError("no place for a run: %s" % error)
        if pid == 0:
            body()
        return pid

    def end(self, _pid: int) -> int:
        kill_the_rest()
        return signal.SIGKILL

    def settle(self, status: int) -> Tuple[int, List[str]]:
        """End what is left of a run: its wait status, and the limits that can still be seen."""
        kill_the_rest()
        full = any(is_full(place) for place in (self.root, "/tmp", "/dev/shm"))
        return status, ["disk"] if full else []

    def clean(self) -> str:
        """Give up the memory that a run's files take: what it reported may need some."""
        for place in ("/dev/shm", "/tmp", self.root, "/tmp"):  # the last one is under the overlay
            self.call("umount2", os.fsencode(place), DETACH)
        return self.doubt

    def build(self, base: str) -> None:
        self.call("unshare", NEW_MOUNTS | NEW_IPC)
        self.mount("none", "/", "", RECURSIVE | PRIVATE)
        self.temporary("/tmp", self.disk_bytes)
        for name in ("upper", "work"):
            make_folder("/tmp/" + name)
        layers = "lowerdir=%s,upperdir=/tmp/upper,workdir=/tmp/work" % base
        self.mount("overlay", self.root, "overlay", MOUNT_FLAGS, layers)
        self.temporary("/tmp", self.disk_bytes)
        self.temporary("/dev/shm", self.disk_bytes // 4)
        self.temporary(self.bases.place, 4096, "0700")
        self.mount("mqueue", "/dev/mqueue", "mqueue", MOUNT_FLAGS | NO_EXEC)
        self.mount("proc", "/proc", "proc", MOUNT_FLAGS | NO_EXEC)
        self.bound_ipc()
        prefer_as_victim()  # all of a run, its first process too; under a read-only /proc it cannot take that back
        self.mask_proc()

    def bound_ipc(self) -> None:
        """System V objects are freed some time after their namespace: what they hold is missing to the next run."""
        for name, value in ipc_limits(self.disk_bytes // 4).items():
            try:
                with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
                    file.write(value)
            except OSError:  # another user namespace than the kernel's first
                pass

    def mask_proc(self) -> None:
        for name in MASKED:
            path = "/proc/" + name
            if os.path.isdir(path):
                self.temporary(path, 4096, "0555")
            elif os.path.exists(path):
                self.mount("/dev/null", path, "", BIND)
        self.mount("none", "/proc", "", BIND | REMOUNT | READ_ONLY | MOUNT_FLAGS | NO_EXEC)

    def edit(self, edits: Dict[str, Edit]) -> None:
        """Removals first: a file may stand where a folder was."""
        for path, entry in sorted(edits.items(), key=lambda item: (item[1] is not None, item[0])):
            full = os.path.join(self.root, path)
            if os.path.lexists(full):
                os.unlink(full)
            if entry is None:
                self.close_up(os.path.dirname(full))
                continue
            parts = path.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                make_folder(os.path.join(self.root, *parts[:depth]))
            write_entry(full, *entry)

    def close_up(self, folder: str) -> None:
        """Remove a folder whose last file was removed, and those above it."""
        while folder != self.root and not os.listdir(folder):
            os.rmdir(folder)
            folder = os.path.dirname(folder)

    def temporary(self, path: str, size: int, mode: str = "1777") -> None:
        files = max(16, size // BYTES_PER_FILE)
        self.mount("tmpfs", path, "tmpfs", MOUNT_FLAGS, "mode=%s,size=%d,nr_inodes=%d" % (mode, size, files))

    def mount(self, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        words = [os.fsencode(word) for word in (source, target, kind)]
        self.call("mount", words[0], words[1], words[2] or None, ctypes.c_ulong(flags), os.fsencode(data) or None)

    def call(self, name: str, *args: Any) -> None:
        if getattr(self.libc, name)(*args):
            number = ctypes.get_errno()
            said = [arg.decode() for arg in args[:2] if isinstance(arg, bytes)]
            raise OSError(number, "%s %s: %s" % (name, " ".join(said), os.strerror(number)))


def ipc_limits(memory_bytes: int) -> Dict[str, str]:
    """Kernel settings that bound the memory in System V objects."""
    pages = memory_bytes // os.sysconf("SC_PAGE_SIZE")
    return {"kernel.shmall": str(pages), "kernel.sem": "32000 32000 500 128", "kernel.msgmni": "256"}


# ---- the filter

ALLOW, REFUSE, NO_SUCH_CALL = 0x7FFF0000, 0x00050001, 0x00050026  # EPERM; ENOSYS, so that libc takes the older call
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
X32 = 0x40000000
NAMESPACE_FLAGS = 0x7E020000
VSOCK = 40
"""Sockets to the machine that this one is a guest of: no network namespace keeps them."""
CALLED = "clone socket unshare setns mount umount2 pivot_root chroot bpf perf_event_open add_key request_key keyctl"
CALLED += " userfaultfd syslog"
NEW_MOUNT_CALLS = [428, 429, 430, 431, 432, 433, 442]
CALLS = {
    "x86_64": (0xC000003E, (56, 41, 272, 308, 165, 166, 155, 161, 321, 298, 248, 249, 250, 323, 103)),
    "aarch64": (0xC00000B7, (220, 198, 97, 268, 40, 39, 41, 51, 280, 241, 217, 218, 219, 282, 116)),
}  # type: Dict[str, Tuple[int, Tuple[int, ...]]]
CLONE3, IO_URING = 435, [425, 426, 427]
"""Calls whose arguments lie in memory, where no filter sees them."""


def filter_program(machine: str) -> Optional[bytes]:
    """A seccomp program (see seccomp(2)) that refuses what makes namespaces and mounts, what reaches beyond them, and
    what outlives a process; None for other machines.
    """
    if machine not in CALLS:
        return None
    architecture, numbers = CALLS[machine]
    clone, socket = numbers[:2]
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, 0)]
    lines += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, REFUSE)]
    for number in sorted(numbers[2:]) + NEW_MOUNT_CALLS:
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    for number in [CLONE3] + IO_URING:
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, NO_SUCH_CALL)]
    for number, test, first_argument in ((clone, ANY_BIT, NAMESPACE_FLAGS), (socket, EQUAL, VSOCK)):
        lines += [(EQUAL, 0, 4, number), (LOAD, 0, 0, 16), (test, 0, 1, first_argument), (RETURN, 0, 0, REFUSE)]
        lines += [(RETURN, 0, 0, ALLOW)]
    lines += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def install_filter() -> None:
    program = filter_program(os.uname().machine)
    if program is None:
        return
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if ctypes.CDLL(None, use_errno=True).prctl(22, 2, ctypes.c_char_p(head), 0, 0):  # PR_SET_SECCOMP, filter mode
        raise OSError(ctypes.get_errno(), "no seccomp filter")
