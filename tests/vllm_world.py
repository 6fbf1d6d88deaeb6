"""What the tests of the vLLM policy compare with: a tiny model, an adapter of it, and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.records import Completion


def make_models(directory: Path) -> None:
    """A model `tiny` that does not end a greedy answer, and an adapter `adapter` of it, whose weights are not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    from trainers.tiny_model import init_tiny

    init_tiny(directory / "tiny")
    model = network(directory / "tiny")
    with torch.no_grad():
        model.get_input_embeddings().weight[model.config.eos_token_id] = 0  # tied: so is its logit, and others are more
    model.save_pretrained(directory / "tiny")
    torch.manual_seed(1)
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, target_modules="all-linear"))
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    tuned.save_pretrained(directory / "adapter")


def network(directory: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def expected_logprobs(model: Any, prompt: list[int], completion: Completion, temperature: float) -> Any:
    """Of the sampled tokens, by one forward pass over all of them."""
    import torch

    assert completion.token_ids is not None
    ids = torch.tensor([[*prompt, *completion.token_ids]])
    with torch.inference_mode():
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]


def greedy_ids(model: Any, prompt: list[int], count: int) -> tuple[int, ...]:
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count)
    return tuple(out[0, len(prompt) :].tolist())
