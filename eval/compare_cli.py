"""`repo-agent compare`: which of several runs solves more, whether that could be luck, and what else differs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eval.compare import compared
from eval.compare_records import Compared
from eval.compare_report import markdown, print_compared
from eval.compare_runs import arms_of
from eval.sweep import SWEEP_FILE
from harness.cli import Parser
from harness.errors import UsageError
from harness.progress import console
from harness.redaction import Redactor
from harness.run_files import refuse_run_file


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent compare", description="Compare runs task by task; the first one is the baseline.")
    what = "run directories, directories of runs, or report.json files"
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=what)
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables and the verdicts there")
    return made


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 0, whatever the verdict."""
    args = parser().parse_args(argv)
    for path, flag in ((args.json, "--json"), (args.markdown, "--markdown")):
        if path:
            refuse_run_file(path, flag)
    arms = arms_of([path for path in args.runs if path.name != SWEEP_FILE] or args.runs)  # ROOT/* of a sweep
    if len(arms) < 2:
        raise UsageError(f"there is nothing to compare {arms[0].name} with: name two runs, or a directory of several")
    found = compared(arms)
    print_compared(found, console())
    write(found, args.json, args.markdown)
    return 0


def write(found: Compared, json_path: Path | None, markdown_path: Path | None) -> None:
    texts = {json_path: found.model_dump_json(indent=2) + "\n", markdown_path: markdown(found)}
    for path, text in texts.items():
        if path:
            path.write_text(Redactor()(text), encoding="utf-8")
