"""R1-style traces: a teacher goes on with each question's prompt, and what it wrote is kept, right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.progress import notice
from suites.gsm8k.formats import FORMATS
from suites.gsm8k.suite import Question
from trainers.gsm8k.play import Sample
from trainers.gsm8k.traces import FEW, TracesJob, playing, trimmed, write_lines, write_stats

CORRECT_FILE, ALL_FILE, ORIGINAL_FILE = "sft_r1_correct.jsonl", "sft_r1_all.jsonl", "sft_original.jsonl"
R1 = FORMATS["r1"]
_BEGIN = "<think>"


def write_original(job: TracesJob, say: Callable[[str], None]) -> int:
    """The worked solutions of the data in the same form."""
    path = job.directory / ORIGINAL_FILE
    write_lines(path, [_pair(each, R1.response(each.reasoning, each.gold)) for each in job.suite.questions])
    say(f"{len(job.suite.questions)} rows: {path}")
    return 0


def write_r1_traces(job: TracesJob, resume: bool, say: Callable[[str], None]) -> int:
    """One sample a question, into both files; the exit code as that of an evaluation.

    Raises:
        UsageError: bad input.
    """
    with playing(job, 1, resume) as play:
        if not play.ask((task, 0) for task in play.stage.tasks):
            say("the traces are not complete: the same command with --resume goes on")
            return play.exit_code
        samples = [play.samples[question.id, 0] for question in job.suite.questions]
        info = play.stage.source.info
    pairs, asked = zip(job.suite.questions, samples, strict=True), job.settings.engine
    fallback = {} if info.name == asked else {"fallback": f"{info.name} instead of {asked}"}
    rows = [_graded(question, sample) | fallback for question, sample in pairs]
    about = {"model": job.model, "engine": info.engine or info.name, "temperature": job.temperature, **fallback}
    _write(job, rows, about | {"suite": job.suite.name, "seed": job.settings.seed}, say)
    return 0


def _write(job: TracesJob, rows: Sequence[dict[str, Any]], about: dict[str, Any], say: Callable[[str], None]) -> None:
    correct = [
        {key: value for key, value in row.items() if key in ("prompt", "response", "fallback")}
        for row in rows
        if row["is_correct"]
    ]
    write_lines(job.directory / CORRECT_FILE, correct)
    said = [row for row in rows if row["response"].strip()]
    write_lines(job.directory / ALL_FILE, said)
    share = len(correct) / len(rows)
    counts = {"total_samples": len(rows), "correct": len(correct), "share": share, "empty": len(rows) - len(said)}
    write_stats(job.directory / ALL_FILE, counts | about)
    say(f"{len(correct)} of {len(rows)} traces are correct ({share:.1%})")
    if share < FEW:
        notice(f"WARNING: under {FEW:.0%} of the traces are correct: take a stronger --model, or another --temperature")
    say(f"correct: {job.directory / CORRECT_FILE}\nall: {job.directory / ALL_FILE}")


def _pair(question: Question, response: str) -> dict[str, Any]:
    return {"prompt": R1.prompt(question.question)[0].content, "response": response}


def _graded(question: Question, sample: Sample) -> dict[str, Any]:
    """A row of the file of all. A chat model may begin its thoughts once more, and a base model goes on behind the
    answer: neither is for training.
    """
    said_again = sample.text.lstrip().startswith(_BEGIN)
    text = sample.text.lstrip().removeprefix(_BEGIN) if said_again else sample.text
    response = trimmed(text, R1)
    said = R1.read(response)
    about = {"ground_truth": question.gold, "predicted": said.number, "is_correct": sample.right}
    return _pair(question, response) | about
