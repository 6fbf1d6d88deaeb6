"""Support tickets."""

LOW, NORMAL, HIGH = 1, 2, 3


class Ticket:
    """A request of a customer; `opened` is a minute on the desk's clock."""

    def __init__(self, number, opened, priority=NORMAL):
        if priority not in (LOW, NORMAL, HIGH):
            raise ValueError("unknown priority: {!r}".format(priority))
        self.number = number
        self.opened = opened
        self.priority = priority
        self.assignee = None

    def age(self, now):
        """Minutes since the ticket was opened."""
        return now - self.opened

    def __repr__(self):
        return "Ticket({}, opened={}, priority={})".format(self.number, self.opened, self.priority)
