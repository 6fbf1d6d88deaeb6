"""What bugs need beside what upstream's files say: found when they were first reproduced."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Addition:
    """Requirements that are added to the bugs of a repository."""

    repository: str
    lines: tuple[str, ...]
    why: str
    bugs: tuple[int, ...] = ()
    """Their numbers; empty: all of them."""


ADDITIONS = (
    Addition("cool-RR/PySnooper", ("six", "future==0.18.2"), "imported by the package and by its tests, never listed"),
    Addition("cool-RR/PySnooper", ("python_toolbox",), "imported by the tests; listed for one bug of three"),
    Addition("cookiecutter/cookiecutter", ("future==0.18.2",), "imported by the package, left out of the frozen list"),
    Addition(
        "cookiecutter/cookiecutter",
        ("pytest-mock", "pytest-cov"),
        "its tests take the fixture `mocker`, its configuration asks for coverage; tox brought both",
    ),
    Addition("spotify/luigi", ("sqlalchemy",), "the test stores its task history in a database", bugs=(17,)),
)


GENERATED = {"psf/black": {"_black_version.py": b'version = "unknown"\n'}}
"""By repository (lower case), the files that an installation would write into the tree and that the package imports
from there.
"""


def additions(repository: str, number: int) -> tuple[str, ...]:
    """The lines to add for a bug."""
    return tuple(
        line
        for each in ADDITIONS
        if each.repository.lower() == repository.lower() and (not each.bugs or number in each.bugs)
        for line in each.lines
    )
