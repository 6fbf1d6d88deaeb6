"""The sampler of GRPO: the engine that speaks in rollouts with the weights that are trained.

`hf` runs the very network that is trained, between two steps: there is nothing to bring over, only what was computed
with the weights before is to be forgotten. `vllm` is an engine of its own in this process, on the base model: the
adapter is written to a directory after each step and loaded under a new number, so that nothing in the prefix cache is
taken for its.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from transformers import GenerationConfig

from harness.adapters import base_of
from harness.budget import Budget
from harness.chat_template import ChatFormat
from harness.errors import UsageError
from harness.policies.hf_policy import HfEngine, HfSettings
from harness.policies.local_engine import Engine, EngineThread, EngineUnavailable, LocalPolicy, Request, stop_ids
from trainers.grpo_settings import GrpoSettings
from trainers.train_model import Learner

ADAPTERS = "sampler"
"""The directory in a run's in which adapters are handed to vLLM."""
GPU_SHARE = 0.35
"""Of a GPU's memory that vLLM takes beside the training: weights, keys and values."""


class TimedEngine:
    """An engine that counts the seconds in which it works, and can be waited for: a step settles its last answer some
    time before it ends.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._seconds = engine, 0.0
        self._working = threading.Lock()

    @property
    def seconds(self) -> float:
        """Those of the step under way too, whose end is waited for."""
        with self._working:
            return self._seconds

    @property
    def most(self) -> int:
        return self._engine.most

    @property
    def linger_s(self) -> float:
        return self._engine.linger_s

    @property
    def memory_advice(self) -> str:
        return self._engine.memory_advice

    def add(self, requests: Sequence[Request]) -> None:
        self._engine.add(requests)

    def step(self, closing: threading.Event) -> None:
        began = time.monotonic()
        with self._working:
            try:
                self._engine.step(closing)
            finally:
                self._seconds += time.monotonic() - began

    def wait(self) -> None:
        """Until the step under way, if there is one, has ended."""
        with self._working:
            pass

    def abandon(self) -> None:
        self._engine.abandon()

    def close(self) -> None:
        self._engine.close()


class Sampler(Protocol):
    """What speaks in the rollouts of a training."""

    @property
    def policy(self) -> LocalPolicy: ...
    @property
    def about(self) -> str:
        """Library, version and device, for the traces."""

    @property
    def seconds(self) -> float:
        """In which it has worked; a step that is under way is waited for."""

    def speaking(self, network: Any) -> AbstractContextManager[None]:
        """A context in which it speaks with the weights that the trained network has now."""

    def close(self) -> None: ...


class HfSampler:
    """The trained network itself, in evaluation mode, its adapter on.

    Args:
        most: rollouts in one generation.
    """

    def __init__(self, network: Any, chat: ChatFormat, max_context: int | None, most: int) -> None:
        self._engine = HfEngine(network, stop_ids(chat), HfSettings(batch_size=most))
        self._timed = TimedEngine(self._engine)
        self._thread = EngineThread(self._timed)
        self.policy = LocalPolicy(chat, self._thread, max_context, Budget())
        self.about = f"transformers {version('transformers')}, the network in training, {network.device}"

    @property
    def seconds(self) -> float:
        return self._timed.seconds

    @contextmanager
    def speaking(self, network: Any) -> Iterator[None]:
        """See Sampler. Keys and values of the weights before, and what the model's own generation settings would fill
        in (top_k, penalties), are left out.
        """
        self._engine.abandon()
        inner = base_of(network)
        training, own = network.training, inner.generation_config
        network.eval()
        inner.generation_config = GenerationConfig()
        try:
            yield
        finally:
            self._timed.wait()
            network.train(training)
            inner.generation_config = own
            self._engine.abandon()

    def close(self) -> None:
        self._thread.close()


class VllmSampler:
    """vLLM on the base model, with the adapter as it is at each round.

    Args:
        directory: a new one, for the adapters on their way.
        most: rollouts at a time.

    Raises:
        EngineUnavailable: vLLM is not there, or cannot run this model here.
    """

    def __init__(self, settings: GrpoSettings, learner: Learner, network: Any, directory: Path, most: int) -> None:
        from harness.policies.vllm_policy import VllmSettings, start_engine

        self._directory, self._number = directory, 0
        files = replace(learner.files, adapter=self._written(network))
        share: dict[str, object] = {"gpu_memory_utilization": GPU_SHARE} if settings.device == "cuda" else {}
        dtype = "bfloat16" if settings.precision == "bf16" else "float32"
        chosen = VllmSettings(dtype, settings.max_context, num_workers=most, engine_args=share)
        self._engine = start_engine(files, chosen, stop_ids(learner.chat))
        self._timed = TimedEngine(self._engine)
        self._thread = EngineThread(self._timed)
        self.policy = LocalPolicy(learner.chat, self._thread, self._engine.config.max_model_len, Budget())
        self.about = f"vllm {version('vllm')}, {dtype}, {settings.device}, the adapter in training"

    def _written(self, network: Any) -> Path:
        self._number += 1
        path = self._directory / f"adapter-{self._number}"
        network.save_pretrained(path, selected_adapters=["default"])
        return path

    @property
    def seconds(self) -> float:
        return self._timed.seconds

    @contextmanager
    def speaking(self, network: Any) -> Iterator[None]:
        """See Sampler."""
        self._engine.use_adapter(self._written(network))
        for old in set(self._directory.iterdir()) - {self._directory / f"adapter-{self._number}"}:
            shutil.rmtree(old)
        yield

    def close(self) -> None:
        self._thread.close()
        shutil.rmtree(self._directory)


def open_sampler(settings: GrpoSettings, learner: Learner, network: Any, workers: int, directory: Path) -> Sampler:
    """The sampler that the settings ask for.

    Args:
        network: the model as it is trained.
        workers: rollouts at the same time.
        directory: the training run's.

    Raises:
        UsageError: vLLM cannot run this model here.
    """
    most = min(workers, settings.rollouts)
    if settings.engine == "hf":
        return HfSampler(network, learner.chat, settings.max_context or learner.max_positions, most)
    shutil.rmtree(directory / ADAPTERS, ignore_errors=True)  # of a training that was killed
    try:
        with _said_here():
            return VllmSampler(settings, learner, network, directory / ADAPTERS, most)
    except UsageError:
        shutil.rmtree(directory / ADAPTERS)
        raise


def import_engine(engine: str) -> None:
    """Before TRL is imported: it imports vLLM too, where that is installed, with all that it says and reports.

    Raises:
        UsageError: vLLM is asked for and cannot be imported.
    """
    if engine == "vllm":
        from harness.policies.vllm_policy import import_vllm

        with _said_here():
            import_vllm()


@contextmanager
def _said_here() -> Iterator[None]:
    """What cannot be had, with the flag of this command that stands for something else."""
    try:
        yield
    except EngineUnavailable as error:
        raise UsageError(str(error).replace("--llm-provider hf", "--engine hf")) from None
