"""A question as an episode of the one rollout: recorded, read back, followed, replayed, and graded again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from eval.replay import replay
from harness.environment import Environment
from harness.errors import Diverged, UsageError
from harness.policies.scripted import ScriptedPolicy
from harness.records import (
    Completion,
    FinishReason,
    Header,
    Message,
    Sampling,
    Score,
    StopReason,
    Task,
    TestPolicy,
    Trace,
)
from harness.rollout import Past, RolloutLimits, rollout
from harness.trace_reader import TraceLog
from harness.trace_store import TraceStore
from suites.gsm8k.environment import PARTS
from suites.gsm8k.formats import FORMATS
from suites.gsm8k.suite import Question, QuestionSuite, checked
from tools.protocol import FINAL, ParseProblem

RIGHT = "<start_working_out>\n9 * 2 = 18\n<end_working_out>\n<SOLUTION>$18.00</SOLUTION>"
SUITE = QuestionSuite(
    "arith", (Question("test-00000", "test", "How much is 9 times 2?", "9 * 2 = <<9*2=18>>18\n#### 18"),)
)
LIMITS = RolloutLimits(max_iters=30)


def environment(suite: QuestionSuite = SUITE, test_policy: TestPolicy = TestPolicy.ON_WRITE) -> Environment:
    return suite.environment(suite.tasks()[0], None, test_policy)


def header(test_policy: TestPolicy = TestPolicy.ON_WRITE) -> Header:
    return Header(
        rollout="test-00000#0",
        task="test-00000",
        suite="arith",
        index=0,
        policy="scripted",
        sampling=Sampling(),
        test_policy=test_policy,
        sandbox="none",
    )


def played(directory: Path, *texts: str, test_policy: TestPolicy = TestPolicy.ON_WRITE) -> Trace:
    """As it stands on disk."""
    directory.mkdir(exist_ok=True)
    with TraceStore(directory) as store, environment(test_policy=test_policy) as one:
        recorder = store.recorder(header(test_policy))
        rollout(ScriptedPolicy(texts), one, LIMITS, Sampling(), recorder)
    with TraceLog(directory) as log:
        return log.trace("test-00000#0")


def scored(text: str, suite: QuestionSuite = SUITE, finish: FinishReason = FinishReason.STOP) -> Score:
    with environment(suite) as one:
        one.step(Completion(text=text, finish_reason=finish))
        return one.score()


def test_a_rollout_of_a_question_is_one_step_and_comes_back_from_disk(tmp_path: Path) -> None:
    trace = played(tmp_path, RIGHT, "never said")
    (step,) = trace.steps
    assert (trace.stop, step.observation, step.call.name) == (StopReason.FINAL, None, FINAL)
    assert (step.call.args, step.call.raw, step.call.problem) == ({"summary": "18"}, RIGHT, None)
    assert trace.score is not None
    assert (trace.score.value, trace.score.parts) == (1.0, dict.fromkeys(PARTS, 1.0))
    assert trace.conversation()[:2] == list(SUITE.form.prompt("How much is 9 times 2?"))


@pytest.mark.parametrize("text", [RIGHT, "no answer", '{"type": "final", "summary": "18"}', f'{{"a": 1}} {RIGHT}', ""])
def test_what_was_recorded_is_replayed(tmp_path: Path, text: str) -> None:
    found = replay(played(tmp_path, text), environment(), LIMITS)
    assert (found.divergence, found.fault, found.steps) == (None, "", 1)


def test_a_recorded_answer_is_followed_without_the_model(tmp_path: Path) -> None:
    trace = played(tmp_path / "first", RIGHT)
    (tmp_path / "again").mkdir()
    with TraceStore(tmp_path / "again") as store:
        recorder, past = store.recorder(header()), Past(steps=trace.steps)
        ended = rollout(ScriptedPolicy(()), environment(), LIMITS, Sampling(), recorder, threading.Event(), past)
    assert (ended.stop, ended.score.value) == (StopReason.FINAL, 1.0)


def test_an_answer_that_is_read_otherwise_now_is_a_divergence(tmp_path: Path) -> None:
    (step,) = played(tmp_path, RIGHT).steps
    changed = QuestionSuite("arith", SUITE.questions, FORMATS["r1"])
    with pytest.raises(Diverged, match="s0000 is read otherwise"):
        environment(changed).follow(step)


@pytest.mark.parametrize(
    ("text", "value", "why", "parts"),
    [
        (RIGHT, 1.0, "right", (1, 1, 1, 1)),
        (RIGHT.replace("$18.00", "19"), 0.0, "wrong", (0, 1, 1, 1)),
        (RIGHT.replace("$18.00", "18 or 19"), 0.0, "no answer", (0, 0, 1, 1)),
        ("<SOLUTION>18</SOLUTION>", 1.0, "right", (1, 1, 0, 0)),
        (f"Sure! {RIGHT}", 1.0, "right", (1, 1, 1, 0)),
        (RIGHT[:-11], 0.0, "no answer", (0, 0, 1, 0)),
        ("18", 0.0, "no answer", (0, 0, 0, 0)),
        ("", 0.0, "no answer", (0, 0, 0, 0)),
        ("\ud800\x00" + RIGHT * 200, 1.0, "right", (1, 1, 1, 0)),
        ("<SOLUTION>" * 20_000, 0.0, "no answer", (0, 0, 0, 0)),
        (f"<SOLUTION>{'9' * 10**6}</SOLUTION>", 0.0, "no answer", (0, 0, 0, 0)),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_score_says_what_was_right_and_what_was_there(
    text: str, value: float, why: str, parts: tuple[int, ...]
) -> None:
    score = scored(text)
    assert (score.value, score.why, tuple(score.parts.values())) == (value, why, parts)
    assert tuple(score.parts) == PARTS


def test_an_unreadable_gold_is_refused_and_equals_no_unreadable_answer() -> None:
    odd = Question("x", "test", "?", "so #### eighteen")
    with pytest.raises(UsageError, match="no number after ####"):
        checked(odd)
    assert scored("<SOLUTION>eighteen</SOLUTION>", QuestionSuite("arith", (odd,))).value == 0.0


def test_a_text_that_was_cut_off_before_its_answer_is_told_from_one_without(tmp_path: Path) -> None:
    with environment() as one:
        cut = one.step(Completion(text="<start_working_out> 9", finish_reason=FinishReason.LENGTH))
        whole = one.step(Completion(text="<start_working_out> 9"))
        late = one.step(Completion(text=f"{RIGHT} and more", finish_reason=FinishReason.LENGTH))
    assert [each.call.problem for each in (cut, whole, late)] == [ParseProblem.TRUNCATED, ParseProblem.NO_ANSWER, None]


def test_a_rollout_that_says_nothing_scores_0(tmp_path: Path) -> None:
    trace = played(tmp_path)
    assert trace.stop is StopReason.EXHAUSTED
    assert trace.score is not None
    assert (trace.score.value, trace.score.why) == (0.0, "nothing was said")


def test_never_leaves_an_answer_ungraded(tmp_path: Path) -> None:
    trace = played(tmp_path, RIGHT, test_policy=TestPolicy.NEVER)
    assert trace.score is not None
    assert (trace.score.value, trace.score.parts) == (None, {})


def test_a_fork_has_what_was_said_and_its_own_future() -> None:
    with environment() as one:
        one.step(Completion(text=RIGHT))
        with one.fork() as other:
            assert other.score().value == 1.0
            other.step(Completion(text="18"))
            assert (one.score().value, other.score().value) == (1.0, 0.0)


def test_the_answer_is_in_nothing_that_a_policy_is_given() -> None:
    suite = QuestionSuite("arith", (Question("t", "test", "How much?", "It is <<1+1=77123>>77123.\n#### 77123"),))
    task: Task = suite.tasks()[0]
    prompt: tuple[Message, ...] = suite.environment(task, None, TestPolicy.FINAL).start()
    assert "77123" not in repr(task) + repr(prompt)
