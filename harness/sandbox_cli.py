"""`repo-agent sandbox`: show and remove what runs have left outside their processes; check what a sandbox promises.

Where no Docker engine answers, the runs' directories are handled nevertheless, and one line says so; that is no
failure, since not every machine has an engine. Directories are looked for where temporary files are made (TMPDIR), and
only this user's.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import docker
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli import Subcommand, add_sandbox_flags, parser_of
from sandboxes import leftovers
from sandboxes.base import Isolation, SandboxBackend, SandboxUnavailable
from sandboxes.choose import open_backend
from sandboxes.conformance.checking import CheckResult
from sandboxes.conformance.suite import CHECKS, run_checks
from sandboxes.leftovers import Form, Leftover

EXIT_LEFT, EXIT_NOT_CONFORMANT = 3, 1
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def parser() -> argparse.ArgumentParser:
    return parser_of("repo-agent sandbox", "Show and remove what runs have left; check a sandbox.", SUBCOMMANDS)


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 0, 1 where a sandbox fails a check, 3 where what was to be removed stays."""
    args = parser().parse_args(argv)
    return SUBCOMMANDS[args.command].main(args)


def ps(_: argparse.Namespace) -> int:
    with _engine() as client:
        found = _find(client)
    table = Table("id", "kind", "run", "owner", "image or path", "state", "age", "expires")
    for item in found:
        table.add_row(*(Text(cell) for cell in _row(item)))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def _row(item: Leftover) -> tuple[str, ...]:
    now = time.time()
    expires = "never" if item.expires is None else "expired" if item.expired else f"in {_span(item.expires - now)}"
    name = "" if item.form is Form.DIRECTORY else item.id[:12]
    image = item.image.removeprefix("sha256:")[:12] if item.image.startswith("sha256:") else item.image
    where = item.id if item.form is Form.DIRECTORY else image
    kind = item.kind if item.form is Form.CONTAINER else item.form.value
    return name, kind, item.run, _owner(item), where, item.state, _span(now - item.created), expires


def _owner(item: Leftover) -> str:
    said = {True: "alive", False: "gone", None: "elsewhere"}[item.owner_alive]
    return f"{item.owner.split(':')[1]} {said}" if ":" in item.owner else "unknown"


def _span(seconds: float) -> str:
    name, size = next((unit for unit in UNITS if seconds >= 2 * unit[1]), UNITS[-1])
    return f"{max(0, int(seconds // size))} {name}"


def _prune_flags(made: argparse.ArgumentParser) -> None:
    chosen = made.add_mutually_exclusive_group()
    chosen.add_argument("--run", help="all that this run has, whether its owner lives or not")
    chosen.add_argument("--all", action="store_true", help="all that any run has, on this engine and here")


def prune(args: argparse.Namespace) -> int:
    with _engine() as client:
        found = _find(client, args.run or "")
        chosen = [item for item in found if args.run or args.all or item.abandoned]
        removed = [item for item in chosen if _remove(client, item)]
    counts = Counter(item.form for item in removed)
    print("removed in all: " + ", ".join(f"{form} {counts[form]}" for form in Form))
    return 0 if len(removed) == len(chosen) else EXIT_LEFT


def _remove(client: docker.DockerClient | None, item: Leftover) -> bool:
    name = item.id if item.form is Form.DIRECTORY else item.id[:12]
    said = f"{item.form} {name} of run {item.run} (owner: {_owner(item)})"
    if leftovers.remove(client, item):
        print(f"removed {said}")
        return True
    print(f"repo-agent: cannot remove {said}", file=sys.stderr)
    return False


def _find(client: docker.DockerClient | None, run_id: str = "") -> list[Leftover]:
    """Directories first: they are removed whatever the engine does then."""
    return leftovers.find_directories(run_id) + (leftovers.find(client, run_id) if client else [])


@contextlib.contextmanager
def _engine() -> Iterator[docker.DockerClient | None]:
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(leftovers.engine())
        except SandboxUnavailable as error:
            print(f"repo-agent: {error}: only directories are looked for", file=sys.stderr)
            client = None
        yield client


# ---- check


def check(args: argparse.Namespace) -> int:
    isolation = Isolation(args.isolation)
    backend, notices = open_backend(args.sandbox, args.base_image, True, isolation, args.num_workers)
    try:
        for notice in notices:
            print(f"repo-agent: {notice}", file=sys.stderr)
        print(_declared(backend))
        results = run_checks(backend, _print_check, CHECKS)
    finally:
        backend.close()
    counts = Counter(result.outcome for result in results)
    print(f"{len(results)} checks: " + ", ".join(f"{counts[outcome]} {outcome}" for outcome in counts))
    return 0 if all(result.good for result in results) else EXIT_NOT_CONFORMANT


def _declared(backend: SandboxBackend) -> str:
    promises = ", ".join(f"{name} {_plain(value)}" for name, value in asdict(backend.promises).items())
    about = ", ".join(f"{name} {value}" for name, value in backend.about.items())
    return f"{backend.name}, isolation {backend.isolation}\npromises: {promises}\nabout: {about}\n"


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _print_check(result: CheckResult) -> None:
    width = max(len(each.name) for each in CHECKS)
    print(f"{result.outcome:14}  {result.check.name:{width}}  {result.why}".rstrip(), flush=True)


SUBCOMMANDS = {
    "ps": Subcommand("the containers, volumes and directories of runs, and whether their owners live", ps),
    "prune": Subcommand(
        "remove those whose owner is gone; of owners on other machines, the expired", prune, _prune_flags
    ),
    "check": Subcommand("try on this machine whether a sandbox does what it must", check, add_sandbox_flags),
}
