"""One row of the table."""


class Standing:
    """What a team has achieved so far."""

    def __init__(self, team):
        self.team = team
        self.played = 0
        self.points = 0
        self.goals_for = 0
        self.goals_against = 0

    @property
    def goal_difference(self):
        return self.goals_for - self.goals_against

    def add_match(self, scored, conceded, points):
        """Count one match."""
        self.played += 1
        self.points += points
        self.goals_for += scored
        self.goals_against += conceded

    def rank_key(self):
        """Sort key: the best team is the smallest."""
        return (-self.points, -self.goal_difference, self.team)

    def __repr__(self):
        return "Standing({!r}, {} points)".format(self.team, self.points)
