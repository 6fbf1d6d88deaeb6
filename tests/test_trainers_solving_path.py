"""Solving paths: which steps of a solved rollout are kept, and that only what scores 1 when played again counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.policies.reference import ReferenceSource
from harness.policies.scripted import ScriptedPolicy
from harness.records import Header, Sampling, Score, StopReason, Task, TestPolicy
from harness.rollout import RolloutEnded, RolloutLimits, rollout
from harness.trace_reader import TraceLog
from harness.trace_store import TraceStore
from sandboxes.local_sandbox import LocalBackend
from suites.base import Suite, load
from tests.sft_logs import actions
from tools.protocol import call_text, final_text
from trainers.card import card_paths
from trainers.data_cli import main as data_main
from trainers.sft_extract_cli import main

pytestmark = pytest.mark.slow

LIST, FINAL = call_text("list_files"), final_text("done")


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load("minibugs")


@pytest.fixture(scope="module")
def task(suite: Suite) -> Task:
    """A task of the train split that is repaired in one file."""
    return next(each for each in suite.tasks() if each.id == "page_window")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict cache of the test's own."""
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))


class Words:
    """The actions of a task's rollouts."""

    def __init__(self, suite: Suite, task: Task) -> None:
        fixed = suite.reference(task)
        assert fixed
        (self.path,) = fixed.edits
        self.broken, self.fixed = task.tree.read(self.path).decode(), fixed.read(self.path).decode()
        self.test = task.expected_tests[0].partition("::")[0]
        self.read = call_text("read_file", rel_path=self.path)
        self.read_test = call_text("read_file", rel_path=self.test)
        self.solve = self.write(self.fixed)

    def write(self, content: str) -> str:
        return call_text("write_file", rel_path=self.path, content=content)


@pytest.fixture
def words(suite: Suite, task: Task) -> Words:
    return Words(suite, task)


def play(suite: Suite, task: Task, directory: Path, *rollouts: Sequence[str], score: float | None = None) -> Path:
    """Real rollouts of the texts. With `score` they are not tested, and recorded with that score."""
    directory.mkdir(parents=True)
    backend = LocalBackend()
    policy = TestPolicy.ON_WRITE if score is None else TestPolicy.NEVER
    with TraceStore(directory) as store:
        for index, texts in enumerate(rollouts):
            header = Header(
                rollout=f"{task.id}#{index}",
                task=task.id,
                suite=suite.name,
                suite_version=suite.version,
                split=suite.split_of(task),
                index=index,
                policy="scripted",
                sampling=Sampling(),
                test_policy=policy,
                expected_tests=task.expected_tests,
            )
            recorder = store.recorder(header)
            with suite.environment(task, backend, policy) as environment:
                rollout(ScriptedPolicy(tuple(texts)), environment, RolloutLimits(50), Sampling(), recorder)
            if score is not None:
                recorder.end(RolloutEnded(StopReason.FINAL, Score(value=score)))
    backend.close()
    return directory


