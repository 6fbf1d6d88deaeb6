"""Results of a poll."""


def winner(poll):
    """Return the option with the most votes, or None for a tie or an empty poll."""
    best = max(poll.counts.values(), default=0)
    leaders = [option for option, votes in poll.counts.items() if votes == best]
    return leaders[0] if best and len(leaders) == 1 else None


def bar_lines(poll, width=20):
    """Return one line for each option: its name, a bar and its votes."""
    best = max(poll.counts.values(), default=0)
    pad = max((len(option) for option in poll.counts), default=0)
    lines = []
    for option, votes in poll.counts.items():
        bar = "#" * (votes * width // best if best else 0)
        lines.append("{} {} {}".format(option.ljust(pad), bar, votes))
    return lines
