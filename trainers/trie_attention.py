"""Attention over a packed trie, registered with transformers under two names.

Without a trie both are transformers' own SDPA with its mask, so the model stays usable for everything else. With one
(`trie=TrieLayout(...)` among the model's keyword arguments, which transformers hands down to here):

- `CHAINS` attends chain by chain: a chain from a root is plain causal attention, any other one has its ancestors' keys
  put before its own and a mask of its own length by theirs; short siblings attend together. Exact on every device,
  and never a mask of all nodes by all nodes.
- `FLEX` is one call of flex attention with a block mask, for CUDA. Only its mask and its forward values are tested (on
  CPU, where its backward does not exist); it was not run or measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainers.trie import Chain, Span, Trie

CHAINS, FLEX = "trie_chains", "trie_flex"
Attention = Literal["chains", "flex"]
NAMES: dict[Attention, str] = {"chains": CHAINS, "flex": FLEX}
BLOCK = 128
TOGETHER = 128
"""Nodes of siblings that attend in one call. Measured on CPU: 64 actions of 5 tokens after 200 take half the time; with
longer actions or none before them it makes no difference, and from 512 on the masked keys cost more than is saved."""
_UNSUPPORTED = ("position_bias", "s_aux", "softcap")
"""Arguments that change the scores."""


class UnpackableError(ValueError):
    """The model computes its attention scores in a way that is not packed."""


class _Piece(NamedTuple):
    """What attends in one call: a chain, or short chains in a row that have the same ancestors."""

    start: int
    lengths: tuple[int, ...]
    """Of its chains."""
    segments: tuple[int, ...]
    """The pieces of the keys that its ancestors and its own chains make, in order."""
    above: int
    """How many keys the ancestors are."""

    @property
    def length(self) -> int:
        return sum(self.lengths)


class TrieLayout:
    """How a trie's nodes are cut for attention. One serves all layers, and a layer's recomputation too."""

    def __init__(self, trie: Trie, predictors: torch.Tensor | None = None) -> None:
        self.subtree_end = trie.subtree_end
        self.predictors = predictors
        """Nodes [P] whose hidden states are wanted; None for all."""
        self.segments, self.pieces = _cut(trie)
        self._masks: dict[tuple[int, torch.dtype, torch.device], torch.Tensor] = {}
        self._block_masks: dict[torch.device, Any] = {}

    def mask(self, piece: _Piece, like: torch.Tensor) -> torch.Tensor | None:
        """What a piece may see, [length, above + length]: all ancestors, and of each chain itself the nodes before.

        None where SDPA's own causality says it: for a chain from a root, and for a single node.
        """
        if len(piece.lengths) == 1 and (piece.length == 1 or not piece.above):
            return None
        key = (piece.start, like.dtype, like.device)
        if key not in self._masks:
            own = torch.block_diag(*(torch.ones(length, length).tril() for length in piece.lengths))
            seen = torch.cat([torch.ones(piece.length, piece.above), own], dim=1)
            self._masks[key] = torch.zeros_like(seen).masked_fill(seen == 0, -torch.inf).to(like)
        return self._masks[key]

    def block_mask(self, device: torch.device) -> Any:
        """For flex attention; made from the subtrees' ends block by block."""
        if device not in self._block_masks:
            self._block_masks[device] = trie_block_mask(self.subtree_end, device)
        return self._block_masks[device]


def chain_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, trie: TrieLayout | None = None, **kwargs: Any
) -> tuple[Any, None]:
    """Exact attention of a packed batch [1, heads, N, d]: one SDPA call for each chain of its trie."""
    if trie is None:
        return _sdpa(module, query, key, value, attention_mask, **kwargs)
    _refuse_unsupported(kwargs)
    keys, values = key.split(trie.segments, dim=2), value.split(trie.segments, dim=2)
    queries = query.split([piece.length for piece in trie.pieces], dim=2)
    done = []
    for piece, own in zip(trie.pieces, queries, strict=True):
        path_keys = torch.cat([keys[segment] for segment in piece.segments], dim=2)
        path_values = torch.cat([values[segment] for segment in piece.segments], dim=2)
        done.append(_sdpa(module, own, path_keys, path_values, trie.mask(piece, query), **kwargs)[0])
    return torch.cat(done, dim=1), None


