"""Libraries that only some commands need, of the extra `train`."""

from __future__ import annotations

from importlib.util import find_spec

from harness.errors import MachineLacks

TRAINING = ("torch", "transformers", "trl", "peft", "datasets")


def require_libraries(*names: str, who: str = "") -> None:
    """Raises MachineLacks, with the command that installs them, where some of them are missing."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise MachineLacks(f"{who}{', '.join(missing)} not installed: pip install -c constraints.txt '.[train]'")
