"""Reading of event logs: one event in a line, `time level source message`."""

from collections import namedtuple

Event = namedtuple("Event", "time level source message")


class MalformedLine(ValueError):
    """A line of the log has too few columns or a time that is no number."""


def parse_line(line):
    """Return the event in one line."""
    columns = line.split(None, 3)
    if len(columns) < 3 or not columns[0].isdigit():
        raise MalformedLine(line)
    time, level, source = columns[:3]
    message = columns[3] if len(columns) == 4 else ""
    return Event(int(time), level.lower(), source, message)


def read_events(lines):
    """Yield the events of `lines`, without blank lines and comments."""
    for line in lines:
        line = line.strip()
        if line and not line.startswith("#"):
            yield parse_line(line)
