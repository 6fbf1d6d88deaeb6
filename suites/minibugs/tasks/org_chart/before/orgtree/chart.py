"""Questions about a chart, answered from its top or from any person in it."""


class NoSuchPerson(LookupError):
    """Nobody in this part of the chart has that name."""


def head_count(top):
    return sum(1 for _ in top.walk())


def payroll(top):
    """Return the sum of the salaries of a person and everybody below."""
    return sum(person.salary for person in top.walk())


def find(top, name):
    """Return the person called `name`, or raise NoSuchPerson."""
    for person in top.walk():
        if person.name == name:
            return person
    raise NoSuchPerson(name)


def outline(top):
    """Return the chart as indented lines."""
    return ["  " * (person.level - top.level) + person.name for person in top.walk()]
