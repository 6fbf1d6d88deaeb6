"""Text in a frame."""

from linefold.fold import fold


def box(text, width):
    """Return `text` as lines in a frame that is `width` characters wide."""
    if width < 5:
        raise ValueError("a box needs at least 5 characters")
    inner = width - 4
    edge = "+" + "-" * (width - 2) + "+"
    body = ["| " + line.ljust(inner) + " |" for line in fold(text, inner)]
    return [edge] + body + [edge]
