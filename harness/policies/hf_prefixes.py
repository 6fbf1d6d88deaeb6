"""Keys and values of earlier turns for transformers: a conversation's next prompt begins with its last one.

What a prompt shares with a kept conversation, or with another prompt of its batch, is not computed again; the rest is
computed row by row, without padding. By causality the numbers are those of a whole computation, but for float noise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from harness.adapters import base_of

GROWTH = 1.25
"""The room of a full cache becomes so many times as large."""
Layer = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, both [1, heads, tokens, size]."""


@dataclass(frozen=True)
class Kept:
    """The layers' keys and values of some tokens."""

    ids: tuple[int, ...]
    layers: tuple[Layer, ...]

    def shared(self, ids: tuple[int, ...]) -> int:
        """The tokens at the beginning of both."""
        lengths = range(1, min(len(self.ids), len(ids)) + 1)
        return bisect_left(lengths, True, key=lambda length: self.ids[:length] != ids[:length])


class Prefixes:
    """The conversations that were generated last.

    Args:
        most: how many of them are kept.
    """

    def __init__(self, network: Any, most: int) -> None:
        self._network, self._most = network, most
        self._kept: list[Kept] = []

    def cache_of(self, prompts: Sequence[Sequence[int]]) -> Any:
        """A cache of all tokens of the prompts but the last one of each, padded on the left; None for none."""
        if min(map(len, prompts)) < 2:
            return None
        rows: list[Kept] = []
        for prompt in prompts:
            rows.append(self._computed(tuple(prompt[:-1]), [*self._kept, *rows]))
        longest = max(len(row.ids) for row in rows)
        cache = growing_cache(self._network)
        for number, layers in enumerate(zip(*(row.layers for row in rows), strict=True)):
            cache.update(
                *(torch.cat([_padded(each, longest) for each in side]) for side in zip(*layers, strict=True)), number
            )
        return cache

    def _computed(self, ids: tuple[int, ...], known: Sequence[Kept]) -> Kept:
        best = max(known, key=lambda kept: kept.shared(ids), default=Kept((), ()))
        shared = best.shared(ids)
        cache = DynamicCache(config=self._network.config)
        for number, (keys, values) in enumerate(best.layers if shared else ()):
            cache.update(keys[..., :shared, :], values[..., :shared, :], number)
        if shared < len(ids):
            new = torch.tensor([ids[shared:]], device=self._network.device)
            self._network(input_ids=new, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return Kept(ids, tuple((layer.keys, layer.values) for layer in cache.layers))

    def keep(self, cache: Any, ids: torch.Tensor, starts: Sequence[int], ends: Sequence[int]) -> None:
        """Keep what was generated.

        Args:
            cache: of the whole batch; it lacks the last place.
            ids: [rows, places].
            starts: the first place of each row that is no padding.
            ends: the place behind each row's last token.
        """
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            place = (slice(row, row + 1), slice(None), slice(start, min(end, cache.get_seq_length())))
            layers = tuple((layer.keys[place].clone(), layer.values[place].clone()) for layer in cache.layers)
            new = Kept(tuple(ids[row, place[2]].tolist()), layers)
            others = [kept for kept in self._kept if kept.shared(new.ids) < len(kept.ids)]
            self._kept = [*others, new][-self._most :]

    def clear(self) -> None:
        self._kept = []


class GrowingLayer(DynamicLayer):
    """Keys and values with room for more behind them: a token is written there, and the rest is not copied for it.

    transformers' own layer joins old and new for every token, which was 72% of a CPU's time for 16 rows of 1,500.
    """

    keys: Any
    values: Any
    _room: Layer | None = None
    """What `keys` and `values` are the first tokens of."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Layer:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        room = self._room
        if room is None or after > room[0].shape[-2] or self.keys.data_ptr() != room[0].data_ptr():
            room = self._room = self._moved(key_states, before, after)
        self.keys, self.values = room[0][..., :after, :], room[1][..., :after, :]
        for side, new in ((self.keys, key_states), (self.values, value_states)):
            side[..., before:, :] = new
        return self.keys, self.values

    def _moved(self, like: torch.Tensor, before: int, after: int) -> Layer:
        """A larger room that holds what there is."""
        shape = (*like.shape[:-2], int(after * GROWTH) + 1, like.shape[-1])
        room = (like.new_empty(shape), like.new_empty(shape))
        if before:
            for side, old in zip(room, (self.keys, self.values), strict=True):
                side[..., :before, :] = old
        return room


def growing_cache(network: Any) -> Any:
    """An empty cache for a network whose layers are all plain (`shareable`)."""
    cache = DynamicCache(config=network.config)
    cache.layers = [GrowingLayer() for _ in cache.layers]
    return cache


def _padded(states: torch.Tensor, tokens: int) -> torch.Tensor:
    return torch.nn.functional.pad(states, (0, 0, tokens - states.shape[-2], 0))


def shareable(network: Any) -> bool:
    """Whether keys and values can be cut and joined: not where layers forget, where prompts are learnt, or where a pass
    over a prompt would make logits of all its tokens."""
    adapters = getattr(network, "peft_config", {})
    inner = base_of(network)
    if any(adapter.is_prompt_learning for adapter in adapters.values()):
        return False
    layers = DynamicCache(config=inner.config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return plain and "logits_to_keep" in signature(inner.forward).parameters
