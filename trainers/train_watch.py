"""What happens beside a training: its metrics, its lines on the terminal, its interruption, its end without success."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from transformers import TrainerCallback

from harness.errors import UsageError
from harness.progress import ProgressView, notice, progress_view, unseen
from harness.progress_log import ProgressLog
from harness.progress_workers import Workers
from trainers.grpo_settings import GrpoSettings
from trainers.train_run import TrainRun
from trainers.train_settings import TrainSettings

_LINE_SECONDS = 10.0
"""Between two lines in a log."""


class Diverged(Exception):
    """The loss or the gradient is no number any more."""


class Watch(TrainerCallback):
    """Writes a line of metrics per step, marks checkpoints that are complete, and stops where it is asked to. A context
    manager around the training, which keeps the log of its progress.
    """

    def __init__(self, run: TrainRun, before: Mapping[str, Any]) -> None:
        self._run, self._before = run, before
        self._began = self._said = time.monotonic()
        self._first = 0
        self._view: ProgressView | None = None
        self.log = ProgressLog(run.path, notice)
        self.workers = Workers()
        """What plays the rollouts that are trained on, if any."""
        self.interrupted = False
        self.packing: Any = None
        """The figures of packing (trainers.trie_packing), if rows are packed."""

    @property
    def seconds(self) -> float:
        """Of training, with what came before an interruption."""
        return float(self._before.get("seconds", 0.0)) + time.monotonic() - self._began

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began, self._first = time.monotonic(), state.global_step
        left, before = state.max_steps - state.global_step, (state.global_step, state.global_step)
        screen = None if sys.stderr.isatty() else unseen
        view = progress_view(left, "steps", "steps", self.log, None, before, self.workers, screen)
        self._view = view.__enter__()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._close_view()

    def __enter__(self) -> Self:
        self.log.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_view()
        if self.interrupted:
            self.log.leave("interrupted")
        self.log.__exit__(kind, error, trace)

    def _close_view(self) -> None:
        if self._view is not None:
            self._view.__exit__(None, None, None)
            self._view = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.interrupted and state.epoch != round(state.epoch):  # it is called where an epoch is broken off too
            control.should_evaluate = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._run.mark_complete(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        line = {"step": state.global_step, **logs, **self._computed(), "seconds": round(self.seconds, 2)}
        with self._run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(line.get(name, 0.0))]
        if bad:
            raise Diverged(f"step {state.global_step}: {bad[0]} is {line[bad[0]]}")
        self._show(state, line)

    def _computed(self) -> dict[str, int]:
        """Tokens that the model ran over so far, a reference's passes included: fewer than the rows have."""
        if self.packing is None:
            return {}
        return {"computed_tokens": int(self._before.get("computed_tokens", 0)) + self.packing.computed_tokens}

    def _show(self, state: Any, line: Mapping[str, Any]) -> None:
        if "loss" not in line:
            return notice(
                f"step {state.global_step}: loss on the evaluation rows {line.get('eval_loss', math.nan):.4g}"
            )
        text = self._text(state, line)
        due = state.global_step in (self._first + 1, state.max_steps) or time.monotonic() - self._said >= _LINE_SECONDS
        if self._view is not None:
            self._view.done(text, True)
        if due and not sys.stderr.isatty():
            self._said = time.monotonic()
            notice(f"step {state.global_step}/{state.max_steps}, {text}")
        return None

    def _text(self, state: Any, line: Mapping[str, Any]) -> str:
        spent = max(time.monotonic() - self._began, 1e-9)
        tokens = line.get("num_tokens", 0) - self._before.get("num_tokens", 0)
        left = spent / (state.global_step - self._first) * (state.max_steps - state.global_step)
        return f"loss {line['loss']:.4g}, {tokens / spent:,.0f} tokens/s, {left:.0f} s left"


@contextmanager
def stop_at_interrupt(watch: Watch) -> Iterator[None]:
    """The first SIGINT ends the training after a checkpoint at the next step, the second at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: object) -> None:
        watch.interrupted = True
        signal.signal(signal.SIGINT, before)
        notice("interrupted: a checkpoint is written at the end of this step (again: stop at once)")

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def out_of_memory(error: BaseException) -> bool:
    import torch

    said = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in said


@contextmanager
def memory_in_words(
    settings: TrainSettings | GrpoSettings, lower: str, lacking: Callable[[BaseException], bool] = out_of_memory
) -> Iterator[None]:
    """An exhausted memory as a UsageError that names the settings to `lower`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacking(error):
            raise
        checkpointing = "" if settings.gradient_checkpointing else ", or say --gradient-checkpointing"
        raise UsageError(f"out of memory on {settings.device}: lower {lower}{checkpointing}") from error
