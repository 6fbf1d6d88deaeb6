import pytest

from polltally import DoubleVote, Poll, UnknownOption, bar_lines, winner


def test_votes_are_counted():
    poll = Poll("lunch?", ["soup", "salad"])
    poll.vote("vera", "soup")
    poll.vote("will", "soup")
    poll.vote("xena", "salad")
    assert poll.counts == {"soup": 2, "salad": 1}


def test_nobody_votes_twice_in_a_poll():
    poll = Poll("colour?", ["red", "blue"])
    poll.vote("yara", "red")
    for option in ("red", "blue"):
        with pytest.raises(DoubleVote):
            poll.vote("yara", option)
    assert poll.counts == {"red": 1, "blue": 0}


def test_everybody_may_vote_in_every_poll():
    for question in ("first?", "second?", "third?"):
        poll = Poll(question, ["yes", "no"])
        for person in ("ann", "bob"):
            poll.vote(person, "yes")
        assert poll.counts == {"yes": 2, "no": 0}


def test_open_polls_do_not_mix():
    tea, cake = Poll("tea?", ["yes", "no"]), Poll("cake?", ["yes", "no"])
    tea.vote("cyd", "yes")
    cake.vote("cyd", "no")
    cake.vote("dan", "no")
    assert (tea.counts, cake.counts) == ({"yes": 1, "no": 0}, {"yes": 0, "no": 2})


def test_turnout_starts_at_zero():
    for number in range(3):
        poll = Poll("poll {}".format(number), ["yes", "no"])
        assert poll.turnout == 0
        poll.vote("eve", "no")
        poll.vote("fay", "no")
        assert poll.turnout == 2


def test_letters_count_for_turnout_and_against_a_second_vote():
    poll = Poll("park?", ["yes", "no"], voted=["gus", "hal"])
    poll.add_letters({"yes": 1, "no": 1})
    poll.vote("ida", "yes")
    assert poll.turnout == 3
    assert poll.counts == {"yes": 2, "no": 1}
    with pytest.raises(DoubleVote):
        poll.vote("hal", "yes")


def test_unknown_options_are_refused():
    poll = Poll("pool?", ["yes", "no"], voted=["jon"])
    with pytest.raises(UnknownOption):
        poll.vote("kim", "maybe")
    with pytest.raises(UnknownOption):
        poll.add_letters({"yes": 2, "maybe": 1})
    assert poll.counts == {"yes": 0, "no": 0}
    assert poll.turnout == 1


def test_winner_needs_a_majority_over_the_others():
    poll = Poll("tie?", ["a", "b"])
    assert winner(poll) is None
    poll.add_letters({"a": 3, "b": 3})
    assert winner(poll) is None
    poll.add_letters({"b": 1})
    assert winner(poll) == "b"


def test_bars_are_in_proportion():
    poll = Poll("bars?", ["no", "yes"])
    poll.add_letters({"no": 2, "yes": 4})
    assert bar_lines(poll, width=10) == ["no  ##### 2", "yes ########## 4"]
