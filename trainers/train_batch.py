"""`--batch-size max`: the largest batch that fits, found by real trial steps on the longest rows."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from trainers.train_rows import Row
from trainers.train_watch import out_of_memory

_SHARE_OF_FREE = 0.8
"""Of the host's free memory that a batch may be expected to need: who takes more there is killed, not refused."""


def largest_batch(trainer: Any, rows: Sequence[Row], collator: Any) -> int:
    """How many rows fit in one batch: doubled until memory ends or all rows are in it.

    The rows are tried unpacked, the longest first, with gradients and the optimizer's state: what training needs at
    most. Weights and random state stay as they are.

    Raises:
        RuntimeError: out of memory with one row already.
    """
    longest = sorted(rows, key=lambda row: -max(map(len, row.sequences)))
    trial = _Trial(trainer, collator)
    with torch.random.fork_rng():
        fits = 1
        trial.step(longest[:1])
        while fits < len(rows):
            size = min(2 * fits, len(rows))
            if not trial.likely(size) or not trial.fits(longest[:size]):
                break
            fits = size
    trial.end()
    return fits


class _Trial:
    """Steps of a learning rate of 0."""

    def __init__(self, trainer: Any, collator: Any) -> None:
        self._trainer, self._collator = trainer, collator
        trained = [each for each in trainer.model.parameters() if each.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)
        self._host = trainer.args.device.type == "cpu"
        self._bytes_per_row = 0.0
        if trainer.args.gradient_checkpointing:
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)

    def step(self, rows: Sequence[Row]) -> None:
        before = psutil.Process().memory_info().rss
        batch = self._trainer._prepare_inputs(self._collator.of_rows(rows))
        batch.pop("row_weights", None)
        self._trainer.model.train()
        with self._trainer.accelerator.autocast():
            loss = self._trainer.compute_loss(self._trainer.model, batch)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._bytes_per_row = max(0, peak - before) / len(rows)

    def fits(self, rows: Sequence[Row]) -> bool:
        try:
            self.step(rows)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        return True

    def likely(self, size: int) -> bool:
        """On the host a batch that does not fit is not tried."""
        return not self._host or self._bytes_per_row * size < _SHARE_OF_FREE * psutil.virtual_memory().available

    def end(self) -> None:
        self._optimizer.zero_grad()
        self._trainer._metrics["train"].clear()
        self._trainer._total_train_tokens = 0
        if not self._host:
            torch.cuda.empty_cache()
