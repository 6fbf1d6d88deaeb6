"""What was done and what was undone."""


class History:
    """Two stacks of changes; at most `depth` of them can be undone."""

    def __init__(self, depth=100):
        self.depth = depth
        self._done = []
        self._undone = []

    def record(self, change):
        """Remember a change that was just made."""
        self._done.append(change)
        del self._done[: -self.depth]

    def back(self):
        """Return the change to revert, or None."""
        if not self._done:
            return None
        change = self._done.pop()
        self._undone.append(change)
        return change

    def forward(self):
        """Return the change to apply again, or None."""
        if not self._undone:
            return None
        change = self._undone.pop()
        self._done.append(change)
        return change

    def clear(self):
        """Forget everything."""
        self._done.clear()
        self._undone.clear()
