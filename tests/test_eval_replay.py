"""`repo-agent replay`: stored rollouts carried out again, and the first difference named."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import repo_agent
from eval.replay import Difference, replay
from eval.replay_cli import main
from harness.errors import UsageError
from harness.policies.scripted import ScriptedPolicy
from harness.records import ForkPoint, Header, Sampling, Task, TestPolicy, Trace
from harness.rollout import RolloutLimits, rollout
from harness.run_files import REPORT_FILE, RUN_FILE
from harness.trace_reader import TraceLog
from harness.trace_store import TRACES, TraceStore
from sandboxes.base import SandboxError
from sandboxes.guest_sandbox import GuestSandbox
from sandboxes.local_sandbox import LocalBackend
from suites.base import SuiteFile, load, load_recorded, write_suite_file
from tools.protocol import call_text, final_text

pytestmark = pytest.mark.slow

MINIBUGS = load("minibugs")
TASK = next(task for task in MINIBUGS.tasks() if task.id == "account_transfer")
FILE = "tillbank/bank.py"
Events = list[dict[str, Any]]
LOCAL = ("--sandbox", "local")


def evaluate(run: Path, *flags: str, limit: int = 1) -> Path:
    where = (*LOCAL, "--no-verdict-cache", "--trace-dir", str(run), "--limit", str(limit))
    assert repo_agent.main(["eval", *where, *flags]) == 0
    return run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluate(tmp_path_factory.mktemp("recorded") / "run", "--llm-provider", "reference")


def forged(recorded: Path, run: Path, change: Callable[[Events], None]) -> Path:
    """The run with another log."""
    run.mkdir(parents=True)
    (run / "not-replayable").touch()
    (run / RUN_FILE).write_bytes((recorded / RUN_FILE).read_bytes())
    events = [json.loads(line) for line in (recorded / TRACES).read_bytes().splitlines()]
    change(events)
    lines = (json.dumps(event, separators=(",", ":"), ensure_ascii=False) for event in events)
    (run / TRACES).write_text("".join(f"{line}\n" for line in lines))
    return run


def of(events: Events, kind: str) -> Events:
    return [event for event in events if event["event"] == kind]


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> list[object]:
    """What the method was called on, in time."""
    calls: list[object] = []
    original = getattr(owner, method)

    def called(self: object, *args: object, **more: object) -> object:
        calls.append(self)
        return original(self, *args, **more)

    monkeypatch.setattr(owner, method, called)
    return calls


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_run_is_reproduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluate(tmp_path / "run", "--llm-provider", "reference", limit=2)
    capsys.readouterr()
    assert main([str(run), *LOCAL]) == 0
    assert said(capsys) == "2 rollouts, 8 steps replayed, 0 diverged\n"


def test_run_of_the_search_is_reproduced_in_another_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluate(tmp_path / "run", "--max-iters", "12")
    capsys.readouterr()
    assert main([str(run), *LOCAL, "--isolation", "run"]) == 0
    out, err = capsys.readouterr()
    assert out == "1 rollouts, 12 steps replayed, 0 diverged\n"
    assert "the tests of the run ran in local (container), not in local (run)" in err


@pytest.mark.parametrize("test_policy", ["never", "final"])
def test_only_what_the_test_policy_asked_for_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_policy: str
) -> None:
    run = evaluate(tmp_path / "run", "--llm-provider", "reference", "--test-policy", test_policy)
    runs = counted(monkeypatch, GuestSandbox, "run")
    assert main([str(run), *LOCAL]) == 0
    assert len(runs) == {"never": 0, "final": 1}[test_policy]


# ---- forged logs: one thing is changed, and it is named


def changed_observation(events: Events) -> None:
    step = of(events, "outcome")[1]["step"]
    step["observation"] = step["observation"][:-1] + "X"


def first_step(**fields: object) -> Callable[[Events], None]:
    return lambda events: of(events, "outcome")[0]["step"].update(fields)


def changed_completion(events: Events) -> None:
    """One byte of what is written: the tree is another one, and so are the tests' results."""
    (event,) = (event for event in of(events, "completion") if "write_file" in event["completion"]["text"])
    event["completion"]["text"] = event["completion"]["text"].replace("class ", "klass ", 1)


def changed_outcome(events: Events) -> None:
    (step,) = (event["step"] for event in of(events, "outcome") if event["step"]["report"])
    step["report"]["outcomes"] |= {next(iter(step["report"]["outcomes"])): "failed"}


def changed_prompt(events: Events) -> None:
    events[0]["header"]["prompt"][1]["content"] += "!"


def end(**fields: object) -> Callable[[Events], None]:
    return lambda events: events[-1].update(fields)


