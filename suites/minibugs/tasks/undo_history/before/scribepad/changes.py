"""Changes to a text, which can be applied and taken back."""


class Insertion:
    """New text at a position."""

    def __init__(self, position, text):
        self.position = position
        self.text = text

    def apply(self, content):
        return content[: self.position] + self.text + content[self.position :]

    def revert(self, content):
        return content[: self.position] + content[self.position + len(self.text) :]


class Deletion:
    """Text that is taken out at a position."""

    def __init__(self, position, text):
        self.position = position
        self.text = text

    def apply(self, content):
        return content[: self.position] + content[self.position + len(self.text) :]

    def revert(self, content):
        return content[: self.position] + self.text + content[self.position :]
