"""Any model that litellm reaches.

litellm is imported when the first policy is made, with its import-time download of prices switched off and its own
retries off: retries are here, bounded, counted and jittered, so that a fault is seen once and billed once.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    wait_random_exponential,
)

from harness.budget import Budget
from harness.errors import InfrastructureError, MachineLacks, PolicyRefused, RolloutEnd, UsageError
from harness.policies.calls import Calls
from harness.policy import Policy, PolicyInfo
from harness.records import Completion, FinishReason, Message, Sampling, StopReason, Task, Usage
from harness.redaction import Redactor

PREFIXES = {"together": "together_ai", "vllm": "hosted_vllm", "litellm": ""}
"""litellm's name of a provider, where ours differs; 'litellm' takes the model's name as it is."""
COMMON = ("openai", "anthropic", "together", "vllm", "gemini", "mistral", "deepseek", "groq", "openrouter", "litellm")
REFUSALS = (401, 403, 404)
PASSING = (408, 409, 425, 429)
"""Statuses below 500 that the next attempt may not meet."""
MAX_SAID = 300
_CONTEXT_FULL = re.compile(
    r"context[_ ](length|window|size|limit)|maximum model length|maximum input length|(prompt|input) is too long", re.I
)
_FILTERED = re.compile(r"content[_ ](filter|policy|management)|safety system|responsibleai|input was flagged", re.I)


class Fault(StrEnum):
    """What went wrong with one call, in a way that the next call may not meet."""

    RATE_LIMIT = "rate_limit"
    """Status 429."""
    SERVER_ERROR = "server_error"
    """A status from 500 on, or one of PASSING."""
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    """Refused, reset, or dropped before the answer was complete."""
    MALFORMED = "malformed_response"
    """An answer that is no chat completion."""


class TransientFault(InfrastructureError):
    """A call failed; another one may succeed."""

    def __init__(self, fault: Fault, said: str, retry_after_s: float = 0.0) -> None:
        super().__init__(said)
        self.fault, self.retry_after_s = fault, retry_after_s


@dataclass(frozen=True)
class ServiceSettings:
    """How the service is called."""

    api_base: str = ""
    timeout_s: float = 120.0
    """Wall-clock seconds of one call."""
    attempts: int = 5
    """Calls per completion, the first included."""
    max_wait_s: float = 30.0
    """Longest pause between two attempts."""


def import_litellm() -> Any:
    """litellm, imported without network and without reading a `.env` file; silent, for its messages may hold keys."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    logging.getLogger("LiteLLM").disabled = True
    for said in ("Pydantic serializer warnings", r"Item '\w+' on TypedDict class"):
        warnings.filterwarnings("ignore", message=said, category=UserWarning)
    return litellm


class LitellmSource:
    """One model for every rollout.

    Raises:
        UsageError: unknown provider, no model name, or the provider's key is not in the environment.
    """

    def __init__(self, provider: str, model: str, settings: ServiceSettings, budget: Budget) -> None:
        _check(provider, settings)
        litellm = import_litellm()
        name = _full_name(litellm, provider, model)
        _check_price(litellm, name, budget)
        self.info = PolicyInfo(provider, model=model)
        self._policy = LitellmPolicy(litellm, name, settings, budget, _key(litellm, name, settings.api_base))

    def policy(self, task: Task, rollout_index: int) -> Policy:
        return self._policy

    def close(self) -> None:
        """Give up the calls that are under way."""
        self._policy.calls.stop()


def _check_price(litellm: Any, name: str, budget: Budget) -> None:
    """A cap that cannot hold is refused."""
    if budget.max_cost_usd is None:
        return
    try:
        priced = litellm.get_model_info(name).get("output_cost_per_token")
    except Exception:  # noqa: BLE001 - litellm raises a bare Exception for an unknown model
        priced = None
    if not priced:
        raise UsageError(f"--max-cost cannot hold: no price is known for {name}; use --max-total-tokens")


