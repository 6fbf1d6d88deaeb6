"""The GRPO stage of the pipeline: `trainers.train_grpo` on the train questions, and an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.records import TestPolicy
from suites.opening import open_for
from trainers.grpo_settings import GrpoSettings
from trainers.gsm8k.evaluate import Evaluation, evaluate
from trainers.gsm8k.play import absolute
from trainers.gsm8k.settings import Gsm8kSettings, write_config
from trainers.gsm8k.sft import MODEL, forget_training
from trainers.rewards import QUESTION, reward_weights
from trainers.train_run import TRAIN_FILE


@dataclass(frozen=True)
class GrpoJob:
    """One GRPO stage."""

    model: str
    directory: Path
    settings: Gsm8kSettings
    command: str = ""
    mirror: Path | None = None

    @property
    def evaluation(self) -> Evaluation:
        samples = self.settings.train_samples
        return Evaluation("grpo", str(self.directory), self.directory, self.settings, samples, mirror=self.mirror)

    @property
    def grpo_settings(self) -> GrpoSettings:
        """Raises UsageError for an engine that cannot be trained."""
        settings, engine = self.settings, self.settings.engine
        if engine not in ("hf", "vllm"):
            raise UsageError(f"GRPO samples from the model that it trains: --engine hf or vllm, not {engine}")
        return GrpoSettings(
            model=absolute(self.model),
            seed=settings.seed,
            max_steps=settings.grpo_steps,
            prompts_per_step=settings.prompts_per_step,
            num_generations=settings.num_generations,
            learning_rate=settings.grpo_learning_rate,
            engine="hf" if engine == "hf" else "vllm",
            max_iters=1,
            max_tokens=settings.max_tokens,
            temperature=settings.grpo_temperature,
            test_policy=TestPolicy.FINAL,
            rewards={**QUESTION, **reward_weights(settings.grpo_rewards)},
            kl_beta=settings.grpo_kl_beta,
            loss_type=settings.grpo_loss_type,
            lora=settings.lora,
            lora_r=settings.lora_r,
            lora_alpha=2.0 * settings.lora_r,
            device=settings.device or "auto",
        )


def run_stage(job: GrpoJob, resume: bool, say: Callable[[str], None]) -> int:
    """Train, and evaluate what was made; 0 and the exit codes of both.

    Raises:
        UsageError: bad input, or a directory that holds something else.
    """
    from trainers.train_grpo import run_grpo

    suite, wanted = job.settings.train_questions(job.mirror), job.grpo_settings
    write_config(job.directory, "grpo", job.settings, model=absolute(job.model))
    tasks = list(suite.tasks())
    backend, _ = open_for(tasks, "auto")
    try:
        code = run_grpo(
            wanted,
            suite,
            tasks,
            backend,
            job.directory,
            resume=resume and (job.directory / TRAIN_FILE).exists(),
            result_name=MODEL,
            save_steps=job.settings.save_steps,
            num_workers=job.settings.batch_size,
            command=job.command,
            say=lambda text: say(text.splitlines()[0]),
        )
    finally:
        backend.close()
    if code == 0:
        forget_training()
        return evaluate(job.evaluation, say)
    return code
