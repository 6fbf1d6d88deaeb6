"""Taking votes."""


class DoubleVote(Exception):
    """The person has voted in this poll already."""


class UnknownOption(LookupError):
    """The poll has no such option."""


class Poll:
    """A question with options; `voted` names people who have voted before, by letter."""

    def __init__(self, question, options, voted=[]):
        self.question = question
        self.counts = dict.fromkeys(options, 0)
        self.voted = voted

    @property
    def turnout(self):
        """How many people have voted."""
        return len(self.voted)

    def vote(self, person, option):
        """Count a vote, or raise UnknownOption or DoubleVote."""
        if option not in self.counts:
            raise UnknownOption(option)
        if person in self.voted:
            raise DoubleVote("{} has voted already".format(person))
        self.voted.append(person)
        self.counts[option] += 1

    def add_letters(self, counts):
        """Add the votes that came by letter, as {option: votes}."""
        for option in counts:
            if option not in self.counts:
                raise UnknownOption(option)
        for option, votes in counts.items():
            self.counts[option] += votes
