"""The plain place of runs: one tree, laid out once and put right after each run.

Where a run has a user of its own, the tree's files belong to root and its folders are sticky: a run can only add, so
putting right is removing what is not ours. Where it has the runner's user, the tree is laid out anew for each run.
"""

import ctypes
import os
import signal
import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple

from sandboxes.guest.bases import NOBODY
from sandboxes.guest.files import empty, forget_attributes, is_full, make_folder, write_entry

KILL_S = 10.0
FIRST_USER, USERS = 20000, 40000
IPC_RMID = 0
Edit = Optional[Tuple[str, bytes]]


class DirectPlace:
    """Runs follow each other in the same folders."""

    wall = "user"

    def __init__(self, options: Dict[str, Any], bases: Any) -> None:
        self.root, self.scratch = options["root"], options["scratch"]
        self.bases = bases
        self.separate = os.getuid() == 0 and options["separate_user"]
        self.user_per_run = options["user_per_run"]
        self.private = options["private"]
        self.user = NOBODY
        self.wall = "user" if self.separate else "removal"
        self.base = ""
        self.names = {}  # type: Dict[str, Set[str]]
        self.edits = {}  # type: Dict[str, Edit]
        self.runs = 0
        self.wipe()

    # ---- before a run

    def spawn(self, base: str, edits: Dict[str, Edit], body: Callable[[], None]) -> int:
        """Start a run: a process that calls `body`, which does not return. Its id."""
        self.runs += 1
        if self.user_per_run:
            self.user = FIRST_USER + self.runs % USERS
            self.user += self.user == self.bases.owner
        if base != self.base:
            self.wipe()
            self.lay_out(base)
        self.edit(edits)
        pid = os.fork()
        if pid == 0:
            body()
        return pid

    def wipe(self) -> None:
        for place in [self.root] + self.scratch:
            os.makedirs(place, exist_ok=True)  # a run may have removed it where it is no mount
            os.chmod(place, 0o700)
            empty(place)
            forget_attributes(place)
            os.chmod(place, 0o1777 if self.separate else 0o755)
        self.base, self.names, self.edits = "", {"": set()}, {}

    def lay_out(self, base: str) -> None:
        for path, mode, content in self.bases.entries(base):
            self.put(path, (mode, content))
        self.base = base

    def edit(self, edits: Dict[str, Edit]) -> None:
        """From the edits of the last run to these."""
        changed = [path for path in set(self.edits) | set(edits) if self.differs(path, edits)]
        wanted = {path: edits[path] if path in edits else self.bases.entry(self.base, path) for path in changed}
        for path in changed:
            self.take_away(path)
        for path in changed:
            if wanted[path] is not None:
                self.put(path, wanted[path])
        self.edits = dict(edits)

    def differs(self, path: str, edits: Dict[str, Edit]) -> bool:
        return path not in edits or path not in self.edits or edits[path] != self.edits[path]

    def put(self, path: str, entry: Edit) -> None:
        parts = path.split("/")
        for depth in range(len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in self.names:
                self.names[folder] = set()
                make_folder(os.path.join(self.root, folder))
            self.names[folder].add(parts[depth])
        if entry:
            write_entry(os.path.join(self.root, path), *entry)

    def take_away(self, path: str) -> None:
        """Remove a file, and the folders that are empty then; a folder of that name goes with its last file."""
        folder, _, name = path.rpartition("/")
        if path in self.names or name not in self.names.get(folder, ()):
            return
        os.unlink(os.path.join(self.root, path))
        self.names[folder].discard(name)
        while folder and not self.names[folder]:
            os.rmdir(os.path.join(self.root, folder))
            del self.names[folder]
            folder, _, name = folder.rpartition("/")
            self.names[folder].discard(name)

    # ---- after a run

    def end(self, pid: int) -> int:
        """End a run, its first process before those that may tell of another's end. It is not waited for while others
        live: a tracer among them keeps it from ending.
        """
        os.kill(pid, signal.SIGKILL)
        kill_the_rest()
        return signal.SIGKILL

    def settle(self, status: int) -> Tuple[int, List[str]]:
        """End what is left of a run: its wait status, and the limits that can still be seen."""
        kill_the_rest()
        full = self.private and any(is_full(place) for place in [self.root] + self.scratch if os.path.isdir(place))
        return status, ["disk"] if full else []

    def clean(self) -> str:
        """Remove what a run left. Returns why the place is in doubt, or nothing."""
        if not self.separate:
            self.wipe()
            self.remove_ipc()
            return ""
        doubt = ""
        os.seteuid(self.user)  # a run's own files need no right but its own
        try:
            self.strip()
            self.remove_ipc()
        except OSError as error:
            doubt = "a run left what it cannot remove: %s" % error
        finally:
            os.seteuid(0)
        return doubt or self.verify()

    def strip(self) -> None:
        for folder, names in self.names.items():
            empty(os.path.join(self.root, folder), names)
        for place in self.scratch:
            empty(place)

    def verify(self) -> str:
        for folder, names in self.names.items():
            if set(os.listdir(os.path.join(self.root, folder))) != names:
                return "the tree is not as it was"
        if any(os.listdir(place) for place in self.scratch):
            return "temporary files are left"
        return "shared memory is left" if self.private and any(self.ipc()) else ""

    def ipc(self) -> Iterable[Tuple[str, int]]:
        """System V objects: kind and id."""
        for kind in ("shm", "sem", "msg"):
            try:
                with open("/proc/sysvipc/" + kind) as file:
                    for line in file.read().splitlines()[1:]:
                        yield kind, int(line.split()[1])
            except OSError:
                pass

    def remove_ipc(self) -> None:
        if not self.private:
            return  # the objects of the whole machine
        libc = ctypes.CDLL(None)
        for kind, number in self.ipc():
            if kind == "sem":
                libc.semctl(number, 0, IPC_RMID)
            else:
                getattr(libc, kind + "ctl")(number, IPC_RMID, None)


def kill_the_rest() -> None:
    """No process of the run outlives it, whatever sessions or groups it made."""
    everything = os.getpid() == 1
    deadline, pause = time.monotonic() + KILL_S, 0.0005
    while True:
        reap()
        left = other_processes() if everything else descendants(os.getpid())
        if not left:
            return
        if time.monotonic() > deadline:
            raise SystemExit("processes of a run cannot be killed")
        for pid in [-1] if everything else left:  # -1 is all at once: a fork bomb cannot outrun it
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def other_processes() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def descendants(root: int) -> Iterable[int]:
    parents = {}  # type: Dict[int, int]
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                pass
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found - {root}
        found |= more


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
