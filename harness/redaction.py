"""Keys never reach a file or a screen: known secret values are replaced wherever text leaves the process."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)(_\w+)?$", re.IGNORECASE)
_MIN_LENGTH = 8
MASK = "[redacted]"


class Redactor:
    """Masks the values of secret-looking environment variables, and those given besides."""

    def __init__(self, environment: Mapping[str, str] | None = None, more: tuple[str, ...] = ()) -> None:
        variables = os.environ if environment is None else environment
        values = [value for name, value in variables.items() if _SECRET_NAME.search(name)]
        secrets = {value for value in (*values, *more) if len(value) >= _MIN_LENGTH}
        secrets |= {json.dumps(value)[1:-1] for value in secrets}  # as it stands inside a text that is JSON itself
        longest_first = sorted(secrets, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if secrets else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern else text

    def values(self, data: Any) -> Any:
        """The same for every string value of decoded JSON; numbers and keys stay, so that it remains what it was."""
        if isinstance(data, str):
            return self(data)
        if isinstance(data, dict):
            return {key: self.values(value) for key, value in data.items()}
        return [self.values(item) for item in data] if isinstance(data, list) else data
