"""From a training run to a model of its own: a directory that every program for models takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.chat_template import ChatFormat, chat_format
from harness.errors import UsageError
from harness.model_files import share
from harness.training_history import HISTORY_FILE, TrainingRun
from trainers.full_disk import disk_in_words
from trainers.merge_card import MergedModel, card_text
from trainers.merge_ollama import modelfile
from trainers.merge_source import Source, find_source
from trainers.merge_weights import check_tokenizer, merged_model, tokenizer_of

CARD_FILE, OLLAMA_FILE = "README.md", "Modelfile"


@dataclass(frozen=True)
class Merged:
    """What was made."""

    directory: Path
    about: MergedModel
    default_template: bool
    """The tokenizer had no chat template: the default one was saved with it."""


def merge(name: str, output: Path, dtype: str = "auto", ollama: bool = False, eval_name: str = "") -> Merged:
    """Write the merged model of a training run or an adapter; the directory is there complete or not at all.

    Args:
        name: a training run's directory or an adapter's.
        dtype: see `merged_model`.
        ollama: write a Modelfile too.
        eval_name: what the card says to evaluate; empty: the directory.

    Raises:
        UsageError: there is nothing to merge, the directory is not empty, the base is missing or the adapter does not
            fit it.
    """
    with new_directory(output) as partial:
        source = find_source(name)
        tokenizer = tokenizer_of(source.files)
        chat = chat_format(tokenizer)
        model = merged_model(source.files, dtype)
        check_tokenizer(model, tokenizer)
        stop_at_the_turns_end(model, chat)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        share(partial)
        about = _about(source, model, eval_name or str(output))
        _describe(partial, about)
        if ollama:
            (partial / OLLAMA_FILE).write_text(modelfile(chat, about.positions), encoding="utf-8")
    return Merged(output, about, chat.default_template)


@contextmanager
def new_directory(output: Path) -> Iterator[Path]:
    """A directory to fill, which comes to its place when the block ends well.

    Raises:
        UsageError: there is something at the place, or no room on its disk.
    """
    place = output.resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"--output-dir {output} is there already and not empty: choose another directory")
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        with disk_in_words(output):
            partial.mkdir(parents=True)
            yield partial
            partial.replace(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def stop_at_the_turns_end(model: Any, chat: ChatFormat) -> None:
    """Generation ends where the template ends an assistant's turn, and where the base ended it."""
    config = model.generation_config
    there = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = dict.fromkeys([chat.stop_id, *(end for end in there if end is not None)])
    config.eos_token_id = list(ends) if len(ends) > 1 else chat.stop_id
    if config.pad_token_id is None:
        config.pad_token_id = chat.tokenizer.pad_token_id


def _about(source: Source, model: Any, eval_name: str) -> MergedModel:
    return MergedModel(
        base=source.files.base,
        adapter=source.files.adapter is not None,
        parameters=model.num_parameters(),
        dtype=str(model.dtype).removeprefix("torch."),
        positions=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        runs=source.runs,
        eval_name=eval_name,
    )


def _describe(directory: Path, about: MergedModel) -> None:
    history = TypeAdapter(tuple[TrainingRun, ...]).dump_json(about.runs, indent=2)
    (directory / HISTORY_FILE).write_bytes(history + b"\n")
    (directory / CARD_FILE).write_text(card_text(about), encoding="utf-8")
