"""The trie of token rows: what every row, node and chain of it must satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numpy", reason="needs the extra 'train'")

from trainers.trie import Trie, build_trie, group_rows, group_units

Row = list[int]
ROWS = st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=12)
UNITS = st.lists(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=2), max_size=10)


def prefixes(rows: Sequence[Row]) -> set[tuple[int, ...]]:
    return {tuple(row[:length]) for row in rows for length in range(1, len(row) + 1)}


def paths_of_nodes(trie: Trie, rows: Sequence[Row]) -> dict[int, tuple[int, ...]]:
    """Each node's prefix, from the rows that pass through it."""
    return {
        node: tuple(row[: depth + 1])
        for index, row in enumerate(rows)
        for depth, node in enumerate(trie.nodes(index).tolist())
    }


@given(ROWS)
def test_each_rows_nodes_spell_the_row_at_its_positions(rows: list[Row]) -> None:
    trie = build_trie(rows)
    for index, row in enumerate(rows):
        nodes = trie.nodes(index)
        assert trie.tokens[nodes].tolist() == row
        assert trie.positions[nodes].tolist() == list(range(len(row)))


@given(ROWS)
def test_there_is_one_node_for_each_distinct_prefix(rows: list[Row]) -> None:
    trie = build_trie(rows)
    named = paths_of_nodes(trie, rows)
    assert len(trie) == len(prefixes(rows))
    assert sorted(named) == list(range(len(trie)))
    assert set(named.values()) == prefixes(rows)


@given(ROWS)
def test_a_node_attends_to_exactly_its_ancestors_and_itself(rows: list[Row]) -> None:
    trie = build_trie(rows)
    named = paths_of_nodes(trie, rows)
    for query, path in named.items():
        attended = {key for key in range(len(trie)) if key <= query < trie.subtree_end[key]}
        assert attended == {key for key, other in named.items() if path[: len(other)] == other}


@given(ROWS)
def test_chains_cover_the_nodes_in_order_and_know_their_ancestors(rows: list[Row]) -> None:
    trie = build_trie(rows)
    named = paths_of_nodes(trie, rows)
    assert [node for chain in trie.chains for node in range(chain.start, chain.stop)] == list(range(len(trie)))
    for chain in trie.chains:
        above = [node for start, stop in chain.ancestors for node in range(start, stop)]
        whole = [*above, *range(chain.start, chain.stop)]
        assert [named[node] for node in whole] == [named[whole[-1]][: depth + 1] for depth in range(len(whole))]


@given(ROWS)
def test_from_every_chain_start_the_longest_path_down_is_the_chain(rows: list[Row]) -> None:
    trie = build_trie(rows)
    for chain in trie.chains:
        below = trie.positions[chain.start : trie.subtree_end[chain.start]]
        assert below.max() == trie.positions[chain.stop - 1]


def test_a_rollouts_step_rows_are_one_chain() -> None:
    whole = list(range(50))
    trie = build_trie([whole[:length] for length in (20, 50, 35, 35)])
    assert trie.chains == ((0, 50, ()),)
    assert trie.paths == (((0, 20),), ((0, 50),), ((0, 35),), ((0, 35),))


def test_a_branch_of_a_branch_has_the_pieces_of_its_path_as_ancestors() -> None:
    trie = build_trie([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 9, 10, 11, 12], [1, 2, 9, 13], [20, 21]])
    assert trie.chains == ((0, 8, ()), (8, 12, ((0, 2),)), (12, 13, ((0, 2), (8, 9))), (13, 15, ()))


def test_token_ids_compare_as_numbers_not_as_little_endian_bytes() -> None:
    rows = [[256], [1], [65536, 7], [65536]]
    assert group_rows(rows, 100, 1) == [[1], [0], [3, 2]]


@given(ROWS, st.integers(1, 20), st.integers(1, 4))
def test_groups_hold_each_row_once_and_no_more_distinct_tokens_than_allowed(
    rows: list[Row], max_tokens: int, min_rows: int
) -> None:
    groups = group_rows(rows, max_tokens, min_rows)
    assert sorted(index for group in groups for index in group) == list(range(len(rows)))
    for group in groups:
        assert len(group) == 1 or len(build_trie([rows[index] for index in group])) <= max_tokens


@given(ROWS, st.integers(1, 20), st.integers(1, 4))
def test_a_group_ends_only_for_a_reason(rows: list[Row], max_tokens: int, min_rows: int) -> None:
    groups = group_rows(rows, max_tokens, min_rows)
    for group, after in pairwise(groups):
        last, following = rows[group[-1]], rows[after[0]]
        full = len(build_trie([rows[index] for index in [*group, after[0]]])) > max_tokens
        assert full or (len(group) >= min_rows and following[: len(last)] != last)


@given(UNITS, st.integers(1, 20), st.integers(1, 3))
def test_units_stay_together_under_the_limit(units: list[list[Row]], max_tokens: int, min_units: int) -> None:
    groups = group_units(units, max_tokens, min_units)
    assert sorted(index for group in groups for index in group) == list(range(len(units)))
    for group in groups:
        rows = [row for index in group for row in units[index]]
        assert len(group) == 1 or len(build_trie(rows)) <= max_tokens


def test_the_pairs_of_one_rollout_are_one_group_and_another_rollouts_pairs_the_next() -> None:
    one, other = list(range(100, 140)), list(range(200, 240))
    pairs = [[whole[: at + 3], [*whole[:at], 7, 8]] for at in (10, 20, 30) for whole in (one, other)]
    assert group_units(pairs, 1000, min_units=1) == [[0, 2, 4], [1, 3, 5]]


def test_a_row_over_the_limit_is_a_group_of_its_own() -> None:
    assert group_rows([[1] * 30, [1] * 4, [2]], max_tokens=10, min_rows=8) == [[1], [0], [2]]
