"""`repo-agent train merge`: one model of a base and what was trained."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from harness.cli import Subcommand
from harness.errors import UsageError
from harness.optional import TRAINING, require_libraries


def _add_flags(made: argparse.ArgumentParser) -> None:
    from trainers.merge_weights import DTYPES

    made.add_argument("--model", required=True, help="directory of a training run, or of an adapter")
    made.add_argument("--output-dir", type=Path, required=True, help="directory to write; it must be new or empty")
    made.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights (default: as the base has them)")
    made.add_argument("--ollama", action="store_true", help="write a Modelfile for `ollama create` too")
    made.add_argument("--push-to-hub", metavar="NAME", help="then upload it as this model to the Hugging Face hub")
    who = made.add_mutually_exclusive_group()
    who.add_argument("--private", dest="private", action="store_true", default=None, help="on the hub (default)")
    who.add_argument("--public", dest="private", action="store_false", default=None, help="on the hub")


def _merge(args: argparse.Namespace) -> int:
    from trainers.merge import merge
    from trainers.merge_hub import check_push, push

    require_libraries(*TRAINING)
    _silence_bars()
    if args.push_to_hub:
        check_push(args.push_to_hub)
    elif args.private is not None:
        raise UsageError("--private and --public say who sees what --push-to-hub uploads: name a model there")
    eval_name = args.push_to_hub or str(args.output_dir)
    made = merge(args.model, args.output_dir, args.dtype, args.ollama, eval_name)
    if made.default_template:
        print("the tokenizer had no chat template: repo-agent's default template is saved with it")
    print(f"{made.about.parameters:,} parameters in {made.about.dtype}: {args.output_dir}")
    if args.push_to_hub:
        print(f"uploaded: {push(args.output_dir, args.push_to_hub, args.private is not False)}")
    held_out = "eval/suites/quixbugs_test_suite.json"
    print(f"  repo-agent eval --llm-provider hf --model {shlex.quote(eval_name)} --suite {held_out}")
    return 0


def _silence_bars() -> None:
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
        disable_progress_bars()


SUBCOMMAND = Subcommand("make one model of a base and what was trained, for other programs", _merge, _add_flags)
