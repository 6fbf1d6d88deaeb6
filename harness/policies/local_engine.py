"""What the policies on a local model share: one thread owns the engine, concurrent rollouts wait for its answers.

    rollout threads ── LocalPolicy.complete ──> EngineThread ──> Engine (transformers, vLLM)
                    <── a future per request ──

An engine sees token ids only. A fault of its surroundings (out of memory, a dead engine) is an InfrastructureError for
the rollouts that wait for it; a bug is raised in them as it is.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from harness.budget import Budget
from harness.chat_template import ChatFormat, chat_format, check_playable, format_for
from harness.errors import InfrastructureError, MachineLacks, RolloutEnd, UsageError
from harness.model_files import ModelFiles
from harness.records import Completion, FinishReason, Message, Sampling, StopReason, Task, Usage

STOPPED = "model calls were stopped"
CLOSE_S = 20.0
"""How long `close` waits for the engine's thread: it ends after the step that it is in."""
HUB_S = 20.0
"""How long the hub may take to say whether it knows a name."""
MAX_SAID = 300
_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


class EngineUnavailable(MachineLacks):
    """This machine cannot run the engine; the message names another one."""


@dataclass(frozen=True)
class Answer:
    """What an engine sampled. Lengths are equal."""

    token_ids: tuple[int, ...]
    """The stop token included, where it was sampled."""
    logprobs: tuple[float, ...]
    """See Completion.logprobs."""


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt that waits for its answer."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    """Its max_tokens fit into the context."""
    answer: Future[Answer] = field(default_factory=Future)

    def settle(self, answer: Answer) -> None:
        """Answer it, from any thread; one that was given up is left alone."""
        with suppress(InvalidStateError):
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.answer.set_exception(error)


class Engine(Protocol):
    """A model that answers several requests at once. Only its thread calls it."""

    @property
    def most(self) -> int:
        """Requests under way at most."""

    @property
    def linger_s(self) -> float:
        """How long an idle engine waits for one more request before it begins with fewer than `most`."""

    @property
    def memory_advice(self) -> str:
        """What to lower when memory is too small, for example `--hf-batch-size`."""

    def add(self, requests: Sequence[Request]) -> None:
        """Take on requests."""

    def step(self, closing: threading.Event) -> None:
        """Go on with what is under way, and settle what is finished. A long step ends early once `closing` is set.

        Raises:
            InfrastructureError: the engine died; every request under way fails with it.
        """

    def abandon(self) -> None:
        """Forget everything under way."""

    def close(self) -> None:
        """Give back memory and processes."""


class EngineThread:
    """Drives an engine: takes requests from any thread, adds them, steps."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._waiting: deque[Request] = deque()
        self._under_way: list[Request] = []
        self._thread = threading.Thread(target=self._run, name="model-engine", daemon=True)
        self._thread.start()

    def answer(self, prompt_ids: Sequence[int], sampling: Sampling) -> Answer:
        """Wait for the answer to a prompt.

        Raises:
            InfrastructureError: out of memory, a dead engine, or `close` was called.
        """
        request = Request(tuple(prompt_ids), sampling)
        with self._changed:
            if self._closing.is_set():
                raise InfrastructureError(STOPPED)
            self._waiting.append(request)
            self._changed.notify_all()
        return request.answer.result()

    def close(self) -> None:
        """End the waiting of every caller, and the engine; may be called more than once, from any thread."""
        self._give_up()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)

    def _give_up(self) -> None:
        with self._changed:
            self._closing.set()
            for request in (*self._waiting, *self._under_way):
                request.fail(InfrastructureError(STOPPED))
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._advance(self._arrivals())
        finally:
            self._give_up()
            self._engine.close()

    def _arrivals(self) -> list[Request]:
        """The requests that are begun now; an idle engine waits for the first, and a little for others."""
        with self._changed:
            if not self._under_way:
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
                self._linger()
            room = max(0, self._engine.most - len(self._under_way))
            new = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._under_way += new
            return new

    def _linger(self) -> None:
        while len(self._waiting) < self._engine.most and not self._closing.is_set():
            if not self._engine.linger_s or not self._changed.wait(self._engine.linger_s):
                return

    def _advance(self, new: Sequence[Request]) -> None:
        try:
            if new:
                self._engine.add(new)
            if self._under_way:
                self._engine.step(self._closing)
        except Exception as error:  # noqa: BLE001 - raised in the callers
            self._fail(error)
        with self._changed:
            self._under_way = [request for request in self._under_way if not request.answer.done()]

    def _fail(self, error: Exception) -> None:
        """End the requests under way. A new error stands for a lack of memory: the old one holds what is in memory."""
        if out_of_memory(error):
            error = InfrastructureError(f"out of memory: lower {self._engine.memory_advice}")
        for request in self._under_way:
            request.fail(error)
        self._engine.abandon()


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had too little memory: libraries raise errors of several kinds for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _MEMORY)