def steps_after_the_final_answer(events: Events) -> None:
    last = [of(events, "completion")[-1], of(events, "outcome")[-1]]
    more = json.loads(json.dumps(last).replace("s0003", "s0004").replace("s0002", "s0003"))
    events[-2:-2] = more


@pytest.mark.parametrize(
    ("change", "place", "excerpt"),
    [
        (changed_prompt, "start: prompt", "!"),
        (changed_observation, "s0001: observation", "X"),
        (first_step(digest="0" * 64), "s0000: tree digest", "-0000"),
        (changed_completion, "s0002: tree digest, test outcomes, observation", "-"),
        (first_step(error="not_found"), "s0000: tool error", "-not_found"),
        (first_step(call={"name": "grep"}), "s0000: parsed call", '- "name": "grep"'),
        (changed_outcome, "s0002: test outcomes", ": failed"),
        (first_step(loop=True), "s0000: loop", "-True"),
        (steps_after_the_final_answer, "s0004: stop", "+final"),
        (end(stop="max_iters"), "end: stop", "-max_iters"),
        (end(patch="forged"), "end: patch", "-forged"),
        (end(score={"value": 0.0, "why": "forged"}), "end: score", "-0.0: forged"),
    ],
)
def test_first_difference_is_named(
    recorded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Events], None],
    place: str,
    excerpt: str,
) -> None:
    run = forged(recorded, tmp_path / "run", change)
    assert main([str(run), *LOCAL]) == 1
    lines = said(capsys).splitlines()
    assert lines[0] == f"DIVERGED: account_transfer#0 at {place}"
    assert excerpt in "\n".join(lines[1:-1])
    assert lines[-1].endswith(", 1 diverged")


def test_score_is_left_out_on_demand(recorded: Path, tmp_path: Path) -> None:
    assert main([str(forged(recorded, tmp_path / "run", end(score={"value": 0.0}))), *LOCAL, "--no-score"]) == 0


def test_excerpt_is_bounded_and_safe_to_print() -> None:
    long, many = "a" * 10_000, "\n".join(map(str, range(1000)))
    (old, new) = Difference("x", f"{long}b\x1b[31m", f"{long}c\x1b[31m").excerpt
    assert (old.startswith("-…a"), "b\\x1b[31m" in old, "c\\x1b[31m" in new) == (True, True, True)
    assert len(old) < 200
    assert len(Difference("x", many, many.replace("9", "nine")).excerpt) <= 13


# ---- programs that are not deterministic, secrets, faults


@pytest.fixture
def played(tmp_path: Path) -> Callable[[str], Trace]:
    """A rollout that writes something into the file of the task."""

    def play(content: str) -> Trace:
        texts = [call_text("write_file", rel_path=FILE, content=content), final_text("done")]
        return record(tmp_path, TASK, texts)

    return play


def record(folder: Path, task: Task, texts: Sequence[str], fork: tuple[Trace, int] | None = None) -> Trace:
    header = Header(
        rollout="fork" if fork else "task#0",
        task=task.id,
        suite="minibugs",
        suite_version=MINIBUGS.version,
        index=0,
        policy="scripted",
        fork=ForkPoint(rollout="task#0", step=fork[0].steps[fork[1] - 1].id) if fork else None,
        sampling=Sampling(),
        test_policy=TestPolicy.ON_WRITE,
        expected_tests=task.expected_tests,
    )
    shared = fork[0].model_copy(update={"steps": fork[0].steps[: fork[1]]}) if fork else None
    said = [*(step.completion.text for step in (shared.steps if shared else ())), *texts]
    backend = LocalBackend()
    with TraceStore(folder) as store, MINIBUGS.environment(task, backend, TestPolicy.ON_WRITE) as environment:
        recorder = store.recorder(header, shared)
        rollout(ScriptedPolicy(tuple(said)), environment, LIMITS, Sampling(), recorder, None, recorder.past)
    backend.close()
    return again(folder, header.rollout)


LIMITS = RolloutLimits(max_iters=9)


def again(folder: Path, name: str = "task#0") -> Trace:
    with TraceLog(folder) as log:
        return log.trace(name)


def test_program_that_is_not_deterministic_is_unsteady_and_no_divergence(played: Callable[[str], Trace]) -> None:
    trace = played("import time\nraise ValueError(time.monotonic_ns())\n")
    backend = LocalBackend()
    with MINIBUGS.environment(TASK, backend, TestPolicy.ON_WRITE) as environment:
        found = replay(trace, environment, LIMITS)
    backend.close()
    assert (found.divergence, found.steps) == (None, 2)
    assert [(place.step, place.differences[0].what) for place in found.unsteady] == [("s0000", "observation")]


