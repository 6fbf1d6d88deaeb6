"""One model of a base and its adapter.

The sum is made in float32 and rounded once, to the type in which the model is saved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import UsageError
from harness.model_files import ModelFiles

DTYPES = ("auto", "float32", "bfloat16", "float16")
_Loaded = TypeVar("_Loaded")


def tokenizer_of(files: ModelFiles) -> Any:
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer.from_pretrained, files.tokenizer)


def merged_model(files: ModelFiles, dtype: str) -> Any:
    """The model with the adapter added to its weights; a model without an adapter as it is.

    Args:
        dtype: one of DTYPES; auto: the type in which the base model was saved.

    Raises:
        UsageError: the base cannot be loaded, or the adapter does not fit it.
    """
    if files.adapter is None:
        return _loaded(_model, files.base, dtype, "main")
    config = _adapter_config(files.adapter)
    revision = config.revision or "main"
    saved_as = _loaded(_saved_dtype, files.base, revision)
    base = _loaded(_model, files.base, "float32", revision)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="peft")  # what these warn of is refused here
        merged = _merged(files.adapter, config, base)
    return _rounded(merged, saved_as if dtype == "auto" else dtype)


def check_tokenizer(model: Any, tokenizer: Any) -> None:
    """Raises UsageError for a tokenizer that knows tokens which the model does not."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UsageError(f"the tokenizer has {len(tokenizer)} tokens and the model {rows}: they do not fit together")


def _adapter_config(adapter: Path) -> Any:
    from peft import PeftConfig

    config = _loaded(PeftConfig.from_pretrained, str(adapter))
    if config.is_prompt_learning:
        raise UsageError(f"{adapter}: an adapter of type {config.peft_type.value} cannot be added to weights")
    return config


def _saved_dtype(base: str, revision: str) -> str:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, revision=revision)
    if getattr(config, "quantization_config", None):
        raise UsageError(f"the base model {base} is quantised: merge the adapter into the model that it was made of")
    return str(config.dtype or "float32").removeprefix("torch.")


def _model(base: str, dtype: str, revision: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype, revision=revision)


def _loaded(load: Callable[..., _Loaded], name: str, *arguments: str) -> _Loaded:
    """What a library loads; they raise OSError and ValueError for all that is missing or broken."""
    try:
        return load(name, *arguments)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} cannot be loaded: {' '.join(str(error).split())[:300]}") from error


def _merged(adapter: Path, config: Any, base: Any) -> Any:
    from peft import PeftModel, load_peft_weights

    try:
        _refuse_tied(base, load_peft_weights(str(adapter), device="cpu"))
        model = PeftModel(base, config)
        loaded = model.load_adapter(str(adapter), "default")
        _refuse_strangers([*loaded.missing_keys, *loaded.unexpected_keys])
        return model.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:  # wrong targets and shapes, NaN in the weights
        why = " ".join(str(error).split())[:300]
        raise UsageError(f"the adapter {adapter} does not fit {base.name_or_path}: {why}") from error


def _refuse_tied(base: Any, weights: Mapping[str, Any]) -> None:
    """An adapter of one of two tied matrices would change both when it is added."""
    if not base.config.get_text_config().tie_word_embeddings:
        return
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    names = {name.split(".")[-1] for name, module in base.named_modules() if any(module is end for end in ends)}
    if touched := sorted(key for key in weights if names & set(key.split("."))):
        raise ValueError(f"its embeddings are tied, and the adapter changes one end of them: {touched[0]}")


def _refuse_strangers(keys: list[str]) -> None:
    if keys:
        raise ValueError(f"{len(keys)} weights have no counterpart, such as {keys[0]}")


def _rounded(model: Any, dtype: str) -> Any:
    import torch

    model = model.to(getattr(torch, dtype))
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise UsageError(f"{dtype} cannot hold the weights of {broken[0]}: choose another --dtype")
    return model
