"""Rows for SFT on questions: from worked solutions, or from a file of traces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import UsageError
from harness.versions import versions
from suites.gsm8k.formats import PromptFormat
from suites.gsm8k.suite import Question, QuestionSuite, checked
from trainers.card import Card, Source, atomic_file, file_sha256, token_figures, write_card
from trainers.formats import answer_row, inspect_row
from trainers.token_counts import TokenHistogram, token_counter

ROWS_FILE = "rows.jsonl"
QUESTION_ANSWER, PROMPT_RESPONSE = {"question", "answer"}, {"prompt", "response"}
Filter = Literal["correct", "all"]


@dataclass(frozen=True)
class TracesFile:
    """The rows of a file of traces that pass the filter, in its order."""

    path: Path
    raw: bool
    """prompt/response rows: text that the model goes on with."""
    rows: tuple[dict[str, Any], ...]
    """As they are written, each with its `line`."""
    dropped: int
    """Rows that are not correct, left out."""


def question_rows(suite: QuestionSuite) -> list[dict[str, Any]]:
    """The worked solution of each question, in the suite's format."""
    return [_solution_row(each, suite.form) for each in suite.questions]


def _solution_row(question: Question, form: PromptFormat) -> dict[str, Any]:
    answer = form.response(question.reasoning, question.gold)
    return answer_row(question.id, form.prompt(question.question), answer, form.raw)


def read_traces_file(path: Path, chosen: Filter) -> TracesFile:
    """Question/answer rows or prompt/response rows, told apart by their fields.

    Args:
        chosen: correct: without the rows that say `is_correct: false`.

    Raises:
        UsageError: the file cannot be read, a line is neither, the lines are mixed, or no row is left.
    """
    rows = list(_lines(path))
    if not rows:
        raise UsageError(f"{path} is empty")
    raw = _is_raw(rows[0])
    for row in rows:
        if _is_raw(row) != raw:
            raise UsageError(f"{path}:{row['line']}: {_KINDS[not raw]} among {_KINDS[raw]}: a file has one kind")
    kept = tuple(row for row in rows if chosen == "all" or row.get("is_correct", True))
    if not kept:
        raise UsageError(f"{path}: none of {len(rows)} rows is correct: --filter all takes them as they are")
    return TracesFile(path, raw, kept, len(rows) - len(kept))


_KINDS = {True: "prompt/response rows", False: "question/answer rows"}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _sound(line, f"{path}:{number}") | {"line": number}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error


def _sound(line: str, where: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError(f"{where}: not JSON") from None
    kinds = [kind for kind in (QUESTION_ANSWER, PROMPT_RESPONSE) if isinstance(row, dict) and kind <= set(row)]
    if len(kinds) != 1:
        raise UsageError(f"{where}: a row has either question and answer, or prompt and response")
    if not all(isinstance(row[name], str) and row[name].strip() for name in kinds[0]):
        raise UsageError(f"{where}: {' and '.join(sorted(kinds[0]))} are texts that are not empty")
    if not isinstance(row.get("is_correct", True), bool):
        raise UsageError(f"{where}: is_correct is neither true nor false")
    return row


def _is_raw(row: Mapping[str, Any]) -> bool:
    return set(row) >= PROMPT_RESPONSE


def traces_rows(found: TracesFile, form: PromptFormat, count: int) -> list[dict[str, Any]]:
    """The first `count` rows, or all where there are fewer, as rows of training.

    Raises:
        UsageError: an answer without a number behind ####.
    """
    return [_trace_row(row, f"{found.path}:{row['line']}", form) for row in found.rows[:count]]


def _trace_row(row: Mapping[str, Any], name: str, form: PromptFormat) -> dict[str, Any]:
    if _is_raw(row):
        return {"prompt": row["prompt"], "completion": row["response"], "question_id": name}
    try:
        return _solution_row(checked(Question(name, "train", row["question"], row["answer"])), form)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


@dataclass(frozen=True)
class RowsAbout:
    """What the card of a file of rows says."""

    command: str
    settings: Mapping[str, Any]
    sources: Sequence[Path] = ()
    dropped: int = 0
    leakage: str = ""
    """What is to be said of questions of the evaluation in the rows (`leaked_words`)."""


def write_rows(directory: Path, rows: Sequence[Mapping[str, Any]], about: RowsAbout) -> Path:
    """The file of training rows of a run, with its card."""
    path, counter, tokens = directory / ROWS_FILE, token_counter(None), TokenHistogram()
    with atomic_file(path) as file:
        for row in rows:
            texts = list(_texts(row))
            tokens.add(sum(map(counter, texts)))
            file.write(json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n")
    formats = Counter(str(inspect_row(row).format) for row in rows)
    write_card(
        Card(
            file=path.name,
            rows=len(rows),
            format=f"A question and its answer, of which the answer is trained ({', '.join(formats)}).",
            command=about.command,
            settings=dict(about.settings),
            leakage=(about.leakage,) if about.leakage else (),
            counts={"formats": dict(formats)},
            tokens=token_figures(tokens, counter.about),
            dropped={"rows": {"not correct": about.dropped} if about.dropped else {}},
            sources=tuple(map(_source, about.sources)),
            versions=versions(),
        ),
        path,
    )
    return path


def leaked_words(rows: Iterable[Mapping[str, Any]], tested: frozenset[str]) -> str:
    """What is to be said of questions of the evaluation in the rows."""
    found = sum(any(question in _asked(row) for question in tested) for row in rows)
    if found:
        return f"WARNING: {found} rows hold a question of the evaluation: its figures say nothing about this model."
    return f"No row holds one of the {len(tested)} questions of the evaluation."


def _asked(row: Mapping[str, Any]) -> str:
    return str(row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"])


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    for side in (row["prompt"], row["completion"]):
        yield from [side] if isinstance(side, str) else [message["content"] for message in side]


def _source(path: Path) -> Source:
    size = path.stat().st_size
    return Source(path=str(path), bytes=size, sha256=file_sha256(path), rollouts=0)
