"""The data card that every extractor writes beside its output: where the rows come from, what is in them, what is not.

It is a function of the inputs and of the versions: it holds no time.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import UsageError
from harness.records import Record
from harness.redaction import Redactor
from trainers.token_counts import TokenHistogram

_SHOWN = 200


class Source(Record):
    """One trace log."""

    path: str
    bytes: int
    sha256: str
    rollouts: int
    torn_bytes: int = 0
    """Length of a torn last line, which was skipped."""
    run: dict[str, Any] | None = None
    """The configuration of the run that wrote it, where `run.json` lies beside it."""


class Tokens(Record):
    """How long the rows are."""

    counted: str
    """How a token was counted."""
    total: int
    longest: int
    histogram: dict[str, int]
    """Rows by length."""


class Card(Record):
    """What is to be known of one file of training data."""

    file: str
    rows: int
    format: str
    """What a row is."""
    command: str
    settings: dict[str, Any]
    """Filters and other flags, defaults included."""
    rules: tuple[str, ...] = ()
    """What decided, in words."""
    leakage: tuple[str, ...]
    """What is known of test tasks in it, in words."""
    counts: dict[str, dict[str, int]]
    """Tables: by task, by tool, by policy, …"""
    tokens: Tokens
    dropped: dict[str, dict[str, int]]
    """What was left out, by unit (rollouts, steps, rows), then by reason."""
    sources: tuple[Source, ...]
    versions: dict[str, str]


def command_line(command: str, argv: Sequence[str]) -> str:
    return shlex.join(["repo-agent", command, *argv])


def token_figures(histogram: TokenHistogram, counted: str) -> Tokens:
    return Tokens(counted=counted, total=histogram.total, longest=histogram.longest, histogram=histogram.by_bin)


def leakage_words(rows_by_split: Mapping[str, int], test_tasks: Iterable[str]) -> tuple[str, ...]:
    """What a card says of the test split.

    Args:
        rows_by_split: by "train", "test" and "unknown".
        test_tasks: tasks of the test split that rows come from, by whatever rule they count as such.
    """
    tasks = sorted(test_tasks)
    words = ["No row comes from a task of a test split."]
    if tasks:
        words = [
            f"WARNING: rows from {len(tasks)} tasks of a test split are in this file: {', '.join(tasks)}. "
            "Results on these tasks say nothing about a model that was trained on it."
        ]
    if unknown := rows_by_split.get("unknown", 0):
        words.append(f"{unknown} rows come from suites without a split: whether their tasks are tested is not known.")
    return tuple(words)


class CardReference(Record):
    """The data card that lies beside a data file."""

    path: str
    sha256: str


def file_sha256(path: Path) -> str:
    """Raises UsageError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def card_reference(data: Path) -> CardReference | None:
    """Which card tells of a data file; None where none lies beside it."""
    card = card_paths(data)[0]
    return CardReference(path=str(card), sha256=file_sha256(card)) if card.is_file() else None


def card_paths(output: Path) -> tuple[Path, Path]:
    """Where the cards of a data file go: JSON and Markdown."""
    return output.with_name(f"{output.stem}.card.json"), output.with_name(f"{output.stem}.card.md")


def write_card(card: Card, output: Path) -> tuple[Path, Path]:
    """Write both forms beside the data file, secrets masked; where they are."""
    redact = Redactor()
    masked = Card.model_validate(redact.values(card.model_dump(mode="json")))
    paths = card_paths(output)
    for path, text in zip(paths, (masked.model_dump_json(indent=2) + "\n", markdown(masked)), strict=True):
        with atomic_file(path) as file:
            file.write(text.encode(errors="replace"))
    return paths


def markdown(card: Card) -> str:
    """The card for readers."""
    parts = [f"# {card.file}", f"{card.rows} rows. {card.format}", "\n".join(f"- {line}" for line in card.leakage)]
    parts.append(f"    {card.command}")
    for name, table in card.counts.items():
        parts += [f"## {_capital(name)}", _table(("", "count"), sorted(table.items()))]
    parts += ["## Tokens per row", f"{_capital(card.tokens.counted)}. Longest row {card.tokens.longest}; all rows "]
    parts[-1] += f"{card.tokens.total}."
    parts.append(_table(("tokens", "rows"), card.tokens.histogram.items()))
    parts += ["## What was left out", *([] if any(card.dropped.values()) else ["Nothing."])]
    for unit, reasons in card.dropped.items():
        if reasons:
            parts.append(_table((unit, "count"), reasons.items()))
    parts += ["## Settings", _table(("setting", "value"), card.settings.items())]
    parts += ["## Rules", "\n".join(f"- {rule}" for rule in card.rules)] if card.rules else []
    parts += ["## Sources", "\n".join(map(_source_line, card.sources))]
    parts += ["## Versions", _table(("of", "version"), card.versions.items())]
    return "\n\n".join(part for part in parts if part) + "\n"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *lines]) if lines else ""


def _cell(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|")[:_SHOWN]


def _source_line(source: Source) -> str:
    line = f"- `{source.path}`: {source.rollouts} rollouts, {source.bytes} bytes, sha256 {source.sha256}"
    line += f"; a torn last line of {source.torn_bytes} bytes was skipped" if source.torn_bytes else ""
    if source.run:
        known = {key: value for key, value in source.run.items() if not isinstance(value, list | dict)}
        line += "\n  - run: " + ", ".join(f"{key} {value}" for key, value in known.items() if value not in ("", None))
    return line


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is at its place when it is complete, and not before: until then it lies beside it.

    Raises UsageError where it cannot be written.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"cannot write {path}: it is no regular file")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
