"""Trie-packed training against unpacked TRL: `python -m tests.benchmarks.trie_packing [CASE ...]`.

One step is loss and gradients of some rows through TRL's own trainer (SFTTrainer.compute_loss, DPOTrainer.compute_loss
with the reference by adapter switching), on the same rows, once packed and once in TRL's padded batches. For the
unpacked side the better of 1 and 8 rows a batch counts (pairs: 2 and 8). The two take turns, one thread, medians of
`--rounds`; by the clock and by CPU time, since on a shared machine the clock counts others' work too. The differences
of loss and gradients stand beside the ratios. With `--pairs` (a file of `repo-agent prefs`) the tokens of real pairs
are counted as training would pack them.

Asked for: SFT on the steps of a 10-step rollout 4 times fewer tokens and 3.5 times less time; ten pairs of such a
rollout 8 times fewer and 5 times less; and where little is shared, not slower.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

from transformers import AutoTokenizer

from harness.chat_template import chat_format
from harness.model_files import find_model
from tests.trl_trainers import (
    Pair,
    Row,
    adapted,
    difference,
    dpo_batch,
    dpo_trainer,
    gradients,
    moved,
    qwen2,
    sft_batch,
    sft_trainer,
)
from trainers.train_rows import read_rows
from trainers.trie import build_trie, group_units
from trainers.trie_packing import PackingStats, add_trie_packing

VOCABULARY, PROMPT = 1024, 800
RANDOM = random.Random(0)


class Side(NamedTuple):
    """One way to do a step: its batches, in TRL's form."""

    trainer: Any
    batches: list[dict[str, Any]]
    items: int | None


class Result(NamedTuple):
    seconds: float
    cpu_seconds: float
    loss: float
    gradients: dict[str, Any]


def tokens(low: int, high: int) -> Row:
    return [RANDOM.randrange(5, VOCABULARY) for _ in range(RANDOM.randint(low, high))]


def rollout(steps: int = 10) -> list[tuple[Row, Row]]:
    """Prompt and action of each step; each prompt is the one before with its action and an observation."""
    history, done = tokens(PROMPT, PROMPT), []
    for _ in range(steps):
        action = tokens(20, 200)
        done.append((history, action))
        history = history + action + tokens(50, 400)
    return done


def fork(steps: int = 8) -> list[tuple[Row, int]]:
    """One prompt in the middle of a rollout with many actions after it."""
    prompt = rollout(6)[-1][0]
    return [(prompt + action, len(action)) for action in (tokens(20, 200) for _ in range(steps))]


def step_rows(steps: list[tuple[Row, Row]]) -> list[tuple[Row, int]]:
    return [(prompt + action, len(action)) for prompt, action in steps]


def pairs_of(steps: list[tuple[Row, Row]]) -> list[Pair]:
    return [(prompt, action, tokens(20, 200)) for prompt, action in steps]


def little_shared() -> list[tuple[Row, int]]:
    """Eight rows of different tasks, which have a system prompt of 50 tokens in common."""
    system = tokens(50, 50)
    return [(system + tokens(600, 1200) + action, len(action)) for action in (tokens(20, 200) for _ in range(8))]


def step(side: Side) -> Result:
    model = side.trainer.model
    model.zero_grad(set_to_none=True)
    start, cpu, loss = time.perf_counter(), time.process_time(), 0.0
    for batch in side.batches:
        part = side.trainer.compute_loss(model, dict(batch), num_items_in_batch=side.items)
        part = part if side.items is not None else part / len(side.batches)
        part.backward()
        loss += float(part.detach())
    return Result(time.perf_counter() - start, time.process_time() - cpu, loss, gradients(model))


def compare(name: str, packed: Side, unpacked: Sequence[Side], stats: PackingStats, rounds: int) -> None:
    """The first steps warm up and choose the batch size of the unpacked side; then the two take turns."""
    step(packed)
    tried = {len(side.batches[0]["input_ids"]): guess(side) for side in unpacked}
    best = unpacked[list(tried.values()).index(min(tried.values()))]
    stats.row_tokens = stats.computed_tokens = stats.packed_batches = 0
    results = [(step(packed), step(best)) for _ in range(rounds)]
    way = "packed" if stats.packed_batches else "left unpacked"
    print(f"{name} ({way}): {stats.row_tokens / stats.computed_tokens:.2f} times fewer tokens, {times(results)}")
    one, other = results[0]
    loss = abs(one.loss - other.loss) / abs(other.loss)
    print(f"  loss differs by {loss:.1e}, gradients by {difference(one.gradients, other.gradients):.1e}, relatively")
    rows = ", ".join(f"{seconds:.1f} with {size}" for size, seconds in tried.items())
    print(f"  unpacked, a step is about so many CPU seconds with so many rows a batch: {rows}", flush=True)


