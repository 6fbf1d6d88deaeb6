"""The runner inside a sandbox: standard library and pytest only, Python 3.6 and newer.

Its files are sent as one source text. It answers requests on standard input with replies on standard output (see
`wire`): `base` keeps a tree, `run` starts a process for a command on that tree under edits. It has pytest imported, so
a run of it costs a fork. The process of a run gives up its privileges before it touches a byte of the tree; what it
leaves is killed and removed, or gone with its namespaces. A fork has all that its parent ever read: where runs of
different rollouts follow each other, it is the first process of their namespaces that reads requests.
"""

import base64
import json
import os
import re
import select
import signal
import sys
import time
from typing import Any, BinaryIO, Dict, List

from sandboxes.guest.bases import open_bases
from sandboxes.guest.direct import DirectPlace, descendants
from sandboxes.guest.entering import (
    close_all_but,
    drop_user,
    execute_program,
    limit_resources,
    needs_cold_start,
    prctl,
    prefer_as_victim,
    start_cold,
    take_environment,
)
from sandboxes.guest.namespaces import NamespacePlace, install_filter
from sandboxes.guest.reporter import run_pytest, warm_up
from sandboxes.guest.watching import Capped, Watch, cgroup_events, children_cpu, drain, new_events
from sandboxes.guest.wire import PROTOCOL, read_frame, write_frame

MAX_RECORDS, MAX_LINE = 8 * 2**20, 2**16
MAX_LINES, MAX_SECONDS = 200000, 1e6
ROOT_MARK, HOME_MARK = "<repository>", "/tmp"
ANSWERED, ENDED = 0, 3
KILLED = {"exit_code": -signal.SIGKILL, "output": "", "hit": ["memory"], "records": [], "doubt": ""}


def serve(options: Dict[str, Any], reporter_source: str) -> None:
    """Answer requests until standard input ends, or the sandbox's time is over."""
    requests, replies = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    # where the run has the runner's own user, the first process of a namespace is safe from it without handlers only
    signal.signal(signal.SIGTERM, terminate if options["separate_user"] or os.getpid() != 1 else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL if os.getpid() == 1 else signal.SIG_IGN)
    os.umask(0o022)
    runner = Runner(options, reporter_source, requests.fileno())
    runner.warm = warm_up(options["scratch"][0])
    greeting = {"protocol": PROTOCOL, "python": sys.version.split()[0], "pytest": pytest_version()}
    greeting.update(wall=runner.place.wall, refused=runner.refused)
    fit = bool(greeting["pytest"]) and (not runner.place.separate or readable_by(runner.place.user, os.__file__))
    write_frame(replies, dict(greeting, mounted=runner.bases.mounted, fit=fit))
    ends = time.monotonic() + options["ttl_s"]
    while wait_for_request(requests, ends):
        if not runner.serve_next(Whole(requests), replies):
            return


def wait_for_request(requests: BinaryIO, ends: float) -> bool:
    poller = select.poll()
    poller.register(requests, select.POLLIN)
    while time.monotonic() < ends:
        if poller.poll(min(60.0, ends - time.monotonic()) * 1000 + 1):
            return True
    return False


