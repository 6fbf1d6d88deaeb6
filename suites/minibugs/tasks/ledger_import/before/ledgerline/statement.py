"""Statements: a header, then one booking in a line."""

from collections import namedtuple

from ledgerline.columns import ColumnError, split_line
from ledgerline.money import parse_cents

Booking = namedtuple("Booking", "date memo cents")


def read_statement(text, delimiter=","):
    """Return the bookings of an export; its columns are date, memo and amount in any order."""
    lines = [line for line in text.splitlines() if line.strip()]
    header = split_line(lines[0], delimiter)
    bookings = []
    for line in lines[1:]:
        columns = split_line(line, delimiter)
        if len(columns) != len(header):
            raise ColumnError("{} columns, not {}: {}".format(len(columns), len(header), line))
        row = dict(zip(header, columns))
        bookings.append(Booking(row["date"], row["memo"], parse_cents(row["amount"])))
    return bookings
