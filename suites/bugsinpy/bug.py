"""What is known of one bug of BugsInPy before its repository is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from sandboxes.python_spec import PythonSpec


class Rejected(Exception):
    """A bug directory that cannot be used; the message says why, without the bug's name."""


@dataclass(frozen=True)
class Bug:
    """One bug directory, read."""

    project: str
    number: int
    repository: str
    """`owner/name` of the subject repository."""
    python: str
    """The version that is wanted: 3.7.3"""
    buggy_commit: str
    """Of 40 hexadecimal digits, or an abbreviation."""
    fixed_commit: str
    test_files: tuple[str, ...]
    test_args: tuple[str, ...]
    """The lines of `run_test.sh` as arguments of pytest, in their order and each once: the tests that show the bug."""
    pythonpath: tuple[str, ...]
    """Directories of the tree, `.` for its root."""
    touched: tuple[str, ...]
    """Empty files that the set-up adds to the tree."""
    patch: bytes
    """The difference from buggy to fixed, in git's form."""
    environment: PythonSpec
    compiles: bool = False
    """Its extension modules have to be compiled in the tree (`setup.py build_ext --inplace`) before tests can run."""
    irregular: tuple[str, ...] = ()
    """What was not as the format has it, and was read right all the same: for the report."""

    @property
    def test_modules(self) -> tuple[str, ...]:
        """What a task runs: whole files, for the tests beside those that show the bug tell a repair from a trick."""
        return tuple(dict.fromkeys(argument.partition("::")[0] for argument in self.test_args))

    def shown_by(self, test: str) -> bool:
        """Is a test, by its id, one of those that upstream names for the bug?"""
        return any(test == argument or test.startswith((f"{argument}[", f"{argument}::")) for argument in self._whole)

    @property
    def _whole(self) -> tuple[str, ...]:
        return tuple(argument.partition("[")[0] for argument in self.test_args)

    @property
    def id(self) -> str:
        """The task id: thefuck-1"""
        return f"{self.project}-{self.number}"