def test_masked_secret_is_named_as_the_cause(tmp_path: Path, played: Callable[[str], Trace], monkeypatch: Any) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-abcdefgh12345")
    trace = played("key = 'sk-abcdefgh12345'\n")
    assert "sk-abc" not in trace.steps[0].completion.text
    backend = LocalBackend()
    with MINIBUGS.environment(TASK, backend, TestPolicy.ON_WRITE) as environment:
        found = replay(trace, environment, LIMITS)
    backend.close()
    assert found.divergence
    assert [each.what for each in found.divergence.differences][:2] == ["masked secret", "tree digest"]


def test_fork_is_replayed_from_where_it_branched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = [call_text("list_files"), call_text("write_file", rel_path=FILE, content="x = 1\n")]
    parent = record(tmp_path, TASK, [*reads, final_text("done")])
    fork = record(tmp_path, TASK, [call_text("grep", pattern="x"), final_text("other")], (parent, 2))
    runs = counted(monkeypatch, GuestSandbox, "run")
    backend = LocalBackend()
    with MINIBUGS.environment(TASK, backend, TestPolicy.ON_WRITE) as environment:
        found = replay(fork, environment, LIMITS)
    backend.close()
    assert (found.divergence, found.steps, len(runs)) == (None, 2, 1)


def test_unfinished_rollout_is_replayed_as_far_as_it_goes(recorded: Path, tmp_path: Path) -> None:
    def kill(events: Events) -> None:
        del events[6:]
        assert events[-1]["event"] == "completion"

    run = forged(recorded, tmp_path / "run", kill)
    assert again(run, "account_transfer#0").pending
    assert main([str(run), *LOCAL]) == 0


def test_fault_of_the_infrastructure_is_no_divergence(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise SandboxError("engine down")

    monkeypatch.setattr(LocalBackend, "open", broken)
    assert main([str(recorded), *LOCAL]) == 3
    assert "NOT REPLAYED to the end: 1 rollouts" in said(capsys)


# ---- suites, bad input


def test_suite_is_found_by_its_name_or_by_its_version() -> None:
    version = load("minibugs").version
    assert load_recorded("minibugs", "whatever").name == "minibugs"
    assert load_recorded("my_tasks", version).name == "minibugs"
    with pytest.raises(UsageError, match="suite 'my_tasks' of version gone: name its suite file with --suite"):
        load_recorded("my_tasks", "gone")


def test_suite_of_another_version_is_said_and_gone_on_with(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = forged(recorded, tmp_path / "run", lambda events: None)
    config = json.loads((run / RUN_FILE).read_text())
    config["config"]["suite_version"] = "an-older-one"
    (run / RUN_FILE).write_text(json.dumps(config))
    assert main([str(run), *LOCAL]) == 0
    assert "WARNING: the run is of version an-older-one" in capsys.readouterr().err


def test_task_that_the_suite_does_not_have_is_a_divergence(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SuiteFile(name="o", suite="minibugs", version=MINIBUGS.version, tasks=("org_chart",))
    write_suite_file(tmp_path / "other.json", other)
    assert main([str(recorded), *LOCAL, "--suite", str(tmp_path / "other.json")]) == 1
    assert "account_transfer#0 at start: task" in said(capsys)


def test_run_without_a_boundary_is_only_replayed_on_demand(recorded: Path) -> None:
    with pytest.raises(UsageError, match="say --sandbox local"):
        main([str(recorded)])


@pytest.mark.parametrize("name", [RUN_FILE, TRACES])
def test_directory_without_a_run_is_refused(recorded: Path, tmp_path: Path, name: str) -> None:
    for each in {RUN_FILE, TRACES} - {name}:
        (tmp_path / each).write_bytes((recorded / each).read_bytes())
    with pytest.raises(UsageError, match=name):
        main([str(tmp_path), *LOCAL])


def test_nothing_of_the_run_is_changed(recorded: Path) -> None:
    before = {name: (recorded / name).read_bytes() for name in (RUN_FILE, TRACES, REPORT_FILE)}
    assert main([str(recorded), *LOCAL]) == 0
    assert {name: (recorded / name).read_bytes() for name in before} == before


@pytest.mark.docker
def test_backend_of_the_run_is_taken_again(
    tmp_path: Path, docker_backend: object, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sandbox", "docker", "--llm-provider", "reference", "--limit", "1", "--no-verdict-cache"]
    assert repo_agent.main(["eval", *flags, "--trace-dir", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main([str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert out == "1 rollouts, 4 steps replayed, 0 diverged\n"
    assert "the tests of the run ran" not in err
