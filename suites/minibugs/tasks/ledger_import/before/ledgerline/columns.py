"""Splitting a line into columns."""

QUOTE = '"'


class ColumnError(ValueError):
    """A line cannot be split, or has the wrong number of columns."""


def split_line(line, delimiter=","):
    """Return the columns of `line`.

    A column may be quoted; then delimiters are part of it and a doubled quotation mark stands
    for one.
    """
    columns = []
    column = []
    quoted = False
    position = 0
    while position < len(line):
        char = line[position]
        following = line[position + 1 : position + 2]
        if quoted and char == QUOTE and following == QUOTE:
            column.append(QUOTE)
        elif char == QUOTE:
            quoted = not quoted
        elif char == delimiter and not quoted:
            columns.append("".join(column))
            column = []
        else:
            column.append(char)
        position += 1
    if quoted:
        raise ColumnError("open quotation mark: {}".format(line))
    columns.append("".join(column))
    return columns
