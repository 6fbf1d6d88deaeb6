"""A model and the adapter on it: it is put there whole, or not at all."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any


def with_adapter(network: Any, adapter: Path, trained: bool = False) -> Any:
    """The model with a PEFT adapter.

    Args:
        trained: the adapter's weights are trained on.

    Raises:
        ValueError: its weights are not those that its configuration names. PEFT takes those that fit, and leaves the
            model as it was elsewhere.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="peft")  # what these warn of is refused here
        model = PeftModel.from_pretrained(network, str(adapter), is_trainable=trained)
        loaded = model.load_adapter(str(adapter), "default", is_trainable=trained)  # only this one tells
    if strange := [*loaded.missing_keys, *loaded.unexpected_keys]:
        raise ValueError(f"{len(strange)} weights of the adapter {adapter} have no counterpart, such as {strange[0]}")
    return model


def base_of(network: Any) -> Any:
    """The model under an adapter; itself where it has none."""
    return network.get_base_model() if hasattr(network, "peft_config") else network
