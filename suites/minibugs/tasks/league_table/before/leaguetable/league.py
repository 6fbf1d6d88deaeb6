"""All teams and all results of a season."""

import re

from leaguetable.standing import Standing

_RESULT = re.compile(r"(.+) - (.+) (\d+):(\d+)$")


def match_points(home_goals, away_goals):
    """Return the points of the home team and of the away team."""
    if home_goals == away_goals:
        return 1, 1
    return (3, 0) if home_goals > away_goals else (0, 3)


class League:
    """Collects results and makes the table."""

    def __init__(self, teams):
        self._standings = {team: Standing(team) for team in teams}

    def standing(self, team):
        return self._standings[team]

    def record(self, home, away, home_goals, away_goals):
        """Count the result of a match for both teams."""
        if home == away:
            raise ValueError("{} cannot play itself".format(home))
        home_points, away_points = match_points(home_goals, away_goals)
        self._standings[home].add_match(home_goals, away_goals, home_points)
        self._standings[away].add_match(away_goals, away_goals, away_points)

    def record_line(self, line):
        """Count a result that is given as 'Home - Away 2:1'."""
        match = _RESULT.match(line.strip())
        if match is None:
            raise ValueError("not a result: {!r}".format(line))
        home, away, home_goals, away_goals = match.groups()
        self.record(home, away, int(home_goals), int(away_goals))

    def table(self):
        """Return the standings, best team first."""
        return sorted(self._standings.values(), key=Standing.rank_key)
