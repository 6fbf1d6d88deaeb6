"""The evaluation of a model on questions: a table with one row per question, and the metrics with their intervals."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from harness.progress import notice
from harness.statistics import wilson_interval
from suites.gsm8k.environment import PARTS
from suites.gsm8k.formats import PromptFormat
from suites.gsm8k.suite import Question, QuestionSuite
from trainers.card import atomic_file
from trainers.gsm8k.play import Play, Sample, Speaker, absolute, opened, run_id
from trainers.gsm8k.settings import Gsm8kSettings

COLUMNS = (
    "id", "question", "gold", "response", "answer", "reasoning", *PARTS, "stop", "completion_tokens",
)  # fmt: skip
DEBUG, TRACES = "debug", "traces"
FEW_CUT_OFF = 0.1
"""From this share of responses that ended at the limit of tokens on, that is said."""
_NAMES = {"correct": "accuracy"}
"""What a part's mean is called, where it is not the part's name."""


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and where that is kept."""

    stage: str
    model: str
    directory: Path
    """`debug/` and `traces/` lie in it."""
    settings: Gsm8kSettings
    train_samples: int
    """Rows or questions that the model was trained on in this stage; 0 for a base model."""
    output_file: Path | None = None
    """Where the table is wanted too."""
    mirror: Path | None = None


def evaluate(wanted: Evaluation, say: Callable[[str], None], resume: bool = True) -> int:
    """Play the questions of the test part, write table and metrics, and `say` the figures.

    0; 3: some questions could not be played, and nothing but their traces is written; 130: interrupted.

    Raises:
        UsageError: bad input.
    """
    suite = wanted.settings.eval_questions(wanted.mirror)
    speaker = Speaker(absolute(wanted.model), wanted.settings, wanted.settings.temperature)
    with opened(suite, speaker) as stage:
        run = run_id(stage)
        name = f"{wanted.stage}_{run}"
        with closing(Play(stage, wanted.directory / TRACES / name, wanted.settings, resume)) as play:
            if not play.ask((task, 0) for task in stage.tasks):
                say("the evaluation is not complete: the same command with --resume goes on")
                return play.exit_code
        samples = [play.samples[question.id, 0] for question in suite.questions]
        about = {"stage": wanted.stage, "run_id": run, "model": wanted.model, "suite": suite.name}
        about |= {"engine": stage.source.info.engine or stage.source.info.name}
    _write(wanted, name, suite, samples, about, say)
    return 0


def finished(directory: Path) -> dict[str, str] | None:
    """The figures of the evaluation that a stage's directory holds, by name; None while there is none."""
    found = sorted((directory / DEBUG).glob("*_metrics.txt"))
    if not found:
        return None
    return dict(line.split(": ", 1) for line in found[-1].read_text(encoding="utf-8").splitlines())


def _write(
    wanted: Evaluation,
    name: str,
    suite: QuestionSuite,
    samples: Sequence[Sample],
    about: Mapping[str, object],
    say: Callable[[str], None],
) -> None:
    debug = wanted.directory / DEBUG
    table = debug / f"{name}.csv"
    metrics = dict(about) | dict(_metrics(wanted, samples))
    with atomic_file(table) as file:
        file.write(csv_text(suite, samples).encode(errors="replace"))
    if wanted.output_file:
        wanted.output_file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table, wanted.output_file)
    with atomic_file(debug / f"{name}_metrics.txt") as file:
        file.write("".join(f"{key}: {_number(value)}\n" for key, value in metrics.items()).encode())
    for part in PARTS:
        say(_line(part, samples))
    if (cut := _cut_off(samples)) >= FEW_CUT_OFF * len(samples):
        notice(f"WARNING: {cut} of {len(samples)} responses were cut off by --max-tokens {wanted.settings.max_tokens}")
    say(f"table: {wanted.output_file or table}")


def _metrics(wanted: Evaluation, samples: Sequence[Sample]) -> Iterator[tuple[str, object]]:
    yield "samples", len(samples)
    yield "seed", wanted.settings.seed
    yield "prompt_format", wanted.settings.prompt_format
    yield "temperature", wanted.settings.temperature
    yield "train_samples", wanted.train_samples
    for part in PARTS:
        name = _NAMES.get(part, part)
        rate, low, high = _rate(part, samples)
        yield from ((name, rate), (f"{name}_low", low), (f"{name}_high", high))
    yield "mean_completion_tokens", sum(each.tokens for each in samples) / len(samples)
    yield "cut_off", _cut_off(samples)


def _cut_off(samples: Sequence[Sample]) -> int:
    return sum(each.stop == "length" for each in samples)


def _rate(part: str, samples: Sequence[Sample]) -> tuple[float, float, float]:
    rate = sum(each.parts[part] for each in samples) / len(samples)
    return rate, *wilson_interval(rate, len(samples))


def _line(part: str, samples: Sequence[Sample]) -> str:
    rate, low, high = _rate(part, samples)
    count = round(rate * len(samples))
    return f"{_NAMES.get(part, part):9} {rate:6.1%}  ({low:.1%} to {high:.1%})  {count} of {len(samples)}"


def _number(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def csv_text(suite: QuestionSuite, samples: Sequence[Sample]) -> str:
    """One row per sample, COLUMNS as its head."""
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS)  # its line ends are "\r\n": with "\n" a lone "\r" would not be quoted
    table.writeheader()
    for sample in samples:
        table.writerow(_row(suite.by_id[sample.question], sample, suite.form))
    return written.getvalue()


def _row(question: Question, sample: Sample, form: PromptFormat) -> dict[str, object]:
    found = form.read(sample.text)
    said = {"response": sample.text, "answer": found.answer or "", "reasoning": found.reasoning}
    about = {"id": question.id, "question": question.question, "gold": question.gold}
    ended = {"stop": sample.stop, "completion_tokens": sample.tokens}
    return about | said | {part: int(sample.parts[part]) for part in PARTS} | ended