class Whole:
    """Reads as much as is asked for from an unbuffered stream, so that polling it tells the truth."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def read(self, size: int) -> bytes:
        parts = []  # type: List[bytes]
        while size:
            data = self.stream.read(min(size, 1 << 20))
            if not data:
                break
            parts.append(data)
            size -= len(data)
        return b"".join(parts)


def terminate(_number: int, _frame: Any) -> None:
    for pid in descendants(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    os._exit(143)


def readable_by(user: int, path: str) -> bool:
    os.seteuid(user)
    try:
        return os.path.isfile(path)
    finally:
        os.seteuid(0)


def pytest_version() -> str:
    try:
        import pytest
    except ImportError:
        return ""
    return str(pytest.__version__)


class Runner:
    """Runs one command at a time in one place."""

    def __init__(self, options: Dict[str, Any], reporter_source: str, owner: int) -> None:
        self.root, self.home = options["root"], options["home"]
        self.memory, self.filtered = options["address_space"], options["private"]
        self.reporter_source = reporter_source
        self.root_pattern = re.compile(r"(?<![\w./-])%s(?:/|(?![\w.-]))" % re.escape(self.root))
        prctl(4, 0)  # PR_SET_DUMPABLE: same-user code cannot trace the runner or open its files
        prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: a double fork is still ours to kill
        self.watch = Watch(owner)
        self.bases = open_bases(options)
        self.refused = ""
        self.warm = True
        self.place = self.open_place(options)

    def open_place(self, options: Dict[str, Any]) -> Any:
        if options["namespaces"]:
            place = NamespacePlace(options, self.bases)
            self.refused = place.trial()
            if not self.refused:
                return place
        return DirectPlace(options, self.bases)

    def serve_next(self, requests: "Whole", replies: BinaryIO) -> bool:
        """Answer one request, in a process of its own where the place has such; False at the end of the stream."""
        if self.place.wall != NamespacePlace.wall:
            return self.answer_next(requests, replies)
        started, used = time.monotonic(), children_cpu()
        status = self.place.apart(lambda: ANSWERED if self.answer_next(requests, replies) else ENDED)
        if os.WIFSIGNALED(status):  # the kernel's victim, all the others with it
            write_frame(replies, dict(KILLED, wall_s=time.monotonic() - started, cpu_s=children_cpu() - used))
        elif os.WEXITSTATUS(status) not in (ANSWERED, ENDED):
            raise SystemExit("the first process of a run failed")
        return os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == ANSWERED

    def answer_next(self, requests: "Whole", replies: BinaryIO) -> bool:
        request = read_frame(requests)
        if request is not None:
            write_frame(replies, self.answer(request))
        return request is not None

    def answer(self, request: Dict[str, Any]) -> Dict[str, Any]:
        if request["op"] == "base":
            self.bases.add(request["base"], request["files"])
            return {"ok": True}
        if not self.bases.has(request["base"]):
            return {"missing": request["base"]}
        try:
            return self.run(request)
        except RuntimeError as error:
            return {"fault": str(error)}

    def run(self, request: Dict[str, Any]) -> Dict[str, Any]:
        edits = {path: decoded(entry) for path, entry in request["edits"].items()}
        (output_r, output_w), (records_r, records_w) = os.pipe(), os.pipe()
        os.fchmod(output_w, 0o622)  # another user's /dev/stdout can be opened by name too
        started, used, events = time.monotonic(), children_cpu(), cgroup_events()
        pid = self.place.spawn(request["base"], edits, lambda: self.child(request, output_w, records_w))
        os.close(output_w)
        os.close(records_w)
        sinks = {output_r: Capped(request["limits"]["output_bytes"]), records_r: Capped(MAX_RECORDS)}
        status, timed_out = self.watch.wait(pid, sinks, started + request["limits"]["wall_s"], self.place.end)
        status, hit = self.place.settle(status)
        wall_s, cpu_s = time.monotonic() - started, children_cpu() - used
        for fd, sink in sinks.items():
            drain(fd, sink)
            os.close(fd)
        doubt = self.place.clean()  # before the records are read: what a run left may have taken the memory
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        over_cpu = code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu_s >= request["limits"]["cpu_s"])
        output, truncated = sinks[output_r].text()
        flags = {"wall": timed_out, "cpu": over_cpu, "output": truncated}
        return {
            "exit_code": code,
            "output": self.clean(output),
            "hit": hit + new_events(events) + [name for name in flags if flags[name]],
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            "records": parse_records(self.clean(sinks[records_r].text()[0])),
            "doubt": doubt,
        }

    def clean(self, text: str) -> str:
        """Paths of the tree become relative, and the home directory has one name on every machine."""
        text = self.root_pattern.sub(lambda found: "" if found.group().endswith("/") else ROOT_MARK, text)
        return text if self.home == HOME_MARK else text.replace(self.home, HOME_MARK)

    # ---- the process of a run

    def child(self, request: Dict[str, Any], output_w: int, records_w: int) -> None:
        """Never returns, whatever the target did to this process."""
        code = 70
        try:
            try:
                paths = [os.path.normpath(os.path.join(self.root, path)) for path in request["pythonpath"]]
                command = request["run"]
                cold = isinstance(command, dict) and (
                    command["cold"]
                    or not self.warm
                    or needs_cold_start(request["env"], paths, command["args"], self.root)
                )
                self.enter(request, output_w, records_w, paths)
                code = self.execute(request, cold, paths, records_w)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 255)

    def enter(self, request: Dict[str, Any], output_w: int, records_w: int, paths: List[str]) -> None:
        """Become the process of the run: its streams, limits, user, environment and directory."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        close_all_but({output_w, records_w})
        os.dup2(output_w, 1)
        os.dup2(output_w, 2)
        os.close(output_w)
        limit_resources(request["limits"], self.memory)
        prefer_as_victim()
        if self.place.separate:
            drop_user(self.place.user)
        if self.filtered:
            install_filter()
        prctl(4, 1)  # PR_SET_DUMPABLE: the run may look at its own files under /proc
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive its runner
        take_environment(request["env"], self.home, self.root, paths)

    def execute(self, request: Dict[str, Any], cold: bool, paths: List[str], records_w: int) -> int:
        command = request["run"]
        if not isinstance(command, dict):
            os.close(records_w)
            return execute_program(command)
        command = dict(command, edited=sorted(request["edits"]))
        if cold:
            return start_cold(self.reporter_source, command, self.root, records_w)
        sys.path[:0] = paths
        sys.argv = ["pytest"]
        return run_pytest(command, self.root, records_w)


def decoded(entry: Any) -> Any:
    return None if entry is None else (entry[0], base64.b64decode(entry[1]))


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
        seconds = min(MAX_SECONDS, max(0.0, float(record["seconds"])))  # in this order, what is no number becomes 0
        return dict(words, seconds=seconds, over_limit=bool(record["over_limit"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {"id": "", "outcome": "error", "message": "unreadable record", "seconds": 0.0, "over_limit": False}
