"""People and who reports to whom."""


class Person:
    """A person in the chart; `manager` is None at the top."""

    def __init__(self, name, salary=0):
        self.name = name
        self.salary = salary
        self.manager = None
        self.reports = []

    def add(self, *people):
        """Let `people` report to this person; returns this person."""
        for person in people:
            if person.manager is not None:
                raise ValueError("{} already has a manager".format(person.name))
            person.manager = self
            self.reports.append(person)
        return self

    @property
    def level(self):
        """0 for the top of the chart, 1 for its reports, and so on."""
        return 0 if self.manager is None else self.manager.level + 1

    def walk(self):
        """Yield this person and everybody below, managers before their reports."""
        yield self
        for report in self.reports:
            yield report
