"""The runner inside a sandbox: standard library and pytest only, Python 3.6 and newer. It is sent as source text.

It answers requests on standard input with replies on standard output, one frame each (4 bytes of length, then JSON):
`base` keeps a tree, `run` lays that tree out fresh with edits over it and forks a child for the command. The runner has
pytest imported, so a run of it costs a fork. The child gives up its privileges before it touches a byte of the tree;
what it leaves running is killed.
"""

import base64
import ctypes
import json
import os
import re
import resource
import select
import signal
import struct
import sys
import tempfile
import time
from typing import Any, BinaryIO, Callable, Dict, Iterable, List, Optional, Set, Tuple

PROTOCOL = 1
MAX_FRAME = 256 * 2**20
MAX_RECORDS, MAX_LINE = 8 * 2**20, 2**16
MAX_LINES = 200000
KILL_S = 10.0
NOBODY = 65534
RLIMIT_MSGQUEUE = 12
ROOT_MARK, HOME_MARK = "<repository>", "/tmp"
Entry = Tuple[str, str]  # mode, content in base 64
RunPytest = Callable[[Dict[str, Any], str, int], int]


# ---- the channel


def read_frame(stream: BinaryIO) -> Optional[Dict[str, Any]]:
    head = stream.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack(">I", head)
    if size > MAX_FRAME:
        raise ValueError("frame too large")
    body = stream.read(size)
    message = json.loads(body.decode()) if len(body) == size else None
    return message if isinstance(message, dict) else None


