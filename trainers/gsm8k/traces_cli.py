"""`repo-agent gsm8k traces`: reasoning traces, of a model that was trained, of a teacher, or of the data."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import Subcommand, add_suite_flags, amount, at_least
from harness.errors import UsageError
from trainers.gsm8k.play import absolute
from trainers.gsm8k.r1_traces import write_original, write_r1_traces
from trainers.gsm8k.settings import (
    SAMPLING,
    Gsm8kSettings,
    add_setting_flags,
    directory_of,
    made_by,
    resolve,
    write_config,
)
from trainers.gsm8k.traces import TracesJob, write_traces

R1_DIRECTORY = Path("data/gsm8k")


def _add_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--style",
        choices=("grpo", "r1", "original"),
        default="grpo",
        help="grpo: a trained model's first right sample, else the solution (default); r1: a teacher's; original: none",
    )
    made.add_argument("--grpo-model", default="", help="grpo: the model that is sampled (default: OUTPUT_DIR/grpo)")
    made.add_argument("--model", default="", help="r1: the teacher, a directory or a name (default: BASE_MODEL)")
    made.add_argument("--output-dir", type=Path, help=f"(default: OUTPUT_DIR/traces; r1, original: {R1_DIRECTORY})")
    made.add_argument("--output-file", default="traces.jsonl", help="grpo: in --output-dir unless it is absolute")
    made.add_argument("--dataset-split", choices=("train", "test"), default="train", help="(default: train)")
    made.add_argument("--num-samples", type=at_least(1), help="questions (default: TRAIN_SAMPLES; r1, original: all)")
    made.add_argument("--temperature", dest="sampled_at", type=amount, help="(default: 0.8; r1: 0.7)")
    made.add_argument("--resume", action="store_true", help="go on where the run in --output-dir was left")
    add_suite_flags(made)
    add_setting_flags(made, (*SAMPLING, "max_attempts"))


def _main(args: argparse.Namespace) -> int:
    if args.style != "grpo":
        return _pairs(args)
    if args.model:
        raise UsageError("--model is for --style r1: say --grpo-model")
    settings = _settings(args)
    directory = directory_of(args, settings, "traces")
    model = args.grpo_model or made_by(Path(settings.output_dir) / "grpo", "grpo", "--grpo-model")
    write_config(directory, "traces", settings, model=absolute(model), split=args.dataset_split)
    if args.dataset_split == "test":
        suite = settings.model_copy(update={"eval_samples": settings.train_samples}).eval_questions(args.mirror)
    else:
        suite = settings.train_questions(args.mirror)
    file = directory / args.output_file
    job = TracesJob(model, directory, file, settings, suite, settings.traces_temperature)
    return write_traces(job, args.resume, print)


def _settings(args: argparse.Namespace) -> Gsm8kSettings:
    found = resolve(args)
    given = {"traces_temperature": args.sampled_at, "train_samples": args.num_samples}
    return found.model_copy(update={name: value for name, value in given.items() if value is not None})


def _pairs(args: argparse.Namespace) -> int:
    """Prompt/response rows."""
    if args.grpo_model:
        raise UsageError(f"--grpo-model is for --style grpo, not {args.style}")
    if args.dataset_split != "train":
        raise UsageError(f"--style {args.style} takes the train part")
    settings = resolve(args).model_copy(update={"prompt_format": "r1"})
    directory = args.output_dir or R1_DIRECTORY
    suite = settings.all_train_questions(args.mirror, args.num_samples)
    temperature = settings.r1_temperature if args.sampled_at is None else args.sampled_at
    job = TracesJob(args.model or settings.base_model, directory, directory, settings, suite, temperature, "r1")
    return write_original(job, print) if args.style == "original" else write_r1_traces(job, args.resume, print)


SUBCOMMAND = Subcommand("write reasoning traces: of a GRPO model, of a teacher, or of the data", _main, _add_flags)
