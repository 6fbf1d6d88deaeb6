"""A run as the page holds it: an index of all rollouts, and their documents in compressed blocks.

A block is a JSON array of documents, some hundred KB of text, gzipped; the page opens one when it shows a rollout of
it. JSON is ASCII, lone surrogates escaped, so that whatever a trace holds survives.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from eval.metrics import Curve, RolloutMetrics, measure, summarise
from eval.viewer.documents import Json, document, pair_document
from eval.viewer.sources import RunSource
from harness.records import PairNote, Trace
from harness.redaction import Redactor
from harness.run_files import now
from harness.trace_reader import TraceLog

INDEX_FORMAT = 1
BLOCK_CHARS = 400_000
COLUMNS = (
    "rollout",
    "task",
    "parent",
    "fork_step",
    "shared",
    "stop",
    "solved",
    "score",
    "why",
    "error",
    "steps",
    "problems",
    "unusable",
    "loops",
    "wrote",
    "prompt_tokens",
    "completion_tokens",
    "cost_usd",
    "seconds",
    "passed",
    "expected",
    "parts",
    "curve",
    "block",
    "place",
)


def packed(value: object) -> bytes:
    """JSON, compressed; the same value gives the same bytes."""
    return gzip.compress(json.dumps(value, separators=(",", ":")).encode("ascii"), compresslevel=6, mtime=0)


@dataclass
class Blocks:
    """Documents, gathered into blocks."""

    done: list[bytes] = field(default_factory=list)
    documents: int = 0
    _texts: list[str] = field(default_factory=list)
    _chars: int = 0

    def add(self, value: Json) -> tuple[int, int]:
        """Where the document will be found: the number of its block, and its place in there."""
        text = json.dumps(value, separators=(",", ":"))
        if self._texts and self._chars + len(text) > BLOCK_CHARS:
            self.flush()
        self._texts.append(text)
        self._chars += len(text)
        self.documents += 1
        return len(self.done), len(self._texts) - 1

    def flush(self) -> None:
        if self._texts:
            text = f"[{','.join(self._texts)}]"
            self.done.append(gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0))
        self._texts, self._chars = [], 0


@dataclass(frozen=True)
class Packed:
    """All that a page shows, compressed."""

    index: bytes
    blocks: list[bytes]
    rollouts: int


def pack(sources: Sequence[RunSource]) -> Packed:
    """Read the runs. Raises UsageError for a log that cannot be read."""
    blocks, redact = Blocks(), Redactor()
    runs = [_run(source, blocks, redact) for source in sources]
    blocks.flush()
    index = {"format": INDEX_FORMAT, "made": now(), "columns": COLUMNS, "runs": runs}
    return Packed(packed(index), blocks.done, blocks.documents)


def _run(source: RunSource, blocks: Blocks, redact: Redactor) -> Json:
    with TraceLog(source.directory) as log:
        metrics, rows = _rows(log, blocks, redact)
        pairs = [pair_document(note) for note in log.notes if isinstance(note, PairNote)]
        torn = log.torn_bytes
    own = [each for each, row in zip(metrics, rows, strict=True) if row[COLUMNS.index("parent")] is None]
    config = source.config.model_dump(mode="json")
    summary = summarise(own, source.config.test_policy).model_dump(mode="json")
    about = {"name": source.name, "config": config, "about": source.about, "wall_seconds": source.wall_seconds}
    told: Json = {**about, "summary": summary, "torn_bytes": torn, "pairs": pairs, "rows": rows}
    masked = redact.values(told)
    assert isinstance(masked, dict)
    return masked


def _rows(log: TraceLog, blocks: Blocks, redact: Redactor) -> tuple[list[RolloutMetrics], list[list[object]]]:
    metrics, rows = list[RolloutMetrics](), list[list[object]]()
    for trace in log:
        metrics.append(measure(trace))
        place = blocks.add(redact.values(document(trace)))
        rows.append([*_row(trace, metrics[-1]), *place])
    return metrics, rows


def _row(trace: Trace, measured: RolloutMetrics) -> list[object]:
    """The columns of a rollout, but for its place."""
    fork, parts = trace.header.fork, trace.score.parts if trace.score else {}
    return [
        measured.rollout,
        measured.task,
        fork.rollout if fork else None,
        fork.step if fork else None,
        trace.shared,
        measured.stop,
        measured.solved,
        measured.score,
        measured.why,
        measured.error,
        measured.steps,
        sum(measured.parse_errors_by_cause.values()),
        sum(measured.parse_errors_after_repair_by_cause.values()),
        measured.loop_detections,
        measured.wrote,
        measured.prompt_tokens,
        measured.completion_tokens,
        measured.cost_usd,
        round(measured.seconds, 3),
        parts.get("tests_passed"),
        parts.get("tests_expected"),
        measured.parts,
        passing(trace, measured.curve),
    ]


def passing(trace: Trace, scored: Curve) -> Curve:
    """The curve of passing tests: (step, passed, expected), of the step scores, else of the test runs on the way."""
    reports = [(number, step.report) for number, step in enumerate(trace.steps, 1) if step.report]
    return scored or tuple((number, report.count_passed, len(report.expected)) for number, report in reports)
