"""What a model from scratch lacks most for this protocol: to copy a path or a line from its context.

An induction circuit (Olsson et al. 2022, arXiv:2209.11895) is two heads: one writes into each position which token
stood before it, and one finds the place that followed the current token earlier, and copies what stands there. Large
models grow it from billions of tokens. A tiny one is begun with it, in the manner of mimetic initialisation (Trockman
and Kolter 2023, arXiv:2305.09828), and made firm by a little practice on text that repeats itself.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import Any

import torch

_PEAK, _PEAK_PAIRS = 6.0, 10
"""Size of the biases that make the first head look one token back, and in how many of RoPE's pairs they stand."""
_REACH = 1500
"""Tokens over which the second head must still match: pairs that turn more than a radian meanwhile are left out."""
_MATCH, _VALUE, _WRITTEN = 3.0, 0.6, 0.02
_BATCH, _LEARNING_RATE, _WARM_UP = 8, 2e-3, 50
_PERIOD = 24
"""Random tokens that are repeated: so many at most."""
_SHORT, _LONG = 100, 1200
"""Characters of text that are copied: up to the first at the beginning, up to the second at the end."""


def induction_heads(model: Any) -> None:
    """Set the first two layers of a Qwen2 model; the random state of torch decides the subspaces.

    In the first layer one head carries the token before, and a second one the token before that, for what training
    makes of it. A model of one layer is left as it is.
    """
    layers = model.model.layers
    if len(layers) < 2:
        return
    size, hidden = model.config.hidden_size // model.config.num_attention_heads, model.config.hidden_size
    turns = model.model.rotary_emb.inv_freq
    slow = [pair for pair in range(size // 2) if turns[pair] * _REACH < 1]
    places = [*slow, *(pair + size // 2 for pair in slow)]
    seen, kept, earlier = (_rows(len(places), hidden) for _ in range(3))
    with torch.no_grad():
        for head, written in enumerate((kept, earlier)[: model.config.num_attention_heads]):
            _look_back(layers[0].self_attn, head, size, turns)
            _carry(layers[0].self_attn, head * size, seen, written)
        _match_and_copy(layers[1].self_attn, size, places, seen, kept)


def _look_back(attention: Any, head: int, size: int, turns: Any) -> None:
    """Biases of query and key whose scores are highest for the token `head + 1` places before."""
    own, key = slice(head * size, (head + 1) * size), torch.zeros(size)
    key[: min(_PEAK_PAIRS, size // 2)] = _PEAK
    ahead, angle = key[: size // 2], -(head + 1) * turns
    attention.k_proj.bias[own] = key
    attention.q_proj.bias[own] = torch.cat([ahead * torch.cos(angle), ahead * torch.sin(angle)])
    attention.k_proj.weight[own] *= 0.1
    attention.q_proj.weight[own] *= 0.1


def _carry(attention: Any, first: int, seen: Any, written: Any) -> None:
    """The token that was looked back at, seen in one subspace, is written into another."""
    attention.v_proj.weight[first : first + len(seen)] = seen
    attention.o_proj.weight[:, first : first + len(written)] = _WRITTEN * written.T


def _match_and_copy(attention: Any, size: int, places: list[int], seen: Any, kept: Any) -> None:
    """Queries are the token itself, keys the token before; what is found is written as it was read."""
    copied = _rows(size, attention.o_proj.weight.shape[0])
    attention.q_proj.weight[:size] = 0
    attention.k_proj.weight[:size] = 0
    attention.q_proj.weight[places] = _MATCH * seen
    attention.k_proj.weight[places] = _MATCH * kept
    attention.v_proj.weight[:size] = _VALUE * copied
    attention.o_proj.weight[:, :size] = _VALUE * copied.T


def _rows(count: int, width: int) -> Any:
    """Orthonormal rows [count, width]."""
    return torch.linalg.qr(torch.randn(width, count))[0].T


def learn_to_copy(model: Any, tokenizer: Any, texts: Sequence[str], steps: int, seed: int) -> list[float]:
    """Practise: random tokens that repeat themselves, and spans of text followed by themselves as a JSON string.

    Returns:
        The loss of each step, over all tokens.
    """
    chance = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * min(1, (step + 1) / _WARM_UP) * _decay(step / steps)
        chars = round(_SHORT + (_LONG - _SHORT) * step / steps)
        batch = [_exercise(chance, tokenizer, texts, chars, random_share=1 - step / steps) for _ in range(_BATCH)]
        loss = _loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _decay(done: float) -> float:
    """A cosine from 1 to 0.1."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def _exercise(
    chance: random.Random, tokenizer: Any, texts: Sequence[str], chars: int, random_share: float
) -> list[int]:
    if chance.random() < random_share:
        period = [chance.randrange(len(tokenizer)) for _ in range(chance.randint(3, _PERIOD))]
        return (period * (4 * _PERIOD))[: 4 * _PERIOD]
    text, length = chance.choice(texts), chance.randint(chars // 4, chars)
    start = chance.randrange(max(1, len(text) - length))
    span = text[start : start + length]
    return list(tokenizer.encode(f'{span}\n{{"content": {json.dumps(span)}'))


def _loss(model: Any, batch: Sequence[Sequence[int]]) -> Any:
    rows = [torch.tensor(row) for row in batch]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    logits = model(input_ids=ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
