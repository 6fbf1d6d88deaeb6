"""`repo-agent gsm8k`: the pipeline on questions, stage by stage."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.cli import Parser, Subcommand, add_suite_flags, at_least, parser_of
from harness.errors import UsageError
from harness.optional import TRAINING, require_libraries
from harness.progress import notice
from harness.run_files import NOTHING_TO_RESUME
from trainers.card import command_line
from trainers.gsm8k.compare import add_compare_flags, compare
from trainers.gsm8k.evaluate import Evaluation, evaluate
from trainers.gsm8k.play import absolute
from trainers.gsm8k.rows import Filter
from trainers.gsm8k.settings import (
    EVALUATION,
    GRPO,
    SFT,
    Gsm8kSettings,
    add_setting_flags,
    begun,
    directory_of,
    flag_type,
    made_by,
    resolve,
    table,
    write_config,
)
from trainers.gsm8k.traces_cli import SUBCOMMAND as TRACES
from trainers.train_quiet import quiet_libraries


def parser() -> Parser:
    return parser_of("repo-agent gsm8k", "SFT, GRPO and reasoning traces on questions with a number.", SUBCOMMANDS)


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 done, 1 the loss became no number, 3 infrastructure stopped it, 130 interrupted.

    Raises UsageError for bad input, and where the extra `train` is not installed.
    """
    args = parser().parse_args(argv)
    args.argv = command_line("gsm8k", argv)
    return SUBCOMMANDS[args.command].main(args)


def _add_run_flags(made: argparse.ArgumentParser, directory: str) -> None:
    made.add_argument("--output-dir", type=Path, help=f"the run's directory (default: {directory})")
    made.add_argument("--resume", action="store_true", help="go on where the run in --output-dir was left")
    add_suite_flags(made)


def _add_base_model(made: argparse.ArgumentParser, text: str) -> None:
    made.add_argument("--base-model", type=flag_type("base_model"), help=text)


def _config(args: argparse.Namespace) -> int:
    print(table())
    return 0


def _eval_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--model-path", default="", help="directory or hub name (default: BASE_MODEL)")
    made.add_argument("--stage", default="base", help="what the files are called by (default: %(default)s)")
    made.add_argument("--output-file", type=Path, help="the table as CSV, in --output-dir unless it is absolute")
    _add_run_flags(made, "OUTPUT_DIR/STAGE")
    add_setting_flags(made, EVALUATION)


def _eval(args: argparse.Namespace) -> int:
    settings = resolve(args)
    if not args.stage.isidentifier():
        raise UsageError(f"--stage {args.stage}: letters, digits and _ only")
    directory, model = directory_of(args, settings, args.stage), args.model_path or settings.base_model
    if not begun(directory):  # else it has a stage's, or another evaluation's; traces/ have one each
        write_config(directory, args.stage, settings, model=absolute(model))
    output = directory / args.output_file if args.output_file else None
    return evaluate(Evaluation(args.stage, model, directory, settings, 0, output, args.mirror), print, args.resume)


def _sft_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--stage", choices=("prep", "full"), default="full", help="which questions (default: full)")
    _add_base_model(made, "what is trained (default: BASE_MODEL for prep, else OUTPUT_DIR/prep_sft)")
    made.add_argument("--traces-file", type=Path, help="question/answer or prompt/response rows instead of solutions")
    made.add_argument(
        "--filter", choices=("correct", "all"), default="correct", help="rows of it that are taken (default: correct)"
    )
    _add_run_flags(made, "OUTPUT_DIR/STAGE_sft, OUTPUT_DIR/traces_sft")
    add_setting_flags(made, (*EVALUATION, *SFT))


def _sft(args: argparse.Namespace) -> int:
    settings = _prepared(args)
    from trainers.gsm8k.sft import run_sft, solutions_job, traces_job

    directory = directory_of(args, settings, "traces_sft" if args.traces_file else f"{args.stage}_sft")
    model = settings.base_model if args.stage == "prep" else _prep_model(args, settings)
    if args.traces_file:
        job = traces_job(args.traces_file, args.filter, model, directory, settings, args.argv, args.mirror)
    else:
        job = solutions_job(args.stage, model, directory, settings, args.argv, args.mirror)
    return run_sft(job, args.resume, print)


def _grpo_flags(made: argparse.ArgumentParser) -> None:
    _add_base_model(made, "what is trained (default: OUTPUT_DIR/prep_sft)")
    _add_run_flags(made, "OUTPUT_DIR/grpo")
    add_setting_flags(made, (*EVALUATION, *GRPO))


