"""Run directories for the viewer, made from a seed or full of malice: real events, written by the real store."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.records import (
    Completion,
    ForkPoint,
    Header,
    Message,
    Note,
    PairNote,
    Sampling,
    Score,
    Step,
    StepScore,
    StopReason,
    TestPolicy,
    TestReport,
    Trace,
    Usage,
)
from harness.rollout import RolloutEnded
from harness.run_files import RunConfig, claim_directory
from harness.trace_store import RolloutRecorder, TraceStore
from sandboxes.base import Isolation
from tests.conftest import NOT_REPLAYABLE
from tools.files import ToolErrorKind
from tools.protocol import parse

TESTS = tuple(f"tests/test_ledger.py::test_case_{number}" for number in range(12))
SYSTEM = "You repair a Python repository. Something in it is wrong: some of its tests fail.\n" * 12
SOURCE = "".join(f"def entry_{number}(ledger):\n    return ledger[{number}] + {number}\n\n" for number in range(30))
PATH = "ledger/book.py"


def config(model: str = "small", rollouts: int = 2, tasks: Iterable[str] = ("ledger",)) -> RunConfig:
    return RunConfig(
        suite="minibugs",
        suite_version="viewer-world",
        tasks=tuple(tasks),
        policy="hf",
        model=model,
        oracle=False,
        test_policy=TestPolicy.ON_WRITE,
        tool_protocol="json",
        sandbox="docker",
        isolation=Isolation.RUN,
        max_iters=10,
        rollouts=rollouts,
        seed=0,
        temperature=0.7,
        max_tokens=800,
        stop_on_loop=False,
    )


def header(task: str, index: int, rollout: str = "", fork: ForkPoint | None = None) -> Header:
    return Header(
        rollout=rollout or f"{task}#{index}",
        task=task,
        suite="minibugs",
        suite_version="viewer-world",
        index=index,
        fork=fork,
        policy="hf",
        model="small",
        sampling=Sampling(temperature=0.7, seed=index),
        test_policy=TestPolicy.ON_WRITE,
        sandbox="docker",
        isolation="run",
        expected_tests=TESTS,
    )


def call(name: str, **args: object) -> str:
    return json.dumps({"type": "tool_call", "name": name, "args": args})


def final(summary: str) -> str:
    return json.dumps({"type": "final", "summary": summary})


@dataclass(frozen=True)
class Said:
    """A step to be written: what was said, what came back, how many tests passed."""

    text: str
    observation: str | None
    passed: int | None = None
    loop: bool = False
    error: ToolErrorKind | None = None


def report(passed: int) -> TestReport:
    outcomes = {test: "passed" if number < passed else "failed" for number, test in enumerate(TESTS)}
    return TestReport(outcomes=outcomes, expected=TESTS, seconds=0.4)


class World:
    """Writes one run directory."""

    def __init__(self, directory: Path, settings: RunConfig | None = None) -> None:
        claim_directory(directory, settings or config(), {"versions": {"python": "3.11"}, "notices": []})
        (directory / NOT_REPLAYABLE).touch()
        self._store = TraceStore(directory)

    def rollout(
        self, about: Header, steps: list[Said], solved: bool | None = False, over: Trace | None = None
    ) -> Trace:
        """Write a rollout; `over`: the path that a fork shares with the one it was forked from."""
        recorder = self._store.recorder(about, over)
        recorder.start((Message(role="system", content=SYSTEM), Message(role="user", content="GOAL: mend the ledger")))
        before = over.steps[-1].id if over and over.steps else None
        for number, said in enumerate(steps, len(over.steps) if over else 0):
            before = self._step(recorder, f"s{number:04}", before, said)
        score = Score(
            value=None if solved is None else float(solved), why="every expected test passed" if solved else ""
        )
        recorder.end(RolloutEnded(StopReason.FINAL, score, patch=""))
        return recorder.trace

    def _step(self, recorder: RolloutRecorder, step: str, before: str | None, said: Said) -> str:
        usage = Usage(prompt_tokens=900, completion_tokens=len(said.text) // 4)
        completion = Completion(text=said.text, usage=usage, seconds=1.25)
        recorder.completion(step, before, completion)
        tested = report(said.passed) if said.passed is not None else None
        made = Step(id=step, parent=before, completion=completion, call=parse(said.text), observation=said.observation)
        recorder.outcome(made.model_copy(update={"report": tested, "loop": said.loop, "error": said.error}))
        return step

    def note(self, note: Note) -> None:
        self._store.note(note)

    def close(self) -> None:
        self._store.close()


def ordinary(random_: random.Random, solved: bool) -> list[Said]:
    """A look, a read, some writes with tests, the end."""
    source = SOURCE.replace("ledger", f"ledger_{random_.getrandbits(40):010x}")  # no two rollouts hold the same text
    steps = [Said(call("list_files"), "[tool_result]\nledger/book.py\ntests/test_ledger.py")]
    steps.append(Said(call("read_file", rel_path=PATH), f"[tool_result]\n{source}"))
    for turn in range(random_.randint(1, 4)):
        number = random_.randrange(30)
        content = source.replace(f"+ {number}\n", f"+ {random_.randrange(1000)}\n")
        passed = random_.randrange(12)
        text = f"[tool_result]\nreplaced {PATH} (90 lines)\n\n[TESTS FAIL] {passed} passed, {turn} failed, 0 not run"
        steps.append(Said(call("write_file", rel_path=PATH, content=content), text, passed))
    return [*steps, Said(final("mended" if solved else "gave up"), None)]


def many(directory: Path, count: int, seed: int = 0) -> None:
    """A run of `count` ordinary rollouts, four a task."""
    random_ = random.Random(seed)
    tasks = [f"task_{number:05}" for number in range((count + 3) // 4)]
    world = World(directory, config(rollouts=4, tasks=tasks))
    for number in range(count):
        solved = random_.random() < 0.4
        world.rollout(header(tasks[number // 4], number % 4), ordinary(random_, solved), solved)
    world.close()


def family(directory: Path) -> None:
    """Two rollouts of a task, two forks of the first behind its second step, a pair and step scores."""
    world, random_ = World(directory), random.Random(1)
    first = world.rollout(header("ledger", 0), ordinary(random_, False), False)
    world.rollout(header("ledger", 1), ordinary(random_, True), True)
    fork = ForkPoint(rollout="ledger#0", step="s0001")
    shared = first.model_copy(update={"steps": first.steps[:2]})
    for number, solved in enumerate((True, False), 1):
        about = header("ledger", 0, f"ledger#0@s0002.{number}", fork)
        world.rollout(about, ordinary(random_, solved)[2:], solved, shared)
    sides = [ForkPoint(rollout=f"ledger#0@s0002.{number}", step="s0002") for number in (1, 2)]
    state = {"rollout": "ledger#0", "step": "s0001"}
    pair = {"pair": "0123abcd", "source": "fork", "confidence": 0.97, "chosen": sides[0], "rejected": sides[1]}
    world.note(PairNote.model_validate({**state, **pair}))
    for step, passed in ((None, 3), ("s0002", 7)):
        score = {"suite_version": "viewer-world", "digest": "", "passed": passed, "expected": len(TESTS)}
        world.note(StepScore.model_validate({"rollout": "ledger#0", "step": step, **score}))
    world.close()


EVIL = (
    "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"
    "<svg onload='window.hurt = 3'></svg>\"><b onmouseover=window.hurt=4>&lt;{{script}}{{style}}<!-- data -->\n"
    "\x1b[31mred\x1b[0m \x1b]8;;javascript:window.hurt=5\x07link\x1b]8;;\x07 \x00 NUL \u202egnp.exe \ufffd \u2028 \r"
)
LONG = "x" * 5_000_000


def hostile(directory: Path) -> None:
    """A run that tries to leave its place in every text that it has."""
    task = "<img src=x onerror=window.hurt=6>"
    world = World(directory, config(model=EVIL, tasks=(task,)))
    halves = (
        '{"type": "tool_call", "name": "write_file", "args": {"rel_path": "a.py", "content": "\\ud800 half \\udc00"}}'
    )
    steps = [
        Said(call("grep", pattern=EVIL), EVIL),
        Said(call("read_file", rel_path="long.py"), f"[tool_result]\n{LONG}"),
        Said(halves, "[tool_result]\ncreated a.py (1 lines)"),
        Said(call("write_file", rel_path="b.py", content=EVIL), f"[tool_result]\ncreated b.py (1 lines)\n{EVIL}"),
        Said(EVIL, EVIL, loop=True),
        Said(call("read_file", rel_path=EVIL), f"[tool_result]\nerror: {EVIL}", error=ToolErrorKind.BAD_PATH),
        Said(f"```json\n{final(EVIL)}\n```", None),
    ]
    world.rollout(header(task, 0, f"{task}#0"), steps)
    world.close()
