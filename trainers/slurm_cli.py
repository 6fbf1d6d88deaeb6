"""`repo-agent slurm`: a stage of the GSM8K pipeline as a job for Slurm."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.cli import Parser, at_least
from harness.errors import UsageError
from harness.progress import notice
from trainers.gsm8k.gsm8k_cli import parser as pipeline_parser
from trainers.gsm8k.settings import FIELDS, resolve, variable_of
from trainers.slurm import (
    STAGES,
    Job,
    batch_script,
    check_resources,
    interactive_line,
    log_path,
    passed_variables,
    submit,
)


def main(argv: Sequence[str]) -> int:
    """Run the command. Raises UsageError for bad input, that of the pipeline's own arguments included."""
    place = argv.index("--") if "--" in argv else len(argv)
    args = _parser().parse_args(argv[:place])
    job = Job(
        stage=args.stage,
        arguments=tuple(argv[place + 1 :]),
        directory=Path.cwd(),
        gpus=args.gpus,
        cpus=args.cpus,
        partition=args.partition,
        time=args.time,
    )
    check_resources(job)
    resolve(pipeline_parser().parse_args([job.stage, *job.arguments]))
    if job.gpus > 1:
        notice("so far a stage runs in one process: `gsm8k` refuses the second one, see docs/slurm.md")
    if args.interactive:
        if args.log or args.env:
            raise UsageError("--log and --env mean nothing with --interactive: it has your terminal and environment")
        print(interactive_line(job))
        return 0
    variables = passed_variables(os.environ, map(variable_of, FIELDS), args.env)
    script = batch_script(job, log_path(args.log, job), variables)
    print(submit(script) if args.submit else script, end="\n" if args.submit else "")
    return 0


def _parser() -> Parser:
    made = Parser(
        prog="repo-agent slurm",
        usage="repo-agent slurm STAGE [flags] -- ARGS",
        description="Print, or submit, a job that runs `repo-agent gsm8k STAGE ARGS`. ARGS are checked now.",
    )
    made.add_argument("stage", choices=STAGES, help="of the pipeline")
    made.add_argument("--partition", default="", help="(default: the cluster's)")
    made.add_argument("--gpus", type=at_least(0), default=1, help="on one node, a process each (default: %(default)s)")
    made.add_argument("--cpus", type=at_least(1), default=8, help="cores of the job (default: %(default)s)")
    made.add_argument("--time", default="", help="limit, as Slurm writes it: 12:00:00, 2-00 (default: the cluster's)")
    made.add_argument("--log", default="", metavar="FILE", help="(default: slurm-gsm8k-STAGE-%%j.log here)")
    made.add_argument("--env", action="append", default=[], metavar="NAME", help="a variable that the job needs too")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--submit", action="store_true", help="give it to sbatch instead of printing it")
    how.add_argument("--interactive", action="store_true", help="print the srun line instead")
    return made