def times(results: Sequence[tuple[Result, Result]]) -> str:
    fast, slow = (statistics.median(each[place].seconds for each in results) for place in (0, 1))
    cpu = statistics.median(slower.cpu_seconds / faster.cpu_seconds for faster, slower in results)
    return f"{slow / fast:.2f} times less wall time ({fast:.2f} s against {slow:.2f} s), {cpu:.2f} times less CPU time"


def guess(side: Side) -> float:
    """CPU seconds of a step, from its middle batch and the padded tokens of all."""
    middle = side.batches[len(side.batches) // 2]
    seconds = step(side._replace(batches=[middle])).cpu_seconds
    return seconds * sum(int(batch["input_ids"].numel()) for batch in side.batches) / int(middle["input_ids"].numel())


def cut(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def small_model(hidden_size: int) -> Any:
    sizes = {"hidden_size": hidden_size, "intermediate_size": 3 * hidden_size, "num_hidden_layers": 4}
    return qwen2(**sizes, vocab_size=VOCABULARY, initializer_range=0.02)


def benchmark_sft(rows: list[tuple[Row, int]], name: str, directory: Path, hidden_size: int, rounds: int) -> None:
    packed, plain = (sft_trainer(small_model(hidden_size), directory) for _ in range(2))
    stats = add_trie_packing(packed.model)
    items = sum(trained for _, trained in rows)
    unpacked = [Side(plain, [sft_batch(part) for part in cut(rows, size)], items) for size in (1, 8)]
    compare(name, Side(packed, [sft_batch(rows)], items), unpacked, stats, rounds)


def benchmark_dpo(pairs: list[Pair], name: str, directory: Path, hidden_size: int, rounds: int) -> None:
    packed, plain = (dpo_trainer(adapted(small_model(hidden_size), rank=16), directory) for _ in range(2))
    for trainer in (packed, plain):
        moved(trainer.model, std=0.05)
    stats = add_trie_packing(packed.model.get_base_model())
    unpacked = [Side(plain, [dpo_batch([pair]) for pair in pairs], None)]
    unpacked.append(Side(plain, [dpo_batch(part) for part in cut(pairs, 4)], None))
    compare(name, Side(packed, [dpo_batch(pairs)], None), unpacked, stats, rounds)


def count_pairs(file: Path, model: Path, max_tokens: int) -> None:
    """How much the pairs of a real file share, packed in the groups that training packs."""
    chat = chat_format(AutoTokenizer.from_pretrained(find_model(str(model)).tokenizer))
    units = [row.sequences for row in read_rows(file, "dpo", chat, max_tokens).rows]
    groups = group_units(units, max_tokens, min_units=1)
    rows = [[row for index in group for row in units[index]] for group in groups]
    whole, distinct = sum(len(row) for group in rows for row in group), sum(len(build_trie(group)) for group in rows)
    print(
        f"DPO, {len(units)} pairs of {file.name} in {len(groups)} groups of at most {max_tokens} tokens: "
        f"{whole / distinct:.2f} times fewer tokens ({distinct} against {whole})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["sft", "fork", "little", "dpo"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--pairs", type=Path, help="a file of `repo-agent prefs`")
    parser.add_argument("--model", type=Path, help="whose tokenizer counts its tokens")
    parser.add_argument("--max-packed-tokens", type=int, default=16384)
    options = parser.parse_args()
    if options.pairs and not options.model:
        parser.error("--pairs needs --model")
    if options.pairs:
        count_pairs(options.pairs, options.model, options.max_packed_tokens)
    steps = rollout()
    with tempfile.TemporaryDirectory() as directory:
        how = (Path(directory), options.hidden_size, options.rounds)
        if "sft" in options.cases:
            benchmark_sft(step_rows(steps), "SFT, the steps of a 10-step rollout", *how)
        if "fork" in options.cases:
            benchmark_sft(fork(), "SFT, eight actions after one prompt", *how)
        if "little" in options.cases:
            benchmark_sft(little_shared(), "SFT, eight rows that share 50 tokens", *how)
        if "dpo" in options.cases:
            benchmark_dpo(pairs_of(steps), "DPO, ten pairs of a 10-step rollout", *how)


if __name__ == "__main__":
    main()
