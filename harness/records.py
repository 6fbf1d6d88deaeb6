"""The records of the gym. Frozen; what is written to disk is pydantic. None means "not known", never zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sandboxes.base import Limits, Resources
from sandboxes.workspace import Workspace
from tools.files import ToolErrorKind
from tools.globs import matches
from tools.protocol import ToolCall

FORMAT_VERSION = 2


class Record(BaseModel):
    """A frozen record that is written to disk; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Usage(Record):
    """Tokens of one completion, as the service or the engine counted them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    """Its token limit cut it off."""


class Completion(Record):
    """What a policy said."""

    text: str
    finish_reason: FinishReason = FinishReason.STOP
    usage: Usage = Usage()
    cost_usd: float | None = None
    token_ids: tuple[int, ...] | None = None
    """With the token that ended it, where one did; `text` is without it."""
    logprobs: tuple[float, ...] | None = None
    """Natural log of each token's probability, as it was sampled: softmax(logits / T); at T = 0, softmax(logits)."""
    seconds: float = 0.0
    attempts: int = 1
    faults: tuple[str, ...] = ()
    """Kinds of the transient faults that were retried before this completion arrived."""


class Sampling(Record):
    """How a completion is sampled."""

    temperature: float = 0.0
    max_tokens: int = 4096
    seed: int = 0


class TestReport(Record):
    """A test run as the driver saw it, test by test."""

    __test__ = False

    outcomes: dict[str, str]
    """Outcome by test id: passed, failed, error (so too one seen with several), skipped, xfailed, xpassed."""
    expected: tuple[str, ...]
    messages: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    timed_out: bool = False
    stopped_early: bool = False
    """The run was told to stop after the first failures."""
    tampered: str = ""
    output_tail: str = ""
    cached: bool = False
    """Taken from the verdict cache: nothing was run."""

    @property
    def passed(self) -> bool:
        """Every expected test was seen to pass, and nothing spoke against the report."""
        return not self.tampered and self.count_passed == len(self.expected)

    @property
    def count_passed(self) -> int:
        return sum(self.outcomes.get(test) == "passed" for test in self.expected)


class Score(Record):
    """The grade of a rollout: value in 0..1, or None for unscored."""

    value: float | None
    why: str = ""
    parts: dict[str, float] = Field(default_factory=dict)
    ignored_edits: tuple[str, ...] = ()
    """Changed files that the task does not allow, left out of the graded tree."""
    cached: bool = False
    """The test run behind it came from the verdict cache."""


class StopReason(StrEnum):
    """Why a rollout ended."""

    FINAL = "final"
    """The policy gave a final answer."""
    MAX_ITERS = "max_iters"
    """The limit of steps was reached."""
    LOOP = "loop"
    """A loop was detected, and the run stops on loops."""
    CONTEXT_FULL = "context_full"
    """The conversation no longer fits the model."""
    CONTENT_FILTER = "content_filter"
    """The service would not answer this conversation."""
    BUDGET = "budget"
    """The run's limit of tokens or money was reached."""
    EXHAUSTED = "exhausted"
    """A scripted or replayed policy had nothing more to say."""
    INTERRUPTED = "interrupted"
    """The user stopped the run."""
    ERROR = "error"
    """The infrastructure failed, retries included: unscored."""


class TestPolicy(StrEnum):
    """When the driver runs the tests."""

    __test__ = False

    NEVER = "never"
    """Not at all: the rollout is not tested and has no score."""
    ON_WRITE = "on_write"
    """After each write, as feedback, and once at the end, for the score."""
    FINAL = "final"
    """Once at the end."""


class Step(Record):
    """One turn: the policy spoke, the environment answered."""

    id: str
    parent: str | None
    completion: Completion
    call: ToolCall
    error: ToolErrorKind | None = None
    """The tool's fault, where it had one."""
    truncated: bool = False
    observation: str | None = None
    """The user message that answers the completion; None after the last step."""
    report: TestReport | None = None
    digest: str = ""
    """Identity of the tree after the step."""
    loop: bool = False
    tool_seconds: float = 0.0
    test_seconds: float = 0.0


class ForkPoint(Record):
    """Where a rollout branched off: the steps up to this one are stored with other rollouts, once."""

    rollout: str
    step: str | None
    """The last step that is shared; None: only the prompt is."""


class Header(Record):
    """What is known of a rollout before its first step."""

    rollout: str
    """Unique within a run: task and rollout index, and for a fork where it branched off."""
    task: str
    suite: str
    suite_version: str = ""
    split: Literal["train", "test", ""] = ""
    """The part of its suite that the task belongs to; empty for a suite without a split."""
    index: int
    """Which of the task's rollouts this is, from 0; a fork has that of the rollout it began in."""
    fork: ForkPoint | None = None
    policy: str
    model: str = ""
    engine: str = ""
    oracle: bool = False
    """The policy knows the answer."""
    sampling: Sampling
    """Its seed is the rollout's own."""
    test_policy: TestPolicy
    sandbox: str = ""
    """The backend that ran the tests."""
    isolation: str = ""
    """What its runs shared: see sandboxes.base.Isolation."""
    expected_tests: tuple[str, ...] = ()
    raw_prompt: bool = False
    """The prompt was no conversation: see Task.raw_prompt."""
    prompt: tuple[Message, ...] = ()
    """Empty on disk for a fork: it is that of the rollout it began in."""


