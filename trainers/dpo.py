"""TRL's DPOTrainer on pairs that are tokens already, each counted equally or by its confidence."""

from __future__ import annotations

import copy
from typing import Any

from trl import DPOConfig, DPOTrainer

from trainers.train_data import Forest, PairCollator, TreeTraining
from trainers.train_model import Learner
from trainers.train_settings import TrainSettings
from trainers.train_shared import AdapterResumed


class PairTrainer(TreeTraining, AdapterResumed, DPOTrainer):
    """Its loss: the mean over the pairs of an optimizer step, however they lie in micro-batches."""

    loss_is_scaled_for_ga = True

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> int:
        """The pairs of an optimizer step: trees differ in size, so micro-batches do."""
        return sum(len(batch["input_ids"]) // 2 for batch in batch_samples)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        pairs = len(inputs["input_ids"]) // 2
        share = 1.0 if num_items_in_batch is None else pairs / int(num_items_in_batch)
        found = super().compute_loss(model, inputs, return_outputs)
        return (found[0] * share, found[1]) if return_outputs else found * share


def dpo_trainer(
    learner: Learner, settings: TrainSettings, common: dict[str, Any], train: Forest, test: Forest | None
) -> PairTrainer:
    """A trainer that is ready to train.

    The reference is the model as it is now: for a new adapter the model without it, for one that is trained on TRL's
    copy of it, for a whole model a frozen copy.

    Args:
        common: arguments of the trainer's configuration that have nothing to do with the method.
        test: pairs whose loss is measured.
    """
    rows = train.rows + (test.rows if test else ())
    return PairTrainer(
        model=learner.model,
        ref_model=None if settings.lora else copy.deepcopy(learner.model).eval().requires_grad_(False),
        args=DPOConfig(**common, max_length=None, beta=settings.beta, **_loss(settings)),
        train_dataset=train.dataset(),
        eval_dataset=test.dataset(len(train.rows)) if test else None,
        data_collator=PairCollator(rows, learner.tokenizer.pad_token_id),
        processing_class=learner.tokenizer,
        peft_config=learner.new_adapter,
    )


def _loss(settings: TrainSettings) -> dict[str, Any]:
    """That of the pairs, and where it is wanted SFT on the chosen sides (Pang et al., arXiv:2404.19733)."""
    if not settings.sft_weight:
        return {"loss_type": [settings.loss_type]}
    return {"loss_type": [settings.loss_type, "sft"], "loss_weights": [1.0, settings.sft_weight]}
