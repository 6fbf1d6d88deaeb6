"""Groups of shapes."""


class Group:
    """Shapes that are moved together; groups may hold groups."""

    def __init__(self, *members):
        self.members = list(members)

    def move(self, dx, dy):
        for member in self.members:
            member.move(dx, dy)

    def bounds(self):
        """Return the smallest box around all members."""
        if not self.members:
            raise ValueError("an empty group has no bounds")
        lefts, tops, rights, bottoms = zip(*(member.bounds() for member in self.members))
        return (min(lefts), min(tops), max(rights), max(bottoms))

    def contains(self, x, y):
        return any(member.contains(x, y) for member in self.members)
