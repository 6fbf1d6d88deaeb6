"""The trie of token rows: every distinct token once, in an order in which attention needs few pieces.

Rows that share a prefix share its nodes. The nodes are numbered in preorder, and of a node's children the one with the
longest path below it comes first; so from every node its longest path down is a run of consecutive numbers, a *chain*.
A rollout whose later prompts extend its earlier ones is one chain, and a side of a pair is a short chain beside it. A
node attends to its ancestors and to itself, and in preorder these are the nodes k with `k <= q < subtree_end[k]`.
Rows without a common first token make a forest; nothing here needs a single root.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Tokens = Sequence[int] | npt.NDArray[np.int64]
Span = tuple[int, int]
"""Node numbers from the first up to, not including, the second."""


class Chain(NamedTuple):
    """A run of nodes, each the parent of the next."""

    start: int
    stop: int
    ancestors: tuple[Span, ...]
    """The path from a root to the parent of `start`, in order; empty where the chain begins at a root."""


@dataclass(frozen=True)
class Trie:
    """The packed sequence of some rows, and where each row is in it."""

    tokens: npt.NDArray[np.int64]
    """The token of each node, in preorder."""
    positions: npt.NDArray[np.int64]
    """The depth of each node: its position in every row that it is part of."""
    subtree_end: npt.NDArray[np.int64]
    """The number after the last descendant of each node."""
    chains: tuple[Chain, ...]
    """They follow one another and cover all nodes."""
    paths: tuple[tuple[Span, ...], ...]
    """Per row, its nodes in order."""

    def __len__(self) -> int:
        return len(self.tokens)

    def nodes(self, row: int) -> npt.NDArray[np.int64]:
        """The node of each token of a row."""
        return _numbers(self.paths[row])


def build_trie(rows: Sequence[Tokens]) -> Trie:
    """The trie of rows of token ids (0 to 2**32 - 1); equal rows, prefixes of others and empty rows are fine."""
    arrays = [_array(row) for row in rows]
    edges = _preorder(_edges(arrays))
    return Trie(
        tokens=_joined([arrays[edge.row][edge.start : edge.stop] for edge in edges]),
        positions=_joined([np.arange(edge.start, edge.stop) for edge in edges]),
        subtree_end=_joined([np.full(edge.stop - edge.start, edge.end) for edge in edges]),
        chains=_chains(edges),
        paths=_paths(edges, len(arrays)),
    )


def group_rows(rows: Sequence[Tokens], max_tokens: int, min_rows: int) -> list[list[int]]:
    """Groups of rows (their indices) that are packed together: `group_units` of single rows."""
    return group_units([[row] for row in rows], max_tokens, min_rows)


def group_units(units: Sequence[Sequence[Tokens]], max_tokens: int, min_units: int) -> list[list[int]]:
    """Groups of units (their indices), each unit being rows that stay together, such as the two sides of a pair.

    The units are ordered by the prefix that their rows have in common and the order is cut into groups of at most
    `max_tokens` distinct tokens. Below that limit a group ends once it has `min_units` and the next unit does not go
    on from the last one (its common prefix does not extend the last one's): a trajectory is not cut without need. A
    unit over the limit makes a group of its own: refusing it is for who knows what it is.
    """
    arrays = [[_array(row) for row in unit] for unit in units]
    stems = [_sort_key(_common(unit)) for unit in arrays]
    groups: list[list[int]] = []
    seen, last = _Distinct(), b""
    for index in sorted(range(len(units)), key=stems.__getitem__):
        goes_on = bool(groups) and (len(groups[-1]) < min_units or stems[index].startswith(last))
        if goes_on and seen.add(arrays[index]) <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
            seen = _Distinct()
            seen.add(arrays[index])
        last = stems[index]
    return groups


@dataclass(eq=False)
class _Edge:
    """A maximal piece of some rows without a branch or a row's end inside."""

    row: int
    """A row that has these tokens, from `start` up to `stop`."""
    start: int
    stop: int
    children: list[_Edge] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """The rows whose last token is the last one here."""
    height: int = 0
    """Tokens on the longest path down from the first token here."""
    first: int = 0
    """The number of the first node."""
    end: int = 0
    """The number after the last node of the subtree."""
    chain: Chain = Chain(0, 0, ())
    """The chain that this edge is part of, up to the end of this edge."""


def _edges(rows: list[npt.NDArray[np.int64]]) -> _Edge:
    """The compressed trie: the rows in lexicographic order, each hung on where it leaves the one before it."""
    keys = [_sort_key(row) for row in rows]
    root = _Edge(0, 0, 0)
    path, before = [root], np.empty(0, np.int64)
    for index in sorted(range(len(rows)), key=keys.__getitem__):
        row = rows[index]
        shared = _shared(before, row)
        _cut(path, shared)
        if len(row) > shared:
            path.append(_Edge(index, shared, len(row)))
            path[-2].children.append(path[-1])
        path[-1].ends.append(index)
        before = row
    return root


def _cut(path: list[_Edge], depth: int) -> None:
    """Shortens the path of the row before to its first `depth` tokens, splitting the edge that reaches over them."""
    while len(path) > 1 and path[-1].start >= depth:
        path.pop()
    last = path[-1]
    if last.stop > depth:
        lower = _Edge(last.row, depth, last.stop, last.children, last.ends)
        last.stop, last.children, last.ends = depth, [lower], []


def _preorder(root: _Edge) -> list[_Edge]:
    """All edges but the root's empty one, numbered and with their chains."""
    _measure(root)
    edges, waiting, count = [], [root], 0
    while waiting:
        edge = waiting.pop()
        edge.first = count
        count += edge.stop - edge.start
        edges.append(edge)
        waiting.extend(reversed(edge.children))
    for edge in reversed(edges):
        edge.end = edge.children[-1].end if edge.children else edge.first + edge.stop - edge.start
    for edge in edges:
        _extend_chains(edge, root)
    return edges[1:]


def _measure(root: _Edge) -> None:
    """Sets the heights and puts the highest child first."""
    edges, waiting = [], [root]
    while waiting:
        edges.append(waiting.pop())
        waiting.extend(edges[-1].children)
    for edge in reversed(edges):
        edge.children.sort(key=lambda child: -child.height)
        edge.height = edge.stop - edge.start + (edge.children[0].height if edge.children else 0)


def _extend_chains(edge: _Edge, root: _Edge) -> None:
    chain = edge.chain
    above = () if edge is root else (*chain.ancestors, (chain.start, chain.stop))
    for child in edge.children:
        length = child.stop - child.start
        if child.first == chain.stop and edge is not root:
            child.chain = Chain(chain.start, chain.stop + length, chain.ancestors)
        else:
            child.chain = Chain(child.first, child.first + length, above)


def _chains(edges: list[_Edge]) -> tuple[Chain, ...]:
    """An edge's chain as that edge has it ends with the edge: the last edge of each chain has it whole."""
    whole = {edge.chain.start: edge.chain for edge in edges}
    return tuple(whole.values())


def _paths(edges: list[_Edge], rows: int) -> tuple[tuple[Span, ...], ...]:
    paths: list[tuple[Span, ...]] = [()] * rows
    for edge in edges:
        path = (*edge.chain.ancestors, (edge.chain.start, edge.chain.stop))
        for row in edge.ends:
            paths[row] = path
    return tuple(paths)


class _Distinct:
    """Counts the distinct tokens of rows that are added one unit at a time."""

    def __init__(self) -> None:
        self._rows: list[tuple[bytes, npt.NDArray[np.int64]]] = []
        self._count = 0

    def add(self, unit: list[npt.NDArray[np.int64]]) -> int:
        """The count with the unit. What a row shares with the rows here it shares with a neighbour in their order."""
        for row in unit:
            key = _sort_key(row)
            place = bisect_left(self._rows, key, key=lambda each: each[0])
            beside = self._rows[max(place - 1, 0) : place + 1]
            self._count += len(row) - max((_shared(other, row) for _, other in beside), default=0)
            self._rows.insert(place, (key, row))
        return self._count


def _array(row: Tokens) -> npt.NDArray[np.int64]:
    return np.asarray(row, dtype=np.int64)


def _sort_key(row: npt.NDArray[np.int64]) -> bytes:
    """Bytes that compare as the rows do, and of which one starts with another exactly if the rows do."""
    key: bytes = row.astype(">u4").tobytes()
    return key


def _shared(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> int:
    """How many tokens two rows begin with in common."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length


def _common(unit: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    shortest = min((_shared(one, other) for one, other in pairwise(unit)), default=len(unit[0]))
    return unit[0][:shortest]


def _numbers(spans: Sequence[Span]) -> npt.NDArray[np.int64]:
    return _joined([np.arange(start, stop) for start, stop in spans])


def _joined(parts: Sequence[Any]) -> npt.NDArray[np.int64]:
    joined: npt.NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *parts])
    return joined