def _grpo(args: argparse.Namespace) -> int:
    settings = _prepared(args)
    from trainers.gsm8k.grpo import GrpoJob, run_stage

    model = _prep_model(args, settings)
    directory = directory_of(args, settings, "grpo")
    return run_stage(GrpoJob(model, directory, settings, args.argv, args.mirror), args.resume, print)


def _exit_flags(made: argparse.ArgumentParser) -> None:
    _add_base_model(made, "what each round trains (default: OUTPUT_DIR/prep_sft)")
    made.add_argument(
        "--filter", choices=("correct", "all", "both"), default="both", help="which responses are trained on (both)"
    )
    made.add_argument("--output-dir", type=Path, help="the directory of all rounds (default: OUTPUT_DIR/exit)")
    made.add_argument("--resume", action="store_true", help="go on where the rounds in --output-dir were left")
    add_suite_flags(made)
    add_setting_flags(made, (*EVALUATION, *SFT, "rounds", "max_attempts", "traces_temperature"))


def _exit(args: argparse.Namespace) -> int:
    settings = _prepared(args)
    from trainers.gsm8k.expert_iteration import ExpertIteration, run_rounds

    model = _prep_model(args, settings)
    directory = directory_of(args, settings, "exit")
    _begin(args, directory, "exit", settings, model)
    filters: tuple[Filter, ...] = ("correct", "all") if args.filter == "both" else (args.filter,)
    return run_rounds(ExpertIteration(model, directory, settings, filters, args.argv, args.mirror), print)


def _begin(args: argparse.Namespace, directory: Path, stage: str, settings: Gsm8kSettings, model: str) -> None:
    """Make the directory of a command that goes on by itself where it was left, with --resume only."""
    there = begun(directory)
    if there and not args.resume:
        raise UsageError(f"{directory} holds a run already: say --resume to continue it, or choose another directory")
    if args.resume and not there:
        notice(NOTHING_TO_RESUME)
    write_config(directory, stage, settings, model=absolute(model))


def _sweep_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--samples", type=at_least(1), nargs="+", required=True, help="numbers of training questions")
    made.add_argument("--root", type=Path, help="the directory of all runs (default: OUTPUT_DIR)")
    made.add_argument("--traces", action="store_true", help="traces of each GRPO model, and SFT on them, too")
    _add_base_model(made, "what the pipeline begins with (default: BASE_MODEL)")
    add_suite_flags(made)
    names = (*EVALUATION, *SFT, *GRPO, "max_attempts", "traces_temperature")
    add_setting_flags(made, [name for name in names if name != "train_samples"])


def _sweep(args: argparse.Namespace) -> int:
    settings = _prepared(args)
    from trainers.gsm8k.sweep import Sweep, run_sweep

    root = args.root or Path(settings.output_dir)
    return run_sweep(Sweep(root, sorted(set(args.samples)), settings, args.traces, args.argv, args.mirror), print)


def _prep_model(args: argparse.Namespace, settings: Gsm8kSettings) -> str:
    """What is trained behind the prep stage."""
    given: str | None = args.base_model
    return given or made_by(Path(settings.output_dir) / "prep_sft", "sft --stage prep", "--base-model")


def _prepared(args: argparse.Namespace) -> Gsm8kSettings:
    """The settings, once it is sure that a model can be trained here."""
    settings = resolve(args)
    if settings.engine not in ("hf", "vllm") or settings.api_base:
        raise UsageError(f"what is trained here is played here: --engine hf or vllm, not {settings.engine} at a server")
    require_libraries(*TRAINING)
    quiet_libraries()
    return settings


SUBCOMMANDS = {
    "config": Subcommand("show every setting, its environment variable and its default, as Markdown", _config),
    "eval": Subcommand("measure a model on the test questions", _eval, _eval_flags),
    "sft": Subcommand("train a model on worked solutions or on traces, and measure it", _sft, _sft_flags),
    "grpo": Subcommand("train a model by GRPO on the train questions, and measure it", _grpo, _grpo_flags),
    "traces": TRACES,
    "exit": Subcommand("expert iteration: sample, filter, train, measure, again", _exit, _exit_flags),
    "sweep": Subcommand("SFT and GRPO over several numbers of training questions", _sweep, _sweep_flags),
    "compare": Subcommand("compare the evaluations of a sweep, paired by question", compare, add_compare_flags),
}
