"""From the names of question suites to their questions: `gsm8k`, `gsm8k:train`, `arith:test+easy`, `gsm8k:test+r1`.

GSM8K (Cobbe et al. 2021, arXiv 2110.14168) comes from a mirror directory, or else from the hub by the library
`datasets`, which keeps what it has fetched.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import MachineLacks, UsageError
from harness.optional import require_libraries
from suites.base import SubsetSuite, Suite
from suites.fetch import MIRROR_VARIABLE
from suites.gsm8k.formats import DEFAULT_FORMAT, FORMATS
from suites.gsm8k.suite import SPLITS, Question, QuestionSuite, Split, checked

HUB_NAME, HUB_CONFIG = "openai/gsm8k", "main"


@dataclass(frozen=True)
class _Source:
    """A data set: `questions` gives those of one part, of the variant that was named (empty: the usual one)."""

    questions: Callable[[Path | None, Split, str], tuple[Question, ...]]
    variants: tuple[str, ...] = ()


def load_questions(name: str, mirror: Path | None = None) -> QuestionSuite:
    """The question suite of that name: a data set, then in any order `:train` or `:test` (without: both), a variant of
    the data set, and a prompt format (`+r1`; without: solution).

    Raises:
        UsageError: no such suite, or its questions cannot be had.
    """
    root, *words = re.split(r"(?=[:+])", name)
    source = _SOURCES.get(root)
    if source is None:
        raise UsageError(f"{name} holds no questions: choose from {', '.join(_SOURCES)}")
    formats = [f"+{form}" for form in FORMATS if form != DEFAULT_FORMAT]
    groups = ([f":{each}" for each in SPLITS], [f"+{each}" for each in source.variants], formats)
    known = [word for group in groups for word in group]
    chosen = [[word for word in words if word in group] for group in groups]
    if sum(map(len, chosen)) != len(words) or any(len(each) > 1 for each in chosen):
        raise UsageError(f"suite {root} has no part {''.join(words)!r}: choose one each of {', '.join(known)}")
    split, variant, form = ("".join(each)[1:] for each in chosen)
    parts = [each for each in SPLITS if split in ("", each)]
    questions = tuple(question for part in parts for question in source.questions(mirror, part, variant))
    return QuestionSuite("".join([root, *itertools.chain(*chosen)]), questions, FORMATS[form or DEFAULT_FORMAT])


def question_suite(suite: Suite) -> QuestionSuite | None:
    """The suite of questions that it is, or is some of; None where its tasks are something else."""
    whole = suite.whole if isinstance(suite, SubsetSuite) else suite
    return whole if isinstance(whole, QuestionSuite) else None


def _gsm8k(mirror: Path | None, part: Split, variant: str) -> tuple[Question, ...]:
    rows = _from_mirror(mirror, part) if mirror else _from_hub(part)
    try:
        return tuple(_question(row, part, number) for number, row in enumerate(rows))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the {part} part of {HUB_NAME} has a row that cannot be read: {error!r}") from error


def _question(row: Mapping[str, Any], part: Split, number: int) -> Question:
    question, answer = row["question"], row["answer"]
    if not isinstance(question, str) or not isinstance(answer, str):
        raise TypeError(f"row {number}: question and answer are texts")
    return checked(Question(f"{part}-{number:05}", part, question, answer))


def _from_mirror(mirror: Path, part: Split) -> Iterator[Mapping[str, Any]]:
    path = mirror / "datasets" / HUB_NAME / HUB_CONFIG / f"{part}.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
    except FileNotFoundError:
        raise MachineLacks(f"the mirror {mirror} has no {path.relative_to(mirror)}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _from_hub(part: Split) -> Iterator[Mapping[str, Any]]:
    advice = f"connect to the network, or set {MIRROR_VARIABLE} (or --mirror) to a directory with datasets/{HUB_NAME}"
    require_libraries("datasets", who=f"{HUB_NAME} from the hub: ")
    from datasets import load_dataset

    try:
        yield from load_dataset(HUB_NAME, HUB_CONFIG, split=part)
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such data set there, a broken cache
        said = " ".join(str(error).split())[:200]
        raise MachineLacks(f"cannot fetch {HUB_NAME} from the hub ({said}): {advice}") from error


def _arith(mirror: Path | None, part: Split, variant: str) -> tuple[Question, ...]:
    from suites.arith import arith_questions

    return arith_questions(part, easy=variant == "easy")


_SOURCES: Mapping[str, _Source] = {"gsm8k": _Source(_gsm8k), "arith": _Source(_arith, ("easy",))}
