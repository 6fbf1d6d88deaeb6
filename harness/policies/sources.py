"""The table of policies: from `--llm-provider` and `--model` to a source of policies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.budget import Budget
from harness.errors import UsageError
from harness.policies.litellm_policy import LitellmSource, ServiceSettings
from harness.policies.reference import ReferenceSource
from harness.policies.scripted import NoopSource, ReplaySource
from harness.policies.search import SearchSource
from harness.policy import PolicySource
from harness.records import Task
from sandboxes.workspace import Workspace

BUILT_IN = ("search", "reference", "noop", "replay")


def load_source(
    provider: str,
    model: str,
    settings: ServiceSettings,
    budget: Budget,
    reference: Callable[[Task], Workspace | None],
) -> PolicySource:
    """The policy source of that name.

    Args:
        provider: one of BUILT_IN, or a provider of litellm.
        model: the model's name; for `replay` the run directory whose rollouts are said again.

    Raises:
        UsageError: it does not exist, or lacks what it needs (a model, a key, an address).
    """
    if provider in BUILT_IN and provider != "replay" and model:
        raise UsageError(f"--llm-provider {provider} takes no --model")
    if provider in BUILT_IN and settings.api_base:
        raise UsageError(f"--llm-provider {provider} takes no --api-base")
    match provider:
        case "search":
            return SearchSource()
        case "reference":
            return ReferenceSource(reference)
        case "noop":
            return NoopSource()
        case "replay":
            if not model:
                raise UsageError("--llm-provider replay needs --model RUN, the run directory to replay")
            return ReplaySource(Path(model))
    return LitellmSource(provider, model, settings, budget)
