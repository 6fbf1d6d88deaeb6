"""The guest as one source text: its files one after the other, without their imports of each other."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

PARTS = ("wire", "files", "bases", "direct", "namespaces", "watching", "entering", "reporter", "runner")
_OWN_IMPORT = re.compile(r"^from sandboxes\.guest\.\w+ import (\([^)]*\)|.*)$", re.MULTILINE)


@cache
def guest_source() -> str:
    """All that runs in a sandbox beside the target: standard library and pytest only."""
    return "\n\n".join(_part(name) for name in PARTS)


@cache
def reporter_source() -> str:
    """The part that a pytest in a new interpreter needs."""
    return _part("reporter")


@cache
def guest_version() -> str:
    """Identity of the guest's code."""
    return hashlib.sha256(guest_source().encode()).hexdigest()[:16]


def _part(name: str) -> str:
    return _OWN_IMPORT.sub("", (files("sandboxes") / "guest" / f"{name}.py").read_text(encoding="utf-8"))
