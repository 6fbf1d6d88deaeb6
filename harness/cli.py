"""What the commands' parsers share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


@dataclass(frozen=True)
class Subcommand:
    """One row of what a command can do; `main` gives the exit code."""

    help: str
    main: Callable[[argparse.Namespace], int]
    add_flags: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def parser_of(prog: str, description: str, subcommands: Mapping[str, Subcommand]) -> Parser:
    """A parser that leaves the name of the subcommand in `command`."""
    made = Parser(prog=prog, description=description)
    commands = made.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, command in subcommands.items():
        command.add_flags(commands.add_parser(name, help=command.help, description=command.help))
    return made


def at_least(minimum: int) -> Callable[[str], int]:
    """The type of a flag that takes an integer from a minimum on."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not an integer: {text!r}") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {value}")
        return value

    return convert


def amount(text: str) -> float:
    """The type of a flag that takes a finite number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, not {text}")
    return value


def add_suite_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mirror", type=Path, help="directory that stands in for the network (REPO_AGENT_MIRROR)")


def add_sandbox_flags(parser: argparse.ArgumentParser) -> None:
    from sandboxes.base import Isolation
    from sandboxes.choose import CHOICES

    parser.add_argument(
        "--sandbox", choices=CHOICES, default="auto", help="where tests run (default: the best there is)"
    )
    parser.add_argument(
        "--isolation",
        choices=[str(item) for item in Isolation],
        default=str(Isolation.CONTAINER),
        help="container: each rollout has containers of its own; run: containers serve many rollouts, each run walled "
        "off from the next (default: %(default)s)",
    )
    parser.add_argument("--base-image", default="", help="Docker image with Python (REPO_AGENT_BASE_IMAGE)")
    parser.add_argument(
        "--num-workers", type=at_least(1), default=2, help="rollouts at the same time (default: %(default)s)"
    )
