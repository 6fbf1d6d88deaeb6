"""A training by GRPO on this machine, from its settings to its result: `train grpo` and `gsm8k grpo`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.chat_template import check_bridgeable
from harness.errors import InfrastructureError, UsageError
from harness.model_files import files_sha256
from harness.policies.local_engine import out_of_memory
from harness.policy import PolicyInfo
from harness.progress import notice
from harness.records import Task
from harness.run_files import NOTHING_TO_RESUME, RunConfig
from sandboxes.base import SandboxBackend
from suites.base import Suite
from trainers.full_disk import disk_in_words
from trainers.grpo_episodes import EpisodeSource
from trainers.grpo_rounds import TRACE_DIRECTORY, Rounds, open_traces, questions_of, without_signal
from trainers.grpo_settings import LEARNING_RATES, GrpoSettings, check_settings
from trainers.rewards import QUESTION, REPAIR, REWARDS
from trainers.train_model import Learner, device_name, device_of, load_learner, load_tokenizer, locate
from trainers.train_run import TrainRun
from trainers.train_shared import (
    about_command,
    add_tensorboard,
    owned,
    packs,
    patched,
    save_model,
    shared_arguments,
    train_on,
)
from trainers.train_watch import Diverged, Watch, memory_in_words

EXIT_DIVERGED, EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED = 1, 3, 130


@dataclass(frozen=True)
class _Training:
    """What a training is made of, beside its settings."""

    suite: Suite
    tasks: Sequence[Task]
    backend: SandboxBackend
    workers: int
    save_steps: int
    report_to: str


def run_grpo(
    settings: GrpoSettings,
    suite: Suite,
    tasks: Sequence[Task],
    backend: SandboxBackend,
    output_dir: Path,
    *,
    resume: bool = False,
    result_name: str = "",
    save_steps: int = 20,
    num_workers: int = 8,
    report_to: str = "none",
    command: str = "",
    say: Callable[[str], None] = print,
) -> int:
    """Train on rollouts of the tasks, and `say` where the result is. The backend stays the caller's to close.

    0: done, or done before; 1: the loss became no number; 3: the infrastructure failed; 130: interrupted. The last two
    can be resumed.

    Args:
        settings: what `run_grpo` fills in need not be set.
        output_dir: a training run's directory (trainers.train_run), with the rollouts in traces/.
        result_name: where in it the result is saved; empty: adapter/, or model/ without LoRA.
        save_steps: a checkpoint every so many steps.
        num_workers: rollouts at the same time; also what one generation of `hf` takes.

    Raises:
        UsageError: bad input.
    """
    settings = _filled(settings, suite, tasks)
    run = TrainRun(output_dir, result_name)
    training = _Training(suite, tasks, backend, num_workers, save_steps, report_to)
    with owned(run.path), memory_in_words(settings, _to_lower(settings), out_of_memory), disk_in_words(run.path):
        there = run.claim(settings, resume)
        if resume and there is None:
            notice(NOTHING_TO_RESUME)
        if there and (result := run.result()):
            say(f"this training has ended before. {_result_text(run, result)}")
            return 0
        return _trained(run, settings, training, {**(there or {}), **about_command(there, command)}, say)


def _filled(settings: GrpoSettings, suite: Suite, tasks: Sequence[Task]) -> GrpoSettings:
    """With what is found here. Raises UsageError."""
    check_settings(settings, len(tasks))
    if unknown := sorted(settings.rewards.keys() - REWARDS.keys()):
        raise UsageError(f"there is no reward {unknown[0]!r}: choose from {', '.join(REWARDS)}")
    files = locate(settings.model)
    if settings.kl_beta and not settings.lora and files.adapter:
        raise UsageError("--kl-beta with --no-lora needs a model that is no adapter: make it one by `train merge`")
    device, precision = device_of(settings.device)
    found: dict[str, Any] = {
        "micro_batch_size": settings.micro_batch_size or settings.num_generations,
        "learning_rate": settings.learning_rate or LEARNING_RATES[settings.lora],
        "model": str(files.adapter or files.base),
        "device": device,
        "precision": precision,
        "model_sha256": files_sha256(files),
        "suite": suite.name,
        "suite_version": suite.version,
        "tasks": tuple(task.id for task in tasks),
        "rewards": dict(settings.rewards or (QUESTION if questions_of(suite) else REPAIR)),
    }
    return settings.model_copy(update=found)


def _trained(
    run: TrainRun,
    settings: GrpoSettings,
    training: _Training,
    record: Mapping[str, Any],
    say: Callable[[str], None],
) -> int:
    """Train, and say how it ended: the exit code."""
    try:
        ended = _train(run, settings, training, record)
    except Diverged as error:
        notice(f"error: {error}: lower --learning-rate; nothing was saved after the last checkpoint in {run.path}")
        return EXIT_DIVERGED
    except InfrastructureError as error:
        notice(f"STOPPED: {error}; the same command with --resume goes on from the last checkpoint in {run.path}")
        return EXIT_INFRASTRUCTURE
    if ended is None:
        notice(f"interrupted: the same command with --resume goes on in {run.path}")
        return EXIT_INTERRUPTED
    say(_result_text(run, ended))
    return 0


def _train(
    run: TrainRun, settings: GrpoSettings, training: _Training, record: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The result, None where the training was interrupted."""
    files = locate(settings.model)
    chat = load_tokenizer(files)
    if settings.max_iters > 1 and questions_of(training.suite) is None:
        check_bridgeable(chat)
    learner = load_learner(files, chat, settings)
    described = {"kind": "grpo", "settings": settings.model_dump(mode="json"), "device": device_name(settings.device)}
    run.write_record({**record, **described})
    checkpoint = run.last_checkpoint()
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    before, packing = run.cut_metrics(step), packs(settings, learner, "rollouts")
    with _prepared(run, settings, training, learner, step) as trainer:
        watch = _Watch(run, before)
        watch.packing = patched(trainer, packing)
        watch.workers, trainer.rounds.log = trainer.rounds.workers, watch.log
        _say_plan(settings, training)
        train_on(trainer, watch, checkpoint, before)
        if trainer.state.global_step < trainer.state.max_steps:
            return None
        return _finish(run, settings, learner, trainer, watch)


