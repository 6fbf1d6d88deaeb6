"""How many tokens a message takes: counted by a tokenizer, or estimated from its characters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UsageError
from harness.model_files import RESULT_FILE, find_model

CHARS_PER_TOKEN = 4
TEMPLATE_TOKENS = 5
"""What a chat template puts around a message: ChatML's start, role, newline, end, newline."""
_FIRST_BIN = 256


@dataclass(frozen=True)
class TokenCounter:
    """Tokens of one message. Templates keep messages apart, so those of a row are the sum."""

    about: str
    count: Callable[[str], int]

    def __call__(self, content: str) -> int:
        return self.count(content) + TEMPLATE_TOKENS


def token_counter(name: str | None) -> TokenCounter:
    """The counter of a tokenizer: a tokenizer.json, a directory with one, or a name on the Hugging Face hub.

    Without a name it is an estimate. Raises UsageError for a tokenizer that cannot be had.
    """
    template = f"and {TEMPLATE_TOKENS} a message for the chat template"
    if name is None:
        about = f"estimated: characters / {CHARS_PER_TOKEN}, {template}"
        return TokenCounter(about, lambda text: math.ceil(len(text) / CHARS_PER_TOKEN))
    return TokenCounter(f"counted by the tokenizer {name}, {template}", _tokenizer_count(name))


def _tokenizer_count(name: str) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    path = Path(name)
    if (path / RESULT_FILE).is_file():  # of a training run
        path = Path(find_model(name).tokenizer)
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise UsageError(f"--tokenizer {name}: the directory has no tokenizer.json")
    if not file.is_file() and (
        path.is_absolute() or name.count("/") > 1 or name.startswith(".") or path.suffix == ".json"
    ):
        raise UsageError(f"--tokenizer {name}: there is no such file")
    try:
        found = Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises bare ones
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"--tokenizer {name}: cannot be loaded: {said}") from error
    found.no_truncation()
    found.no_padding()
    return lambda text: len(found.encode(text, add_special_tokens=False).ids)


@dataclass
class TokenHistogram:
    """How long the rows are; a bin holds rows of up to its number of tokens, each bin twice as wide as the last."""

    rows: int = 0
    total: int = 0
    longest: int = 0
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, tokens: int) -> None:
        self.rows += 1
        self.total += tokens
        self.longest = max(self.longest, tokens)
        self.bins[max(_FIRST_BIN, 1 << (tokens - 1).bit_length() if tokens > 1 else 1)] += 1

    @property
    def by_bin(self) -> dict[str, int]:
        """Rows by "<= N"; bins between the first and the last that are empty are there too."""
        found: dict[str, int] = {}
        bound = _FIRST_BIN
        while self.bins and bound <= max(self.bins):
            found[f"<= {bound}"] = self.bins[bound]
            bound *= 2
        return found
