"""`vllm`: a local model through vLLM's offline engine, which takes on requests and lets go of them at every step.

So no rollout waits for the longest answer of a batch, and what a conversation shares with its last turn is computed
once (prefix cache). The engine runs in this process and ends with it, even after SIGKILL; vLLM's own choice, a process
beside ours, was seen to go on after that. Where `--engine-arg` asks for several devices, vLLM starts workers all the
same.

Log-probabilities are vLLM's "processed" ones: after temperature, and after the grammar of `--constrain json`.

vLLM is configured by environment variables too. These are set here, before it is imported, unless they are set:

    VLLM_ENABLE_V1_MULTIPROCESSING=0    the engine in this process
    VLLM_NO_USAGE_STATS=1               nothing is reported to its makers
    VLLM_LOGGING_LEVEL=ERROR            and nothing is shown while it starts; set it to see what vLLM says
    VLLM_LOGGING_STREAM=ext://sys.stderr

On a CPU, VLLM_CPU_KVCACHE_SPACE (GiB) sizes the cache, else it has CPU_CACHE_BYTES; the number of threads is torch's:
OMP_NUM_THREADS.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.budget import Budget
from harness.errors import InfrastructureError, PolicyRefused, UsageError
from harness.model_files import ModelFiles, find_model
from harness.policies.local_engine import (
    MAX_SAID,
    Answer,
    EngineThread,
    EngineUnavailable,
    LocalPolicy,
    Request,
    load_format,
    stop_ids,
)
from harness.policies.quiet import hidden_output
from harness.policy import Policy, PolicyInfo
from harness.records import Sampling, Task
from tools.protocol_schema import protocol_schema

T = TypeVar("T")

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
CPU_CACHE_BYTES = 4 * 2**30
"""Of keys and values. vLLM's own default is most of the machine's memory."""
SETTLED = {
    "model": "--model",
    "tokenizer": "--model",
    "dtype": "--dtype",
    "max_model_len": "--max-context",
    "logprobs_mode": "",
    "generation_config": "",
    "structured_outputs_config": "--constrain",
    "enable_lora": "--model",
}
"""Engine arguments that are not the user's to set, and the flag that stands for them."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM can reserve for an adapter."""
GRAMMAR = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Written as `tools.protocol` writes messages: a model that has learnt these is not led away from what it knows."""


@dataclass(frozen=True)
class VllmSettings:
    """How the engine is run."""

    dtype: str = ""
    """As torch names it; empty: float32 on a CPU, else bfloat16."""
    max_context: int | None = None
    """Tokens of a prompt and its answer; None: what the model was made for."""
    constrain: Literal["", "json"] = ""
    """json: only messages of the tool protocol can be said."""
    num_workers: int = 2
    """Rollouts at a time."""
    engine_args: dict[str, object] = field(default_factory=dict)
    """Of vLLM's EngineArgs, beside those that are settled here."""


class VllmSource:
    """One model for every rollout; the engine is started here, in the calling thread. One at a time in a process.

    Raises:
        UsageError: no model, or an engine argument that does not exist or is settled.
        EngineUnavailable: vLLM is not there, or cannot run this model on this machine.
    """

    def __init__(self, model: str, settings: VllmSettings, budget: Budget) -> None:
        files = find_model(model)
        _check_arguments(settings.engine_args, import_vllm())
        chat, notices = load_format(files)
        engine = start_engine(files, settings, stop_ids(chat))
        config = engine.config
        said = f"vllm {importlib.metadata.version('vllm')}, {_name(config.dtype)}, {_device()}"
        constrained = ", constrained to json" if settings.constrain else ""
        self.info = PolicyInfo("vllm", model=model, engine=said + constrained, notices=notices)
        self._thread = EngineThread(engine)
        self._policy = LocalPolicy(chat, self._thread, config.max_model_len, budget)

    def policy(self, task: Task, rollout_index: int) -> Policy:
        return self._policy.for_task(task)

    def close(self) -> None:
        """Give up the calls that are under way, and shut the engine down."""
        self._thread.close()


