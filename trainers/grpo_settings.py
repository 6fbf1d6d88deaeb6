"""The settings of GRPO: the record of what decides the result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.errors import UsageError
from harness.records import Record, TestPolicy

LossType = Literal["dapo", "grpo", "dr_grpo", "bnpo"]
LEARNING_RATES = {True: 1e-5, False: 1e-6}
"""The defaults with LoRA and without."""


class GrpoSettings(Record):
    """What decides the result of a training by GRPO. Runs with equal settings may be continued."""

    kind: Literal["grpo"] = "grpo"
    model: str
    """A directory (a model, a training run, an adapter), or a name on the hub."""
    seed: int = 0
    max_steps: int = 100
    """Optimizer steps."""
    prompts_per_step: int = 4
    """Tasks of a round of rollouts."""
    num_generations: int = 8
    """Rollouts of each of them: a group."""
    num_iterations: int = 1
    """Optimizer steps on the rollouts of a round; from the second on the ratio is clipped."""
    micro_batch_size: int | None = None
    """Rollouts in one pass of training; it divides those of a round. None: a group."""
    learning_rate: float | None = None
    """None: 1e-5 with LoRA, 1e-6 without."""
    lr_scheduler: str = "constant"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    engine: Literal["hf", "vllm"] = "hf"
    max_iters: int = 10
    """Turns of an episode."""
    max_tokens: int = 512
    """Of one completion."""
    max_context: int | None = None
    """Tokens of an episode; None: what the model was made for."""
    temperature: float = 1.0
    test_policy: TestPolicy = TestPolicy.ON_WRITE
    stop_on_loop: bool = False
    rewards: dict[str, float] = Field(default_factory=dict)
    """Weights of the rewards (trainers.rewards.REWARDS) that are computed, 0 to log one only; empty: the default of the
    suite's kind."""
    truncated: Literal["count", "mask"] = "count"
    """Rollouts that a limit of tokens ended: trained on like others, or left out of the loss."""
    kl_beta: float = 0.0
    """Pull towards the model as it was; 0: no reference is kept."""
    epsilon: float = 0.2
    """The ratio is clipped at 1 - epsilon and 1 + epsilon."""
    loss_type: LossType = "dapo"
    """TRL's name of how token losses are averaged."""
    curriculum: bool = False
    """Tasks that are always or never solved rest for some rounds (trainers.grpo_curriculum)."""
    lora: bool = True
    lora_r: int = 16
    lora_alpha: float = 32.0
    lora_targets: str = "all-linear"
    packing: Literal["trie", "none"] = "trie"
    """trie: what a group's rollouts share is computed once; the same loss."""
    gradient_checkpointing: bool = False
    device: str = "auto"
    """auto, cpu or cuda; what follows is filled in by `run_grpo`."""
    precision: Literal["bf16", "float32"] = "float32"
    model_sha256: str | None = None
    suite: str = ""
    suite_version: str = ""
    tasks: tuple[str, ...] = ()

    @property
    def lora_dropout(self) -> float:
        """None: the sampler, which has no dropout, and the trainer must speak alike."""
        return 0.0

    @property
    def rollouts(self) -> int:
        """Of a round."""
        return self.prompts_per_step * self.num_generations

    @property
    def rounds(self) -> int:
        return -(-self.max_steps // self.num_iterations)


def check_settings(settings: GrpoSettings, tasks: int) -> None:
    """Raises UsageError for settings that do not fit together."""
    if settings.num_generations < 2:
        raise UsageError("--num-generations must be at least 2: rollouts of a group are compared with each other")
    if tasks < settings.prompts_per_step:
        raise UsageError(f"--prompts-per-step {settings.prompts_per_step}: there are only {tasks} tasks")
    if settings.rollouts % (settings.micro_batch_size or 1):
        raise UsageError(
            f"--micro-batch-size {settings.micro_batch_size} does not divide the {settings.rollouts} rollouts of a step"
        )
    if settings.temperature <= 0:
        raise UsageError("--temperature must be more than 0: rollouts of a group would all be the same")
    if settings.test_policy is TestPolicy.NEVER:
        raise UsageError("--test-policy never gives no score to train on")
    if settings.engine == "vllm" and not settings.lora:
        raise UsageError("--engine vllm takes an adapter after each step, no whole model: train with --lora")
