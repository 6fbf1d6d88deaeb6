"""Files of training data as rows of tokens: what a policy sees when it is played, and what it must generate then.

Every trained assistant message becomes a row of its own: the conversation before it is the prompt, the message with the
end of its turn the completion, and the loss is on the completion only. A trajectory of k trained messages is k rows;
trie packing (trainers.trie) makes their common prefix cost nothing. Rows are never cut, and duplicates are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.chat_template import ChatFormat, format_for
from harness.errors import UsageError
from harness.records import Message
from trainers.data_check import BOM, check_file
from trainers.formats import RowFormat, inspect_row
from trainers.prefs import records_path

Kind = Literal["sft", "dpo"]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StepRow:
    """A prompt and the action that is trained after it."""

    prompt: Ids
    completion: Ids
    weight: float = 1.0

    @property
    def sequences(self) -> tuple[Ids, ...]:
        """What the model reads, prompt included."""
        return (np.concatenate((self.prompt, self.completion)),)


@dataclass(frozen=True)
class PairRow:
    """A prompt, the better and the worse action after it."""

    prompt: Ids
    chosen: Ids
    rejected: Ids
    weight: float = 1.0
    """Of its part in the gradient; the mean over a file is 1."""

    @property
    def sequences(self) -> tuple[Ids, ...]:
        return (np.concatenate((self.prompt, self.chosen)), np.concatenate((self.prompt, self.rejected)))


Row = StepRow | PairRow


@dataclass(frozen=True)
class TrainRows:
    """The rows of one file, in its order."""

    rows: tuple[Row, ...]
    path: Path
    lines: int
    dropped: int
    """Rows that were left out because they are too long."""
    longest: int
    """Tokens of the longest sequence that was kept."""

    @property
    def tokens(self) -> int:
        """Of all sequences, each counted in full."""
        return sum(len(sequence) for row in self.rows for sequence in row.sequences)


def check_data(path: Path, kind: Kind) -> None:
    """Raises UsageError, with the line and the remedy, for a file that `train KIND` cannot train on."""
    report = check_file(path)
    if report.fault_count and not report.rows:
        raise UsageError(f"{path}:{report.faults[0].line}: {report.faults[0].text}")
    pairs = report.pairs > 0
    if pairs != (kind == "dpo"):
        right, other = ("SFT rows", "dpo") if pairs else ("pairs", "sft")
        makes = "sft-extract" if pairs else "prefs"
        raise UsageError(
            f"{path}:1: the file holds {'pairs' if pairs else 'SFT rows'}, train {kind} needs {right} "
            f"(repo-agent {makes} writes them): say train {other} for this one"
        )
    if report.fault_count:
        more = f" (and {report.fault_count - 1} more faults)" if report.fault_count > 1 else ""
        raise UsageError(
            f"{path}:{report.faults[0].line}: {report.faults[0].text}{more}: see repo-agent data check {path}"
        )


def read_rows(
    path: Path, kind: Kind, chat: ChatFormat, max_length: int, refuse_longer: bool = False, weigh: bool = False
) -> TrainRows:
    """The rows of a file that `check_data` found sound.

    Args:
        max_length: tokens of the longest sequence that is trained on.
        refuse_longer: rows over it end the command; otherwise they are left out and counted.
        weigh: pairs count by their confidence.

    Raises:
        UsageError: all rows are too long, or one is and that is refused; the chat template takes no such conversation;
            confidences that cannot be used.
    """
    kept: list[Row] = []
    dropped = longest = longest_kept = 0
    weights = pair_weights(path) if weigh else None
    number = 0
    for number, row in _decoded_lines(path):
        for made in _token_rows(row, kind, chat, f"{path}:{number}"):
            length = max(map(len, made.sequences))
            longest = max(longest, length)
            if length <= max_length:
                kept.append(replace(made, weight=weights[number - 1]) if weights else made)
                longest_kept = max(longest_kept, length)
                continue
            dropped += 1
            if refuse_longer:
                raise UsageError(f"{path}:{number}: {length} tokens, more than --max-length {max_length}")
    if not kept:
        raise UsageError(f"{path}: all {dropped} rows are over --max-length {max_length}; the longest has {longest}")
    return TrainRows(_mean_one(kept, path), path, number, dropped, longest_kept)


def pair_weights(path: Path) -> list[float]:
    """Per line, 2 * confidence - 1, and 1 where nothing was measured (pairs of protocol faults and loops).

    The confidence is the row's own `pair_confidence`, else that of the record in NAME.pairs.jsonl beside the file (in
    the same order, as `repo-agent prefs` writes it); without either every pair is certain.

    Raises:
        UsageError: there are not as many records as rows, or a confidence is none.
    """
    found = [row.get("pair_confidence", _ABSENT) for _, row in _decoded_lines(path)]
    records = records_path(path)
    if all(each is _ABSENT for each in found) and records.is_file():
        rows, found = len(found), [row.get("confidence") for _, row in _decoded_lines(records)]
        if len(found) != rows:
            raise UsageError(f"{records} has {len(found)} records for {rows} pairs: say --pair-weights none")
    return [_weight(each, f"{path}:{number}") for number, each in enumerate(found, 1)]


_ABSENT = object()


def _weight(confidence: object, where: str) -> float:
    if confidence is None or confidence is _ABSENT:
        return 1.0
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise UsageError(f"{where}: the confidence {str(confidence)[:50]} is no probability: say --pair-weights none")
    return max(0.0, 2 * confidence - 1)


def _mean_one(rows: Sequence[Row], path: Path) -> tuple[Row, ...]:
    mean = sum(row.weight for row in rows) / len(rows)
    if mean == 0:
        raise UsageError(f"{path}: no pair has a confidence over 0.5: say --pair-weights none")
    return tuple(rows) if mean == 1 else tuple(replace(row, weight=row.weight / mean) for row in rows)


def _decoded_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                yield number, json.loads(raw.removeprefix(BOM) if number == 1 else raw)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _token_rows(row: Mapping[str, Any], kind: Kind, chat: ChatFormat, where: str) -> Iterator[Row]:
    try:
        yield from _steps(row, chat) if kind == "sft" else _pair(row, chat)
    except Exception as error:  # templates raise jinja's own errors, of many kinds
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{where}: the model's chat template refuses this conversation: {said}") from error


def _steps(row: Mapping[str, Any], chat: ChatFormat) -> Iterator[StepRow]:
    form = inspect_row(row).format
    if form is RowFormat.SFT_TEXT:
        raw, prompt = format_for(chat, raw=True), Message(role="user", content=row["prompt"])
        yield StepRow(_ids(raw.prompt_ids([prompt])), _ids(raw.action_ids(row["completion"])))
        return
    if form in (RowFormat.SFT_PROMPT_COMPLETION, RowFormat.SFT_QUESTION):
        messages = [*row["prompt"], *row["completion"]]
        trained = [len(messages) - 1]
    else:
        messages = row["messages"]
        trained = [at for at, each in enumerate(messages) if each["role"] == "assistant" and each.get("weight", 1)]
    spoken = _messages(messages)
    for at in trained:
        yield StepRow(_ids(chat.prompt_ids(spoken[:at])), _ids(chat.action_ids(spoken[at].content)))


def _pair(row: Mapping[str, Any], chat: ChatFormat) -> Iterator[PairRow]:
    trl = "prompt" in row
    prompt = row["prompt"] if trl else row["input"]["messages"]
    names = ("chosen", "rejected") if trl else ("preferred_output", "non_preferred_output")
    chosen, rejected = (_ids(chat.action_ids(row[name][0]["content"])) for name in names)
    yield PairRow(_ids(chat.prompt_ids(_messages(prompt))), chosen, rejected)


def _messages(rows: Sequence[Mapping[str, Any]]) -> list[Message]:
    return [Message(role=each["role"], content=each["content"]) for each in rows]


def _ids(tokens: Sequence[int]) -> Ids:
    return np.asarray(tokens, dtype=np.int64)
