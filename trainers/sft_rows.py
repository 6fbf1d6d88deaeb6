"""From traces to the lines of an SFT file, with everything counted that became a row and that did not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.records import Step, Trace
from trainers.extract import Drop, Rules, TreeScores, is_write, rollout_drop, step_drops
from trainers.formats import Granularity, Target
from trainers.row_writer import Conversation, ConversationEncoder, step_lines, trajectory_line
from trainers.token_counts import TokenCounter, TokenHistogram


@dataclass(frozen=True)
class RowShape:
    """What a row is."""

    target: Target = Target.TOGETHER
    granularity: Granularity = Granularity.STEP
    max_tokens: int | None = None
    """A longer row is left out, never cut."""
    limit_per_task: int | None = None
    """So many rows of a task, the first in the order of the traces."""


@dataclass
class Tally:
    """What an extraction counted."""

    rows: int = 0
    tokens: TokenHistogram = field(default_factory=TokenHistogram)
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Rows by task, by policy and by split; trained messages by tool."""
    dropped: dict[str, Counter[Drop]] = field(default_factory=lambda: defaultdict(Counter))
    """What was left out and why, in rollouts, steps and rows."""

    def drop(self, unit: str, why: Drop, count: int = 1) -> None:
        if count:
            self.dropped[unit][why] += count

    @property
    def by_task(self) -> Counter[str]:
        return self.counts["rows by task"]

    @property
    def by_split(self) -> Counter[str]:
        return self.counts["rows by split"]


class SftExtraction:
    """Makes the lines of one file. Traces must come task by task; a fork is best read soon after its parent."""

    def __init__(self, shape: RowShape, counter: TokenCounter) -> None:
        self.tally = Tally()
        self._shape = shape
        self._encoder = ConversationEncoder(counter)
        self._seen: set[bytes] = set()
        self._task: tuple[str, str] = ("", "")
        self._scores = TreeScores()

    def lines(self, traces: Iterable[tuple[int, Trace]], rules: Rules) -> Iterator[bytes]:
        """The lines of traces, each given with the number of the log that it is from."""
        for log, trace in traces:
            self._meet(trace, rules)
            if why := rollout_drop(trace, rules):
                self.tally.drop("rollouts", why)
                continue
            verdicts = step_drops(trace, rules, self._scores)
            own = verdicts[trace.shared :]  # the others are counted with the rollout that took them
            self.tally.dropped["steps"].update(drop for drop in own if drop)
            may = [drop is None for drop in verdicts]
            rows = self._steps if self._shape.granularity is Granularity.STEP else self._trajectory
            yield from rows(trace, log, may)

    def _meet(self, trace: Trace, rules: Rules) -> None:
        version = rules.suite_version or trace.header.suite_version
        if (trace.header.task, version) != self._task:
            self._task, self._scores = (trace.header.task, version), TreeScores()
        self._scores.add(trace.step_scores(version))

    def _steps(self, trace: Trace, log: int, may: list[bool]) -> Iterator[bytes]:
        trained = [index for index, flag in enumerate(may) if flag]
        if not trained:
            return
        conversation = self._encoder.encode(trace, log)
        kept = [index for index in trained if self._is_row(trace, conversation, conversation.of_step(index))]
        self._count_trained(trace.steps[index] for index in kept)
        yield from step_lines(conversation, kept, self._shape.target)

    def _trajectory(self, trace: Trace, log: int, flags: list[bool]) -> Iterator[bytes]:
        """The conversation up to its last trained message: what comes after that teaches nothing."""
        while flags and not flags[-1]:
            flags.pop()
        if not flags:
            self.tally.drop("rollouts", Drop.NOTHING)
        elif self._shape.target is Target.TRL and not all(flags):
            self.tally.drop("rollouts", Drop.WEIGHTS)
        else:
            conversation = self._encoder.encode(trace, log)
            if self._is_row(trace, conversation, conversation.of_step(len(flags) - 1)):
                self._count_trained(step for step, flag in zip(trace.steps, flags, strict=False) if flag)
                yield trajectory_line(conversation, flags, self._shape.target)

    def _count_trained(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.tally.counts["trained messages by tool"][step.call.name] += 1
            if is_write(step):
                said = "not run" if step.report is None else "passed" if step.report.passed else "failed"
                self.tally.counts["trained writes by their tests"][said] += 1

    def _is_row(self, trace: Trace, conversation: Conversation, end: int) -> bool:
        """Whether the conversation up to a message becomes a row, which is then counted."""
        last, task = conversation.messages[end], trace.header.task
        limit, longest = self._shape.limit_per_task, self._shape.max_tokens
        why: Drop | None = None
        if last.digest in self._seen:
            why = Drop.DUPLICATE
        elif not conversation.messages[end - 1].sound:
            why = Drop.BROKEN
        elif longest is not None and last.tokens > longest:
            why = Drop.TOO_LONG
        elif limit is not None and self.tally.by_task[task] >= limit:
            why = Drop.LIMIT
        if why:
            self.tally.drop("rows", why)
            return False
        self._seen.add(last.digest)
        self._count(trace, last.tokens)
        return True

    def _count(self, trace: Trace, tokens: int) -> None:
        header = trace.header
        policy = f"{header.policy} {header.model}".strip() + (" (oracle)" if header.oracle else "")
        self.tally.rows += 1
        self.tally.tokens.add(tokens)
        self.tally.by_task[header.task] += 1
        self.tally.counts["rows by policy"][policy] += 1
        self.tally.by_split[header.split or "unknown"] += 1
