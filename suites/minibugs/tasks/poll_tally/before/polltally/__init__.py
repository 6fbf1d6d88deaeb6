"""Polls with one vote for each person."""

from polltally.poll import DoubleVote, Poll, UnknownOption
from polltally.report import bar_lines, winner

__all__ = ["DoubleVote", "Poll", "UnknownOption", "bar_lines", "winner"]
