"""This machine's Python and pytest, without anything else of our environment, for sandboxes that have no image."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from sandboxes.base import SandboxUnavailable


def pytest_packages() -> dict[str, Path]:
    """Top-level name -> path of pytest and of what it requires; a target sees these packages and no other of ours."""
    found: dict[str, Path] = {}
    todo, seen = ["pytest"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            if name == "pytest":
                raise SandboxUnavailable("pytest is not installed beside repo-agent: pip install pytest") from None
            continue  # a requirement under a marker of another platform
        found |= _top_level(dist)
        todo += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in dist.requires or [] if "extra ==" not in line]
    return found


def _top_level(dist: Distribution) -> dict[str, Path]:
    names = {file.parts[0] for file in dist.files or [] if file.parts[0] not in ("..", "__pycache__")}
    return {name: Path(str(dist.locate_file(name))).resolve() for name in sorted(names)}


def about_host() -> dict[str, str]:
    """The versions that sandboxes without an image run."""
    return {"python": platform.python_version(), "pytest": distribution("pytest").version}


def base_interpreter() -> Path:
    """The interpreter under a virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