def _check(provider: str, settings: ServiceSettings) -> None:
    if provider == "vllm" and not settings.api_base:
        raise UsageError("--llm-provider vllm needs --api-base, the address of an OpenAI-compatible server")
    if settings.api_base and not settings.api_base.startswith(("http://", "https://")):
        raise UsageError(f"--api-base must begin with http:// or https://, not {settings.api_base!r}")
    if settings.timeout_s <= 0:
        raise UsageError("--request-timeout must be more than 0")


def _full_name(litellm: Any, provider: str, model: str) -> str:
    """The name by which litellm knows the model."""
    prefix = PREFIXES.get(provider, provider)
    if prefix and prefix not in {str(getattr(name, "value", name)) for name in litellm.provider_list}:
        raise UsageError(f"unknown --llm-provider {provider!r}: for example {', '.join(COMMON)}, search, noop")
    if not model:
        raise UsageError(f"--llm-provider {provider} needs a --model")
    name = f"{prefix}/{model}" if prefix and not model.startswith(f"{prefix}/") else model
    try:
        litellm.get_llm_provider(name)
    except litellm.exceptions.BadRequestError:
        raise UsageError(f"litellm does not know whose model {model!r} is: write it as PROVIDER/MODEL") from None
    return name


def _key(litellm: Any, name: str, api_base: str) -> str | None:
    """None lets litellm read the provider's own variable; a server of one's own may need no key, but litellm does.

    Only keys and addresses are asked for: clouds have other ways to log in.
    """
    if litellm.get_llm_provider(name)[2]:
        return None
    missing = [variable for variable in litellm.validate_environment(name)["missing_keys"] if "_API_" in variable]
    if missing and not api_base:
        raise MachineLacks(f"no key for {name}: the environment lacks {', '.join(missing)}")
    return "none" if missing else None


