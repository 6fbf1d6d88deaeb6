"""What is known of bugs by having run them: which can be played, and what their tests are.

Upstream's bugs come with a status file; what a user validates beyond that is kept in the cache, and adds to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

from pydantic import Field, ValidationError

from harness.errors import UsageError
from harness.records import Record
from sandboxes.cache_directory import cache_directory

SHIPPED = "bugsinpy_status.jsonl"


class State(StrEnum):
    """What came of the attempt to see a bug."""

    REPRODUCED = "reproduced"
    """Some tests fail on the buggy tree and pass on the fixed one, each time."""
    NEEDS_LATIN1 = "needs_latin1"
    """They do so under a locale that is not UTF-8 only."""
    NEEDS_NETWORK = "needs_network"
    """The fixed tree fails for want of a network."""
    FLAKY = "flaky"
    """The tests that tell the trees apart do not do so each time."""
    BUGGY_PASSES = "buggy_passes"
    FIXED_FAILS = "fixed_fails"
    COMPILES = "compiles"
    """Its extension modules would have to be compiled in the tree."""
    NO_REPOSITORY = "no_repository"
    """Its project's repository could not be had."""
    NO_ENVIRONMENT = "no_environment"
    """Its environment could not be built."""
    UNREADABLE = "unreadable"
    """Its directory in the data set does not describe a bug."""


class BugStatus(Record):
    """What was seen of one bug."""

    bug: str
    state: State
    why: str = ""
    environment: str = ""
    """Fingerprint of the environment."""
    expected: tuple[str, ...] = ()
    """Ids of the tests that pass on the fixed tree."""
    failing: tuple[str, ...] = ()
    """Those of them that fail on the buggy tree."""
    quarantined: tuple[str, ...] = ()
    """Tests whose outcome on the fixed tree was not always the same: they are not expected."""
    messages: dict[str, str] = Field(default_factory=dict)
    """How the first failing tests fail on the buggy tree."""
    run_s: float = 0.0
    """Wall-clock seconds of the test run on the fixed tree, the longest of them."""
    slowest_s: float = 0.0
    """Seconds of the slowest test there."""
    repeats: int = 0
    whole_files: bool = True
    """A task runs the whole files of the tests that show the bug; else those tests only, for they do not pass beside
    the others, or the others take minutes."""

    @property
    def is_sound(self) -> bool:
        """Would doing nothing score 0? Only a status that somebody wrote by hand is not."""
        return bool(self.failing) and set(self.failing) <= set(self.expected)


def user_status_file(commit: str) -> Path:
    """Where the states are kept that were found on this machine."""
    return cache_directory() / "bugsinpy" / f"status-{commit[:16]}.jsonl"


def shipped_status() -> dict[str, BugStatus]:
    """The states that come with the package, for upstream's bugs."""
    place = files("suites") / SHIPPED
    return parse_status(place.read_text(encoding="utf-8"), SHIPPED) if place.is_file() else {}


def read_status(path: Path) -> dict[str, BugStatus]:
    """The states in a file; none where there is no file. Raises UsageError."""
    try:
        return parse_status(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the status file {path}: {error}") from error


def parse_status(text: str, name: str) -> dict[str, BugStatus]:
    found = {}
    for number, line in enumerate(text.split("\n"), 1):  # messages may hold what else ends a line to Python
        if not line:
            continue
        try:
            status = BugStatus.model_validate_json(line)
        except ValidationError as error:
            raise UsageError(f"{name}, line {number}: not the status of a bug: {error.errors()[0]['msg']}") from error
        found[status.bug] = status
    return found


def write_status(path: Path, states: Mapping[str, BugStatus]) -> None:
    """Add states to a file, in place of older ones of the same bugs; several processes may do so at once.

    Raises:
        UsageError: it cannot be written, or holds something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            everything = read_status(path) | dict(states)
            ordered = [everything[bug] for bug in sorted(everything, key=_in_order)]
            _replace(path, "".join(status.model_dump_json(exclude_defaults=True) + "\n" for status in ordered))
    except OSError as error:
        raise UsageError(f"cannot write the status file {path}: {error.strerror}") from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process and one thread writes a status file of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    descriptor, scratch = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except OSError:
        os.unlink(scratch)
        raise


def _in_order(bug: str) -> tuple[str, int, str]:
    """By project and number; a directory that is no bug may have any name."""
    project, _, number = bug.rpartition("-")
    return project, len(number), number