@contextmanager
def _prepared(run: TrainRun, settings: GrpoSettings, training: _Training, learner: Learner, step: int) -> Iterator[Any]:
    """The trainer with its sampler and its rounds, which are closed at the end."""
    from transformers import PrinterCallback

    from trainers.grpo_samplers import import_engine, open_sampler

    import_engine(settings.engine)
    from trainers.grpo import grpo_trainer

    common = shared_arguments(run, settings, training.save_steps, training.report_to)
    trainer = grpo_trainer(learner, settings, {**common, "max_steps": settings.max_steps}, settings.rewards)
    trainer.remove_callback(PrinterCallback)
    if training.report_to == "tensorboard":
        add_tensorboard(trainer, run)
    network = trainer.accelerator.unwrap_model(trainer.model)
    with closing(open_sampler(settings, learner, network, training.workers, run.path)) as sampler:
        directory, config = run.path / TRACE_DIRECTORY, _config(settings, training)
        open_traces(directory, config, {"engine": sampler.about}, step * settings.num_generations)
        source = EpisodeSource(sampler.policy, PolicyInfo(settings.engine, settings.model, engine=sampler.about))
        rounds = Rounds(
            settings, config, training.suite, training.tasks, source, training.backend, directory, training.workers
        )
        with closing(rounds):
            trainer.sampler, trainer.rounds = sampler, rounds
            yield trainer


def _config(settings: GrpoSettings, training: _Training) -> RunConfig:
    """Of the rollouts, as any run of rollouts has one: they can be replayed, viewed and extracted from."""
    return RunConfig(
        suite=settings.suite,
        suite_version=settings.suite_version,
        tasks=settings.tasks,
        policy=settings.engine,
        model=settings.model,
        oracle=False,
        test_policy=settings.test_policy,
        tool_protocol="json",
        sandbox=training.backend.name,
        isolation=training.backend.isolation,
        max_iters=settings.max_iters,
        rollouts=settings.num_generations * settings.max_steps,
        seed=settings.seed,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        stop_on_loop=settings.stop_on_loop,
        extra={"trained": "grpo"},
    )


def _say_plan(settings: GrpoSettings, training: _Training) -> None:
    weights = ", ".join(f"{name} x {weight:g}" for name, weight in settings.rewards.items() if weight)
    notice(
        f"{len(training.tasks)} tasks of {settings.suite}; a step: {settings.prompts_per_step} tasks x "
        f"{settings.num_generations} rollouts by {settings.engine}; reward: {weights}; {settings.device}"
    )


class _Watch(Watch):
    """Its lines tell of rewards: the loss of GRPO says nothing of progress."""

    _round: Mapping[str, Any] = MappingProxyType({})
    """The figures of the last round: a further step on its rollouts has none of its own."""

    def _text(self, state: Any, line: Mapping[str, Any]) -> str:
        self._round = line if "reward" in line else {**self._round, "loss": line["loss"]}
        solved, reward = (self._round.get(name) or 0.0 for name in ("rollouts/solved", "reward"))
        return f"solved {solved:.0%}, reward {reward:.3f}, {super()._text(state, self._round)}"


def _finish(run: TrainRun, settings: GrpoSettings, learner: Learner, trainer: Any, watch: Watch) -> dict[str, Any]:
    """Save the result, and then say that it is there."""
    name = save_model(run, settings.lora, learner, trainer)
    lines = list(run.metric_lines())
    rounds, last = [line for line in lines if "reward" in line], lines[-1]
    if silent := without_signal(rounds, settings.prompts_per_step):
        notice(silent)
    result = {
        "kind": "grpo",
        "backend": "local",
        "base_model": learner.files.base,
        "adapter": name if settings.lora else None,
        "model": None if settings.lora else name,
        "suite": settings.suite,
        "steps": trainer.state.global_step,
        "rollouts": len(rounds) * settings.rollouts,
        "tokens": int(rounds[-1]["num_tokens"]),
        "computed_tokens": last.get("computed_tokens"),
        "seconds": round(watch.seconds, 1),
        "final_loss": last["loss"],
        "final_reward": rounds[-1]["reward"],
    }
    run.write_result(result)
    return result


def _result_text(run: TrainRun, result: Mapping[str, Any]) -> str:
    place, suite = shlex.quote(str(run.path)), str(result["suite"]).replace(":train", ":test")
    reward = "none" if result["final_reward"] is None else f"{result['final_reward']:.3f}"
    done = f"{result['steps']} steps, {result['rollouts']} rollouts, last reward {reward}: {run.path}"
    return f"{done}\n  repo-agent eval --llm-provider hf --model {place} --suite {suite}"


def _to_lower(settings: GrpoSettings) -> str:
    """What to lower where memory is too small."""
    return f"--micro-batch-size (now {settings.micro_batch_size}), --num-workers, --max-tokens or --max-context"
