"""A disk without room in one line: the libraries that save weights raise errors of their own for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UsageError

_SAID = ("no space left", "disk quota exceeded", "file too large", "iostream error", "unexpected pos")
"""By safetensors with the system's own words; the last two by torch, whose zip writer knows no reason."""


@contextmanager
def disk_in_words(place: Path) -> Iterator[None]:
    """Raises UsageError where what is written to a place does not fit there."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if not any(said in str(error).lower() for said in _SAID):
            raise
        raise UsageError(f"{place} could not be written: there is no room on its disk") from error
