"""All stages over several numbers of training samples; stages that have ended before are left as they are.

ROOT/base, ROOT/prep_sft, ROOT/<n>/full_sft, ROOT/<n>/grpo, and where it is wanted ROOT/<n>/traces, ROOT/<n>/traces_sft
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.progress import notice
from trainers.gsm8k.evaluate import Evaluation, evaluate, finished
from trainers.gsm8k.grpo import GrpoJob, run_stage
from trainers.gsm8k.settings import Gsm8kSettings, check_settings, write_config
from trainers.gsm8k.sft import SftJob, run_sft, solutions_job, traces_job
from trainers.gsm8k.traces import TracesJob, stats_path, write_traces

Say = Callable[[str], None]
Stage = tuple[Path, Gsm8kSettings, Callable[[Say], int]]
"""Its directory, its settings, and what runs it."""
TRACES_FILE = "traces.jsonl"


@dataclass(frozen=True)
class Sweep:
    """What is run."""

    root: Path
    samples: Sequence[int]
    settings: Gsm8kSettings
    with_traces: bool = False
    command: str = ""
    mirror: Path | None = None

    def stages(self) -> Iterator[Stage]:
        """In order."""
        prep, settings = self.root / "prep_sft", self.settings
        yield self.root / "base", settings, self._base
        yield (
            prep,
            settings,
            lambda say: self._sft(solutions_job("prep", settings.base_model, prep, settings, *self._about), say),
        )
        for count in self.samples:
            yield from self._of(count, self.root / str(count), settings.model_copy(update={"train_samples": count}))

    @property
    def _about(self) -> tuple[str, Path | None]:
        return self.command, self.mirror

    def _of(self, count: int, place: Path, settings: Gsm8kSettings) -> Iterator[Stage]:
        prep, full, grpo = str(self.root / "prep_sft"), place / "full_sft", place / "grpo"
        yield full, settings, lambda say: self._sft(solutions_job("full", prep, full, settings, *self._about), say)
        yield grpo, settings, lambda say: run_stage(GrpoJob(prep, grpo, settings, *self._about), True, say)
        if self.with_traces:
            yield place / "traces", settings, lambda say: self._traces(place, settings, say)
            file, sft = place / "traces" / TRACES_FILE, place / "traces_sft"
            yield (
                sft,
                settings,
                lambda say: self._sft(traces_job(file, "correct", prep, sft, settings, *self._about), say),
            )

    def _base(self, say: Say) -> int:
        directory, settings = self.root / "base", self.settings
        write_config(directory, "base", settings, model=settings.base_model)
        return evaluate(Evaluation("base", settings.base_model, directory, settings, 0, mirror=self.mirror), say)

    def _sft(self, job: SftJob, say: Say) -> int:
        return run_sft(job, True, say)

    def _traces(self, place: Path, settings: Gsm8kSettings, say: Say) -> int:
        directory, suite = place / "traces", settings.train_questions(self.mirror)
        write_config(directory, "traces", settings, model=str(place / "grpo"))
        file = directory / TRACES_FILE
        job = TracesJob(str(place / "grpo"), directory, file, settings, suite, settings.traces_temperature)
        return write_traces(job, True, say)


def run_sweep(sweep: Sweep, say: Say) -> int:
    """Run every stage that has not ended; the exit code of the first that does not end.

    Raises:
        UsageError: bad input, or a directory that holds a run with other settings.
    """
    largest = sweep.settings.model_copy(update={"train_samples": max(sweep.samples)})
    largest.train_questions(sweep.mirror)  # too many are refused before the first stage
    for directory, settings, run in sweep.stages():
        if ended(directory):
            check_settings(directory, settings)
            notice(f"{directory} has ended before")
            continue
        say(f"== {directory}")
        if code := run(say):
            return code
    return 0


def ended(directory: Path) -> bool:
    """The stage's last file is there: figures of the evaluation, or of the traces."""
    return finished(directory) is not None or stats_path(directory / TRACES_FILE).exists()
