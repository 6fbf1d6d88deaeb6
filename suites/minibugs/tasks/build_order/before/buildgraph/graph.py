"""The graph of targets."""

from buildgraph.errors import CycleError, UnknownTarget


class BuildGraph:
    """Targets and what each of them needs."""

    def __init__(self):
        self._needs = {}

    def add(self, target, needs=()):
        """Add a target, or more dependencies of a known one."""
        if target in needs:
            raise CycleError([target])
        self._needs.setdefault(target, set()).update(needs)

    def needs(self, target):
        """Return the direct dependencies of a target, sorted."""
        if target not in self._needs:
            raise UnknownTarget(target)
        return sorted(self._needs[target])

    def check(self):
        """Raise UnknownTarget if a dependency is not in the graph."""
        for target in sorted(self._needs):
            for need in self.needs(target):
                if need not in self._needs:
                    raise UnknownTarget(need)

    def stages(self):
        """Return {target: stage}; targets of one stage can be built at the same time.

        Stages count from 0, and every target is in the earliest possible one.
        """
        self.check()
        stages = {}
        stage = 0
        while len(stages) < len(self._needs):
            ready = [
                target
                for target, needs in self._needs.items()
                if target not in stages and all(need in stages for need in needs)
            ]
            stages.update(dict.fromkeys(ready, stage))
            stage += 1
        return stages

    def order(self):
        """Return all targets, stage by stage, sorted by name within a stage."""
        stages = self.stages()
        return sorted(stages, key=lambda target: (stages[target], target))
