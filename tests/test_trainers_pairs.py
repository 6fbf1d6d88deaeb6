"""Pairs: what is chosen, what is measured, what is refused; and the experiment's demands, at smaller counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records import ForkPoint
from tests.benchmarks.pair_quality import WAY, Tally, Toy, check_agreement, fork_tally, merge_tally, whole_tally
from tools.protocol import call_text, final_text, parse
from trainers.free_pairs import free_forks, loop_pairs, protocol_pairs
from trainers.pairs import Candidate, Fork, Pair, Side, fork_pairs, limit_malformed, make_pair, merge_pairs
from trainers.values import Finished, Play, PolicyKey, Visit, p_better

POLICY = PolicyKey("model", "m", 0.7)
READ, LIST = call_text("read_file", rel_path="a.py"), call_text("list_files")


def candidate(
    action: str, values: Sequence[float | None], malformed: bool = False, steps: int = 5, tokens: int = 100
) -> Candidate:
    plays = tuple(Play(f"{action}{number}", value, steps, tokens) for number, value in enumerate(values))
    return Candidate(action, malformed, "r", action, 1, plays)


def fork(*candidates: Candidate) -> Fork:
    return Fork("task", "r", "s0003", candidates)


def halves(measured: str, choosing: str) -> list[float | None]:
    """Values in the order of play: even ones are measured, odd ones choose. '-' is unscored."""
    mixed = "".join(pair for both in zip(measured, choosing, strict=True) for pair in both)
    return [None if value == "-" else float(value) for value in mixed]


def test_fork_pair_carries_what_the_measuring_half_gave() -> None:
    good, bad = candidate("good", halves("1110", "1111"), steps=4), candidate("bad", halves("0000", "0001"), steps=9)
    (pair,) = fork_pairs(fork(bad, good))
    assert (pair.source, pair.kind, pair.task) == ("fork", "solved", "task")
    assert pair.state == ForkPoint(rollout="r", step="s0003")
    assert (pair.chosen_text, pair.rejected_text) == ("good", "bad")
    side = Side(rollout="r", step="good", k=4, wins=3, runs=4, value=0.75, mean_steps=4, mean_tokens=100)
    assert pair.chosen == side
    assert (pair.rejected.k, pair.rejected.wins, pair.rejected.value) == (4, 0, 0)
    assert pair.confidence == p_better(3, 4, 0, 4)
    assert pair.margin == 0.75


def test_pair_survives_the_disk_and_its_id_does_not_depend_on_the_measurement() -> None:
    good, bad = candidate("good", [1.0] * 8), candidate("bad", [0.0] * 8)
    (pair,) = fork_pairs(fork(good, bad))
    assert Pair.model_validate_json(pair.model_dump_json()) == pair
    (again,) = fork_pairs(fork(good, candidate("bad", [0.0] * 12)))
    assert again.id == pair.id
    assert again.confidence != pair.confidence


def test_luck_of_the_choosing_half_alone_makes_no_pair() -> None:
    lucky, unlucky = candidate("a", halves("0101", "1111")), candidate("b", halves("1010", "0000"))
    assert fork_pairs(fork(lucky, unlucky), min_confidence=0.0) == []


def test_luck_of_the_measuring_half_alone_makes_no_pair() -> None:
    lucky, unlucky = candidate("a", halves("1111", "0101")), candidate("b", halves("0000", "1010"))
    assert fork_pairs(fork(lucky, unlucky), min_confidence=0.0) == []


def test_measured_direction_against_the_choice_makes_no_pair() -> None:
    a, b = candidate("a", halves("0000", "1111")), candidate("b", halves("1111", "0000"))
    assert fork_pairs(fork(a, b), min_confidence=0.0) == []


@pytest.mark.parametrize(("margin", "made"), [(0.5, 1), (0.51, 0)])
def test_values_must_differ_by_the_margin(margin: float, made: int) -> None:
    good, bad = candidate("good", halves("1110", "1111")), candidate("bad", halves("1000", "0000"))
    assert len(fork_pairs(fork(good, bad), margin, 0.5)) == made


def test_pair_below_the_wanted_confidence_is_not_made() -> None:
    good, bad = candidate("good", [1.0] * 4), candidate("bad", [0.0] * 4)
    assert fork_pairs(fork(good, bad), min_confidence=0.96) == []
    assert len(fork_pairs(fork(good, bad), min_confidence=0.95)) == 1


def test_best_is_set_against_worst_and_each_candidate_is_in_one_pair() -> None:
    shares = {"a": "11111111", "b": "11111110", "c": "00000010", "d": "00000000"}
    made = fork_pairs(fork(*(candidate(name, halves(each, each)) for name, each in shares.items())))
    assert [(pair.chosen_text, pair.rejected_text) for pair in made] == [("a", "d"), ("b", "c")]


def test_unscored_plays_count_nowhere() -> None:
    good = candidate("good", [None, *halves("1111", "1111"), None])
    bad = candidate("bad", [*halves("0000", "0000"), None, None])
    (pair,) = fork_pairs(fork(good, bad))
    assert (pair.chosen.k, pair.rejected.k) == (4, 4)
    assert fork_pairs(fork(good, candidate("bad", [None] * 8))) == []


def test_candidate_with_one_play_cannot_be_both_chosen_and_measured() -> None:
    assert fork_pairs(fork(candidate("a", [1.0]), candidate("b", [0.0])), min_confidence=0.0) == []


def test_malformed_action_is_never_the_chosen_side() -> None:
    good, bad = candidate("good", [1.0] * 8, malformed=True), candidate("bad", [0.0] * 8)
    assert fork_pairs(fork(good, bad)) == []
    (pair,) = fork_pairs(fork(replace(good, malformed=False), replace(bad, malformed=True)))
    assert pair.rejected_malformed


def test_fewer_steps_to_the_same_success_make_an_effort_pair() -> None:
    short, long = candidate("short", [1.0] * 8, steps=4), candidate("long", [1.0] * 8, steps=7)
    (pair,) = fork_pairs(fork(long, short))
    assert (pair.kind, pair.chosen_text, pair.margin) == ("effort", "short", 0)
    assert pair.confidence == 31 / 32  # Beta(5, 1) above one half
    assert (pair.chosen.mean_steps, pair.rejected.mean_steps) == (4, 7)


def test_fewer_tokens_make_an_effort_pair_where_steps_are_equal() -> None:
    short, long = candidate("short", [1.0] * 8, tokens=80), candidate("long", [1.0] * 8, tokens=100)
    (pair,) = fork_pairs(fork(long, short))
    assert (pair.kind, pair.chosen_text) == ("effort", "short")


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (candidate("short", [1.0] * 8, steps=19), candidate("long", [1.0] * 8, steps=22)),  # 3 steps, but 14%
        (candidate("short", [1.0] * 8, steps=2), candidate("long", [1.0] * 8, steps=3)),  # 33%, but one step
        (candidate("short", [1.0] * 8, tokens=90), candidate("long", [1.0] * 8, tokens=100)),
        (candidate("short", [0.0] * 8, steps=2), candidate("long", [0.0] * 8, steps=20)),  # giving up is no virtue
        (candidate("short", [1.0, 0.0] * 4, steps=2), candidate("long", [1.0, 0.0] * 4, steps=20)),
    ],
)
def test_effort_makes_no_pair_without_a_clear_difference_and_success(short: Candidate, long: Candidate) -> None:
    assert fork_pairs(fork(short, long), min_confidence=0.0) == []


def test_eight_equal_actions_are_seldom_told_apart() -> None:
    """Candidates that end in a pair of confidence 0.95 by luck: at most 5%, for any number of plays."""
    rng = random.Random(11)
    for k in (4, 8, 16, 32):
        reached = 0
        for _ in range(400):
            equal = (candidate(f"{number}", [float(rng.random() < 0.5) for _ in range(k)]) for number in range(8))
            reached += 2 * len(fork_pairs(fork(*equal), min_confidence=0.95))
        assert reached / (400 * 8) <= 0.05


def finished(
    name: str, actions: Sequence[str], value: float | None, parent: str | None = None, inherited: int = 0
) -> Finished:
    visits = tuple(
        Visit("/".join(actions[:depth]), action, action.startswith("!"), f"s{depth}", action.endswith("~"))
        for depth, action in enumerate(actions)
    )
    return Finished("task", POLICY, visits, Play(name, value, len(actions), 10), parent, inherited)


def rollouts(prefix: str, actions: Sequence[str], values: Sequence[float]) -> list[Finished]:
    """Independent rollouts; each ends with an action of its own."""
    return [
        finished(f"{prefix}{number}", [*actions, f"{prefix}{number}"], value) for number, value in enumerate(values)
    ]


def test_merge_pair_compares_the_actions_of_a_shared_state() -> None:
    made = list(merge_pairs([*rollouts("g", ["x", "good"], [1.0] * 8), *rollouts("b", ["x", "bad"], [0.0] * 8)]))
    (pair,) = made
    assert (pair.source, pair.kind, pair.chosen_text, pair.rejected_text) == ("merge", "solved", "good", "bad")
    assert pair.state == ForkPoint(rollout="b0", step="s0")
    assert (pair.chosen.rollout, pair.chosen.step, pair.chosen.k, pair.chosen.wins) == ("g0", "s1", 4, 4)


def test_merge_keeps_tasks_and_policies_apart() -> None:
    good, bad = rollouts("g", ["good"], [1.0] * 8), rollouts("b", ["bad"], [0.0] * 8)
    hotter = PolicyKey("model", "m", 1.0)
    assert list(merge_pairs([*good, *(replace(each, policy=hotter) for each in bad)])) == []
    assert list(merge_pairs([*good, *(replace(each, task="other") for each in bad)])) == []


def test_merge_counts_forked_continuations_once_per_draw() -> None:
    """Eight forks of one rollout, deep below the action, say no more about the action than that one draw."""
    good, bad = rollouts("g", ["good"], [1.0] * 4), rollouts("b", ["bad"], [0.0] * 4)
    good[0] = finished("g0", ["good", "g0", "end"], 1.0)
    forks = [
        finished(f"g0@{number}", ["good", "g0", f"end{number}"], 0.0, parent="g0", inherited=2) for number in range(8)
    ]
    (pair,) = merge_pairs([*good, *bad, *forks], min_confidence=0.5)
    assert pair.chosen.k == 2
    assert pair.chosen.value == pytest.approx((1 / 9 + 1) / 2)


def test_merge_keeps_forks_of_one_draw_in_one_half() -> None:
    """All plays of the action share one draw after it: nothing independent is left to measure with."""
    good = [finished("g", ["good", "then", "end"], 1.0)]
    good += [finished(f"g@{number}", ["good", "then", f"end{number}"], 1.0, "g", 2) for number in range(20)]
    assert list(merge_pairs([*good, *rollouts("b", ["bad"], [0.0] * 8)], min_confidence=0.0)) == []


def test_merge_of_a_forked_state_takes_its_continuations_as_independent() -> None:
    plays = [finished("g", ["good", "g"], 1.0), finished("g@b0", ["bad", "b0"], 0.0, "g", 0)]
    plays += [finished(f"g@g{number}", ["good", f"g{number}"], 1.0, "g", 1) for number in range(1, 8)]
    plays += [finished(f"g@b{number}", ["bad", f"b{number}"], 0.0, "g@b0", 1) for number in range(1, 8)]
    (pair,) = merge_pairs(plays)
    assert (pair.chosen_text, pair.chosen.k, pair.rejected.k) == ("good", 4, 4)
    assert (pair.chosen.rollout, pair.rejected.rollout) == ("g", "g@b0")


def pair_of(confidence: float | None, text: str, malformed: bool) -> Pair:
    sides = Side(rollout="r", step="a"), Side(rollout="r", step="b")
    where = ForkPoint(rollout="r", step=None)
    return make_pair("fork", "solved", "task", where, sides, ("good", text), malformed, confidence)


def test_malformed_share_keeps_the_surest_in_their_order() -> None:
    fine = [pair_of(0.9, f"fine{number}", False) for number in range(8)]
    bad = [pair_of(confidence, f"bad{confidence}", True) for confidence in (None, 0.91, 0.99, 0.95)]
    kept = limit_malformed([*bad, *fine], 0.2)
    assert [pair.confidence for pair in kept if pair.rejected_malformed] == [0.99, 0.95]
    assert kept[2:] == fine


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([None, 0.9, 0.95]))), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_malformed_share_is_never_exceeded_nor_underused(made: list[tuple[bool, float | None]], share: float) -> None:
    pairs = [pair_of(confidence, str(number), bad) for number, (bad, confidence) in enumerate(made)]
    kept = limit_malformed(pairs, share)
    bad = sum(pair.rejected_malformed for pair in kept)
    assert bad <= share * len(kept) + 1e-9
    assert [pair for pair in kept if not pair.rejected_malformed] == [
        pair for pair in pairs if not pair.rejected_malformed
    ]
    assert bad == sum(each for each, _ in made) or bad + 1 > share * (len(kept) + 1)


def spoken(*messages: str, samples: Sequence[int] = (), loops: Sequence[str] = ()) -> Fork:
    counts = samples or [1] * len(messages)
    return fork(
        *(
            Candidate(text, parse(text).problem is not None, "r", f"s{number}", count, (), text in loops)
            for number, (text, count) in enumerate(zip(messages, counts, strict=True))
        )
    )


@pytest.mark.parametrize(
    "raw",
    [
        f"```json\n{READ}\n```",
        f"I read it.\n{READ}",
        f"{READ}\n{LIST}",
        '{"type": "tool_call", "name": "read_file",\n"args": {"rel_path": "a.py"}} ok',
    ],
)
def test_repaired_message_is_set_against_its_own_strict_form(raw: str) -> None:
    (pair,) = protocol_pairs(spoken(raw, LIST))
    assert (pair.source, pair.kind, pair.chosen_text, pair.rejected_text) == ("protocol", "protocol", READ, raw)
    assert pair.rejected_malformed
    assert pair.confidence is None
    assert pair.chosen == pair.rejected == Side(rollout="r", step="s0")


def test_repaired_final_answer_keeps_its_summary() -> None:
    (pair,) = protocol_pairs(spoken(f"Done!\n{final_text('fixed ü')}"))
    assert pair.chosen_text == final_text("fixed ü")


def test_unreadable_message_is_set_against_a_strict_sibling() -> None:
    (pair,) = protocol_pairs(spoken("I think so.", LIST, READ, samples=(1, 1, 2)))
    assert (pair.chosen_text, pair.rejected_text, pair.chosen.step) == (READ, "I think so.", "s2")
    assert protocol_pairs(spoken("I think so.", "Me too.")) == []


def test_loop_is_set_against_another_call_of_the_same_state() -> None:
    reworded = READ.replace(": ", ":")
    assert loop_pairs(spoken(READ, reworded, "What?", loops=[READ])) == []
    (pair,) = loop_pairs(spoken(READ, reworded, LIST, loops=[READ]))
    assert (pair.kind, pair.chosen_text, pair.rejected_text) == ("loop", LIST, READ)


def test_free_forks_hold_the_states_with_something_to_reject() -> None:
    made = [finished("1", ["x", "!bad"], None), finished("2", ["x", "fine"], None), finished("3", ["x", "fine"], 1.0)]
    made.append(finished("2@0", ["x", "fine", "again~"], None, "2", 2))
    first, second = free_forks(made)
    assert (first.rollout, first.step) == ("1", "s0")
    assert [(each.action, each.malformed, each.samples) for each in first.candidates] == [
        ("!bad", True, 1),
        ("fine", False, 2),
    ]
    assert (second.rollout, second.step) == ("2", "s1")
    assert [(each.action, each.rollout, each.loop) for each in second.candidates] == [("again~", "2@0", True)]


def test_real_rollouts_agree_with_the_direct_simulation() -> None:
    check_agreement(Toy(0.7, 0.3), 20)


def sum_of(tallies: Sequence[Tally]) -> Tally:
    return Tally(
        sum(each.pairs for each in tallies),
        sum(each.right for each in tallies),
        sum(each.sure for each in tallies),
        sum(each.tested for each in tallies),
    )


def test_fork_pairs_of_confidence_are_right_and_whole_rollout_pairs_are_not() -> None:
    toy = Toy(0.7, 0.3)
    forks = sum_of([fork_tally(toy, k, 150, (WAY,), seed=1) for k in (4, 8, 16)])
    merged, _ = merge_tally(toy, 32, 20, seed=1)
    whole = whole_tally(toy, 8, 300, seed=1)
    assert forks.accuracy is not None
    assert merged.accuracy is not None
    assert whole.accuracy is not None
    assert forks.pairs > 100
    assert forks.accuracy >= 0.95
    assert whole.accuracy + 0.3 < merged.accuracy


@pytest.mark.parametrize("k", [4, 8, 16, 32])
def test_equal_values_seldom_reach_a_confidence_of_095(k: int) -> None:
    tally = fork_tally(Toy(0.5, 0.5), k, 300, (WAY,), seed=2)
    assert tally.sure / tally.tested <= 0.05
