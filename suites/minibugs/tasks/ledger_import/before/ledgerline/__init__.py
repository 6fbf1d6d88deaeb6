"""Import of bank exports, which are delimited text with quoted columns."""

from ledgerline.columns import ColumnError, split_line
from ledgerline.money import parse_cents
from ledgerline.statement import Booking, read_statement

__all__ = ["Booking", "ColumnError", "parse_cents", "read_statement", "split_line"]
