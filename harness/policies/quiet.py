"""Keeps libraries that write to the terminal off it, where Python's own streams cannot: C++ writes below them."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden_output() -> Iterator[None]:
    """Drops what this process writes to both streams, and warnings, whatever thread they come from."""
    with tempfile.TemporaryFile() as hidden, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _redirected(1, hidden.fileno()), _redirected(2, hidden.fileno()):
            yield


@contextmanager
def _redirected(stream: int, to: int) -> Iterator[None]:
    kept = os.dup(stream)
    _flush()
    os.dup2(to, stream)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, stream)
        os.close(kept)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
