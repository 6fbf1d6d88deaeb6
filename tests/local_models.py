"""A tiny model for the tests of local policies, with ways to ask it, and what transformers itself says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GPT2Config, GPT2LMHeadModel

from harness.budget import Budget
from harness.policies.hf_policy import HfSettings, HfSource
from harness.records import Completion, Message, Sampling, Task
from sandboxes.workspace import MappingTree, Workspace
from trainers.tiny_model import init_tiny

Open = Callable[..., HfSource]
TEXTS = ("hello", "def f(x):\n    return x", "read the file that may be edited, then write it", "a" * 300)
TASK = Task("t", "s", "", Workspace(MappingTree({})), (), (), ())


def lively_model(directory: Path) -> Path:
    """A tiny model with large random weights: as it comes it says one token again and again."""
    init_tiny(directory)
    network = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for name, weight in network.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.16)
            elif name.endswith("bias"):
                weight.zero_()
    network.save_pretrained(directory)
    return directory


@contextmanager
def sources(model: Path) -> Iterator[Open]:
    """Opens sources of the model, or of another one, and closes them at the end."""
    made: list[HfSource] = []

    def start(
        name: Path = model, batch_size: int = 4, max_context: int | None = None, budget: Budget | None = None
    ) -> HfSource:
        settings = HfSettings("cpu", "", batch_size, max_context)
        made.append(HfSource(str(name), settings, budget or Budget()))
        return made[-1]

    yield start
    for source in made:
        source.close()


def change_weights(directory: Path, change: Callable[[torch.Tensor], object]) -> None:
    network = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() == 2:
                change(weight)
    network.save_pretrained(directory)


def asked(text: str) -> tuple[Message, ...]:
    return (Message(role="system", content="s"), Message(role="user", content=text))


def said(source: HfSource, text: str, **sampling: float) -> Completion:
    return source.policy(TASK, 0).complete(asked(text), Sampling.model_validate({"max_tokens": 24, **sampling}))


def said_together(source: HfSource, settings: Sequence[dict[str, Any]]) -> list[Completion]:
    with ThreadPoolExecutor(len(TEXTS)) as pool:
        return list(pool.map(lambda text, own: said(source, text, **own), TEXTS, settings))


def prompt_ids(model: Path, text: str) -> torch.Tensor:
    messages = [{"role": message.role, "content": message.content} for message in asked(text)]
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return torch.tensor([found])


def generated(network: Any, ids: torch.Tensor, new: int = 24) -> tuple[int, ...]:
    """What transformers itself says, greedily."""
    network.generation_config = GenerationConfig()
    config = GenerationConfig(do_sample=False, max_new_tokens=new, eos_token_id=1, pad_token_id=0)
    found = network.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(found[0, ids.shape[1] :].tolist())


def close(some: Sequence[float] | None, others: Sequence[float] | None, within: float = 1e-4) -> bool:
    assert some is not None
    assert others is not None
    return len(some) == len(others) and all(abs(a - b) < within for a, b in zip(some, others, strict=True))


def copy(model: Path, to: Path) -> None:
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(to)
    AutoTokenizer.from_pretrained(model).save_pretrained(to)


def torn_adapter(model: Path, to: Path) -> None:
    """An adapter of which one weight is missing, and another one has an unknown name."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    config = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(to)
    file = to / "adapter_model.safetensors"
    weights = load_file(file)
    one = next(iter(weights))
    weights[f"strange.{one}"] = weights.pop(one)
    save_file(weights, file, metadata={"format": "pt"})


def learnt_places(tokenizer: Path, to: Path, places: int) -> Path:
    """A model that has learnt an embedding of each place, and has no other."""
    found = AutoTokenizer.from_pretrained(tokenizer)
    ends = {"bos_token_id": None, "eos_token_id": found.eos_token_id}
    config = GPT2Config(vocab_size=len(found), n_positions=places, n_embd=64, n_layer=2, n_head=2, **ends)
    GPT2LMHeadModel(config).save_pretrained(to)
    found.save_pretrained(to)
    return to
