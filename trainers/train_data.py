"""Batches for TRL's trainers: rows in trees, and trees back to the rows that TRL's own collators take.

An item of the data set is a *tree*: rows that share prefixes and go through the model together, so that packing finds
them in one batch. Without packing each row is a tree. The data set holds only numbers of rows: the rows stay where they
are, as arrays of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from trainers.train_rows import PairRow, Row, StepRow
from trainers.trie import group_units

TREE = "tree"
"""The one column of the data set."""
_IGNORED = -100
"""What TRL calls a label without loss."""


@dataclass(frozen=True)
class Forest:
    """The rows of a training, and which of them go together."""

    rows: tuple[Row, ...]
    trees: tuple[tuple[int, ...], ...]
    trees_per_batch: int
    """So many trees make a micro-batch of about the rows that were asked for."""

    @property
    def rows_per_batch(self) -> float:
        """The mean, without the last batch's rest."""
        return self.trees_per_batch * len(self.rows) / len(self.trees)

    def dataset(self, first: int = 0) -> Any:
        """What TRL's trainers are given; `first` is the collator's number of the first row."""
        from datasets import Dataset

        return Dataset.from_dict({TREE: [[first + index for index in tree] for tree in self.trees]})


def plain_forest(rows: Sequence[Row], batch_size: int) -> Forest:
    """Each row by itself."""
    return Forest(tuple(rows), tuple((index,) for index in range(len(rows))), min(batch_size, len(rows)))


def packed_forest(rows: Sequence[Row], batch_size: int, max_tokens: int) -> Forest:
    """Trees of rows that share prefixes, each of at most `max_tokens` distinct tokens.

    Raises:
        UsageError: one row alone has more.
    """
    longest = max(len(sequence) for row in rows for sequence in row.sequences)
    if longest > max_tokens:
        raise UsageError(f"a row has {longest} tokens, more than --max-packed-tokens {max_tokens}: raise it")
    trees = tuple(tuple(group) for group in group_units([row.sequences for row in rows], max_tokens, batch_size))
    return Forest(tuple(rows), trees, max(1, min(len(trees), round(batch_size * len(trees) / len(rows)))))


class TreeTraining:
    """What TRL's trainers have in common here; to be put before them."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The rows are tokens already."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [TREE]

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Random numbers that it draws are not missing to the training: a resumed run draws the same ones."""
        import torch

        with torch.random.fork_rng():
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]


class SftCollator:
    """Trees to the padded batch of TRL's language-modelling collator, with labels on the completions only."""

    def __init__(self, rows: Sequence[Row], pad_token_id: int) -> None:
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        self._rows, self._pad = rows, DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> Any:
        return self.of_rows([self._rows[index] for item in items for index in item[TREE]])

    def of_rows(self, rows: Sequence[Row]) -> Any:
        return self._pad([_labelled(row) for row in rows if isinstance(row, StepRow)])


def _labelled(row: StepRow) -> dict[str, list[int]]:
    completion = row.completion.tolist()
    return {"input_ids": [*row.prompt.tolist(), *completion], "labels": [_IGNORED] * len(row.prompt) + completion}


class PairCollator:
    """Trees to the padded batch of TRL's preference collator: all chosen sides, then all rejected ones.

    `row_weights` [2 * pairs] go along where the pairs' weights differ.
    """

    def __init__(self, rows: Sequence[Row], pad_token_id: int) -> None:
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        self._rows, self._pad = rows, DataCollatorForPreference(pad_token_id=pad_token_id)
        self._weighted = any(row.weight != 1 for row in rows)

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> Any:
        return self.of_rows([self._rows[index] for item in items for index in item[TREE]])

    def of_rows(self, rows: Sequence[Row]) -> Any:
        import torch

        pairs = [row for row in rows if isinstance(row, PairRow)]
        batch = self._pad([_sides(row) for row in pairs])
        if self._weighted:
            batch["row_weights"] = torch.tensor([row.weight for row in pairs] * 2)
        return batch


def _sides(row: PairRow) -> dict[str, list[int]]:
    return {
        "prompt_ids": row.prompt.tolist(),
        "chosen_ids": row.chosen.tolist(),
        "rejected_ids": row.rejected.tolist(),
    }
