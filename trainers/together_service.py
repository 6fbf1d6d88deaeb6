"""Together's fine-tuning service, through its own package: calls, and what becomes of their faults.

The package's own retries are off: retries are here, bounded and jittered, because a create request must not be sent
again before it was looked whether the first one made a job. What the service answers is not trusted: it is read as
plain JSON, and everything that is printed goes through `printable`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from harness.errors import InfrastructureError, MachineLacks, PolicyRefused, UsageError
from harness.policies.litellm_policy import PASSING, REFUSALS
from harness.records import Record
from trainers.service_files import Method

KEY = "TOGETHER_API_KEY"
EXTRA = "service"
_MAX_SAID = 300
_MAX_ASKED_PAUSE_S = 60.0
_ID = re.compile(r"[\w.-]{1,200}", re.ASCII)
_HINTS = {401: f"check {KEY}", 403: f"the account of {KEY} may not do this", 404: "it has no such model, file or job"}
T = TypeVar("T")


@dataclass(frozen=True)
class CallSettings:
    """How the service is called."""

    base_url: str = ""
    """Empty: the package's own."""
    timeout_s: float = 120.0
    attempts: int = 8
    max_wait_s: float = 10.0
    """Longest pause between two attempts, beyond what the service asks for."""


class PassingFault(InfrastructureError):
    """A call failed; another one may succeed."""

    def __init__(self, said: str, retry_after_s: float = 0.0) -> None:
        super().__init__(said)
        self.retry_after_s = retry_after_s


class JobRequest(Record):
    """What a job is asked to do, all but its file."""

    method: Method
    model: str | None
    """None where a job is continued: the model is that job's."""
    n_epochs: int
    batch_size: int | Literal["max"]
    learning_rate: float
    lora: bool | None
    """None where a job is continued: it is what that job's training was."""
    lora_r: int | None
    lora_alpha: int | None
    suffix: str | None
    random_seed: int | None
    dpo_beta: float | None = None
    from_checkpoint: str | None = None

    def arguments(self, training_file: str) -> dict[str, Any]:
        """For the package. Inputs are masked: of an SFT row the assistant's messages of weight 1 are trained."""
        given = self.model_dump(exclude={"method"})
        masked = {"train_on_inputs": False} if self.method == "sft" else {}
        return {**given, **masked, "training_file": training_file, "training_method": self.method}


@dataclass(frozen=True)
class Terms:
    """What the service said of a request before there is a job."""

    training_type: Any
    training_method: Any
    priced: bool
    """Whether it estimates the price: it does not for models that see images."""
    max_tokens: int
    """Of a row."""


class Estimate(Record):
    """The service's estimate; None is what it does not tell."""

    price_usd: float | None
    train_tokens: int | None
    allowed: bool | None
    """Whether the account's balance is enough."""