@dataclass(frozen=True)
class LitellmPolicy:
    """Completes through litellm. See `harness.policy.Policy` for the errors."""

    litellm: Any
    model: str
    settings: ServiceSettings
    budget: Budget
    key: str | None = None
    redact: Redactor = field(default_factory=Redactor)
    calls: Calls = field(default_factory=Calls)

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        self.budget.check()
        faults: list[str] = []
        retrying = Retrying(
            retry=retry_if_exception_type(TransientFault),
            stop=stop_after_attempt(self.settings.attempts),
            wait=self._pause,
            sleep=sleep_using_event(self.calls.stopped),
            before_sleep=lambda state: faults.append(_fault_of(state).fault),
            reraise=True,
        )
        try:
            completion = retrying(self._call, messages, sampling)
        except TransientFault as last:
            raise InfrastructureError(f"{last.fault} in attempt {len(faults) + 1}, the last: {last}") from None
        return completion.model_copy(update={"attempts": len(faults) + 1, "faults": tuple(faults)})

    def _pause(self, state: RetryCallState) -> float:
        """Exponential and jittered, after what the service asked for."""
        jitter = wait_random_exponential(multiplier=1, max=self.settings.max_wait_s)(state)
        return min(_fault_of(state).retry_after_s + jitter, self.settings.max_wait_s)

    def _call(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        import openai

        started = time.monotonic()
        call = partial(self.litellm.completion, **self._request(messages, sampling))
        try:
            response = self.calls.within(self.settings.timeout_s, call)
        except TimeoutError:
            said = f"no complete answer in {self.settings.timeout_s:g} s"
            raise TransientFault(Fault.TIMEOUT, said) from None
        except openai.OpenAIError as error:  # the root of litellm's errors too
            raise self._classified(error) from None
        return self._completion(response, time.monotonic() - started)

    def _request(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content or "(empty)"} for message in messages],
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
            "timeout": self.settings.timeout_s,
            "api_base": self.settings.api_base or None,
            "api_key": self.key,
            "num_retries": 0,
            "max_retries": 0,
            "drop_params": True,
        }

    def _completion(self, response: Any, seconds: float) -> Completion:
        """The record of a response; what it cost is counted, whatever becomes of it."""
        if not response.choices:
            raise TransientFault(Fault.MALFORMED, "no choices in the response")
        choice = response.choices[0]
        completion = Completion(
            text=(choice.message.content or "").encode("utf-8", "replace").decode(),
            finish_reason=FinishReason.LENGTH if choice.finish_reason == "length" else FinishReason.STOP,
            usage=_usage(response),
            cost_usd=self._cost(response),
            seconds=seconds,
        )
        self.budget.add(completion)
        if self.budget.max_tokens is not None and completion.usage.prompt_tokens is None:
            raise PolicyRefused("--max-total-tokens cannot hold: the service does not report how many tokens it used")
        if choice.finish_reason == "content_filter":
            raise RolloutEnd(StopReason.CONTENT_FILTER)
        return completion

    def _cost(self, response: Any) -> float | None:
        """None where litellm knows no price for the model."""
        try:
            return float(self.litellm.completion_cost(completion_response=response, model=self.model)) or None
        except Exception:  # noqa: BLE001 - litellm raises a bare Exception for an unknown model
            return None

    def _classified(self, error: Exception) -> Exception:
        """An error, by fate. litellm's class for a fault differs by provider, so what was seen on the wire counts."""
        kinds = self.litellm.exceptions
        text = f"{error} {getattr(error, 'code', '')}"
        status, fault, retry_after_s = _seen(error)
        if isinstance(error, kinds.ContextWindowExceededError) or (status in (400, 422) and _CONTEXT_FULL.search(text)):
            return RolloutEnd(StopReason.CONTEXT_FULL)
        if isinstance(error, kinds.ContentPolicyViolationError) or (status in (400, 403) and _FILTERED.search(text)):
            return RolloutEnd(StopReason.CONTENT_FILTER)
        if status in REFUSALS:
            return PolicyRefused(f"the service refuses {self.model} (status {status}): {self._said(error)}")
        if fault:
            return TransientFault(fault, self._said(error), retry_after_s)
        return InfrastructureError(f"the service does not accept the request (status {status}): {self._said(error)}")

    def _said(self, error: Exception) -> str:
        """The service's words, on one line. Keys are masked first: a cut could leave a part of one."""
        text = self.redact(str(error))
        text = (text.partition("Exception - ")[2] or text).partition("Traceback (most recent call last)")[0]
        return " ".join(text.split())[:MAX_SAID]


def _fault_of(state: RetryCallState) -> TransientFault:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TransientFault)
    return error


def _usage(response: Any) -> Usage:
    """litellm says 0 where the service said nothing; no prompt has 0 tokens."""
    usage = getattr(response, "usage", None)
    prompt = getattr(usage, "prompt_tokens", None)
    return Usage(prompt_tokens=prompt, completion_tokens=usage.completion_tokens) if usage and prompt else Usage()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _seen(error: Exception) -> tuple[int | None, Fault | None, float]:
    """The HTTP status (None: no whole answer came), the transient fault (None: it is none), the seconds to wait.

    Where no HTTP exception is at the bottom, the service answered with something that litellm could not read, or with
    an error under a good status; the status is then litellm's.
    """
    import httpx

    wire = next((item for item in _chain(error) if isinstance(item, httpx.HTTPError)), None)
    if isinstance(wire, httpx.TimeoutException):
        return None, Fault.TIMEOUT, 0.0
    if isinstance(wire, httpx.TransportError):
        return None, Fault.CONNECTION, 0.0
    if isinstance(wire, httpx.HTTPStatusError):
        status = wire.response.status_code
        passing = status >= 500 or status in PASSING
        fault = Fault.RATE_LIMIT if status == 429 else Fault.SERVER_ERROR
        return status, fault if passing else None, _retry_after(wire.response.headers.get("retry-after", ""))
    said: int | None = getattr(error, "status_code", None)
    return said, Fault.RATE_LIMIT if said == 429 else Fault.MALFORMED, 0.0


def _retry_after(header: str) -> float:
    """Seconds; the header's other form, a date, is passed over."""
    try:
        seconds = float(header)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
