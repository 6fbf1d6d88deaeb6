"""What can be wrong with a graph."""


class UnknownTarget(LookupError):
    """A dependency is not a target of the graph."""


class CycleError(ValueError):
    """Targets depend on each other; `targets` holds their names, sorted."""

    def __init__(self, targets):
        super().__init__("circular dependencies: " + ", ".join(targets))
        self.targets = targets
