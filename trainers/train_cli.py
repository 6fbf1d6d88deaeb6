"""`repo-agent train`: fine-tune a model on rows and pairs, and what belongs to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.cli import Subcommand, at_least, parser_of
from harness.errors import UsageError
from harness.optional import TRAINING, require_libraries
from trainers.card import command_line
from trainers.merge_cli import SUBCOMMAND as MERGE
from trainers.service_cli import SERVICE_ONLY, add_service_flags, run_service_job
from trainers.train_grpo_cli import SUBCOMMAND as GRPO
from trainers.train_quiet import quiet_libraries
from trainers.train_rows import check_data
from trainers.train_settings import LOCAL_DEFAULTS, Kind, add_train_flags, learning_rate


def main(argv: Sequence[str]) -> int:
    """Run the command. Raises UsageError for bad input, and where the extra `train` is not installed."""
    args = parser_of("repo-agent train", "Fine-tune a model.", SUBCOMMANDS).parse_args(argv)
    args.argv = list(argv)
    return SUBCOMMANDS[args.command].main(args)


def _init_tiny_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--output-dir", type=Path, required=True, help="directory to write; it must be new or empty")
    made.add_argument("--seed", type=at_least(0), default=0, help="of the weights (default: %(default)s)")
    made.add_argument("--vocab-size", type=at_least(300), default=1024, help="tokens (default: %(default)s)")
    made.add_argument("--hidden-size", type=at_least(32), default=128, help="width (default: %(default)s)")
    made.add_argument("--layers", type=at_least(1), default=4, help="(default: %(default)s)")
    made.add_argument("--heads", type=at_least(1), default=2, help="of attention (default: %(default)s)")
    made.add_argument(
        "--text", choices=("repair", "arith"), default="repair", help="what its tokenizer knows (default: %(default)s)"
    )
    made.add_argument(
        "--copying-steps", type=at_least(0), default=0, help="practise copying for so many steps (default: none)"
    )


def _init_tiny(args: argparse.Namespace) -> int:
    require_libraries(*TRAINING)
    quiet_libraries()
    from trainers.tiny_model import TinyShape, init_tiny

    shape = TinyShape(args.vocab_size, args.hidden_size, args.layers, args.heads, 3 * args.hidden_size)
    parameters = init_tiny(args.output_dir, args.seed, shape, args.copying_steps, args.text)
    known = f"{args.copying_steps} steps of copying" if args.copying_steps else "untrained"
    print(f"{parameters:,} parameters, {args.vocab_size} tokens, {known}: {args.output_dir}")
    return 0


def _train_flags(kind: Kind, made: argparse.ArgumentParser) -> None:
    add_train_flags(made, kind)
    add_service_flags(made)


def _train_at_service(kind: Kind, args: argparse.Namespace) -> int:
    for name in LOCAL_DEFAULTS:
        if getattr(args, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')} means nothing to a service")
    args.learning_rate = learning_rate(kind, args)
    args.batch_size = args.batch_size or "max"
    return run_service_job(kind, args)


def _train(kind: Kind, args: argparse.Namespace) -> int:
    if args.backend != "local":
        return _train_at_service(kind, args)
    for name in SERVICE_ONLY:
        if getattr(args, name, None):
            raise UsageError(f"--{name.replace('_', '-')} is for --backend together")
    for path in filter(None, (args.dataset, args.eval_dataset)):
        check_data(path, kind)  # before libraries that take seconds to import
    require_libraries(*TRAINING)
    quiet_libraries()
    from trainers.train_local import run_local

    return run_local(kind, args, command_line("train", args.argv), print)


SUBCOMMANDS = {
    "sft": Subcommand("train a model on SFT rows", partial(_train, "sft"), partial(_train_flags, "sft")),
    "dpo": Subcommand("train a model on preference pairs", partial(_train, "dpo"), partial(_train_flags, "dpo")),
    "grpo": GRPO,
    "merge": MERGE,
    "init-tiny": Subcommand(
        "make a small untrained model from a seed, without a download", _init_tiny, _init_tiny_flags
    ),
}
