"""Expert iteration (Anthony et al. 2017, arXiv 1705.08439; for language models STaR, arXiv 2203.14465): sample, filter,
train, evaluate, again.

A round samples the train questions with the last round's model, and trains the model that the first round began with on
the responses. `correct`: a question's first right response with reasoning, of MAX_ATTEMPTS; `all`: its first response,
whatever it is. Both chains beside each other show what the filter does.

    DIR/<filter>/samples_<k>/    rollouts of round k
    DIR/<filter>/round_<k>/      its training run and evaluation
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.progress import notice
from suites.gsm8k.suite import QuestionSuite
from trainers.formats import answer_row
from trainers.gsm8k.evaluate import finished
from trainers.gsm8k.play import Sample
from trainers.gsm8k.rows import Filter
from trainers.gsm8k.settings import Gsm8kSettings
from trainers.gsm8k.sft import SftJob, run_sft
from trainers.gsm8k.traces import TracesJob, first_right, first_said, trimmed

STAGE = "exit"


@dataclass(frozen=True)
class ExpertIteration:
    """What is run."""

    model: str
    directory: Path
    settings: Gsm8kSettings
    filters: Sequence[Filter]
    command: str = ""
    mirror: Path | None = None


def run_rounds(wanted: ExpertIteration, say: Callable[[str], None]) -> int:
    """All rounds of all chains; rounds that have ended are left as they are.

    Raises:
        UsageError: bad input, or a round without a response to train on.
    """
    for chosen in wanted.filters:
        model = wanted.model
        for number in range(1, wanted.settings.rounds + 1):
            if code := _round(wanted, chosen, number, model, say):
                return code
            model = str(wanted.directory / chosen / f"round_{number}")
    for chosen in wanted.filters:
        say(f"{chosen}: " + ", ".join(_figure(wanted, chosen, number + 1) for number in range(wanted.settings.rounds)))
    return 0


def _figure(wanted: ExpertIteration, chosen: Filter, number: int) -> str:
    found = finished(wanted.directory / chosen / f"round_{number}") or {}
    accuracy, low, high = (float(found[name]) for name in ("accuracy", "accuracy_low", "accuracy_high"))
    return f"round {number} {accuracy:.1%} ({low:.1%} to {high:.1%})"


def _round(wanted: ExpertIteration, chosen: Filter, number: int, model: str, say: Callable[[str], None]) -> int:
    directory = wanted.directory / chosen / f"round_{number}"
    if finished(directory):
        notice(f"{directory} has ended before")
        return 0
    say(f"== {directory}")
    suite = wanted.settings.train_questions(wanted.mirror)
    place = wanted.directory / chosen / f"samples_{number}"
    settings = wanted.settings
    job = TracesJob(model, place, place, settings, suite, settings.traces_temperature, STAGE)
    found = first_right(job, settings.max_attempts, True) if chosen == "correct" else first_said(job, True)
    if isinstance(found, int):
        return found
    rows = rows_of(suite, found)
    say(f"round {number}, {chosen}: {len(rows)} of {len(suite.questions)} questions have a response to train on")
    if not rows:
        raise UsageError(f"{place}: no response can be trained on: begin with a model that solves some questions")
    sft = SftJob(
        STAGE, wanted.model, directory, settings, rows, filter=chosen, command=wanted.command, mirror=wanted.mirror
    )
    return run_sft(sft, True, say)


def rows_of(suite: QuestionSuite, found: dict[str, Sample]) -> list[dict[str, Any]]:
    """The responses up to the end of their answers, in the questions' order; blank ones are left out."""
    form, samples = suite.form, [(each, found.get(each.id)) for each in suite.questions]
    return [
        answer_row(question.id, form.prompt(question.question), trimmed(sample.text, form), form.raw)
        for question, sample in samples
        if sample and sample.text.strip()
    ]
