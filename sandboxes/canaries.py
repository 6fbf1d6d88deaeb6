"""Canaries: tests of the driver's own in a scoring run, with unpredictable names, some of which must fail.

Target and reporter share a process, so a report can be bent from inside; a bent one gets the canaries wrong. Some stand
among the target's tests, some in a module of their own, which is compiled after the target was imported.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sandboxes.base import TestRecord
from sandboxes.workspace import Workspace

WRONG = "a canary gave the wrong outcome"


@dataclass(frozen=True)
class Canaries:
    """The canaries of one run: name -> whether it must pass."""

    among: dict[str, bool]
    apart: dict[str, bool]
    method: str
    """One more of those that stand apart, which must fail: a unittest method, for it has assertions of its own."""
    module: str
    """The file of those that stand apart."""

    @classmethod
    def fresh(cls) -> Self:
        names = [f"test_{number:08x}" for number in random.SystemRandom().sample(range(16**8), 7)]
        among = dict(zip(names, (True, False, False), strict=False))
        return cls(among, {names[3]: True, names[4]: False}, names[5], f"{names[6]}.py")

    def planted(self, tree: Workspace) -> Workspace:
        left, right = random.SystemRandom().sample(range(10**6), 2)
        text = "".join(
            f"def {name}():\n    assert [{left}, 'a'] == [{left if passes else right}, 'a']\n\n\n"
            for name, passes in self.apart.items()
        )
        case = f"class TestCase(unittest.TestCase):\n    def {self.method}(self):\n"
        text = f"import unittest\n\n\n{text}{case}        self.assertEqual([{left}, 'a'], [{right}, 'a'])\n"
        return tree.write(self.module, text.encode())

    @property
    def ids(self) -> list[str]:
        """The ids of those that stand apart."""
        return [f"{self.module}::{name}" for name in (*self.apart, f"TestCase::{self.method}")]

    def chosen(self, args: Sequence[str]) -> list[str]:
        """Arguments of pytest with the module among them. The root has it already: pytest collects what is named twice
        twice, or (8.0 to 8.3) nothing else.
        """
        chosen = list(args) or ["."]
        return chosen if any(os.path.normpath(arg) == "." for arg in chosen) else [*chosen, self.module]

    def checked(self, records: Sequence[TestRecord]) -> tuple[tuple[TestRecord, ...], str, bool]:
        """The other records; why the run is held for manipulated, or nothing; whether canaries are missing."""
        expected = self.among | self.apart | {self.method: False}
        others: list[TestRecord] = []
        seen: set[str] = set()
        wrong = False
        for record in records:
            name = record.id.rpartition("::")[2]
            if name not in expected:
                others.append(record)
                continue
            wrong |= name in seen or record.outcome != ("passed" if expected[name] else "failed")
            seen.add(name)
        return tuple(others), WRONG if wrong else "", seen != set(expected)
