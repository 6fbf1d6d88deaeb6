"""TRL's SFTTrainer on rows that are tokens already."""

from __future__ import annotations

from typing import Any

from trl import SFTConfig, SFTTrainer

from trainers.train_data import Forest, SftCollator, TreeTraining
from trainers.train_model import Learner


class StepTrainer(TreeTraining, SFTTrainer):
    """Its loss: the mean over the trained tokens of an optimizer step, however they lie in micro-batches."""


def sft_trainer(learner: Learner, common: dict[str, Any], train: Forest, test: Forest | None) -> StepTrainer:
    """A trainer that is ready to train.

    Args:
        common: arguments of the trainer's configuration that have nothing to do with the method.
        test: rows whose loss is measured.
    """
    rows = train.rows + (test.rows if test else ())
    return StepTrainer(
        model=learner.model,
        args=SFTConfig(**common, max_length=None, packing=False),
        train_dataset=train.dataset(),
        eval_dataset=test.dataset(len(train.rows)) if test else None,
        data_collator=SftCollator(rows, learner.tokenizer.pad_token_id),
        processing_class=learner.tokenizer,
        peft_config=learner.new_adapter,
    )
