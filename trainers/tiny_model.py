"""A small model that can be made anywhere, from a seed and without a download: for tests, and for the experiment.

Its architecture is Qwen2's, its tokenizer a byte-level BPE trained on the project's own text: the prompts and the train
half of minibugs, as they stand in files and as they stand in protocol messages, or else the train part of arith. Three
of its heads begin as an induction circuit (`trainers.copying`).
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.model_files import share
from harness.records import TestPolicy
from suites.base import Suite, load
from suites.gsm8k.formats import FORMATS
from suites.gsm8k.suite import QuestionSuite
from tools.protocol import call_text, final_text

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ROPE_THETA = 1e6
"""Qwen2.5's. With 10,000 too few of a small head's dimensions turn slowly enough to match tokens 1,000 apart."""
SHORTEST_TEXT = 3000
"""Characters of a module that copying is practised on."""
SPECIAL = ("<|im_start|>", "<|im_end|>")
LINE_ENDS = ("\n", "\\n")
"""Tokens that never merge with others, so that a text and the same text as a JSON string are nearly the same tokens."""
_LINE_END = re.compile("|".join(map(re.escape, LINE_ENDS)))


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the model. vLLM's CPU kernels know heads of 32 and 64."""

    vocab_size: int = 1024
    hidden_size: int = 128
    layers: int = 4
    heads: int = 2
    intermediate_size: int = 384
    max_length: int = 8192
    """Positions: tokens of one conversation."""


def init_tiny(
    directory: Path, seed: int = 0, shape: TinyShape | None = None, copying_steps: int = 0, text: str = "repair"
) -> int:
    """Write a model without knowledge and its tokenizer; the number of its parameters.

    The same arguments give the same files, byte for byte, with the same versions of the libraries and of this code.

    Args:
        copying_steps: steps in which it learns to copy (`trainers.copying`), and nothing else.
        text: what the tokenizer is trained on: one of TEXTS.

    Raises:
        UsageError: the directory is not empty, or the sizes do not fit together.
    """
    shape = shape or TinyShape()
    from trainers.copying import learn_to_copy
    from trainers.merge import new_directory

    _check(directory, shape)
    tokenizer = tiny_tokenizer(shape.vocab_size, text)
    model = _model(shape, seed, tokenizer)
    learn_to_copy(model, tokenizer, library_texts() if copying_steps else (), copying_steps, seed)
    with new_directory(directory) as partial:
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)
        share(partial)
    return int(sum(each.numel() for each in model.parameters()))


def _check(directory: Path, shape: TinyShape) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is there already and not empty: choose another directory")
    if shape.hidden_size % (2 * shape.heads):
        raise UsageError(f"the width {shape.hidden_size} is no multiple of twice the {shape.heads} heads")
    if shape.vocab_size < 300:
        raise UsageError("a byte-level vocabulary needs 300 tokens or more")


def tiny_tokenizer(vocab_size: int, text: str = "repair") -> Any:
    """Qwen2's tokenizer with merges of the project's own text, so that it is the same after a reload."""
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer(eos_token="<|im_end|>", model_max_length=TinyShape.max_length)
    tokenizer = blank.train_new_from_iterator(
        (line for each in TEXTS[text]() for line in _LINE_END.split(each)),
        vocab_size - len(LINE_ENDS),
        new_special_tokens=list(SPECIAL),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.add_tokens([AddedToken(end, normalized=False) for end in LINE_ENDS])
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


def question_corpus() -> Iterator[str]:
    """The train part of arith, with the prompts and the answers of every format, in a fixed order."""
    suite = load("arith:train", None)
    assert isinstance(suite, QuestionSuite)
    for form in FORMATS.values():
        for question in suite.questions:
            yield from (message.content for message in form.prompt(question.question))
            yield form.response(question.reasoning, question.gold)


TEXTS: Mapping[str, Callable[[], Iterator[str]]] = {"repair": corpus, "arith": question_corpus}
"""Texts that a tokenizer can be trained on."""


def library_texts() -> list[str]:
    """Python's own modules, in a fixed order: programs that every machine has, and no task is made of."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py")))
    return [text for text in texts if len(text) > SHORTEST_TEXT]


def suite_prompt(suite: Suite, task: Any) -> Any:
    """The first messages of a task; no sandbox is opened for them."""
    from sandboxes.local_sandbox import LocalBackend

    with suite.environment(task, LocalBackend(), TestPolicy.FINAL) as environment:
        return environment.start()


def _model(shape: TinyShape, seed: int, tokenizer: Any) -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from trainers.copying import induction_heads

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_length,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
        induction_heads(model)
        return model
