"""Which files of training data a fine-tuning service takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import UsageError
from harness.records import Record
from trainers.card import CardReference, card_reference, file_sha256
from trainers.data_check import BOM, check_file
from trainers.formats import RowFormat
from trainers.token_counts import token_counter

Method = Literal["sft", "dpo"]
TAKEN: dict[Method, RowFormat] = {"sft": RowFormat.SFT_WEIGHTED, "dpo": RowFormat.PREFERENCE}
_COMMANDS: dict[Method, str] = {"sft": "sft-extract", "dpo": "prefs"}
_PAIRS = (RowFormat.PREFERENCE, RowFormat.PREFERENCE_TRL)


class DataFile(Record):
    """A file that was checked, and what is known of it."""

    path: str
    sha256: str
    bytes: int
    rows: int
    card: CardReference | None = None


@dataclass(frozen=True)
class RowLengths:
    """How long the rows are, in estimated tokens: the service counts with the model's own tokenizer."""

    total: int
    lengths: tuple[int, ...]

    def over(self, limit: int) -> int:
        return sum(length > limit for length in self.lengths)


def checked_file(path: Path, method: Method) -> DataFile:
    """The file, sound and of the method's format.

    Raises:
        UsageError: it cannot be read, is empty, has a fault, or holds rows of another kind: which command makes such.
    """
    report = check_file(path)
    if not report.rows and report.last_format is None and _is_empty(path):
        raise UsageError(f"{path} is empty: there is nothing to train on")
    wrong = next((found for found in report.rows if found is not TAKEN[method]), None)
    if wrong is not None:
        raise UsageError(f"{path} holds {wrong} rows: {_advice(method, wrong)}")
    if report.faults:
        fault = report.faults[0]
        more = f" (and {report.fault_count - 1} more: see repo-agent data check)" if report.fault_count > 1 else ""
        raise UsageError(f"{path}:{fault.line}: {fault.text}{more}")
    if report.bom:
        raise UsageError(f"{path} begins with a byte order mark, which the service refuses: save it without")
    if path.suffix != ".jsonl":
        raise UsageError(f"{path}: the service takes files whose name ends in .jsonl only")
    return DataFile(
        path=str(path),
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        rows=report.rows.total(),
        card=card_reference(path),
    )


def _is_empty(path: Path) -> bool:
    with path.open("rb") as file:
        return not file.read(len(BOM) + 1).removeprefix(BOM).strip()


def _advice(method: Method, found: RowFormat) -> str:
    if (found in _PAIRS) != (method == "dpo"):
        other = "dpo" if method == "sft" else "sft"
        return (
            f"`train {method}` takes {TAKEN[method]} rows, as {_COMMANDS[method]} writes them (or use `train {other}`)"
        )
    return f"the service takes {TAKEN[method]} rows: run {_COMMANDS[method]} with --target together"


def row_lengths(path: Path) -> RowLengths:
    """The tokens of each row of a sound file; the two sides of a pair are two sequences, so they count twice."""
    counter = token_counter(None)
    total, lengths = 0, []
    with path.open(encoding="utf-8") as file:
        for line in file:
            found = [sum(counter(message["content"]) for message in side) for side in _sequences(json.loads(line))]
            total += sum(found)
            lengths.append(max(found))
    return RowLengths(total, tuple(lengths))


def _sequences(row: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    if "messages" in row:
        yield row["messages"]
        return
    for side in ("preferred_output", "non_preferred_output"):
        yield [*row["input"]["messages"], *row[side]]
