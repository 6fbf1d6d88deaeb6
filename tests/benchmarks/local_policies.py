"""vLLM against transformers on this machine: `python tests/benchmarks/local_policies.py [--model DIR]`.

Prints tokens per second of `--llm-provider hf` and of `vllm`, and their ratio, for 12 concurrent conversations that go
on as rollouts do: the first messages of a task, then answers of unequal lengths, each answered by a piece of a file.
Without `--model` it is a tiny model, where the engines' own overhead counts most.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.budget import Budget
from harness.policies.hf_policy import HfSettings, HfSource
from harness.policies.vllm_policy import VllmSettings, VllmSource
from harness.policy import PolicySource
from harness.records import Message, Sampling, Task
from suites.base import load
from trainers.tiny_model import init_tiny, suite_prompt

CONVERSATIONS, TURNS, SHORTEST, LONGEST, OBSERVATION_CHARS = 12, 5, 10, 200, 600


def conversation(source: PolicySource, task: Task, messages: Sequence[Message], seed: int) -> int:
    """Plays one; the number of tokens that were sampled."""
    policy, lengths, sampled = source.policy(task, seed), random.Random(seed), 0
    text = task.tree.read(next(path for path in task.tree.paths if task.may_edit(path))).decode()
    for turn in range(TURNS):
        limit = lengths.randint(SHORTEST, LONGEST)
        completion = policy.complete(messages, Sampling(temperature=1.0, max_tokens=limit, seed=seed + turn))
        sampled += len(completion.token_ids or ())
        said = Message(role="assistant", content=completion.text)
        messages = [*messages, said, Message(role="user", content=f"[tool_result]\n{text[:OBSERVATION_CHARS]}")]
    return sampled


def tokens_per_second(source: PolicySource) -> float:
    suite = load("minibugs", None)
    tasks = list(itertools.islice(itertools.cycle(suite.tasks()), CONVERSATIONS))
    prompts = [suite_prompt(suite, task) for task in tasks]
    conversation(source, tasks[0], prompts[0], 0)  # warm
    started = time.perf_counter()
    with ThreadPoolExecutor(CONVERSATIONS) as pool:
        sampled = sum(pool.map(conversation, [source] * CONVERSATIONS, tasks, prompts, range(1, CONVERSATIONS + 1)))
    return sampled / (time.perf_counter() - started)


def sources(model: str) -> Iterator[PolicySource]:
    """One after the other: the memory of the first is given back."""
    yield HfSource(model, HfSettings(batch_size=CONVERSATIONS), Budget())
    yield VllmSource(model, VllmSettings(num_workers=CONVERSATIONS), Budget())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as directory:
        if not model:
            model = str(Path(directory) / "tiny")
            init_tiny(Path(model))
        speeds = []
        for source in sources(model):
            speeds.append(tokens_per_second(source))
            print(f"{source.info.engine}: {speeds[-1]:.0f} tokens a second")
            source.close()
    print(f"vllm / hf: {speeds[1] / speeds[0]:.2f}")


if __name__ == "__main__":
    main()
