"""Shapes with a label."""

from vectorscene.shapes import Box


class LabelledBox(Box):
    """A box with a line of text, placed freely; the anchor is the start of the text."""

    def __init__(self, x, y, width, height, text):
        super().__init__(x, y, width, height)
        self.text = text
        self.anchor = (x + 2, y + height // 2)

    def move(self, dx, dy):
        anchor_x, anchor_y = self.anchor
        self.anchor = (anchor_x + dx, anchor_y + dy)

    def move_label(self, dx, dy):
        """Move the text inside the box."""
        self.anchor = (self.anchor[0] + dx, self.anchor[1] + dy)
