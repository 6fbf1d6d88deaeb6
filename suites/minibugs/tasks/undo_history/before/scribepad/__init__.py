"""The model of a small text editor."""

from scribepad.changes import Deletion, Insertion
from scribepad.editor import Editor
from scribepad.history import History

__all__ = ["Deletion", "Editor", "History", "Insertion"]
