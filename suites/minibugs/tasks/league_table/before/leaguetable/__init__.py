"""A league: results in, table out."""

from leaguetable.league import League
from leaguetable.standing import Standing

__all__ = ["League", "Standing"]
