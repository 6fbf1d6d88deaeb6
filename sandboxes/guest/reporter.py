"""The driver's pytest plugin, part of what is sent into the sandbox: Python 3.6 and newer.

It reports every test as one line of JSON the moment it ends, limits each test, and adds the canaries of a scoring run.
Target code shares this process: what it could do to the reporter is what the canaries are for.
"""

import ast
import builtins
import gc
import itertools
import json
import os
import random
import re
import signal
import sys
from typing import Any, Dict, Generator, List, Set

try:
    import _pytest.assertion.rewrite as assertion_rewrite
    import pytest
except ImportError:  # an image without pytest still runs plain commands
    pytest = None  # type: ignore[assignment]

ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
CUT_ADDRESS = re.compile(r"\.\.\.(t? ?0?x)?[0-9a-fA-F]{4,}(?=>)")
"""What pytest leaves of one where it shortens a value in the middle."""
EQUALITY = re.compile(r"\bequal_[0-9a-f]{16}\b")
MAX_MESSAGE = 4000
NO_TESTS = 5
"""pytest's exit code for that."""
FRAME = re.compile(r"(<[^>]*>|\S+):\d+: ")
OVER_LIMIT = "Timeout: over the limit of %s for one test"
AGAIN_S = 1.0
MAX_PARTS = 1000
"""So many elements of a container are looked at for values that are equal to everything."""
PLAIN = (bool, bytes, complex, dict, float, frozenset, int, list, range, set, str, tuple, type(None))


def warm_up(place: str) -> bool:
    """Run pytest once over an empty directory, before any target is known: a fork then finds every module imported and
    every entry point read, and the collector has nothing old to look at. False where that cannot be done: a plugin may
    need the tree's own package.
    """
    if pytest is None:
        return True
    try:
        code = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", place, place])
    except (Exception, SystemExit):
        return False
    if code not in (0, NO_TESTS):
        return False
    sys.stdout.flush()  # or each fork would print it again
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()
    return True


def run_pytest(command: Dict[str, Any], root: str, records_w: int) -> int:
    """Run pytest in this process and report to the descriptor; the exit code is pytest's."""
    if pytest is None:
        sys.stderr.write("pytest is not installed in this sandbox\n")
        return 71
    random.seed(0)
    reporter = reporter_class()(command, root, records_w)
    if command["scoring"]:
        StrictEquality(reporter).install()
    arguments = ["-p", "no:cacheprovider", "--rootdir", root, "--color=no", "--tb=short", "-q"]
    if command["max_failures"]:
        arguments.append("--maxfail=%d" % command["max_failures"])
    return int(pytest.main(arguments + command["args"], plugins=[reporter]))


