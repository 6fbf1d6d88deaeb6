"""The cache of a generation: transformers' numbers, without a copy of everything for each token."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

import torch
from transformers import DynamicCache, Qwen2Config

from harness.policies.hf_prefixes import GROWTH, growing_cache

pytestmark = pytest.mark.slow


@pytest.fixture
def network() -> Any:
    return SimpleNamespace(config=Qwen2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=2))


def states(tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 2, tokens, 32), torch.randn(3, 2, tokens, 32)


def test_it_holds_what_transformers_own_cache_holds(network: Any) -> None:
    ours, theirs = growing_cache(network), DynamicCache(config=network.config)
    for tokens in (7, 1, 1, 40, 1):
        for layer in range(2):
            keys, values = states(tokens)
            found, wanted = (cache.update(keys, values, layer) for cache in (ours, theirs))
            assert all(torch.equal(mine, its) for mine, its in zip(found, wanted, strict=True))
    assert ours.get_seq_length() == theirs.get_seq_length() == 50
    assert ours.get_mask_sizes(1, 0) == theirs.get_mask_sizes(1, 0)


def test_tokens_are_written_in_place_until_the_room_is_used_up(network: Any) -> None:
    cache = growing_cache(network)
    places = []
    for _ in range(200):
        cache.update(*states(1), 0)
        places.append(cache.layers[0].keys.data_ptr())
    moves = sum(a != b for a, b in pairwise(places))
    assert 0 < moves < 40
    assert GROWTH**moves > 4


def test_rows_that_were_taken_out_are_not_written_over_those_that_were_there(network: Any) -> None:
    cache = growing_cache(network)
    keys, values = states(5)
    cache.update(keys, values, 0)
    cache.layers[0].reorder_cache(torch.tensor([2, 0, 0]))
    more, _ = states(1)
    found, _ = cache.update(more, more, 0)
    assert torch.equal(found, torch.cat([keys[[2, 0, 0]], more], dim=-2))
