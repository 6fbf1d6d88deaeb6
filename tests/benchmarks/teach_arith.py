"""Does GRPO raise what prep SFT left? A tiny model on arith's easy questions, three seeds, SFT beside it.

    make experiment-arith        # or: python -m tests.benchmarks.teach_arith --work DIR [--seeds 0 1 2] [--jobs N]

Every stage is a `repo-agent` command that a user can type: a model from a seed, then `gsm8k sweep` (prep SFT, and from
the prep model SFT and GRPO on the same questions), then `gsm8k compare` over all seeds. Seeds run side by side, each
with its share of the cores: a model of a million parameters gains next to nothing from a second thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.versions import versions

T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36}
"""Student's t for a 95% interval, by degrees of freedom."""
WINDOW = 20
"""GRPO steps at the beginning and at the end whose mean rewards are compared."""


@dataclass(frozen=True)
class Outcome:
    """What one seed came to: accuracies on the test part, and the mean reward of GRPO's first and last steps."""

    base: float
    prep: float
    sft: float
    grpo: float
    reward_first: float
    reward_last: float


def commands(chosen: argparse.Namespace, seed: int) -> list[list[str]]:
    """Of one seed; paths are relative to the directory of the experiment."""
    base = f"{seed}/init"
    sweep = ["gsm8k", "sweep", "--samples", chosen.samples, "--root", seed, "--base-model", base, "--seed", seed]
    data = ["--suite", chosen.suite, "--prep-train-samples", chosen.prep_samples, "--eval-samples", 500]
    sft = ["--no-lora", "--epochs", chosen.epochs, "--learning-rate", chosen.learning_rate, "--train-batch-size", 32]
    steps = ["--grpo-steps", chosen.grpo_steps, "--prompts-per-step", chosen.prompts_per_step]
    grpo = [*steps, "--num-generations", 8, "--grpo-learning-rate", chosen.grpo_learning_rate]
    sampling = ["--max-tokens", 64, "--batch-size", 64]
    init = ["train", "init-tiny", "--text", "arith", "--output-dir", base, "--seed", seed]
    return [[str(word) for word in words] for words in (init, [*sweep, *data, *sft, *grpo, *sampling])]


def run(work: Path, words: Sequence[str], log: str, threads: int) -> float:
    """Seconds of one command of repo-agent; its output goes to a file, its failure ends the experiment."""
    began = time.monotonic()
    with (work / log).open("a", encoding="utf-8") as out:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        made = subprocess.run(
            [sys.executable, "-m", "repo_agent", *words], cwd=work, env=environment, stdout=out, stderr=out
        )
    if made.returncode:
        raise SystemExit(f"repo-agent {shlex.join(words)} ended with {made.returncode}: see {work / log}")
    return time.monotonic() - began


def play(work: Path, chosen: argparse.Namespace, seed: int) -> float:
    """All stages of one seed; the seconds."""
    (work / str(seed)).mkdir()
    log = f"{seed}/log.txt"
    return sum(run(work, words, log, max(1, (os.cpu_count() or 1) // chosen.jobs)) for words in commands(chosen, seed))


def outcome(work: Path, seed: int, samples: int) -> Outcome:
    """Read from what the stages left."""
    at = work / str(seed)
    lines = (at / str(samples) / "grpo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rewards = [line["reward"] for line in map(json.loads, lines) if "reward" in line]
    return Outcome(
        base=accuracy(at / "base"),
        prep=accuracy(at / "prep_sft"),
        sft=accuracy(at / str(samples) / "full_sft"),
        grpo=accuracy(at / str(samples) / "grpo"),
        reward_first=statistics.mean(rewards[:WINDOW]),
        reward_last=statistics.mean(rewards[-WINDOW:]),
    )


def accuracy(stage: Path) -> float:
    """As its own evaluation says."""
    (metrics,) = stage.glob("debug/*_metrics.txt")
    found = dict(line.split(": ", 1) for line in metrics.read_text(encoding="utf-8").splitlines())
    return float(found["accuracy"])


def gain(differences: Sequence[float]) -> str:
    """Mean over seeds with Student's 95% interval: whether a rise is beyond the noise between seeds."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.3f} (one seed)"
    half = T_95[min(len(differences) - 1, max(T_95))] * statistics.stdev(differences) / len(differences) ** 0.5
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def report(found: dict[int, Outcome], commands_run: Sequence[Sequence[str]], about: str) -> str:
    """Markdown."""
    rows = [
        f"| {seed} | {each.base:.3f} | {each.prep:.3f} | {each.sft:.3f} | {each.grpo:.3f} "
        f"| {each.reward_first:.3f} | {each.reward_last:.3f} |"
        for seed, each in found.items()
    ]
    head = (
        f"| seed | base | prep SFT | SFT | GRPO | reward, first {WINDOW} steps | last {WINDOW} |\n"
        "|---|---|---|---|---|---|---|"
    )
    every = found.values()
    gains = "\n".join(
        f"- {what}: {gain(differences)}"
        for what, differences in (
            ("GRPO over prep SFT, accuracy", [each.grpo - each.prep for each in every]),
            ("SFT over prep SFT, accuracy", [each.sft - each.prep for each in every]),
            ("GRPO over SFT, accuracy", [each.grpo - each.sft for each in every]),
            ("last steps over first steps, mean reward", [each.reward_last - each.reward_first for each in every]),
        )
    )
    shown = "\n".join(f"    repo-agent {shlex.join(words)}" for words in commands_run)
    return "\n\n".join(["\n".join([head, *rows]), f"Mean over seeds (95% interval):\n\n{gains}", about, shown]) + "\n"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--work", type=Path, required=True, help="a new directory")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--jobs", type=int, default=min(3, os.cpu_count() or 1), help="seeds at the same time")
    made.add_argument("--suite", default="arith+easy")
    made.add_argument("--prep-samples", type=int, default=3000)
    made.add_argument("--samples", type=int, default=800, help="questions of SFT and of GRPO")
    made.add_argument("--epochs", type=float, default=8, help="of SFT, prep and full")
    made.add_argument("--learning-rate", type=float, default=2e-3, help="of SFT")
    made.add_argument("--grpo-steps", type=int, default=100)
    made.add_argument("--prompts-per-step", type=int, default=8)
    made.add_argument("--grpo-learning-rate", type=float, default=1e-4)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(argv)
    chosen.work.mkdir(parents=True)
    work = chosen.work.resolve()
    began = time.monotonic()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        seconds = list(pool.map(lambda seed: play(work, chosen, seed), chosen.seeds))
    run(work, ["gsm8k", "compare", "."], "compare.txt", 1)
    found = {seed: outcome(work, seed, chosen.samples) for seed in chosen.seeds}
    each = ", ".join(f"{one / 60:.1f}" for one in seconds)
    minutes = (time.monotonic() - began) / 60
    machine = f"Python {versions()['python']}, {os.cpu_count()} cores, {chosen.jobs} seeds at the same time"
    about = f"{machine}: {minutes:.1f} minutes (seeds: {each})."
    text = report(found, [*commands(chosen, chosen.seeds[0]), ["gsm8k", "compare", "."]], about)
    (work / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
