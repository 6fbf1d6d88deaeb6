"""Plain shapes; y grows downwards."""


class Shape:
    """Something at (x, y)."""

    def __init__(self, x, y):
        self.x = x
        self.y = y

    def move(self, dx, dy):
        self.x += dx
        self.y += dy

    def bounds(self):
        """Return (left, top, right, bottom)."""
        raise NotImplementedError

    def contains(self, x, y):
        """Tell whether a point is in the shape; its edge belongs to it."""
        left, top, right, bottom = self.bounds()
        return left <= x <= right and top <= y <= bottom


class Box(Shape):
    """A rectangle with its upper left corner at (x, y)."""

    def __init__(self, x, y, width, height):
        super().__init__(x, y)
        self.width = width
        self.height = height

    def bounds(self):
        return (self.x, self.y, self.x + self.width, self.y + self.height)


class Disc(Shape):
    """A disc around (x, y)."""

    def __init__(self, x, y, radius):
        super().__init__(x, y)
        self.radius = radius

    def bounds(self):
        return (
            self.x - self.radius,
            self.y - self.radius,
            self.x + self.radius,
            self.y + self.radius,
        )

    def contains(self, x, y):
        return (x - self.x) ** 2 + (y - self.y) ** 2 <= self.radius**2