class Rescore(Record):
    """A note: the final tree was graded again."""

    kind: Literal["rescore"] = "rescore"
    rollout: str
    suite_version: str
    sandbox: str
    isolation: str
    score: Score


class StepScore(Record):
    """A note: the task's tests were run on the tree after a step (`step` None: on the task's own tree)."""

    kind: Literal["step_score"] = "step_score"
    rollout: str
    step: str | None
    suite_version: str
    digest: str
    passed: int | None
    """Expected tests seen to pass; None where the infrastructure failed."""
    expected: int
    why: str = ""


class PairNote(Record):
    """A note: two actions at the state after `step` were compared, and made a preference pair."""

    kind: Literal["pair"] = "pair"
    rollout: str
    step: str | None
    pair: str
    """The id of the pair in the file of pairs."""
    source: str
    chosen: ForkPoint
    """The rollout and step of the better action."""
    rejected: ForkPoint
    confidence: float | None


Note = Rescore | StepScore | PairNote


class Trace(Record):
    """One rollout: a view of the event log, from the first message to the score, with the steps shared with others."""

    header: Header
    steps: tuple[Step, ...] = ()
    shared: int = 0
    """The first so many of them are stored with the rollouts that this one was forked from."""
    pending: Completion | None = None
    """What the policy said last, where it was not carried out any more."""
    done: StopReason | None = None
    """Why the agent stopped; the score comes after that, and can be missing."""
    stop: StopReason | None = None
    """How the rollout ended; None while it is running, or where it was killed."""
    score: Score | None = None
    error: str = ""
    patch: str = ""
    seconds: float = 0.0
    score_seconds: float = 0.0
    """The part of `seconds` that the final score took."""
    notes: tuple[Note, ...] = ()

    @property
    def finished(self) -> bool:
        """Nothing of it is left to do: it ended, and neither the infrastructure nor an interruption cut it off."""
        return self.stop not in (None, StopReason.ERROR, StopReason.INTERRUPTED)

    def conversation(self, depth: int | None = None) -> list[Message]:
        """The messages before step number `depth`, from 0; before the next step, where none is given."""
        messages = list(self.header.prompt)
        for step in self.steps[:depth]:
            messages.append(Message(role="assistant", content=step.completion.text))
            messages.append(Message(role="user", content=step.observation or ""))
        return messages

    def grade(self, suite_version: str | None = None) -> Score | None:
        """The score by a version of the suite (default: the run's own): of the latest rescore, else of the run."""
        wanted = suite_version or self.header.suite_version
        again = [note.score for note in self.notes if isinstance(note, Rescore) and note.suite_version == wanted]
        own = self.score if wanted == self.header.suite_version else None
        return again[-1] if again else own

    def step_scores(self, suite_version: str | None = None) -> dict[str | None, StepScore]:
        """By step id (None: the task's own tree) the latest step score by a version of the suite."""
        wanted = suite_version or self.header.suite_version
        scores = [note for note in self.notes if isinstance(note, StepScore) and note.suite_version == wanted]
        return {note.step: note for note in scores}


@dataclass(frozen=True)
class Task:
    """One repair task, without its answer. `tree` is what the agent gets."""

    id: str
    suite: str
    goal: str
    tree: Workspace
    editable: tuple[str, ...]
    """Glob patterns of the files that may be edited (see tools.globs)."""
    expected_tests: tuple[str, ...]
    test_args: tuple[str, ...]
    """Arguments of pytest: the files or ids that are run."""
    only_expected: bool = False
    """Of what these name only the expected tests are run: others there are known to fail, or to be unsteady."""
    protected: tuple[str, ...] = ()
    """Patterns of what may not be edited all the same."""
    pythonpath: tuple[str, ...] = (".",)
    env: dict[str, str] = field(default_factory=dict)
    """Variables of the test run, beside those that every run has."""
    test_cpu_s: float = 10.0
    """CPU seconds that one test may use in a scoring run."""
    feedback_cpu_s: float = 2.0
    """The same for the runs after a write."""
    limits: Limits = Limits()
    feedback_limits: Limits = Limits(cpu_s=20, wall_s=60)
    resources: Resources = Resources()
    image: str = ""
    raw_prompt: bool = False
    """The first message is text that a local model goes on with: no chat template is applied."""
    extra: dict[str, str] = field(default_factory=dict)

    def may_edit(self, path: str) -> bool:
        """Editable by the task's patterns, and not a file that configures Python or the test run."""
        allowed = matches(path, self.editable) and not matches(path, self.protected)
        return allowed and not matches(path.rpartition("/")[2], PROTECTED_NAMES)


PROTECTED_NAMES = (
    "conftest.py",
    "sitecustomize.py",
    "usercustomize.py",
    "*.pth",
    "*.pyc",
    "pytest.ini",
    ".pytest.ini",
    "pyproject.toml",
    "tox.ini",
    "setup.cfg",
    "setup.py",
    "__pycache__",
)
"""File names that no edit may bring into a graded tree, even inside an editable folder."""
