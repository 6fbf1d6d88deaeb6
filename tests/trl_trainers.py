"""TRL's real trainers around small models, for tests and benchmarks that hand them batches of token ids."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

Row = list[int]
Pair = tuple[Row, Row, Row]
"""The tokens of prompt, chosen and rejected."""
Rows = list[tuple[Row, int]]
"""Tokens, and how many of the last ones are trained."""


def tokens(count: int, seed: int) -> Row:
    return random.Random(seed).choices(range(5, 97), k=count)


def step_rows() -> Rows:
    """A 10-step rollout: prompt, action, observation, action ..."""
    history, rows = tokens(60, 0), []
    for step in range(10):
        action = tokens(5 + step % 4, 100 + step)
        rows.append((history + action, len(action)))
        history = history + action + tokens(11, 200 + step)
    return rows


def siblings() -> Rows:
    """Actions after one prompt; two begin alike, one is another's beginning, two are equal."""
    actions = [tokens(9, 1), tokens(4, 1) + tokens(5, 2), tokens(6, 3), tokens(3, 3), tokens(7, 4), tokens(7, 4)]
    return [(tokens(40, 0) + action, len(action)) for action in actions]


def forest() -> Rows:
    return [(tokens(30, 7), 5), (tokens(25, 8), 6), (tokens(30, 7) + tokens(8, 9), 8), (tokens(25, 8), 25)]


def qwen2(seed: int = 0, **sizes: Any) -> Any:
    """A small Qwen2 with grouped queries. Its weights are large enough for attention to matter to the logits."""
    given = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(Qwen2Config(**{**given, **heads, "max_position_embeddings": 8192, **sizes}))


def adapted(model: Any, rank: int = 4) -> Any:
    """With a LoRA adapter on every linear layer."""
    return get_peft_model(model, LoraConfig(r=rank, task_type="CAUSAL_LM", target_modules="all-linear"))


def moved(model: Any, std: float = 0.1) -> Any:
    """The same random adapter on every call, not zero: for a policy that differs from its reference.

    To be called after the trainer was made, which takes the adapter as it finds it for the reference.
    """
    for name, each in model.named_parameters():
        if ".default." in name:
            torch.nn.init.normal_(each, std=std, generator=torch.Generator().manual_seed(len(name)))
    return model


def words() -> Any:
    """A tokenizer, which the trainers ask for although they are given ids."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "a": 2, "b": 3}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def sft_trainer(model: Any, directory: Path, rows: Rows | None = None, settings: dict[str, Any] | None = None) -> Any:
    data = [{"input_ids": row, "labels": _labels(row, count, len(row))} for row, count in rows or [([2, 3], 1)]]
    arguments = SFTConfig(**_arguments(directory), **(settings or {}))
    return SFTTrainer(model, arguments, train_dataset=Dataset.from_list(data), processing_class=words())


def dpo_trainer(model: Any, directory: Path, settings: dict[str, Any] | None = None, **more: Any) -> Any:
    rows = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "a"}])
    arguments = DPOConfig(**_arguments(directory), **(settings or {}))
    return DPOTrainer(model, args=arguments, train_dataset=rows, processing_class=words(), **more)


def _arguments(directory: Path) -> dict[str, Any]:
    plain = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_length": None}
    return {"output_dir": str(directory), **plain}


def sft_batch(rows: Sequence[tuple[Row, int]]) -> dict[str, Any]:
    """A padded batch of rows whose last so many tokens are trained."""
    length = max(len(row) for row, _ in rows)
    return {
        "input_ids": torch.tensor([row + [0] * (length - len(row)) for row, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row, _ in rows]),
        "labels": torch.tensor([_labels(row, trained, length) for row, trained in rows]),
    }


def _labels(row: Row, trained: int, length: int) -> Row:
    return [-100] * (len(row) - trained) + row[len(row) - trained :] + [-100] * (length - len(row))


def dpo_batch(pairs: Sequence[Pair]) -> dict[str, Any]:
    collate = DataCollatorForPreference(pad_token_id=0)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    batch: dict[str, Any] = collate([dict(zip(names, pair, strict=True)) for pair in pairs])
    return batch


def gradients(model: Any) -> dict[str, Any]:
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest relative difference (norm) of two sets of gradients, parameter by parameter."""
    assert one.keys() == other.keys()
    largest = max(float(each.double().norm()) for each in one.values())
    return max(
        float((one[name].double() - other[name].double()).norm())
        / max(float(one[name].double().norm()), 1e-3 * largest)
        for name in one
    )
