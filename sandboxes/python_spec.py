"""What a Python environment for running tests consists of, and the name of the image that holds it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

RECIPE = 1
"""Raised when the way environments are built changes what comes out of it."""
REPOSITORY = "repo-agent-env"


@dataclass(frozen=True)
class PythonSpec:
    """An environment, identified by what it is made from: equal specs are one image."""

    python: str
    """The minor version: 3.7"""
    requirements: tuple[str, ...] = ()
    """Lines of pip's requirement format; installed in one go, without their dependencies."""
    extras: tuple[str, ...] = ()
    """Installed after that, with their dependencies."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, the same on every machine."""
        made_from = [RECIPE, self.python, sorted(self.requirements), sorted(self.extras)]
        return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]

    @property
    def image(self) -> str:
        """The name of its image."""
        return f"{REPOSITORY}:{self.fingerprint}"
