"""A small model that can be made anywhere, from a seed and without a download: for tests, and for the experiment.

Its architecture is Qwen2's, its tokenizer a byte-level BPE trained on the project's own text: the prompts and the train
half of minibugs, as they stand in files and as they stand in protocol messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.records import TestPolicy
from suites.base import Suite, load
from tools.protocol import call_text, final_text

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the model. vLLM's CPU kernels know heads of 32 and 64."""

    vocab_size: int = 1024
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 384
    max_length: int = 8192
    """Positions: tokens of one conversation."""


def init_tiny(directory: Path, seed: int = 0, shape: TinyShape | None = None) -> int:
    """Write an untrained model and its tokenizer; the number of its parameters.

    The same seed and shape give the same files, byte for byte, with the same versions of the libraries and this code.

    Raises:
        UsageError: the directory is not empty, or the sizes do not fit together.
    """
    shape = shape or TinyShape()
    _check(directory, shape)
    tokenizer = tiny_tokenizer(shape.vocab_size)
    model = _model(shape, seed, tokenizer)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    return int(sum(each.numel() for each in model.parameters()))


def _check(directory: Path, shape: TinyShape) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is there already and not empty: choose another directory")
    if shape.hidden_size % shape.heads or (shape.hidden_size // shape.heads) % 2 or shape.heads % shape.kv_heads:
        raise UsageError(f"the sizes do not fit together: {asdict(shape)}")
    if shape.vocab_size < 300:
        raise UsageError("a byte-level vocabulary needs 300 tokens or more")


def tiny_tokenizer(vocab_size: int) -> Any:
    """Qwen2's tokenizer with merges of the project's own text, so that it is the same after a reload."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer(eos_token="<|im_end|>", model_max_length=TinyShape.max_length)
    tokenizer = blank.train_new_from_iterator(
        corpus(),
        vocab_size,
        new_special_tokens=list(SPECIAL),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def corpus() -> Iterator[str]:
    """The project's own text, in a fixed order."""
    suite = load("minibugs", None)
    for task in suite.tasks():
        if suite.split_of(task) != "test":
            yield from (message.content for message in suite_prompt(suite, task))
            for path in task.tree.paths:
                text = task.tree.read(path).decode(errors="replace")
                yield text
                yield call_text("write_file", rel_path=path, content=text)
                yield call_text("read_file", rel_path=path)
                yield final_text(f"repaired {path}")
    yield call_text("list_files")


def suite_prompt(suite: Suite, task: Any) -> Any:
    """The first messages of a task; no sandbox is opened for them."""
    from sandboxes.local_sandbox import LocalBackend

    with suite.environment(task, LocalBackend(), TestPolicy.FINAL) as environment:
        return environment.start()


def _model(shape: TinyShape, seed: int, tokenizer: Any) -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