def stop_ids(chat: ChatFormat) -> tuple[int, ...]:
    """The tokens that end generation: the one that ends the template's turn, and the tokenizer's end of sequence."""
    return tuple(dict.fromkeys((chat.end_ids[-1], int(chat.tokenizer.eos_token_id))))


@dataclass(frozen=True)
class LocalPolicy:
    """Completes through an engine of this process. See `harness.policy.Policy` for the errors."""

    chat: ChatFormat
    engine: EngineThread
    max_context: int | None
    """Tokens of a prompt and its answer; None is no limit."""
    budget: Budget

    def for_task(self, task: Task) -> LocalPolicy:
        """The policy that puts a task's prompt as the task wants it."""
        return replace(self, chat=format_for(self.chat, task.raw_prompt))

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        return self.complete_ids(self.chat.prompt_ids(messages), sampling)

    def complete_ids(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """The same after a prompt that is tokens already."""
        self.budget.check()
        started = time.monotonic()
        answer = self.engine.answer(prompt, self._fitting(sampling, len(prompt)))
        completion = self._completion(prompt, answer, time.monotonic() - started)
        self.budget.add(completion)
        return completion

    def _fitting(self, sampling: Sampling, prompt_tokens: int) -> Sampling:
        """With no more tokens than there is room for."""
        if self.max_context is None:
            return sampling
        room = self.max_context - prompt_tokens
        if room <= 0:
            raise RolloutEnd(StopReason.CONTEXT_FULL)
        return sampling.model_copy(update={"max_tokens": min(sampling.max_tokens, room)})

    def _completion(self, prompt: Sequence[int], answer: Answer, seconds: float) -> Completion:
        if not all(map(math.isfinite, answer.logprobs)):  # weights that overflow, for example in float16
            raise InfrastructureError("the model gives no numbers as probabilities: try another --dtype")
        stopped = answer.token_ids[-1:] and answer.token_ids[-1] in stop_ids(self.chat)
        return Completion(
            text=self.chat.text(answer.token_ids),
            finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
            usage=Usage(prompt_tokens=len(prompt), completion_tokens=len(answer.token_ids)),
            token_ids=answer.token_ids,
            logprobs=answer.logprobs,
            seconds=seconds,
        )


def load_format(files: ModelFiles) -> tuple[ChatFormat, tuple[str, ...]]:
    """The tokenizer of a model with its chat template, and what is to be announced about it.

    Raises:
        UsageError: it is not there, or cannot be used.
    """
    from transformers import AutoConfig, AutoTokenizer

    if not Path(files.base).is_dir():
        _refuse_unknown(files.base)
    with loading(f"the tokenizer of {files.name}"):
        tokenizer = AutoTokenizer.from_pretrained(files.tokenizer, trust_remote_code=False)
        config = AutoConfig.from_pretrained(files.base, trust_remote_code=False).get_text_config()
    _refuse_strangers(files, tokenizer, getattr(config, "vocab_size", None))
    chat = chat_format(tokenizer)
    check_playable(chat)
    lacking = f"the tokenizer of {files.name} has no chat template: the default one is used"
    return chat, (lacking,) if chat.default_template else ()


def _refuse_strangers(files: ModelFiles, tokenizer: Any, known: int | None) -> None:
    """A token without an embedding would be found by the first message that has it."""
    if known is not None and len(tokenizer) > known:
        raise UsageError(f"the tokenizer of {files.name} has {len(tokenizer)} tokens and the model {known}")


def _refuse_unknown(name: str) -> None:
    """A name that is neither kept from an earlier download nor found on the hub: better one call than many retries."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    with loading(f"{name} is no directory here, and as a name on the Hugging Face hub it"):
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            HfApi().model_info(name, timeout=HUB_S)


@contextmanager
def loading(what: str, memory_advice: str = "") -> Iterator[None]:
    """Whatever keeps files from being loaded becomes one line."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # the libraries raise errors of many kinds for files that they cannot use
        if out_of_memory(error):
            raise UsageError(f"{what} does not fit into memory: lower {memory_advice}") from None
        said = " ".join(str(error).split())[:MAX_SAID] or type(error).__name__
        raise UsageError(f"{what} cannot be loaded: {said}") from error
