"""`repo-agent doctor`: what this machine can do, what is missing, and the command that fixes it.

The exit code is 0 where at least one sandbox works, else 1: without one no repair can be graded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from eval import doctor_machine, doctor_models, doctor_sandboxes
from eval.doctor import TIMEOUT_S, Finding, Health, run_checks
from harness.cli import Parser, amount
from harness.progress import console

EXIT_NO_SANDBOX = 1
_STYLES = {Health.OK: "green", Health.MISSING: "yellow", Health.BROKEN: "bold red"}


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="repo-agent doctor",
        description="What this machine can do, what is missing, and the command that fixes it.",
        epilog="The exit code is 0 where at least one sandbox works, else 1.",
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made.add_argument(
        "--timeout", type=amount, default=TIMEOUT_S, metavar="SECONDS", help="for all checks (default: %(default)g)"
    )
    return made


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 0, 1 where no sandbox works."""
    args = parser().parse_args(argv)
    checks = [*doctor_machine.checks(), *doctor_sandboxes.checks(), *doctor_models.checks(args.timeout)]
    findings = run_checks(checks, args.timeout)
    usable = working(findings)
    if args.json:
        print(json.dumps({"sandboxes": usable, "findings": [asdict(each) for each in findings]}, indent=2))
    else:
        _print(findings, usable)
    return 0 if usable else EXIT_NO_SANDBOX


def working(findings: Sequence[Finding]) -> list[str]:
    """The sandboxes that work here, the one that is taken by default first."""
    healthy = {each.name for each in findings if each.health is Health.OK}
    return [name.removeprefix("sandbox ") for name in doctor_sandboxes.SANDBOXES if name in healthy]


def _print(findings: Sequence[Finding], usable: Sequence[str]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in findings:
        table.add_row(Text(each.health, style=_STYLES[each.health]), each.name, Text(each.said))
        if each.fix and each.health is not Health.OK:
            table.add_row("", "", Text(f"fix: {each.fix}", style="bold"))
    console().print(table, highlight=False)
    print(_verdict(usable))


def _verdict(usable: Sequence[str]) -> str:
    if not usable:
        return "NO SANDBOX WORKS HERE: questions can be played (gsm8k, arith), repairs cannot"
    local_only = "local for search, reference and noop only: what a model wrote runs there only with --sandbox local"
    first = local_only if usable[0] == "local" else usable[0]
    return f"sandboxes that work: {', '.join(usable)}; --sandbox auto takes {first}"
