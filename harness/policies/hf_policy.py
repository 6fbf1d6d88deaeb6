"""`hf`: a local model through transformers, one `generate` over all the rollouts that wait.

A generation pauses some tokens after rows have ended, so that their rollouts' next turns can join: the others go on
where they were, with what was computed for them.

Every row of a batch has its own seed, temperature, token limit and end. Sampling is exact: with g from a Gumbel
distribution, the argmax of logits / T + g is a sample of softmax(logits / T) (Maddison et al., arXiv:1411.0030), and g
comes from a generator of the row's own. So an answer depends on what else is in the batch by float noise only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from harness.adapters import base_of, with_adapter
from harness.budget import Budget
from harness.errors import UsageError
from harness.model_files import ModelFiles, find_model
from harness.policies.hf_prefixes import Prefixes, shareable
from harness.policies.local_engine import (
    Answer,
    EngineThread,
    LocalPolicy,
    Request,
    load_format,
    loading,
    stop_ids,
)
from harness.policy import Policy, PolicyInfo
from harness.records import Task

LINGER_S = 0.02
"""How long an idle engine waits for one more rollout: a tool call takes less, a test run more."""
ADVICE = "--hf-batch-size, --num-workers, --max-context or --max-tokens"
JOIN_TOKENS = 24
"""How long a generation goes on once a row has ended: a tool call takes less. It ends before where half have ended."""
NO_LIMIT = 10**9
"""Tokenizers without a length say a number above this one."""


@dataclass(frozen=True)
class HfSettings:
    """How the model is run."""

    device: str = ""
    """As torch names it; empty: cuda where there is one, else cpu."""
    dtype: str = ""
    """As torch names it; empty: bfloat16 on cuda, else float32."""
    batch_size: int = 2
    """Rollouts in one generation at most."""
    max_context: int | None = None
    """Tokens of a prompt and its answer; None: what the model was made for."""


class HfSource:
    """One model for every rollout; its tokenizer and weights are loaded here.

    Args:
        notices: what is to be announced beside what is found here.

    Raises:
        UsageError: no model, one that cannot be loaded, or a device that is not there.
    """

    def __init__(self, model: str, settings: HfSettings, budget: Budget, notices: tuple[str, ...] = ()) -> None:
        files = find_model(model)
        device = _device(settings.device)
        dtype = _dtype(settings.dtype, device)
        chat, found = load_format(files)
        network = load_network(files, device, dtype)
        said = f"transformers {transformers.__version__}, {str(dtype).removeprefix('torch.')}, {device}"
        self.info = PolicyInfo("hf", model=model, engine=said, notices=(*notices, *found))
        self.engine = HfEngine(network, stop_ids(chat), settings)
        self._thread = EngineThread(self.engine)
        limit = settings.max_context or _context(network, chat.tokenizer)
        self._policy = LocalPolicy(chat, self._thread, limit, budget)

    def policy(self, task: Task, rollout_index: int) -> Policy:
        return self._policy.for_task(task)

    def close(self) -> None:
        """Give up the calls that are under way; the generation ends with the token that it is at."""
        self._thread.close()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: torch cannot use it: {str(error).splitlines()[0]}") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    chosen: torch.dtype = getattr(torch, name or ("bfloat16" if device.type == "cuda" else "float32"))
    return chosen


def load_network(files: ModelFiles, device: torch.device, dtype: torch.dtype) -> Any:
    """The weights, with their adapter. Only their files are read: no code that comes with a model is run.

    Raises:
        UsageError: they cannot be loaded, are not complete, or do not fit into memory.
    """
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with loading(f"the model {files.name}", "--dtype, or take a smaller model"):
        network, report = transformers.AutoModelForCausalLM.from_pretrained(
            files.base, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
        _refuse_incomplete(files, report["missing_keys"])
        network = network.to(device)
        if files.adapter:
            network = with_adapter(network, files.adapter).to(device)
    base_of(
        network
    ).generation_config = GenerationConfig()  # what it holds (top_k, penalties, …) would fill what ours leaves open
    return network.eval()


def _refuse_incomplete(files: ModelFiles, missing: Sequence[str]) -> None:
    """transformers makes up what a file of weights lacks."""
    if missing:
        raise UsageError(
            f"the weights of {files.base} are not complete: {len(missing)} missing, like {sorted(missing)[0]}"
        )


def _context(network: Any, tokenizer: Any) -> int | None:
    """The tokens of a conversation that the model was made for."""
    places = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    said = tokenizer.model_max_length
    return places or (said if said < NO_LIMIT else None)


class HfEngine:
    """The engine of `EngineThread`: a step is a generation, which settles each row at its end."""

    linger_s = LINGER_S
    memory_advice = ADVICE

    def __init__(self, network: Any, stop: Sequence[int], settings: HfSettings) -> None:
        self.network, self._stop = network, stop
        self.most = settings.batch_size
        self._rows: list[Row] = []
        self._prefixes = Prefixes(network, self.most) if shareable(network) else None

    def add(self, requests: Sequence[Request]) -> None:
        self._rows += [Row(request, _generator(request, self.network.device)) for request in requests]

    def step(self, closing: threading.Event) -> None:
        rows, self._rows = self._rows, []
        prompts = [row.ids for row in rows]
        ids, mask = padded(prompts, self._stop[0], self.network.device)
        with torch.inference_mode(), _places_within(self.network, rows):
            cache = self._prefixes.cache_of(prompts) if self._prefixes else None
            batch = Batch(rows, torch.tensor(self._stop, device=ids.device), ids.shape[1], closing, cache is not None)
            all_ids = self.network.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=self._config(rows),
                logits_processor=LogitsProcessorList([Sampler(batch)]),
                stopping_criteria=StoppingCriteriaList([Ending(batch)]),
            )
            if self._prefixes and cache and not closing.is_set():
                starts = [batch.start - len(prompt) for prompt in prompts]
                self._prefixes.keep(cache, all_ids, starts, [batch.start + length for length in batch.lengths])
        self._rows = batch.paused(all_ids)

    def _config(self, rows: Sequence[Row]) -> GenerationConfig:
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=max(row.left for row in rows),
            pad_token_id=self._stop[0],
            use_cache=True,
        )

    def abandon(self) -> None:
        self._rows = []
        if self._prefixes:
            self._prefixes.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def close(self) -> None:
        self.abandon()
        self.network = self._prefixes = None


@contextmanager
def _places_within(network: Any, rows: Sequence[Row]) -> Iterator[None]:
    """A row that has ended goes on with the others: it stays at a place that one of them may reach."""
    last = max(len(row.ids) + row.left for row in rows) - 1

    def clamp(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        places = kwargs.get("position_ids")
        return args, kwargs if places is None else {**kwargs, "position_ids": places.clamp(max=last)}

    hook = base_of(network).register_forward_pre_hook(clamp, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def padded(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both [rows, longest], padded on the left."""
    longest = max(map(len, prompts))
    ids = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def gumbel(size: int, generator: torch.Generator) -> torch.Tensor:
    """Noise of a Gumbel distribution, [size], float64: of float32's uniform numbers one in 2**24 is 0, and infinite."""
    return -torch.empty(size, dtype=torch.float64, device=generator.device).exponential_(generator=generator).log()


