"""SFT stages of the pipeline: on worked solutions or on traces, by the training of `repo-agent train sft`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.cli import Parser
from harness.errors import UsageError
from harness.progress import notice
from suites.gsm8k.formats import FORMATS
from trainers.card import file_sha256
from trainers.gsm8k.evaluate import Evaluation, evaluate
from trainers.gsm8k.play import absolute
from trainers.gsm8k.rows import (
    ROWS_FILE,
    Filter,
    RowsAbout,
    TracesFile,
    leaked_words,
    question_rows,
    read_traces_file,
    traces_rows,
    write_rows,
)
from trainers.gsm8k.settings import Gsm8kSettings, write_config
from trainers.train_local import run_local
from trainers.train_run import TRAIN_FILE
from trainers.train_settings import add_train_flags

MODEL = "model"
"""Where a stage's result lies in its directory."""
SftStage = Literal["prep", "full"]


@dataclass(frozen=True)
class SftJob:
    """One SFT stage."""

    stage: str
    """prep_sft, full_sft, traces_sft, r1_sft or exit."""
    model: str
    directory: Path
    settings: Gsm8kSettings
    rows: list[dict[str, Any]]
    sources: tuple[Path, ...] = ()
    """Files that the rows come from."""
    dropped: int = 0
    filter: Filter = "all"
    command: str = ""
    mirror: Path | None = None

    @property
    def evaluation(self) -> Evaluation:
        return Evaluation(
            self.stage, str(self.directory), self.directory, self.settings, len(self.rows), mirror=self.mirror
        )


def solutions_job(
    part: SftStage, model: str, directory: Path, settings: Gsm8kSettings, command: str = "", mirror: Path | None = None
) -> SftJob:
    """SFT on worked solutions: of the prep questions, or of those behind them."""
    suite = settings.prep_questions(mirror) if part == "prep" else settings.train_questions(mirror)
    if not suite.questions:
        raise UsageError("PREP_TRAIN_SAMPLES is 0: there is nothing to train on")
    return SftJob(f"{part}_sft", model, directory, settings, question_rows(suite), command=command, mirror=mirror)


def traces_job(
    path: Path, chosen: Filter, model: str, directory: Path, settings: Gsm8kSettings, command: str = "",
    mirror: Path | None = None,
) -> SftJob:  # fmt: skip
    """SFT on a file of traces: of its first TRAIN_SAMPLES rows."""
    found = read_traces_file(path, chosen)
    if found.raw:
        settings = settings.model_copy(update={"prompt_format": "r1"})
    rows = traces_rows(found, FORMATS[settings.prompt_format], settings.train_samples)
    _say_rows(found, len(rows), settings)
    stage = "r1_sft" if found.raw else "traces_sft"
    return SftJob(stage, model, directory, settings, rows, (path,), found.dropped, chosen, command, mirror)


def _say_rows(found: TracesFile, taken: int, settings: Gsm8kSettings) -> None:
    dropped = f", {found.dropped} that are not correct left out" if found.dropped else ""
    form = f" (prompt/response: evaluated in the format {settings.prompt_format})" if found.raw else ""
    notice(f"{found.path}: {taken} of {len(found.rows)} rows are trained on{dropped}{form}")
    if taken < settings.train_samples:
        notice(f"that is fewer than --train-samples {settings.train_samples}")


def run_sft(job: SftJob, resume: bool, say: Callable[[str], None]) -> int:
    """Train, and evaluate what was made; 0 and the exit codes of both.

    Raises:
        UsageError: bad input, or a directory that holds something else.
    """
    sources = {str(path): file_sha256(path) for path in job.sources}
    write_config(job.directory, job.stage, job.settings, model=absolute(job.model), sources=sources, filter=job.filter)
    tested = frozenset(each.question for each in job.settings.eval_questions(job.mirror).questions)
    if (leakage := leaked_words(job.rows, tested)).startswith("WARNING"):
        notice(leakage)
    about = RowsAbout(job.command, job.settings.model_dump(mode="json"), job.sources, job.dropped, leakage)
    write_rows(job.directory, job.rows, about)
    code = run_local("sft", _flags(job, resume), job.command, lambda text: say(text.splitlines()[0]), MODEL)
    if code == 0:
        forget_training()
        return evaluate(job.evaluation, say)
    return code


def forget_training() -> None:
    """Give back the device's memory that a training held: the evaluation loads the model anew, perhaps by vLLM."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _flags(job: SftJob, resume: bool) -> Any:
    """The flags of `repo-agent train sft`."""
    settings, made = job.settings, Parser(prog="repo-agent gsm8k sft")
    add_train_flags(made, "sft")
    given: dict[str, object] = {
        "dataset": job.directory / ROWS_FILE,
        "model": job.model,
        "output-dir": job.directory,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "batch-size": settings.train_batch_size,
        "learning-rate": settings.learning_rate,
        "lora-r": settings.lora_r,
        "lora-alpha": 2 * settings.lora_r,
        "max-length": settings.max_length,
        "device": settings.device or "auto",
        "save-steps": settings.save_steps,
        "report-to": "none",
    }
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    words += ["--lora" if settings.lora else "--no-lora"]
    if resume and (job.directory / TRAIN_FILE).exists():
        words.append("--resume")
    return made.parse_args(words)