def write_frame(stream: BinaryIO, message: Dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def serve(options: Dict[str, Any], run_pytest: RunPytest, warm_up: Callable[[str], None]) -> None:
    """Answer requests until standard input ends."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    # where the run has the runner's own user, the first process of a namespace is safe from it without handlers only
    signal.signal(signal.SIGTERM, terminate if options["separate_user"] or os.getpid() != 1 else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL if os.getpid() == 1 else signal.SIG_IGN)
    runner = Runner(options, run_pytest, [requests.fileno(), replies.fileno()])
    warm_up(options["scratch"][0])
    write_frame(replies, {"protocol": PROTOCOL, "python": sys.version.split()[0], "pytest": pytest_version()})
    while True:
        request = read_frame(requests)
        if request is None:
            return
        write_frame(replies, runner.answer(request))


def terminate(_number: int, _frame: Any) -> None:
    for pid in descendants(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    os._exit(143)


def pytest_version() -> str:
    try:
        import pytest
    except ImportError:
        return ""
    return str(pytest.__version__)


# ---- one run


class Runner:
    """Runs one command at a time in one place."""

    def __init__(self, options: Dict[str, Any], run_pytest: RunPytest, keep_closed: List[int]) -> None:
        self.run_pytest = run_pytest
        self.root = options["root"]
        self.scratch = options["scratch"]
        self.home = options["home"]
        self.memory = options["address_space"]
        self.drop = os.getuid() == 0 and options["separate_user"]
        self.private_pids = os.getpid() == 1
        self.keep_closed = keep_closed
        self.base = {}  # type: Dict[str, Entry]
        self.root_pattern = re.compile(r"(?<![\w./-])%s(?:/|(?![\w.-]))" % re.escape(self.root))
        prctl(4, 0)  # PR_SET_DUMPABLE: same-user code cannot trace the runner or open its files
        prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: a double fork is still ours to kill

    def answer(self, request: Dict[str, Any]) -> Dict[str, Any]:
        if request["op"] == "base":
            self.base = request["files"]
            return {"ok": True}
        tree = dict(self.base)
        tree.update(request["edits"])
        self.lay_out({path: entry for path, entry in tree.items() if entry is not None})
        return self.run(request)

    def lay_out(self, tree: Dict[str, Entry]) -> None:
        self.sweep()
        made = {self.root}
        for path in sorted(tree):
            mode, content = tree[path]
            full = os.path.join(self.root, path)
            folder = os.path.dirname(full)
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            write_entry(full, mode, base64.b64decode(content))
        for folder in all_parents(made, self.root):
            os.chmod(folder, 0o1777 if self.drop else 0o755)

    def sweep(self) -> None:
        for place in [self.root] + self.scratch:
            os.makedirs(place, exist_ok=True)  # a run may have removed it where it is no mount
            empty(place)
            os.chmod(place, 0o1777 if self.drop else 0o755)

    def run(self, request: Dict[str, Any]) -> Dict[str, Any]:
        output_r, output_w = os.pipe()
        records_r, records_w = os.pipe()
        started, used = time.monotonic(), children_cpu()
        pid = os.fork()
        if pid == 0:
            self.child(request, output_w, records_w, [output_r, records_r])
        os.close(output_w)
        os.close(records_w)
        output = Capped(request["limits"]["output_bytes"])
        records = Capped(MAX_RECORDS)
        status, timed_out = self.watch(
            pid, {output_r: output, records_r: records}, started + request["limits"]["wall_s"]
        )
        self.sweep()  # before the records are read: what a run left may have taken the memory
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        cpu_s = children_cpu() - used
        over_cpu = code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu_s >= request["limits"]["cpu_s"])
        text, truncated = output.text()
        return {
            "exit_code": code,
            "output": self.clean(text),
            "truncated": truncated,
            "timed_out": timed_out or over_cpu,
            "wall_s": time.monotonic() - started,
            "cpu_s": cpu_s,
            "records": parse_records(self.clean(records.text()[0])),
        }

    def clean(self, text: str) -> str:
        """Paths of the tree become relative, and the home directory has one name on every machine."""
        text = self.root_pattern.sub(lambda found: "" if found.group().endswith("/") else ROOT_MARK, text)
        return text if self.home == HOME_MARK else text.replace(self.home, HOME_MARK)

    def watch(self, pid: int, sinks: Dict[int, "Capped"], deadline: float) -> Tuple[int, bool]:
        """Read the pipes until the child ends or the deadline is over, then kill what is left."""
        poller = select.poll()
        poller.register(self.keep_closed[0], 0)  # wakes up when the owner is gone
        status, timed_out = None, False  # type: Optional[int], bool
        for fd in sinks:
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLIN | select.POLLHUP)
        pause = 1
        while status is None:
            for fd, _ in poller.poll(pause):
                if fd not in sinks:
                    self.kill_the_rest()
                    raise SystemExit("the owner is gone")
                if not drain(fd, sinks[fd]):
                    poller.unregister(fd)
            pause = min(pause * 2, 20)
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                status = code
            elif time.monotonic() > deadline:
                timed_out = True
                os.kill(pid, signal.SIGKILL)
                status = os.waitpid(pid, 0)[1]
        self.kill_the_rest()
        for fd, sink in sinks.items():
            drain(fd, sink)
            os.close(fd)
        return status, timed_out

    def kill_the_rest(self) -> None:
        """No process of the run outlives it, whatever sessions or groups it made."""
        deadline, pause = time.monotonic() + KILL_S, 0.0005
        while True:
            reap()
            left = other_processes() if self.private_pids else descendants(os.getpid())
            if not left:
                return
            if time.monotonic() > deadline:
                raise SystemExit("processes of a run cannot be killed")
            for pid in [-1] if self.private_pids else left:  # -1 is all at once: a fork bomb cannot outrun it
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def child(self, request: Dict[str, Any], output_w: int, records_w: int, close: List[int]) -> None:
        """Never returns, whatever the target did to this process."""
        code = 70
        try:
            try:
                self.enter(request, output_w, close)
                paths = [os.path.normpath(os.path.join(self.root, path)) for path in request["pythonpath"]]
                code = self.execute(request, paths, records_w)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 255)

    def enter(self, request: Dict[str, Any], output_w: int, close: List[int]) -> None:
        """Become the process of the run: its streams, limits, user, environment and directory."""
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd in self.keep_closed + close:
            os.close(fd)
        os.dup2(output_w, 1)
        os.dup2(output_w, 2)
        os.close(output_w)
        self.drop_privileges(request["limits"])
        prctl(4, 1)  # PR_SET_DUMPABLE: the run may look at its own files under /proc
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive its runner
        os.environ.clear()
        for name in ("LINES", "COLUMNS"):  # readline, which pytest imports, sets them behind Python's back
            os.unsetenv(name)
        places = dict.fromkeys(("HOME", "TMPDIR", "PYTEST_DEBUG_TEMPROOT"), self.home)
        os.environ.update(dict(request["env"], **places))
        tempfile.tempdir = None  # the warm-up chose one before the run had its own
        os.chdir(self.root)

    def drop_privileges(self, limits: Dict[str, Any]) -> None:
        cpu = max(1, int(limits["cpu_s"]))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"], limits["file_bytes"]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(RLIMIT_MSGQUEUE, (0, 0))  # message queues would stay after the run
        if self.memory:
            resource.setrlimit(resource.RLIMIT_AS, (self.memory, self.memory))
        prefer_as_victim()
        if self.drop:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    def execute(self, request: Dict[str, Any], paths: List[str], records_w: int) -> int:
        command = request["run"]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        if isinstance(command, dict):
            sys.path[:0] = paths
            sys.argv = ["pytest"]
            return self.run_pytest(dict(command, edited=sorted(request["edits"])), self.root, records_w)
        os.close(records_w)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, other programs count on them
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            sys.stderr.write("%s: %s\n" % (command[0], error.strerror))
            return 127


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(option, value, 0, 0, 0)


def prefer_as_victim() -> None:
    """Where memory runs out, the run is to be killed and not its runner."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


class Capped:
    """Keeps the head and the tail of a stream."""

    def __init__(self, limit: int) -> None:
        self.half, self.head, self.tail, self.dropped = limit // 2, bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        room = self.half - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        if len(self.tail) > 2 * self.half:
            self.dropped += len(self.tail) - self.half
            del self.tail[: len(self.tail) - self.half]

    def text(self) -> Tuple[str, bool]:
        extra = max(0, len(self.tail) - self.half)
        dropped, tail = self.dropped + extra, self.tail[extra:]
        middle = ("\n[... %d bytes dropped ...]\n" % dropped).encode() if dropped else b""
        return (self.head + middle + tail).decode("utf-8", "replace"), bool(dropped)


def drain(fd: int, sink: Capped) -> bool:
    """Move what is there from a pipe to its sink; False at the end of the stream."""
    for _ in range(64):
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        sink.add(data)
    return True


def write_entry(full: str, mode: str, content: bytes) -> None:
    if mode == "120000":
        os.symlink(content, full)
        return
    with open(full, "wb") as file:
        file.write(content)
    os.chmod(full, 0o755 if mode == "100755" else 0o644)


def all_parents(folders: Iterable[str], root: str) -> Set[str]:
    found = {root}
    for folder in folders:
        parent = folder
        while len(parent) > len(root):
            found.add(parent)
            parent = os.path.dirname(parent)
    return found


def empty(place: str) -> None:
    """Remove all that is in a folder, whatever permissions a run took away and however deep it nested folders."""
    lifted = 0
    while True:
        os.chmod(place, 0o700)
        names = os.listdir(place)
        if not names:
            return
        for name in names:
            path = os.path.join(place, name)
            if not is_folder(path):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in os.listdir(path):
                if is_folder(os.path.join(path, inner)):  # lifted up, so that no path grows long
                    os.chmod(os.path.join(path, inner), 0o700)
                    lifted = free_number(place, lifted)
                    os.rename(os.path.join(path, inner), os.path.join(place, str(lifted)))
                else:
                    os.unlink(os.path.join(path, inner))
            os.rmdir(path)


def is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def free_number(place: str, number: int) -> int:
    while os.path.lexists(os.path.join(place, str(number))):
        number += 1
    return number


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def other_processes() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


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


def parse_records(text: str) -> List[Dict[str, Any]]:
    """The reporter's lines; torn or foreign lines in a row are kept as one record that no test id matches."""
    records = []  # type: List[Dict[str, Any]]
    for line in text.split("\n", MAX_LINES)[:MAX_LINES]:
        record = parse_record(line)
        if line and (record["id"] or not records or record != records[-1]):
            records.append(record)
    return records


def parse_record(line: str) -> Dict[str, Any]:
    try:
        record = json.loads(line if len(line) <= MAX_LINE else "")
        words = {key: str(record[key]).encode("utf-8", "replace").decode() for key in ("id", "outcome", "message")}
        return dict(words, seconds=float(record["seconds"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {"id": "", "outcome": "error", "message": "unreadable record", "seconds": 0.0}