def import_vllm() -> frozenset[str]:
    """Import vLLM as it is used here: the names of its engine's arguments. Raises EngineUnavailable."""
    with _quiet():
        return _attempt("cannot be imported", _engine_arguments)


def start_engine(files: ModelFiles, settings: VllmSettings, stop: Sequence[int]) -> VllmEngine:
    """An engine in this process; `stop` are the tokens that end an answer. Raises EngineUnavailable."""
    with _quiet():
        return _attempt(f"cannot run {files.name}", lambda: _started(files, settings, stop))


def _attempt(what: str, act: Callable[[], T]) -> T:
    """What vLLM cannot do becomes one line. That is raised without its cause, which holds what is in memory."""
    try:
        return act()
    except ModuleNotFoundError as error:
        said = "vLLM is not installed" if error.name == "vllm" else f"vLLM {what}: {error}"
    except Exception as error:  # noqa: BLE001 - of any kind: a platform, a model or an adapter that it does not support
        told = " ".join(str(error).split())[:MAX_SAID].rstrip(". ")
        said = f"vLLM {what}: {told or type(error).__name__}"
    raise EngineUnavailable(f"{said}; --llm-provider hf runs models without it")


def _engine_arguments() -> frozenset[str]:
    """Imports vLLM. The names of its engine's arguments."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import EngineArgs

    return frozenset(each.name for each in fields(EngineArgs))


def _check_arguments(given: Mapping[str, object], known: frozenset[str]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"--engine-arg {name}: vLLM's engine has no such argument")
        if name in SETTLED:
            raise UsageError(f"--engine-arg {name} cannot be set: {SETTLED[name] or 'results depend on it'}")


def _started(files: ModelFiles, settings: VllmSettings, stop: Sequence[int]) -> VllmEngine:
    """The engine, after its first answer: some of what it needs is loaded or compiled only then."""
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    preload = os.environ.get("LD_PRELOAD")
    try:
        engine = VllmEngine(LLMEngine.from_engine_args(EngineArgs(**_arguments(files, settings))), settings, stop)
        engine.warm_up(files.adapter)
    except BaseException:
        _forget_devices()
        raise
    finally:
        _restore("LD_PRELOAD", preload)  # vLLM sets it for processes of its own; ours run other people's code
    return engine


def _arguments(files: ModelFiles, settings: VllmSettings) -> dict[str, Any]:
    on_cpu = _device() == "cpu"
    arguments: dict[str, Any] = {
        "model": files.base,
        "tokenizer": files.tokenizer,
        "dtype": settings.dtype or ("float32" if on_cpu else "bfloat16"),
        "max_model_len": settings.max_context,
        "max_num_seqs": settings.num_workers,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # not the model's: its top_k or penalties would change what is sampled
        "logprobs_mode": "processed_logprobs",
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
        "seed": 0,
    }
    if on_cpu:
        arguments |= _cpu_arguments()
    if settings.constrain:
        arguments["structured_outputs_config"] = {"backend": "guidance", "disable_any_whitespace": True}
    if files.adapter:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _reserved_rank(files.adapter)}
    return arguments | settings.engine_args


def _cpu_arguments() -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "enforce_eager": True,  # starts in seconds, not a minute
        "enable_chunked_prefill": False,  # a part of a prompt with a seed crashes vLLM 0.32 on a CPU
    }
    if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        arguments["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    return arguments


def _reserved_rank(adapter: Path) -> int:
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max(int(each) for each in (config["r"], *(config.get("rank_pattern") or {}).values()))
    found = next((each for each in RANKS if each >= rank), None)
    if found is None:
        raise ValueError(f"the adapter's rank is {rank}, and vLLM takes {RANKS[-1]} at most")
    return found


class VllmEngine:
    """The engine of `EngineThread`: a step gives one token to every request."""

    linger_s = 0.0
    memory_advice = "--num-workers or --max-context"

    def __init__(self, engine: Any, settings: VllmSettings, stop: Sequence[int]) -> None:
        self._engine, self._stop = engine, list(stop)
        self.config = engine.model_config
        self.most = int(engine.vllm_config.scheduler_config.max_num_seqs)
        self._schema = json.dumps({**protocol_schema(), "x-guidance": GRAMMAR}) if settings.constrain else ""
        self._adapter: Any = None
        self._requests: dict[str, Request] = {}
        self._names = map(str, itertools.count())

    def warm_up(self, adapter: Path | None) -> None:
        """Load the adapter, and answer one sampled and one greedy request."""
        if adapter:
            self.use_adapter(adapter)
        requests = [Request((self._stop[0],), Sampling(max_tokens=2, temperature=each)) for each in (0.0, 1.0)]
        self.add(requests)
        while not all(request.answer.done() for request in requests):
            self.step(threading.Event())
        for request in requests:
            request.answer.result()

    def use_adapter(self, adapter: Path) -> None:
        """Answer with this adapter from now on; nothing may be under way. It gets a number of its own: the prefix cache
        keeps what was computed with other weights under theirs.
        """
        from vllm.lora.request import LoRARequest

        number = self._adapter.lora_int_id + 1 if self._adapter else 1
        new = LoRARequest(f"adapter-{number}", number, str(adapter))
        if self._adapter:
            self._engine.remove_lora(self._adapter.lora_int_id)
        self._engine.add_lora(new)
        self._adapter = new

    def add(self, requests: Sequence[Request]) -> None:
        """Raises PolicyRefused for what vLLM does not take, for example a temperature above 2."""
        from vllm.exceptions import VLLMValidationError

        for request in requests:
            name = next(self._names)
            prompt = {"prompt_token_ids": list(request.prompt_ids)}
            try:
                self._engine.add_request(name, prompt, self._params(request.sampling), lora_request=self._adapter)
            except VLLMValidationError as error:
                raise PolicyRefused(f"vLLM does not take the request: {str(error)[:MAX_SAID]}") from None
            self._requests[name] = request

    def _params(self, sampling: Sampling) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        return SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            logprobs=0,  # of the sampled token alone
            stop_token_ids=self._stop,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(json=self._schema) if self._schema else None,
        )

    def step(self, closing: threading.Event) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            outputs = self._engine.step()
        except EngineDeadError as error:
            self._requests.clear()
            raise InfrastructureError(f"vLLM's engine died: {str(error)[:MAX_SAID]}") from None
        for output in outputs:
            if output.finished:
                _settle(self._requests.pop(output.request_id), output.outputs[0])

    def abandon(self) -> None:
        names = list(self._requests)
        self._requests.clear()
        self._engine.abort_request(names)

    def close(self) -> None:
        self.abandon()
        self._engine.engine_core.shutdown()
        _forget_devices()


def _settle(request: Request, output: Any) -> None:
    if output.finish_reason not in ("stop", "length"):
        request.fail(InfrastructureError(f"vLLM gave a request up: {output.finish_reason}"))
        return
    ids = tuple(output.token_ids)
    request.settle(Answer(ids, tuple(each[token].logprob for each, token in zip(output.logprobs, ids, strict=True))))


def _quiet() -> AbstractContextManager[None]:
    """Nothing is shown of what vLLM and its libraries say, unless a level of logging was chosen."""
    unspoken = ENVIRONMENT["VLLM_LOGGING_LEVEL"]
    return hidden_output() if os.environ.get("VLLM_LOGGING_LEVEL", unspoken) == unspoken else nullcontext()


def _device() -> str:
    """cpu, cuda, …; empty where vLLM found nothing that it can run on."""
    from vllm.platforms import current_platform

    return str(current_platform.device_type)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _forget_devices() -> None:
    """What torch keeps of the engine's processes: another engine may be started in this one."""
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value
