"""Where the training libraries are missing their tests are passed over: `make test` must not be such a place."""

from __future__ import annotations

import importlib
import os

import pytest


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("REPO_AGENT_REQUIRE_TRAIN") != "1", reason="the training libraries are optional here"
)
@pytest.mark.parametrize("name", ["torch", "transformers", "trl", "peft", "datasets", "matplotlib"])
def test_the_training_libraries_are_here(name: str) -> None:
    assert importlib.import_module(name)
