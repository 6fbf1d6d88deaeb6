"""Reasoning traces of a model: its first right sample of each question, else the worked solution of the data.

The samples are rollouts in a run directory. Attempt k + 1 is made only for questions that no attempt has solved, and
a command that is killed goes on with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.progress import notice
from suites.gsm8k.formats import PromptFormat
from suites.gsm8k.suite import GOLD_MARK, Question, QuestionSuite
from trainers.card import atomic_file
from trainers.gsm8k.evaluate import TRACES
from trainers.gsm8k.play import Play, Sample, Speaker, absolute, opened, run_id
from trainers.gsm8k.settings import Gsm8kSettings

FEW = 0.5
"""With a smaller share of right traces a warning is given."""


@dataclass(frozen=True)
class TracesJob:
    """What is sampled, and where it goes."""

    model: str
    directory: Path
    output_file: Path
    settings: Gsm8kSettings
    suite: QuestionSuite
    temperature: float
    stage: str = "traces"


def write_traces(job: TracesJob, resume: bool, say: Callable[[str], None]) -> int:
    """Sample, and write the rows and their figures; the exit code as that of an evaluation.

    Raises:
        UsageError: bad input.
    """
    attempts = job.settings.max_attempts
    found = first_right(job, attempts, resume)
    if isinstance(found, int):
        return found
    rows = [_row(question, found.get(question.id), job.suite) for question in job.suite.questions]
    write_lines(job.output_file, rows)
    stats = figures([found.get(question.id) for question in job.suite.questions], attempts)
    about = {"model": job.model, "temperature": job.temperature, "max_attempts": attempts, "suite": job.suite.name}
    about |= {"prompt_format": job.settings.prompt_format, "seed": job.settings.seed}
    write_stats(job.output_file, stats | about)
    total, successes = stats["total_samples"], stats["grpo_successes"]
    say(f"{total} rows, {successes} of them sampled ({stats['success_rate']:.1%}), the others worked solutions")
    if stats["success_rate"] < FEW:
        notice(f"WARNING: under {FEW:.0%} of the rows are sampled: SFT on them is mostly SFT on worked solutions")
    say(f"rows: {job.output_file}\nfigures: {stats_path(job.output_file)}")
    return 0


def first_right(job: TracesJob, attempts: int, resume: bool) -> dict[str, Sample] | int:
    """By question, the first sample that is right and reasons; the exit code where the sampling did not end."""
    with playing(job, attempts, resume) as play:
        found: dict[str, Sample] = {}
        for attempt in range(attempts):
            left = [task for task in play.stage.tasks if task.id not in found]
            if attempt and left:
                notice(f"attempt {attempt + 1} of {attempts}: {len(left)} questions are left")
            if not play.ask((task, attempt) for task in left):
                return play.exit_code
            samples = [play.samples[task.id, attempt] for task in left]
            found |= {each.question: each for each in samples if _can_be_used(each, job)}
        return found


def _can_be_used(sample: Sample, job: TracesJob) -> bool:
    """It is right and reasons. Rows of traces put the reasoning between tags anew: there it holds none itself."""
    tags = job.suite.form.tags if job.stage == TRACES else ()
    reasoning = job.suite.form.read(sample.text).reasoning
    return sample.right and sample.reasoned and not any(tag in reasoning for tag in tags)


def first_said(job: TracesJob, resume: bool) -> dict[str, Sample] | int:
    """By question, its first sample, whatever it is; the exit code where the sampling did not end."""
    with playing(job, 1, resume) as play:
        tasks = play.stage.tasks
        if not play.ask((task, 0) for task in tasks):
            return play.exit_code
        return {task.id: play.samples[task.id, 0] for task in tasks}


@contextmanager
def playing(job: TracesJob, attempts: int, resume: bool) -> Iterator[Play]:
    """The samples of a job, with its model loaded. Raises UsageError where it cannot be."""
    speaker = Speaker(absolute(job.model), job.settings, job.temperature)
    with opened(job.suite, speaker, attempts) as stage:
        directory = job.directory / TRACES / f"{job.stage}_{run_id(stage)}"
        with closing(Play(stage, directory, job.settings, resume)) as play:
            yield play


def _row(question: Question, sample: Sample | None, suite: QuestionSuite) -> dict[str, Any]:
    reasoning = suite.form.read(sample.text).reasoning if sample else question.reasoning
    return {"question": question.question, "answer": f"{reasoning}\n\n{GOLD_MARK} {question.gold}"}


def trimmed(text: str, form: PromptFormat) -> str:
    """A response up to the end of its answer: a base model goes on behind it."""
    end, opened, closed = form.tags[-3:]
    before = text.find(end) + len(end) if end in text else 0
    _, began, rest = text[before:].partition(opened)
    behind = rest.partition(closed)[2]
    return text.removesuffix(behind) if began and closed in rest else text


def figures(found: Sequence[Sample | None], attempts: int) -> dict[str, Any]:
    """Of the questions' first right samples, None for a question without one. Attempts are counted from 1."""
    needed = [sample.attempt + 1 for sample in found if sample]
    fallbacks = len(found) - len(needed)
    return {
        "total_samples": len(found),
        "grpo_successes": len(needed),
        "fallback_count": fallbacks,
        "success_rate": len(needed) / len(found),
        "avg_attempts_for_successes": sum(needed) / len(needed) if needed else None,
        "avg_attempts_overall": (sum(needed) + fallbacks * attempts) / len(found),
    }


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with atomic_file(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n" for row in rows)


def stats_path(rows: Path) -> Path:
    return rows.with_name(f"{rows.name}.stats.json")


def write_stats(rows: Path, content: dict[str, Any]) -> None:
    with atomic_file(stats_path(rows)) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