def flex_trie_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, trie: TrieLayout | None = None, **kwargs: Any
) -> tuple[Any, Any]:
    """The same in one call of flex attention; for CUDA (see the module's docstring)."""
    if trie is None:
        return _sdpa(module, query, key, value, attention_mask, **kwargs)
    _refuse_unsupported(kwargs)
    out, _ = flex_attention_forward(module, query, key, value, trie.block_mask(query.device), **kwargs)
    return out, None


def trie_block_mask(subtree_end: npt.NDArray[np.int64], device: torch.device) -> Any:
    """A BlockMask of `k <= q < subtree_end[k]`, from block-wise extremes: no mask of all nodes by all nodes."""
    from torch.nn.attention.flex_attention import BlockMask

    size = len(subtree_end)
    starts = np.arange(0, size, BLOCK)
    latest, earliest = np.maximum.reduceat(subtree_end, starts), np.minimum.reduceat(subtree_end, starts)
    below = starts[:, None] > starts[None, :]
    some = below & (latest[None, :] > starts[:, None]) | np.eye(len(starts), dtype=bool)
    every = below & (earliest[None, :] >= np.minimum(starts + BLOCK, size)[:, None])
    ends = torch.as_tensor(subtree_end, device=device)

    def attends(batch: Any, head: Any, q: Any, kv: Any) -> Any:
        return (kv <= q) & (q < ends[kv])

    partial, full = _block_lists(some & ~every, device), _block_lists(every, device)
    return BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=BLOCK, mask_mod=attends, seq_lengths=(size, size))


def _block_lists(blocks: npt.NDArray[np.bool_], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Per row of blocks their count [1, 1, rows], and their columns before all other columns [1, 1, rows, columns]."""
    columns = np.argsort(~blocks, axis=1, kind="stable").astype(np.int32)
    counts = blocks.sum(axis=1).astype(np.int32)
    return torch.as_tensor(counts, device=device)[None, None], torch.as_tensor(columns, device=device)[None, None]


def _sdpa(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> tuple[Any, None]:
    out, _ = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    return out, None


def _refuse_unsupported(kwargs: dict[str, Any]) -> None:
    given = [name for name in _UNSUPPORTED if kwargs.get(name) is not None]
    if given:
        raise UnpackableError(f"its attention takes {' and '.join(given)}")


def _cut(trie: Trie) -> tuple[list[int], list[_Piece]]:
    """The lengths of the segments between all places where a chain begins or is left, and each chain in segments."""
    spans = [span for chain in trie.chains for span in (*chain.ancestors, (chain.start, chain.stop))]
    cuts = sorted({place for span in spans for place in span})
    number = {place: index for index, place in enumerate(cuts)}

    def segments(span: Span) -> range:
        return range(number[span[0]], number[span[1]])

    pieces = []
    for chains in _together(trie.chains):
        ancestors, own = chains[0].ancestors, (chains[0].start, chains[-1].stop)
        path = tuple(segment for span in (*ancestors, own) for segment in segments(span))
        lengths = tuple(chain.stop - chain.start for chain in chains)
        pieces.append(_Piece(own[0], lengths, path, sum(stop - start for start, stop in ancestors)))
    return np.diff(cuts).tolist(), pieces


def _together(chains: Sequence[Chain]) -> list[list[Chain]]:
    """Chains in a row with the same ancestors, as long as they are short: fewer calls, and fewer copies of the keys."""
    groups: list[list[Chain]] = []
    for chain in chains:
        last = groups[-1] if groups else []
        if last and last[0].ancestors == chain.ancestors and chain.stop - last[0].start <= TOGETHER:
            last.append(chain)
        else:
            groups.append([chain])
    return groups


for _name, _function in ((CHAINS, chain_attention), (FLEX, flex_trie_attention)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, sdpa_mask)
