"""Where this machine keeps what can be had again: fetched repositories, verdicts."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "REPO_AGENT_CACHE"


def cache_directory() -> Path:
    """REPO_AGENT_CACHE, else a folder in the user's cache directory. It need not exist."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "repo-agent"