@dataclass(eq=False)
class Row:
    """A request under way."""

    request: Request
    generator: torch.Generator | None
    """Of its own, where it is sampled."""
    said: tuple[int, ...] = ()
    """In the generations before this one."""
    logprobs: tuple[float, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return (*self.request.prompt_ids, *self.said)

    @property
    def left(self) -> int:
        """Tokens that it may still say."""
        return self.request.sampling.max_tokens - len(self.said)


def _generator(request: Request, device: torch.device) -> torch.Generator | None:
    if not request.sampling.temperature:
        return None
    source = device if device.type == "cuda" else "cpu"  # others may have no float64
    return torch.Generator(source).manual_seed(request.sampling.seed)


class Batch:
    """The rows of one generation: how each is sampled, where it ends, what it has said.

    Args:
        start: the place behind the prompts.
        may_pause: what was computed is kept, so that rows can go on later.
    """

    def __init__(
        self, rows: Sequence[Row], stop: torch.Tensor, start: int, closing: threading.Event, may_pause: bool
    ) -> None:
        self.rows, self.stop, self.start, self.closing, self._may_pause = rows, stop, start, closing, may_pause
        device = stop.device
        temperatures = [row.request.sampling.temperature for row in rows]
        self.divisor = torch.tensor([each or 1.0 for each in temperatures], device=device).unsqueeze(1)
        self.limits = torch.tensor([row.left for row in rows], device=device)
        self.generators = {place: row.generator for place, row in enumerate(rows) if row.generator is not None}
        self.logprobs: list[torch.Tensor] = []
        self.ends: dict[int, int] = {}
        """By row that has ended, the tokens it said here."""
        self.done = torch.zeros(len(rows), dtype=torch.bool, device=device)

    @property
    def lengths(self) -> list[int]:
        """Tokens that each row has said here."""
        return [self.ends.get(place, len(self.logprobs)) for place in range(len(self.rows))]

    def sample(self, logits: torch.Tensor) -> torch.Tensor:
        """The next token of each row, [rows], from its logits, [rows, vocabulary]."""
        scaled = logits / self.divisor
        noisy = scaled.clone()
        for row, generator in self.generators.items():
            noisy[row] += gumbel(logits.shape[1], generator).to(noisy)
        chosen = noisy.argmax(-1)
        self.logprobs.append(scaled.log_softmax(-1).gather(1, chosen.unsqueeze(1)).squeeze(1))
        return chosen

    def end(self, ids: torch.Tensor) -> torch.Tensor:
        """Which rows are over, [rows], given all ids so far; those that ended now are settled."""
        over = torch.isin(ids[:, -1], self.stop) | (len(self.logprobs) >= self.limits)
        ended = (over & ~self.done).nonzero().flatten().tolist()
        if ended:
            self.done |= over
            for place in ended:
                self.generators.pop(place, None)
                self.ends[place] = len(self.logprobs)
            for row in self._said(ids, ended):
                row.request.settle(Answer(row.said, row.logprobs))
        return self.done | self.closing.is_set() | self._pauses

    @property
    def _pauses(self) -> bool:
        if not self._may_pause or not self.ends:
            return False
        return 2 * len(self.ends) >= len(self.rows) or len(self.logprobs) >= min(self.ends.values()) + JOIN_TOKENS

    def _said(self, ids: torch.Tensor, places: Sequence[int]) -> list[Row]:
        """Rows with what they have said by now."""
        said, logprobs = ids[places, self.start :].tolist(), torch.stack(self.logprobs, 1)[places].tolist()
        rows = [self.rows[place] for place in places]
        return [
            replace(row, said=(*row.said, *more), logprobs=(*row.logprobs, *their))
            for row, more, their in zip(rows, said, logprobs, strict=True)
        ]

    def paused(self, ids: torch.Tensor) -> list[Row]:
        """The rows that have not ended, as they go on from here."""
        left = [place for place in range(len(self.rows)) if place not in self.ends]
        return self._said(ids, left) if left else []


class Sampler(LogitsProcessor):
    """Leaves one token possible in each row: the sampled one."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = self.batch.sample(scores)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.unsqueeze(1), 0.0)


class Ending(StoppingCriteria):
    """Ends each row at its own stop token or token limit, and all of them when the engine closes."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return self.batch.end(input_ids)
