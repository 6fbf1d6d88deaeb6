"""The editor: a text and its history."""

from scribepad.changes import Deletion, Insertion
from scribepad.history import History


class Editor:
    """Edits one text at a time."""

    def __init__(self, content="", depth=100):
        self.content = content
        self.history = History(depth)

    def open(self, content):
        """Edit another text."""
        self.content = content

    def insert(self, position, text):
        """Put `text` in at `position`, between 0 and the length of the content."""
        if not 0 <= position <= len(self.content):
            raise IndexError(position)
        self._do(Insertion(position, text))

    def delete(self, position, length):
        """Take out at most `length` characters from `position` on."""
        self._do(Deletion(position, self.content[position : position + length]))

    def undo(self):
        """Take back the last change; returns False when there is none."""
        change = self.history.back()
        if change is None:
            return False
        self.content = change.revert(self.content)
        return True

    def redo(self):
        """Make the change again that was undone last; returns False when there is none."""
        change = self.history.forward()
        if change is None:
            return False
        self.content = change.apply(self.content)
        return True

    def _do(self, change):
        self.content = change.apply(self.content)
        self.history.record(change)
