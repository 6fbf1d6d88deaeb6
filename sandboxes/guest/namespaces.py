"""The walled place of runs: mount, process and IPC namespaces of its own for each, over a read-only base.

The tree is an overlay on the base, the temporary file systems are new, and all of it is gone with the namespaces:
nothing is copied and nothing has to be cleaned. It needs CAP_SYS_ADMIN in the runner; a run has no capability, and a
filter that keeps it from making namespaces or mounts of its own. See namespaces(7), overlayfs in the kernel's manual.
"""

import ctypes
import json
import os
import signal
import struct
from typing import Any, Callable, Dict, List, Optional, Tuple

from sandboxes.guest.bases import EMPTY_BASE, NOBODY
from sandboxes.guest.direct import Edit, other_processes, reap
from sandboxes.guest.files import is_full, make_folder, write_entry

NEW_MOUNTS, NEW_IPC, NEW_PIDS = 0x20000, 0x8000000, 0x20000000
READ_ONLY, NO_SUID, NO_DEV, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MOUNT_FLAGS = NO_SUID | NO_DEV
MASKED = ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
FIXED = ("bus", "fs", "irq", "sys", "sysrq-trigger")
"""What Docker hides under /proc, and what it makes read-only there."""


class NamespacePlace:
    """Runs share a container and nothing in it."""

    wall = "namespaces"
    separate = True
    user = NOBODY

    def __init__(self, options: Dict[str, Any], bases: Any) -> None:
        self.root, self.disk_bytes = options["root"], options["disk_bytes"]
        self.bases = bases
        self.status_r = -1
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def trial(self) -> str:
        """Why this container cannot do it; empty where it can."""
        try:
            pid = self.spawn(EMPTY_BASE, {}, lambda: os._exit(0))
            self.settle(os.waitpid(pid, 0)[1])
        except (OSError, RuntimeError) as error:
            return str(error)
        return ""

    def spawn(self, base: str, edits: Dict[str, Edit], body: Callable[[], None]) -> int:
        """Start a run: the first process of its namespaces, which calls `body` in a second one. Its id."""
        self.status_r, status_w = os.pipe()
        self.call("unshare", NEW_PIDS)  # for the next child; and back, or the one after it could not be made
        try:
            pid = os.fork()
        except OSError:
            self.call("setns", self.own_pids, NEW_PIDS)
            raise
        if pid == 0:
            self.first_process(base, edits, body, status_w)
        os.close(status_w)
        self.call("setns", self.own_pids, NEW_PIDS)
        return pid

    def settle(self, status: int) -> Tuple[int, List[str]]:
        """The wait status of a run and the limits that its first process saw. Raises RuntimeError where the place
        could not be made. With the first process all others have ended.
        """
        reap()
        with os.fdopen(self.status_r, "rb") as file:
            said = file.read()
        if not said:  # it was killed, at a limit or for want of memory
            return signal.SIGKILL, []
        seen = json.loads(said.decode())
        if "fault" in seen:
            raise RuntimeError(seen["fault"])
        return int(seen["status"]), list(seen["hit"])

    def clean(self) -> str:
        return "processes are left" if other_processes() else ""

    # ---- inside

    def first_process(self, base: str, edits: Dict[str, Edit], body: Callable[[], None], status_w: int) -> None:
        """Build the place, start the run, wait for it, report; never returns."""
        said = {}  # type: Dict[str, Any]
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                self.build(self.bases.folder(base))
                self.edit(edits)
                pid = os.fork()
            except OSError as error:
                said = {"fault": "no place for a run: %s" % error}
                raise
            if pid == 0:
                body()
            status = wait_for(pid)
            said = {"status": status, "hit": ["disk"] if is_full(self.root) or is_full("/tmp") else []}
        finally:
            os.write(status_w, json.dumps(said or {"fault": "the first process of a run failed"}).encode())
            os._exit(0)

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
        self.mask_proc()

    def mask_proc(self) -> None:
        for name in MASKED:
            path = "/proc/" + name
            if os.path.isdir(path):
                self.temporary(path, 4096, "0555")
            elif os.path.exists(path):
                self.mount("/dev/null", path, "", BIND)
        for name in FIXED:
            path = "/proc/" + name
            if os.path.exists(path):
                self.mount(path, path, "", BIND | RECURSIVE)
                self.mount(path, path, "", BIND | REMOUNT | READ_ONLY | MOUNT_FLAGS | NO_EXEC)

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
        self.mount("tmpfs", path, "tmpfs", MOUNT_FLAGS, "mode=%s,size=%d" % (mode, size))

    def mount(self, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        words = [os.fsencode(word) for word in (source, target, kind)]
        self.call("mount", words[0], words[1], words[2] or None, ctypes.c_ulong(flags), os.fsencode(data) or None)

    def call(self, name: str, *args: Any) -> None:
        if getattr(self.libc, name)(*args):
            number = ctypes.get_errno()
            said = [arg.decode() for arg in args[:2] if isinstance(arg, bytes)]
            raise OSError(number, "%s %s: %s" % (name, " ".join(said), os.strerror(number)))


def wait_for(pid: int) -> int:
    while True:
        done, status = os.waitpid(-1, 0)
        if done == pid:
            return status


# ---- the filter

ALLOW, REFUSE, NO_SUCH_CALL = 0x7FFF0000, 0x00050001, 0x00050026  # EPERM; ENOSYS, so that libc takes the older call
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
X32 = 0x40000000
NAMESPACE_FLAGS = 0x7E020000
REFUSED = "unshare setns mount umount2 pivot_root chroot bpf perf_event_open add_key request_key keyctl userfaultfd"
NEW_MOUNT_CALLS = [428, 429, 430, 431, 432, 433, 442]
CALLS = {
    "x86_64": (
        0xC000003E,
        56,
        dict(zip(REFUSED.split(), (272, 308, 165, 166, 155, 161, 321, 298, 248, 249, 250, 323))),
    ),
    "aarch64": (0xC00000B7, 220, dict(zip(REFUSED.split(), (97, 268, 40, 39, 41, 51, 280, 241, 217, 218, 219, 282)))),
}  # type: Dict[str, Tuple[int, int, Dict[str, int]]]
CLONE3 = 435


def filter_program(machine: str) -> Optional[bytes]:
    """A seccomp program (see seccomp(2)) that refuses what makes namespaces and mounts; None for other machines."""
    if machine not in CALLS:
        return None
    architecture, clone, numbers = CALLS[machine]
    refused = sorted(numbers.values()) + NEW_MOUNT_CALLS
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, 0)]
    lines += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, REFUSE)]
    for number in refused:
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    lines += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, NO_SUCH_CALL)]
    lines += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, NAMESPACE_FLAGS), (RETURN, 0, 0, REFUSE)]
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
