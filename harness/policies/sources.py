"""The table of policies: from `--llm-provider` and `--model` to a source of policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.budget import Budget
from harness.errors import UsageError
from harness.model_files import name_at_service
from harness.optional import require_libraries
from harness.policies.litellm_policy import LitellmSource, ServiceSettings
from harness.policies.local_engine import EngineUnavailable
from harness.policies.reference import EDIT, KINDS, ReferenceSource
from harness.policies.scripted import NoopSource, ReplaySource
from harness.policies.search import SearchSource
from harness.policy import PolicySource
from harness.records import Task
from sandboxes.workspace import Workspace

BUILT_IN = ("search", "reference", "noop", "replay")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LocalSettings:
    """How a model runs in this process. An empty setting is the engine's own choice."""

    device: str = ""
    """`hf` only."""
    dtype: str = ""
    hf_batch_size: int | None = None
    max_context: int | None = None
    constrain: Literal["", "json"] = ""
    """`vllm` only."""
    fallback: Literal["", "hf"] = ""
    """What speaks where vLLM cannot run."""
    engine_args: Mapping[str, object] = field(default_factory=dict)
    """`vllm` only."""
    num_workers: int = 2

    @property
    def given(self) -> list[str]:
        """The flags of what is set."""
        names = ("device", "dtype", "hf_batch_size", "max_context", "constrain", "fallback", "engine_args")
        flags = {name: f"--{name.replace('_', '-')}" for name in names} | {"engine_args": "--engine-arg"}
        return [flags[name] for name in names if getattr(self, name)]


HF_FLAGS = frozenset({"--device", "--dtype", "--hf-batch-size", "--max-context"})
VLLM_FLAGS = frozenset({"--dtype", "--max-context", "--constrain", "--fallback", "--engine-arg"})


def load_source(
    provider: str,
    model: str,
    settings: ServiceSettings,
    budget: Budget,
    reference: Callable[[Task], Workspace | None],
    local: LocalSettings | None = None,
) -> PolicySource:
    """The policy source of that name.

    Args:
        provider: one of BUILT_IN, `hf`, `vllm` (where an address is given: its server), or a provider of litellm.
        model: the model's name; for `replay` the run directory whose rollouts are said again.

    Raises:
        UsageError: it does not exist, or lacks what it needs (a model, a key, an address, a library).
    """
    local = local or LocalSettings()
    if provider in BUILT_IN and provider not in ("replay", "reference") and model:
        raise UsageError(f"--llm-provider {provider} takes no --model")
    if provider in (*BUILT_IN, "hf") and settings.api_base:
        raise UsageError(f"--llm-provider {provider} takes no --api-base")
    _refuse_idle_flags(provider, settings, local)
    if provider in BUILT_IN:
        return _built_in(provider, model, reference)
    if provider == "hf":
        return _hf(model, local, budget)
    if provider == "vllm" and not settings.api_base:
        return _vllm(model, local, budget)
    return LitellmSource(provider, name_at_service(model, provider), settings, budget)


def _built_in(provider: str, model: str, reference: Callable[[Task], Workspace | None]) -> PolicySource:
    match provider:
        case "search":
            return SearchSource()
        case "reference":
            if model and model not in KINDS:
                raise UsageError(f"--llm-provider reference makes mistakes of a kind: --model {' or '.join(KINDS)}")
            return ReferenceSource(reference, model or EDIT)
        case "noop":
            return NoopSource()
    if not model:
        raise UsageError("--llm-provider replay needs --model RUN, the run directory to replay")
    return ReplaySource(Path(model))


def _refuse_idle_flags(provider: str, settings: ServiceSettings, local: LocalSettings) -> None:
    """A flag that would do nothing, or cannot be kept, is refused."""
    if local.constrain and local.fallback:
        raise UsageError("--fallback hf cannot keep --constrain json: transformers would speak unconstrained")
    allowed: frozenset[str] = frozenset()
    if provider == "hf":
        allowed = HF_FLAGS
    elif provider == "vllm" and not settings.api_base:
        allowed = VLLM_FLAGS | (HF_FLAGS if local.fallback else frozenset())
    for flag in local.given:
        if flag not in allowed:
            engines = " or ".join(name for name, its in (("hf", HF_FLAGS), ("vllm", VLLM_FLAGS)) if flag in its)
            ours = "a server (--api-base)" if settings.api_base else f"--llm-provider {provider}"
            raise UsageError(f"{flag} is for a model in this process (--llm-provider {engines}), not for {ours}")


def _hf(model: str, local: LocalSettings, budget: Budget, notices: tuple[str, ...] = ()) -> PolicySource:
    """Raises UsageError."""
    _need_model("hf", model)
    require_libraries("torch", "transformers", "peft", who="--llm-provider hf: ")
    from harness.policies.hf_policy import HfSettings, HfSource

    batch_size = local.hf_batch_size or local.num_workers
    return HfSource(model, HfSettings(local.device, local.dtype, batch_size, local.max_context), budget, notices)


def _vllm(model: str, local: LocalSettings, budget: Budget) -> PolicySource:
    """Raises UsageError."""
    _need_model("vllm", model)
    try:
        from harness.policies.vllm_policy import VllmSettings, VllmSource

        chosen = VllmSettings(
            local.dtype, local.max_context, local.constrain, local.num_workers, dict(local.engine_args)
        )
        return VllmSource(model, chosen, budget)
    except EngineUnavailable as error:
        if not local.fallback:
            raise
        return _hf(model, local, budget, (f"vLLM cannot run, transformers speaks instead (--fallback hf): {error}",))


def _need_model(provider: str, model: str) -> None:
    if not model:
        raise UsageError(f"--llm-provider {provider} needs a --model: a directory, or a name on the Hugging Face hub")