class TogetherService:
    """Use it in a `with`. Every method raises PolicyRefused (401, 403, 404), UsageError (another refusal of the
    request) or InfrastructureError (a fault that the last attempt met too).

    Raises:
        UsageError: the package or the key is missing, or the address is none.
    """

    def __init__(self, settings: CallSettings) -> None:
        if settings.base_url and not settings.base_url.startswith(("http://", "https://")):
            raise UsageError(f"--service-url must begin with http:// or https://, not {settings.base_url!r}")
        self.settings = settings
        self._package = _import_package()
        self._client = self._package.Together(
            api_key=_key(), base_url=settings.base_url or None, timeout=settings.timeout_s, max_retries=0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def url(self) -> str:
        return str(self._client.base_url)

    def terms(self, request: JobRequest) -> Terms:
        """Hold the request against the limits of its model; UsageError names the one that it breaks."""
        from together.lib.resources.fine_tuning import create_finetune_request

        limits = self.call(lambda: self._limits(request.model or str(request.from_checkpoint).partition(":")[0]))
        if not limits.min_learning_rate <= request.learning_rate <= limits.max_learning_rate:
            span = f"{limits.min_learning_rate:g} to {limits.max_learning_rate:g}"
            raise UsageError(f"--learning-rate {request.learning_rate:g}: the service takes {span} for this model")
        if request.n_epochs > limits.max_num_epochs:
            raise UsageError(f"--epochs {request.n_epochs}: the service takes {limits.max_num_epochs} at most")
        try:
            made = create_finetune_request(model_limits=limits, **request.arguments("file"))
        except ValueError as error:
            raise UsageError(f"the service would refuse the job: {printable(error)}") from error
        longest = limits.max_seq_length_sft if request.method == "sft" else limits.max_seq_length_dpo
        return Terms(made[1], made[2], not limits.supports_vision, longest)

    def _limits(self, model: str) -> Any:
        from together.lib.resources.fine_tuning import get_model_limits
        from together.lib.types.fine_tuning import FinetuneTrainingLimits

        return FinetuneTrainingLimits.model_validate(_plain(get_model_limits(self._client, model)))

    def upload(self, path: str) -> str:
        """The id of the file at the service; one that has the same content there already is not made twice."""
        os.environ["TOGETHER_DISABLE_TQDM"] = "true"
        return self.call(lambda: checked_id(_plain(self._client.files.upload(path, purpose="fine-tune", check=False))))

    def is_processed(self, file: str) -> bool:
        return self.call(lambda: _plain(self._client.files.retrieve(file))).get("Processed") is True

    def estimate(self, request: JobRequest, file: str, terms: Terms) -> Estimate:
        start = {"model": request.model, "from_checkpoint": request.from_checkpoint}
        given = {**start, "training_type": terms.training_type, "training_method": terms.training_method}
        arguments = {name: value for name, value in given.items() if value is not None}
        price = self._client.fine_tuning.estimate_price
        answer = self.call(lambda: _plain(price(training_file=file, n_epochs=request.n_epochs, **arguments)))
        tokens, allowed = answer.get("estimated_train_token_count"), answer.get("allowed_to_proceed")
        return Estimate(
            price_usd=_number(answer.get("estimated_total_price")),
            train_tokens=int(number) if (number := _number(tokens)) is not None else None,
            allowed=allowed if isinstance(allowed, bool) else None,
        )

    def jobs_once(self) -> list[dict[str, Any]]:
        """All jobs of the account, in one attempt."""
        return _items(self._client.fine_tuning.list())

    def create_once(self, request: JobRequest, file: str) -> str:
        """The id of a new job, in one attempt: where the answer is lost there may be a job all the same."""
        return checked_id(_plain(self._client.fine_tuning.create(**request.arguments(file))))

    def look(self, job: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A job, and its events so far."""
        return self.call(lambda: _sound_job(_plain(self._client.fine_tuning.retrieve(job)))), self.call(
            lambda: _items(self._client.fine_tuning.list_events(job))
        )

    def call(self, function: Callable[[], T]) -> T:
        """What the function gives, which is called again where it meets a fault that may pass."""
        retrying = Retrying(
            retry=retry_if_exception_type(PassingFault),
            stop=stop_after_attempt(self.settings.attempts),
            wait=self._pause,
            reraise=True,
        )
        try:
            found: T = retrying(self._classified, function)
        except PassingFault as last:
            raise InfrastructureError(f"the service failed {self.settings.attempts} times, the last: {last}") from None
        return found

    def _pause(self, state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        asked = fault.retry_after_s if isinstance(fault, PassingFault) else 0.0
        return asked + wait_random_exponential(multiplier=1, max=self.settings.max_wait_s)(state)

    def _classified(self, function: Callable[[], T]) -> T:
        import httpx

        try:
            return function()
        except self._package.APIStatusError as error:
            raise _of_status(error) from None
        except (self._package.APIConnectionError, httpx.TransportError) as error:
            raise PassingFault(f"no answer ({printable(error.__cause__ or error)})") from None
        except (
            AssertionError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # how the package fails on an odd answer
            raise PassingFault(f"an answer that cannot be read ({type(error).__name__})") from None
        except self._package.TogetherError as error:
            raise UsageError(f"the package together refuses: {printable(error)}") from None


def _import_package() -> Any:
    try:
        import together
    except ImportError as error:
        raise MachineLacks(f"--backend together needs the package together: pip install '.[{EXTRA}]'") from error
    return together


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise MachineLacks(f"--backend together needs a key: set {KEY} in the environment")
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"{KEY} holds characters that no key has")
    return key


def _of_status(error: Any) -> Exception:
    status = int(error.response.status_code)
    said = f"({status}) {_said(error.body)}".strip()
    if status in REFUSALS:
        return PolicyRefused(f"the service refuses: {said}; {_HINTS[status]}")
    if status < 400 or status >= 500 or status in PASSING:
        return PassingFault(said, _retry_after(error.response.headers))
    return UsageError(f"the service refuses: {said}")


def _said(body: object) -> str:
    """The message of an error's body; nothing of a page of HTML or XML, which may echo the request."""
    if isinstance(body, str) and body.startswith("{"):
        with suppress(ValueError, RecursionError):
            body = json.loads(body)
    while isinstance(body, dict):
        body = body.get("error") or body.get("message") or body.get("detail")
    return printable(body) if isinstance(body, str) and not body.lstrip().startswith("<") else ""


def _retry_after(headers: Any) -> float:
    try:
        return min(max(float(headers.get("Retry-After", 0)), 0.0), _MAX_ASKED_PAUSE_S)
    except ValueError:
        return 0.0


def printable(text: object, limit: int = _MAX_SAID) -> str:
    """One line without control characters, of a text that may be anybody's."""
    clean = "".join(character if character.isprintable() else " " for character in str(text))
    return " ".join(clean.split())[:limit]


def _plain(answer: Any) -> dict[str, Any]:
    """The answer as decoded JSON: the package's models do not check what they are made of."""
    found = answer.to_dict(mode="json", warnings=False)
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _items(answer: Any) -> list[dict[str, Any]]:
    return [item for item in _plain(answer)["data"] if isinstance(item, dict)]


def _sound_job(job: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(job["status"], str) or (job["status"] == "completed" and not model_name(job)):
        raise ValueError("no status, or no name of the finished model")
    return job


def model_name(job: dict[str, Any]) -> str:
    """The name under which the service offers what a job trained; empty where there is none yet."""
    name = job.get("model_output_name")
    return printable(name) if isinstance(name, str) else ""


def checked_id(answer: dict[str, Any]) -> str:
    """The id in an answer; ids are printed as parts of commands, so an odd one is none."""
    found = answer["id"]
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise ValueError("no usable id")
    return found
