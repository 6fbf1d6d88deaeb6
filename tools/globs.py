"""Path patterns: `*` and `?` within one part, `**` for any number of parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    out = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        out.append({"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part))
    return re.compile("".join(out), re.DOTALL)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Does the path match one of the patterns, from its first to its last character?"""
    return any(_compiled(pattern).fullmatch(path) for pattern in patterns)
