"""Preference pairs of a run: collected from its log and from forks, filtered, and written as rows with a card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.records import ForkPoint, PairNote, Trace
from harness.redaction import MASK
from harness.trace_reader import TraceLog
from harness.trace_store import TraceStore
from harness.versions import versions
from sandboxes.workspace import Workspace
from tools.protocol import parse
from trainers.card import Card, atomic_file, leakage_words, token_figures
from trainers.formats import Target, preference_row
from trainers.free_pairs import free_forks, loop_pairs, protocol_pairs
from trainers.pairs import Fork, Pair, fork_pairs, limit_malformed, merge_pairs
from trainers.paths import finished_path
from trainers.token_counts import TokenHistogram, token_counter
from trainers.trace_sources import about_log
from trainers.values import Finished

FREE = frozenset({"protocol", "loop"})
SOURCES = ("fork", "merge", "protocol", "loop")


@dataclass(frozen=True)
class PairRules:
    """Which pairs are made and kept."""

    sources: frozenset[str]
    margin: float
    min_confidence: float
    max_malformed: float


@dataclass
class Collected:
    """The pairs, and what became of the others."""

    pairs: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def collect(log: TraceLog, forks: Sequence[Fork], rules: PairRules) -> Collected:
    """The pairs of a run, each couple of actions of a task once: measured before unmeasured, the surer first."""
    found: list[Pair] = []
    if "fork" in rules.sources:
        found += [pair for fork in forks for pair in fork_pairs(fork, rules.margin, rules.min_confidence)]
    if "merge" in rules.sources:
        found += merge_pairs(_played(log, forks=False), rules.margin, rules.min_confidence)
    if rules.sources & FREE:
        found += _free_pairs(log, rules.sources)
    best: dict[tuple[str, frozenset[str]], Pair] = {}
    for pair in sorted(found, key=lambda pair: (pair.source in FREE, -(pair.confidence or 0), pair.id)):
        best.setdefault((pair.task, frozenset((pair.chosen_text, pair.rejected_text))), pair)
    kept = limit_malformed(sorted(best.values(), key=lambda pair: (pair.task, pair.id)), rules.max_malformed)
    dropped = Counter({"the same actions as another pair": len(found) - len(best)})
    dropped["over --max-malformed"] = len(best) - len(kept)
    return Collected(kept, +dropped)


def only_repairs(collected: Collected, references: Mapping[str, Workspace | None]) -> None:
    """Of an oracle's pairs drop those whose chosen side is a mistake that the tests let pass."""
    kept = [pair for pair in collected.pairs if _is_repair(pair, references[pair.task])]
    lost = len(collected.pairs) - len(kept)
    collected.pairs[:] = kept
    collected.dropped += Counter({"the chosen side is a mistake that the tests let pass": lost})


def _is_repair(pair: Pair, fixed: Workspace | None) -> bool:
    call = parse(pair.chosen_text)
    if fixed is None or call.name != "write_file":
        return True
    path = call.args["rel_path"]
    return path in fixed and fixed.read(path).decode(errors="replace") == call.args["content"]


def _played(log: TraceLog, forks: bool) -> Iterator[Finished]:
    for trace in log:
        if trace.stop is not None and (forks or trace.header.fork is None):
            yield finished_path(trace)


def _free_pairs(log: TraceLog, sources: frozenset[str]) -> Iterator[Pair]:
    for fork in free_forks(_played(log, forks=True)):
        if "protocol" in sources:
            yield from protocol_pairs(fork)
        if "loop" in sources:
            yield from loop_pairs(fork)


def note_pairs(store: TraceStore, log: TraceLog, pairs: Iterable[Pair]) -> None:
    """Add a note for each pair that has none yet."""
    known = {note.pair for note in log.notes if isinstance(note, PairNote)}
    for pair in pairs:
        if pair.id not in known:
            sides = [ForkPoint(rollout=side.rollout, step=side.step) for side in (pair.chosen, pair.rejected)]
            store.note(
                PairNote(
                    rollout=pair.state.rollout,
                    step=pair.state.step,
                    pair=pair.id,
                    source=pair.source,
                    chosen=sides[0],
                    rejected=sides[1],
                    confidence=pair.confidence,
                )
            )


def records_path(output: Path) -> Path:
    """Where the records of the pairs go, line by line beside the rows."""
    return output.with_name(f"{output.stem}.pairs.jsonl")


@dataclass
class PairFile:
    """Writes rows, records and card."""

    output: Path
    target: Target
    tokens: TokenHistogram = field(default_factory=TokenHistogram)
    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("tasks", "sources", "kinds", "tools chosen", "policies")}
    )
    splits: Counter[str] = field(default_factory=Counter)
    test_tasks: set[str] = field(default_factory=set)
    rows: int = 0

    def write(self, log: TraceLog, collected: Collected) -> None:
        """The rows, and a record for each; a pair whose row would break a rule of its format is left out."""
        count = token_counter(None)
        with atomic_file(self.output) as rows, atomic_file(records_path(self.output)) as records:
            for pair in collected.pairs:
                trace = log.trace(pair.state.rollout)
                prefix = trace.conversation(_depth(trace, pair.state.step))
                record = pair.model_dump(mode="json", exclude={"chosen_text", "rejected_text"})
                extra = {f"pair_{name}": record[name] for name in ("id", "source", "kind", "confidence")}
                if any(MASK in text for text in (pair.rejected_text, pair.chosen_text, *(m.content for m in prefix))):
                    collected.dropped["a secret is masked in it"] += 1
                    continue
                try:
                    row = preference_row(prefix, pair.chosen_text, pair.rejected_text, self.target, extra)
                except ValueError as error:
                    collected.dropped[str(error)] += 1
                    continue
                rows.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                records.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
                self._count(trace, pair)
                self.tokens.add(sum(count(message.content) for message in prefix) + count(pair.chosen_text))

    def _count(self, trace: Trace, pair: Pair) -> None:
        header = trace.header
        self.rows += 1
        policy = f"{header.policy} {header.model}".strip() + (" (oracle)" if header.oracle else "")
        names = (pair.task, pair.source, pair.kind, parse(pair.chosen_text).name, policy)
        for table, name in zip(self.counts.values(), names, strict=True):
            table[name] += 1
        self.splits[header.split or "unknown"] += 1
        if header.split == "test":
            self.test_tasks.add(pair.task)

    def card(self, log: TraceLog, dropped: Counter[str], command: str, settings: dict[str, object]) -> Card:
        return Card(
            file=self.output.name,
            rows=self.rows,
            format=f"Each is a preference pair for {self.target}; {records_path(self.output).name} says, line by line, "
            "where it comes from and how sure it is.",
            command=command,
            settings=settings,
            leakage=leakage_words(self.splits, self.test_tasks),
            counts={name: dict(table) for name, table in self.counts.items()},
            tokens=token_figures(self.tokens, f"prompt and chosen side, {token_counter(None).about}"),
            dropped={"pairs": dict(dropped)},
            sources=(about_log(log),),
            versions=versions(),
        )


def _depth(trace: Trace, step: str | None) -> int:
    return next((number for number, each in enumerate(trace.steps, 1) if each.id == step), 0)
