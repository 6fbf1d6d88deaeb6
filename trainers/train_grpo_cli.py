"""`repo-agent train grpo`: the flags, and the tasks and sandboxes that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from harness.cli import Subcommand, add_sandbox_flags, add_suite_flags, amount, at_least
from harness.errors import UsageError
from harness.optional import TRAINING, require_libraries
from harness.progress import notice
from harness.records import Task, TestPolicy
from sandboxes.base import Isolation, SandboxBackend
from sandboxes.no_sandbox import NONE
from sandboxes.verdict_cache import CachedBackend, verdict_directory
from suites.base import Suite, load
from suites.fetch import mirror_directory
from suites.opening import open_for, prepared
from trainers.card import command_line
from trainers.grpo_rounds import questions_of
from trainers.grpo_settings import LEARNING_RATES, GrpoSettings, LossType
from trainers.rewards import DENSE, QUESTION, REPAIR, REWARDS
from trainers.train_quiet import quiet_libraries
from trainers.train_settings import REPORTERS, SCHEDULERS, reporter

REWARD_NAMES = ", ".join(REWARDS)


def add_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--suite", default="minibugs", help="suite name or suite file (default: %(default)s)")
    made.add_argument("--split", choices=("train", "all"), default="train", help="the suite's part (default: train)")
    made.add_argument("--limit", type=at_least(1), help="only the first N tasks")
    add_suite_flags(made)
    made.add_argument("--model", required=True, help="directory, training run or adapter, or name on the hub")
    made.add_argument("--output-dir", type=Path, help="the run's directory (default: runs/grpo-DATE)")
    made.add_argument("--resume", action="store_true", help="go on where the run in --output-dir was interrupted")
    made.add_argument("--seed", type=at_least(0), default=0, help="of tasks, rollouts, adapters (default: 0)")
    _add_steps(made.add_argument_group("steps"))
    _add_episodes(made.add_argument_group("episodes"))
    _add_rewards(made.add_argument_group("rewards and loss"))
    _add_lora(made.add_argument_group("what is trained"))
    _add_machine(made.add_argument_group("this machine"))
    add_sandbox_flags(made)
    made.set_defaults(num_workers=8)


def _flag(group: Any, name: str, convert: Any, about: str) -> None:
    """A flag whose default is that of the field of its name in GrpoSettings."""
    default = GrpoSettings.model_fields[name].default
    group.add_argument(f"--{name.replace('_', '-')}", type=convert, default=default, help=f"{about} (%(default)s)")


def _add_steps(group: Any) -> None:
    _flag(group, "max_steps", at_least(1), "optimizer steps")
    _flag(group, "prompts_per_step", at_least(1), "tasks of a round of rollouts")
    _flag(group, "num_generations", at_least(2), "rollouts of each of them")
    _flag(group, "num_iterations", at_least(1), "steps on the rollouts of a round")
    group.add_argument("--micro-batch-size", type=at_least(1), help="rollouts in one pass (default: a group)")
    rates = f"{LEARNING_RATES[True]:g} with LoRA, {LEARNING_RATES[False]:g} without"
    group.add_argument("--learning-rate", type=amount, help=f"(default: {rates})")
    group.add_argument("--lr-scheduler", choices=SCHEDULERS, default="constant", help="(default: %(default)s)")
    _flag(group, "warmup_ratio", amount, "share of the steps")
    _flag(group, "weight_decay", amount, "of the optimizer")
    group.add_argument("--curriculum", action="store_true", help="tasks always or never solved rest for some rounds")


def _add_episodes(group: Any) -> None:
    group.add_argument(
        "--engine", choices=("hf", "vllm"), default="hf", help="what samples: the trained network itself, or vLLM"
    )
    _flag(group, "max_iters", at_least(1), "turns of an episode")
    _flag(group, "max_tokens", at_least(1), "of one completion")
    group.add_argument("--max-context", type=at_least(1), help="tokens of an episode (default: the model's)")
    _flag(group, "temperature", amount, "of sampling")
    policies = [str(TestPolicy.ON_WRITE), str(TestPolicy.FINAL)]
    group.add_argument("--test-policy", choices=policies, default=policies[0], help="when tests run (%(default)s)")
    group.add_argument("--stop-on-loop", action="store_true", help="end a rollout when a loop is detected")


def _add_rewards(group: Any) -> None:
    group.add_argument(
        "--reward",
        choices=("score", "dense"),
        default="score",
        help="score: what evaluation counts; dense: and the share of the tests that pass (default: %(default)s)",
    )
    group.add_argument(
        "--reward-weight",
        type=_weight,
        action="append",
        default=[],
        metavar="NAME=WEIGHT",
        help=f"of one reward, 0 to log it only: {REWARD_NAMES}",
    )
    group.add_argument(
        "--truncated",
        choices=("count", "mask"),
        default="count",
        help="rollouts that a limit of tokens ended: trained on like others (default), or left out of the loss",
    )
    _flag(group, "kl_beta", amount, "pull towards the model as it was")
    _flag(group, "epsilon", amount, "the ratio is clipped so far from 1")
    group.add_argument("--loss-type", choices=get_args(LossType), default="dapo", help="TRL's name (%(default)s)")


def _weight(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not equals or name not in REWARDS:
        raise argparse.ArgumentTypeError(f"not NAME=WEIGHT with one of {REWARD_NAMES}: {text!r}")
    return name, amount(value)


def _add_lora(group: Any) -> None:
    group.add_argument("--lora", action=argparse.BooleanOptionalAction, default=True, help="an adapter (default)")
    _flag(group, "lora_r", at_least(1), "rank")
    _flag(group, "lora_alpha", amount, "scale")
    _flag(group, "lora_targets", str, "names of linear layers, with commas")


def _add_machine(group: Any) -> None:
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    group.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    group.add_argument(
        "--packing", choices=("trie", "none"), default="trie", help="trie: common prefixes are computed once"
    )
    group.add_argument("--save-steps", type=at_least(1), default=20, help="a checkpoint every N steps (20)")
    group.add_argument("--report-to", choices=REPORTERS, help="beside metrics.jsonl (default: tensorboard)")


def train(args: argparse.Namespace) -> int:
    """Raises UsageError for bad input."""
    require_libraries(*TRAINING)
    quiet_libraries()
    from trainers.train_grpo import run_grpo

    if args.resume and args.output_dir is None:
        raise UsageError("--resume needs --output-dir, the run to continue")
    suite = load(args.suite, mirror_directory(args.mirror))
    tasks, notices = prepared(suite, _chosen(suite, args), args.num_workers)
    if not tasks:
        raise UsageError(f"no task of {args.suite} can be trained on: {next(iter(notices), f'--split {args.split}')}")
    with closing(_opened(tasks, args, notices)) as backend:
        return run_grpo(
            _settings(args, suite),
            suite,
            tasks,
            backend,
            args.output_dir or Path("runs") / f"grpo-{datetime.now(UTC):%Y%m%d-%H%M%S}",
            resume=args.resume,
            save_steps=args.save_steps,
            num_workers=args.num_workers,
            report_to=reporter(args.report_to),
            command=command_line("train", args.argv),
        )


def _chosen(suite: Suite, args: argparse.Namespace) -> list[Task]:
    return [task for task in suite.tasks() if args.split in ("all", suite.split_of(task))][: args.limit]


def _opened(tasks: Sequence[Task], args: argparse.Namespace, notices: Sequence[str]) -> SandboxBackend:
    """The backend that the flags ask for, behind the verdict cache: rollouts of a group often come to the same tree."""
    isolation = Isolation(args.isolation)
    backend, said = open_for(tasks, args.sandbox, args.base_image, False, isolation, args.num_workers)
    for line in (*notices, *said):
        notice(line)
    return backend if backend.name == NONE else CachedBackend(backend, verdict_directory())


def _settings(args: argparse.Namespace, suite: Suite) -> GrpoSettings:
    names = GrpoSettings.model_fields.keys() & vars(args).keys() - {"suite"}
    return GrpoSettings(**{name: getattr(args, name) for name in names}, rewards=_rewards(args, suite))


def _rewards(args: argparse.Namespace, suite: Suite) -> dict[str, float]:
    """Raises UsageError for rewards that the suite's tasks do not have."""
    asked = questions_of(suite) is not None
    if asked and args.reward == "dense":
        raise UsageError("--reward dense is for suites with tests: questions have none")
    weights = {**(QUESTION if asked else DENSE if args.reward == "dense" else REPAIR), **dict(args.reward_weight)}
    if strange := sorted(weights.keys() - (REWARDS.keys() - {"passing_tests"} if asked else REPAIR.keys())):
        raise UsageError(f"--reward-weight {strange[0]}: tasks of {suite.name} have no such reward")
    return weights


SUBCOMMAND = Subcommand("train a model by GRPO on its own rollouts", train, add_flags)
