"""Plain text in paragraphs, folded to a width."""

from linefold.boxes import box
from linefold.fold import fold, fold_paragraphs

__all__ = ["box", "fold", "fold_paragraphs"]