def paths_of(run: Path, *flags: str) -> list[str]:
    """The trained actions of the solving paths in a run."""
    output = run.parent / "rows.jsonl"
    assert main(["--trace-dir", str(run), "--output", str(output), "--solving-path", "--sandbox", "local", *flags]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").split("\n")[:-1]]
    assert not rows or data_main(["check", str(output)]) == 0
    return actions(rows)


def dropped(run: Path) -> dict[str, int]:
    card = json.loads(card_paths(run.parent / "rows.jsonl")[0].read_text(encoding="utf-8"))
    found: dict[str, int] = card["dropped"].get("rollouts", {})
    return found


@pytest.mark.usefixtures("cache")
def test_a_search_that_tried_much_teaches_list_read_write_final(
    suite: Suite, task: Task, words: Words, tmp_path: Path
) -> None:
    tries = [words.write(words.broken + f"\n# try {number}\n") for number in range(5)]
    texts = [LIST, words.read, words.write(words.broken), LIST, *tries, words.read, words.solve, FINAL]
    run = play(suite, task, tmp_path / "run", texts)
    assert paths_of(run) == [LIST, words.read, words.solve, FINAL]
    with TraceLog(tmp_path / "rows.paths") as log:
        (trace,) = log
    assert trace.score and trace.score.value == 1
    assert [step.completion.text for step in trace.steps] == [LIST, words.read, words.solve, FINAL]
    assert "[TESTS PASS]" in (trace.steps[2].observation or "")
    assert trace.header.policy == "scripted"


@pytest.mark.usefixtures("cache")
def test_tests_that_were_read_stay_and_other_files_go(suite: Suite, task: Task, words: Words, tmp_path: Path) -> None:
    other = next(path for path in task.tree.paths if path not in (words.path, words.test))
    read_other = call_text("read_file", rel_path=other)
    texts = [read_other, words.read_test, words.read, words.solve, FINAL]
    assert paths_of(play(suite, task, tmp_path / "run", texts)) == [words.read_test, words.read, words.solve, FINAL]


@pytest.mark.usefixtures("cache")
def test_a_file_that_was_read_in_parts_keeps_all_parts(suite: Suite, task: Task, words: Words, tmp_path: Path) -> None:
    first = call_text("read_file", rel_path=words.path, max_chars=len(words.broken) // 2)
    rest = call_text("read_file", rel_path=words.path, start_line=2)
    run = play(suite, task, tmp_path / "run", [first, first, rest, words.solve, FINAL])
    assert paths_of(run) == [first, rest, words.solve, FINAL]


@pytest.mark.usefixtures("cache")
def test_rollouts_with_one_path_are_played_once(suite: Suite, task: Task, words: Words, tmp_path: Path) -> None:
    texts = [LIST, words.read, words.solve, FINAL]
    run = play(suite, task, tmp_path / "run", texts, [LIST, *texts])
    assert paths_of(run) == texts
    assert dropped(run) == {"same solving path as another rollout": 1}


@pytest.mark.usefixtures("cache")
def test_a_path_that_does_not_score_1_is_left_out_and_counted(
    suite: Suite, task: Task, words: Words, tmp_path: Path
) -> None:
    wrong = [words.read, words.write(words.broken + "\n# no repair\n"), FINAL]
    run = play(suite, task, tmp_path / "run", wrong, score=1.0)
    assert paths_of(run) == []
    assert dropped(run) == {"its solving path does not score 1 when replayed": 1}


@pytest.mark.usefixtures("cache")
def test_a_file_that_was_changed_without_being_read_makes_no_path(
    suite: Suite, task: Task, words: Words, tmp_path: Path
) -> None:
    run = play(suite, task, tmp_path / "run", [LIST, words.solve, FINAL], score=1.0)
    assert paths_of(run) == []
    assert dropped(run) == {"no solving path can be made of its steps": 1}


@pytest.mark.usefixtures("cache")
def test_a_needed_step_that_is_not_strictly_one_object_makes_no_path(
    suite: Suite, task: Task, words: Words, tmp_path: Path
) -> None:
    run = play(suite, task, tmp_path / "run", [words.read, f"```\n{words.solve}\n```", FINAL], score=1.0)
    assert paths_of(run) == []
    assert dropped(run) == {"no solving path can be made of its steps": 1}


def test_what_is_not_solved_has_no_path_whatever_the_flags(
    suite: Suite, task: Task, words: Words, tmp_path: Path
) -> None:
    run = play(suite, task, tmp_path / "run", [words.read, words.solve, FINAL], score=0.0)
    assert paths_of(run, "--no-require-success") == []
    assert dropped(run) == {"not solved": 1}


def test_suite_that_nobody_knows_has_to_be_given(suite: Suite, task: Task, words: Words, tmp_path: Path) -> None:
    run = play(suite, task, tmp_path / "run", [words.read, words.solve, FINAL], score=1.0)
    log = run / "traces.jsonl"
    version = f'"suite_version":"{suite.version}"'
    text = log.read_text().replace('"suite":"minibugs"', '"suite":"some_file"')
    log.write_text(
        text.replace(version, '"suite_version":"gone"').replace('"suite_version":""', '"suite_version":"gone"')
    )
    with pytest.raises(UsageError, match="'some_file' of version gone: name its suite file with --suite"):
        paths_of(run)


@pytest.mark.usefixtures("cache")
def test_a_repair_of_several_files_keeps_the_last_write_of_each(suite: Suite, tmp_path: Path) -> None:
    several = next(task for task in suite.tasks() if len((suite.reference(task) or task.tree).edits) > 1)
    source = ReferenceSource(suite.reference).policy(several, 0)
    assert isinstance(source, ScriptedPolicy)
    texts = source.texts
    run = play(suite, several, tmp_path / "run", [*texts[:2], *texts[1:]])
    assert paths_of(run, "--allow-test-split") == list(texts)
