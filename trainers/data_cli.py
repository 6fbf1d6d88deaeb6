"""`repo-agent data`: check files of training data."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.cli import Parser, add_suite_flags
from suites.fetch import mirror_directory
from trainers.data_check import CheckReport, Leak, check_file, leak_guard


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent data", description="Check files of training data.")
    commands = made.add_subparsers(dest="command", required=True, parser_class=Parser)
    check = commands.add_parser("check", help="hold a JSONL file against the rules of its row format (docs/data.md)")
    check.add_argument("file", type=Path, help="JSONL file: SFT rows or pairs")
    check.add_argument(
        "--against", metavar="SUITE", help="look for the suite's test split in it (of a suite file: for all its tasks)"
    )
    add_suite_flags(check)
    return made


def main(argv: Sequence[str]) -> int:
    """0: sound; 1: faults or leaks were found, each printed as FILE:LINE: what. Raises UsageError for bad input."""
    args = parser().parse_args(argv)
    guard = leak_guard(args.against, mirror_directory(args.mirror)) if args.against else None
    report = check_file(args.file, guard)
    for line in (*_summary(report, args.against), *_found(report, args.file)):
        print(line)
    return 0 if report.sound else 1


def _summary(report: CheckReport, against: str | None) -> Iterator[str]:
    formats = ", ".join(f"{count} {name}" for name, count in report.rows.items()) or "none"
    yield f"rows: {formats}; {report.messages} messages, {report.trained} trained"
    sft = sum(report.rows.values()) - report.pairs
    if sft:
        yield f"SFT rows that train their last message only: {report.last_only} of {sft}"
    if report.pairs:
        yield f"pairs whose rejected side is malformed: {report.malformed_rejected} of {report.pairs}"
    if report.bom:
        yield "note: the file begins with a byte order mark, which some readers refuse"
    leaked = ", ".join(f"{task} ({rows} rows)" for task, rows in report.leaked_rows.most_common())
    if against is not None:
        yield f"test tasks of {against} in it: {leaked or 'none'}"
    yield "sound" if report.sound else f"NOT sound: {report.fault_count} faults, {report.leak_count} leaks"


def _found(report: CheckReport, path: Path) -> Iterator[str]:
    yield from (f"{path}:{fault.line}: {fault.text}" for fault in report.faults)
    if hidden := report.fault_count - len(report.faults):
        yield f"… and {hidden} more faults"
    yield from (f"{path}:{leak.line}: {_leak_text(leak)}" for leak in report.leaks)
    if hidden := report.leak_count - len(report.leaks):
        yield f"… and {hidden} more leaks"


def _leak_text(leak: Leak) -> str:
    side = "the repaired" if leak.source.reference else "text of"
    return f"test task {leak.source.task}: {side} {leak.source.file} ({leak.hits} fingerprints)"