class Reports:
    """Writes one line per test."""

    def __init__(self, command: Dict[str, Any], root: str, records_w: int) -> None:
        self.command, self.root, self.records_w = command, root, records_w
        self.pid = os.getpid()
        self.parts = {}  # type: Dict[str, List[Any]]
        self.over_limit = set()  # type: Set[str]

    def record(self, test_id: str, outcome: str, message: str = "", seconds: float = 0.0) -> None:
        if os.getpid() != self.pid:  # a test forked and came back: that copy does not speak for the run
            return
        line = {"id": test_id, "outcome": outcome, "message": self.clean(message)}  # type: Dict[str, Any]
        line.update(seconds=seconds, over_limit=test_id in self.over_limit)
        data = (json.dumps(line) + "\n").encode()
        while data:
            data = data[os.write(self.records_w, data) :]

    def clean(self, message: str) -> str:
        """No address, no temporary path, bounded length: the same failure reads the same everywhere."""
        text = EQUALITY.sub("equal", CUT_ADDRESS.sub("...", ADDRESS.sub("at 0x...", message)))
        text = text.replace(self.root + "/", "").replace(self.root, "<repository>")
        text = without_foreign_frames(text)
        if len(text) > MAX_MESSAGE:
            text = text[: MAX_MESSAGE // 2] + "\n[...]\n" + text[-MAX_MESSAGE // 2 :]
        return text

    def limited(self, item: Any) -> Generator[None, Any, None]:
        alarm = Alarm(self.command["test_cpu_s"], self.command["test_wall_s"])
        try:
            yield
        finally:
            alarm.cancel()
            if alarm.rang:
                self.over_limit.add(test_id(item.nodeid))
                if self.command["max_failures"] or test_id(item.nodeid) in self.command["decisive"]:
                    item.session.shouldstop = "a test went over its limit"


def test_id(node: str) -> str:
    """As pytest 4 and newer spell it, which know no node for the instance of a class."""
    return node.replace("::()::", "::")


def without_foreign_frames(text: str) -> str:
    """A short traceback without the frames outside the tree, which differ from machine to machine."""
    kept, foreign = [], False
    for line in text.split("\n"):
        frame = FRAME.match(line)
        if frame:
            foreign = frame.group(1).startswith(("/", "<", ".."))
        elif not line.startswith(" "):
            foreign = False
        if not foreign:
            kept.append(line)
    return "\n".join(kept)


def reporter_class() -> Any:
    """The plugin, made where pytest is known to be there."""
    wrapper = pytest.hookimpl(hookwrapper=True, tryfirst=True)

    class Reporter(Reports):
        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                self.record(report.nodeid or "collection", "error", str(report.longrepr))

        def pytest_runtest_logreport(self, report: Any) -> None:
            self.parts.setdefault(report.nodeid, []).append(report)

        def pytest_runtest_logfinish(self, nodeid: str) -> None:
            reports = self.parts.pop(nodeid, [])
            outcome, message = outcome_of(reports), message_of(reports)
            if test_id(nodeid) in self.over_limit and outcome not in ("failed", "error"):
                outcome, message = "failed", OVER_LIMIT % "time"  # an alarm inside pytest's own code can get lost
            self.record(test_id(nodeid), outcome, message, sum(part.duration for part in reports))

        @wrapper
        def pytest_runtest_setup(self, item: Any) -> Generator[None, Any, None]:
            yield from self.limited(item)

        @wrapper
        def pytest_runtest_call(self, item: Any) -> Generator[None, Any, None]:
            yield from self.limited(item)

        @wrapper
        def pytest_runtest_teardown(self, item: Any) -> Generator[None, Any, None]:
            yield from self.limited(item)

        def pytest_collection_modifyitems(self, items: List[Any]) -> None:
            if self.command["only"]:
                wanted = set(self.command["only"])
                items[:] = [item for item in items if test_id(item.nodeid) in wanted]
            for canary in self.command["canaries"]:
                place = random.SystemRandom().randrange(len(items) + 1)
                neighbour = items[min(place, len(items) - 1)] if items else None
                parent = neighbour.getparent(pytest.Module) if neighbour else None
                if parent is not None:
                    items.insert(place, canary_item(parent, canary))

    return Reporter


def canary_item(parent: Any, canary: Dict[str, Any]) -> Any:
    """A test of the driver's own, through the same machinery as its neighbours."""
    left, right = random.SystemRandom().sample(range(1000000), 2)

    def check() -> None:
        if left != (left if canary["passes"] else right):
            raise AssertionError("%d != %d" % (left, right))

    make = getattr(pytest.Function, "from_parent", None)
    return (make or pytest.Function)(parent=parent, name=canary["name"], callobj=check)


def outcome_of(reports: List[Any]) -> str:
    failed = [report for report in reports if report.failed]
    if failed:
        return "failed" if failed[0].when == "call" else "error"
    expected_to_fail = any(hasattr(report, "wasxfail") for report in reports)
    if any(report.skipped for report in reports):
        return "xfailed" if expected_to_fail else "skipped"
    phases = [report.when for report in reports]  # a test with subtests reports several calls
    if phases[:1] != ["setup"] or phases[-1:] != ["teardown"] or set(phases[1:-1]) != {"call"}:
        return "error"
    return "xpassed" if expected_to_fail else "passed"


def message_of(reports: List[Any]) -> str:
    parts = [report.longreprtext for report in reports if report.failed]
    printed = [report.capstdout for report in reports if report.when == "call" and report.failed and report.capstdout]
    return "\n".join(parts + ["captured stdout:\n" + text[-1000:] for text in printed])


class Alarm:
    """Fails the running test at its CPU or wall-clock limit, and again every second should it go on."""

    def __init__(self, cpu_s: float, wall_s: float) -> None:
        self.limit = "%g s of CPU time or %g s" % (cpu_s, wall_s)  # which one came first is the machine's doing
        self.rang = False
        self.old = {number: signal.signal(number, self.ring) for number in (signal.SIGPROF, signal.SIGALRM)}
        self.arm(cpu_s, wall_s)

    def ring(self, _number: int, _frame: Any) -> None:
        self.rang = True
        self.arm(AGAIN_S, AGAIN_S)  # not both at once: the second would strike while the first is being handled
        pytest.fail(OVER_LIMIT % self.limit, pytrace=False)

    def arm(self, cpu_s: float, wall_s: float) -> None:
        signal.setitimer(signal.ITIMER_PROF, cpu_s, AGAIN_S)
        signal.setitimer(signal.ITIMER_REAL, wall_s, AGAIN_S)

    def cancel(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self.old.items():
            signal.signal(number, handler)


class StrictEquality(ast.NodeTransformer):
    """Rewrites `assert a == b` in test modules so that a value equal to everything is told.

    Classes of the pristine tree may be so (a test's own wildcard), and `unittest.mock.ANY` in a module that names it.
    """

    def __init__(self, reporter: Reports) -> None:
        self.reporter = reporter
        self.name = "equal_%016x" % random.SystemRandom().getrandbits(64)
        self.names_any = False

    def install(self) -> None:
        setattr(builtins, self.name, self.equal)
        rewrite = assertion_rewrite.rewrite_asserts

        def strict(module: ast.Module, *args: Any, **kwargs: Any) -> None:
            nodes = list(ast.walk(module))
            self.names_any = any("ANY" in (getattr(node, "id", ""), getattr(node, "attr", "")) for node in nodes)
            for node in nodes:
                if isinstance(node, ast.Assert):
                    node.test = self.visit(node.test)
            ast.fix_missing_locations(module)
            rewrite(module, *args, **kwargs)

        assertion_rewrite.rewrite_asserts = strict  # type: ignore[assignment]

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) != 1 or not isinstance(node.ops[0], ast.Eq):
            return node
        wildcard = ast.parse(str(self.names_any), mode="eval").body
        call = ast.Call(ast.Name(self.name, ast.Load()), [node.left, node.comparators[0], wildcard], [])
        return ast.copy_location(call, node)

    def equal(self, left: Any, right: Any, wildcard: bool) -> Any:
        result = left == right
        if holds(result) and any(self.equals_anything(value, 3, wildcard) for value in (left, right)):
            self.reporter.record("", "tampered", "a compared value is equal to everything")
        return result

    def equals_anything(self, value: Any, depth: int, wildcard: bool) -> bool:
        kind = type(value)
        if kind in PLAIN:
            parts = itertools.chain(value, value.values()) if kind is dict else value
            inside = depth and kind in (dict, frozenset, list, set, tuple)
            few = itertools.islice(parts, MAX_PARTS) if inside else ()
            return any(self.equals_anything(part, depth - 1, wildcard) for part in few)
        if wildcard and kind is type(getattr(sys.modules.get("unittest.mock"), "ANY", None)):
            return False
        try:
            return not self.is_pristine(kind) and holds(value == Nothing())
        except Exception:
            return False

    def is_pristine(self, kind: Any) -> bool:
        """Was the class's comparison written in a file of the tree that was not edited?"""
        made_at = getattr(getattr(kind.__eq__, "__code__", None), "co_filename", "")
        inside = made_at.startswith(self.reporter.root + "/")
        return inside and made_at[len(self.reporter.root) + 1 :] not in self.reporter.command["edited"]


def holds(result: Any) -> bool:
    try:
        return bool(result)
    except Exception:  # an array has no truth of its own
        return False


class Nothing:
    """Equal to nothing but itself."""
