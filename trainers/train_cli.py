"""`repo-agent train`: fine-tune a model on rows and pairs, and what belongs to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.cli import Subcommand, at_least, parser_of
from harness.errors import UsageError


def main(argv: Sequence[str]) -> int:
    """Run the command. Raises UsageError for bad input, and where the extra `train` is not installed."""
    args = parser_of("repo-agent train", "Fine-tune a model.", SUBCOMMANDS).parse_args(argv)
    return SUBCOMMANDS[args.command].main(args)


def require_training_libraries() -> None:
    """Raises UsageError, with the command that installs them, where they are missing."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers", "trl", "peft", "datasets") if find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} not installed: pip install -c constraints.txt 'repo-agent[train]'")


def _init_tiny_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--output-dir", type=Path, required=True, help="directory to write; it must be new or empty")
    made.add_argument("--seed", type=at_least(0), default=0, help="of the weights (default: %(default)s)")
    made.add_argument("--vocab-size", type=at_least(300), default=1024, help="tokens (default: %(default)s)")
    made.add_argument("--hidden-size", type=at_least(32), default=128, help="width (default: %(default)s)")
    made.add_argument("--layers", type=at_least(1), default=4, help="(default: %(default)s)")
    made.add_argument("--heads", type=at_least(1), default=4, help="of attention; half of them for keys (default: 4)")


def _init_tiny(args: argparse.Namespace) -> int:
    require_training_libraries()
    from trainers.tiny_model import TinyShape, init_tiny

    kv_heads = max(1, args.heads // 2)
    shape = TinyShape(args.vocab_size, args.hidden_size, args.layers, args.heads, kv_heads, 3 * args.hidden_size)
    parameters = init_tiny(args.output_dir, args.seed, shape)
    print(f"{parameters:,} parameters, {args.vocab_size} tokens, untrained: {args.output_dir}")
    return 0


SUBCOMMANDS = {
    "init-tiny": Subcommand(
        "make a small untrained model from a seed, without a download", _init_tiny, _init_tiny_flags
    ),
}
