"""TRL's GRPOTrainer on episodes of the gym: it is handed rows of sampled tokens, and each row's rewards.

What is TRL's: advantages, ratio and clipping, the loss, entropy and KL. What is ours: which tasks are played, the
rollouts (harness.rollout), their scores, the check that sampler and trainer agree, and what is logged of all that.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from harness.errors import InfrastructureError
from trainers.grpo_episodes import EpisodeTokens
from trainers.grpo_rounds import Rounds, round_metrics
from trainers.grpo_samplers import Sampler
from trainers.grpo_settings import GrpoSettings
from trainers.rewards import Outcome, rewarded
from trainers.train_model import Learner
from trainers.train_shared import AdapterResumed
from trainers.trie_packing import row_log_probs

ORDER_FILE = "tasks.json"
"""In a checkpoint: where the order of tasks stands."""
CHECKED_ROWS = 4
"""Rollouts of a round whose log-probabilities are computed again."""
TOLERANCE = {"float32": 1e-3, "bf16": 0.1}
"""Between the sampler's log-probabilities and the trainer's, in the mean over tokens: rounding, by precision."""


class EpisodeTrainer(AdapterResumed, GRPOTrainer):
    """Its rows are the rollouts of rounds. The data set only counts them: tasks are dealt by the rounds."""

    rounds: Rounds
    sampler: Sampler
    weights: Mapping[str, float]
    _mark = 0.0
    """When training began, or went on: the end of the last rollouts or of the last step."""

    def play(self) -> dict[str, list[Any]]:
        """A round with the weights as they are now: the rows, and how each episode ended."""
        before = self.sampler.seconds
        with self.sampler.speaking(self.accelerator.unwrap_model(self.model)):
            groups = self.rounds.play(self.state.global_step)
        rows = [played for group in groups for played in group]
        self._note(round_metrics(groups, self.weights))
        self._note({"curriculum/resting": len(self.rounds.order.resting)})
        self._note({"seconds/rollouts": self.rounds.seconds, "seconds/generating": self.sampler.seconds - before})
        self._check([each.tokens for each in rows])
        self._mark = time.monotonic()
        fields = ("prompt_ids", "completion_ids", "logprobs", "env_mask")
        columns = {name: [list(getattr(each.tokens, name)) for each in rows] for name in fields}
        return {**columns, "outcome": [each.outcome for each in rows]}

    def _note(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._metrics["train"][name].append(float(value))

    def _check(self, rows: Sequence[EpisodeTokens]) -> None:
        """Raises InfrastructureError where the sampler does not speak with the trained weights."""
        gaps = logprob_gaps(self, rows)
        if not len(gaps):
            return
        mean = float(gaps.mean())
        self._note({"sampler_gap/mean": mean, "sampler_gap/max": float(gaps.max())})
        allowed = TOLERANCE["bf16" if self.args.bf16 else "float32"]
        if not mean <= allowed:
            raise InfrastructureError(
                f"step {self.state.global_step}: the sampler does not speak with the trained weights: in the mean over "
                f"{len(gaps)} tokens its log-probabilities are {mean:.2g} off the trainer's (at most {allowed:g})"
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._mark:
            self._note({"seconds/training": time.monotonic() - self._mark})
            self._mark = time.monotonic()
        super().log(logs, start_time)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.rounds.order.restore(json.loads((Path(resume_from_checkpoint) / ORDER_FILE).read_text(encoding="utf-8")))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        directory = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (directory / ORDER_FILE).write_text(json.dumps(self.rounds.order.state()) + "\n", encoding="utf-8")


def logprob_gaps(trainer: Any, rows: Sequence[EpisodeTokens]) -> torch.Tensor:
    """How far the sampler's log-probabilities of the model's tokens are from the trainer's own, for some rows."""
    checked = [row for row in rows if any(row.env_mask)][:: max(1, len(rows) // CHECKED_ROWS)][:CHECKED_ROWS]
    if not checked:
        return torch.empty(0)
    ids = [(*row.prompt_ids, *row.completion_ids) for row in checked]
    places = [[len(row.prompt_ids) + place for place, mine in enumerate(row.env_mask) if mine] for row in checked]
    with torch.no_grad(), trainer.accelerator.autocast():
        found = torch.cat(row_log_probs(trainer.model, ids, places)).float().cpu()
    said = [value for row in checked for value, mine in zip(row.logprobs, row.env_mask, strict=True) if mine]
    return (found - torch.tensor(said)).abs()


def grpo_trainer(
    learner: Learner, settings: GrpoSettings, common: Mapping[str, Any], weights: Mapping[str, float]
) -> EpisodeTrainer:
    """A trainer that lacks its sampler and its rounds: they need the network as the trainer has wrapped it.

    Args:
        common: arguments of TRL's configuration that have nothing to do with the method.
        weights: of the rewards, by name.
    """
    from datasets import Dataset

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # the hook is known to be one
    count = settings.prompts_per_step * settings.rounds
    trainer = EpisodeTrainer(
        model=learner.model,
        reward_funcs=[_reward(name) for name in weights],
        args=GRPOConfig(**common, **_method(settings), reward_weights=list(weights.values())),
        train_dataset=Dataset.from_dict({"prompt": [str(number) for number in range(count)]}),
        processing_class=learner.tokenizer,
        peft_config=learner.new_adapter,
        rollout_func=lambda prompts, trainer: trainer.play(),
    )
    trainer.weights = weights
    if settings.engine == "vllm":
        _correct_for_the_sampler(trainer)
    trainer.eos_token_ids = [*learner.chat.end_ids[-1:], learner.tokenizer.eos_token_id]
    return trainer


def _correct_for_the_sampler(trainer: Any) -> None:
    """Weigh tokens by how much likelier the trainer makes them than vLLM, as TRL does for an engine of its own; ours
    has the weights already when TRL asks for them to be brought over.
    """
    trainer.use_vllm, trainer._last_loaded_step = True, -1
    trainer.vllm_generation = SimpleNamespace(sync_weights=lambda: None)


def _reward(name: str) -> Callable[..., list[float | None]]:
    def reward(outcome: Sequence[Outcome], **columns: Any) -> list[float | None]:
        return [rewarded(each, name) for each in outcome]

    reward.__name__ = name
    return reward


def _method(settings: GrpoSettings) -> dict[str, Any]:
    """Arguments of TRL's configuration that make up the method. Nothing narrows what is sampled: top_p is 1."""
    size = settings.micro_batch_size or settings.num_generations
    passes = settings.rollouts // size
    return {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": passes,
        "steps_per_generation": passes,
        "num_generations": settings.num_generations,
        "num_iterations": settings.num_iterations,
        "max_completion_length": settings.max_tokens,
        "temperature": settings.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "beta": settings.kl_beta,
        "epsilon": settings.epsilon,
        "loss_type": settings.loss_type,
        "scale_rewards": "group",
        "shuffle_dataset": False,
        "disable_dropout": True,
    }
