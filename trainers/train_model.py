"""The model that is trained: its files, its adapter, its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.adapters import base_of, with_adapter
from harness.chat_template import ChatFormat, chat_format
from harness.errors import UsageError
from harness.model_files import ModelFiles, find_model
from harness.progress import notice

_SHOWN = 8


class ModelSettings(Protocol):
    """What of a training's settings decides how its model is loaded."""

    @property
    def lora(self) -> bool: ...
    @property
    def lora_r(self) -> int: ...
    @property
    def lora_alpha(self) -> float: ...
    @property
    def lora_dropout(self) -> float: ...
    @property
    def lora_targets(self) -> str: ...
    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class Learner:
    """A model with what is needed to train it."""

    files: ModelFiles
    model: Any
    """A causal LM, or a PeftModel whose adapter is trained on."""
    chat: ChatFormat
    new_adapter: Any
    """The configuration of an adapter that the trainer makes, or None."""

    @property
    def tokenizer(self) -> Any:
        return self.chat.tokenizer

    @property
    def causal_lm(self) -> Any:
        """The model without its adapter's wrapper."""
        return base_of(self.model)

    @property
    def max_positions(self) -> int | None:
        found = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return found if isinstance(found, int) else None


def locate(name: str) -> ModelFiles:
    """The files of a model, local ones by absolute path: an adapter must find its base from anywhere.

    Raises UsageError where there are none.
    """
    if not name:
        raise UsageError("--model is missing: a directory, a training run, or a name on the Hugging Face hub")
    found = find_model(name)
    return ModelFiles(
        found.name,
        _absolute(found.base),
        found.adapter.resolve() if found.adapter else None,
        _absolute(found.tokenizer),
    )


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def device_of(asked: str) -> tuple[str, str]:
    """The device and the precision of a training there. Raises UsageError for a device that is not here."""
    import torch

    cuda = torch.cuda.is_available()
    if asked == "cuda" and not cuda:
        raise UsageError("--device cuda: torch finds no such device here")
    if asked == "cpu" or not cuda:
        return "cpu", "float32"
    if torch.cuda.device_count() > 1:
        raise UsageError("torch sees several GPUs, and one trains: choose it by CUDA_VISIBLE_DEVICES")
    return "cuda", "bf16" if torch.cuda.is_bf16_supported() else "float32"


def device_name(device: str) -> str:
    import platform

    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"cpu ({platform.machine()})"


def load_tokenizer(files: ModelFiles) -> ChatFormat:
    """Raises UsageError for a tokenizer that cannot be loaded or used."""
    from transformers import AutoTokenizer

    with _one_line(files.name, "its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(files.tokenizer)
    chat = chat_format(tokenizer)
    if chat.default_template:
        notice(f"{files.name} has no chat template: the default one is used, and saved with the result")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return chat


def load_learner(files: ModelFiles, chat: ChatFormat, settings: ModelSettings) -> Learner:
    """The model in memory. Raises UsageError where it cannot be loaded or the LoRA targets do not exist."""
    import torch
    from transformers import AutoModelForCausalLM

    frozen_weights = settings.lora and settings.precision == "bf16"
    with _one_line(files.name, "the model"):
        model, loading = AutoModelForCausalLM.from_pretrained(
            files.base, dtype=torch.bfloat16 if frozen_weights else torch.float32, output_loading_info=True
        )
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(f"{len(missing)} of its weights are not in its files ({missing[0]} first)")
        if files.adapter is not None:
            model = _adapted(model, files.adapter, settings.lora)
    if len(chat.tokenizer) > model.get_input_embeddings().num_embeddings:
        raise UsageError(f"--model {files.name}: its tokenizer has more tokens than the model")
    new = _new_adapter(model, settings) if settings.lora and files.adapter is None else None
    return Learner(files, model, chat, new)


def _adapted(model: Any, adapter: Path, trained: bool) -> Any:
    """With its adapter to train on, or with the adapter merged into it."""
    adapted = with_adapter(model, adapter, trained)
    return adapted if trained else adapted.merge_and_unload().requires_grad_(True)


def _new_adapter(model: Any, settings: ModelSettings) -> Any:
    from peft import LoraConfig

    targets = [name.strip() for name in settings.lora_targets.split(",") if name.strip()]
    whole = targets == ["all-linear"]
    if not whole:
        _check_targets(model, targets)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear" if whole else targets,
    )


def _check_targets(model: Any, targets: list[str]) -> None:
    import torch

    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    known = [name for name in linear if not name.endswith("lm_head")]
    for target in targets or [""]:
        if not any(name == target or name.endswith(f".{target}") for name in known):
            some = ", ".join(sorted({name.rpartition(".")[2] for name in known})[:_SHOWN])
            raise UsageError(f"--lora-targets {target}: the model has no such layer to adapt; there are {some}")


@contextmanager
def _one_line(name: str, what: str) -> Iterator[None]:
    """What the libraries say at length in one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise UsageError(f"--model {name}: {what} cannot be loaded: {said}") from error
