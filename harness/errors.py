"""Everything that can go wrong, by fate.

    RepoAgentError
    ├── UsageError               bad input: one line, exit code 2
    │   ├── PolicyRefused        wrong key, no permission, unknown model: the run is over
    │   ├── Diverged             recorded steps do not lead where they led: suite or code have changed since
    │   └── MachineLacks         this machine lacks what was asked for: `repo-agent doctor` says more
    ├── InfrastructureError      retried, then the rollout is recorded as unscored
    └── RolloutEnd               a completion ends the rollout, which is scored on the current tree
    SandboxError                 (of sandboxes.base) an infrastructure fault too

The model's faults are not here: they are data (ParseProblem, ToolErrorKind). Anything else is a bug and crashes.
"""

from __future__ import annotations

from harness.records import StopReason
from sandboxes.base import SandboxError

__all__ = [
    "INFRASTRUCTURE",
    "Diverged",
    "InfrastructureError",
    "MachineLacks",
    "PolicyRefused",
    "RepoAgentError",
    "RolloutEnd",
    "UsageError",
]


class RepoAgentError(Exception):
    """The root of this project's own errors."""


class UsageError(RepoAgentError):
    """What was asked cannot be done; the message is one line that says what to change."""


class PolicyRefused(UsageError):
    """The model's service refuses every call: wrong key, no permission, unknown model."""


class Diverged(UsageError):
    """A recorded step, gone through again, led to something else than what was recorded."""


class MachineLacks(UsageError):
    """What was asked would work elsewhere: a library, a key, a repository is missing here."""


class InfrastructureError(RepoAgentError):
    """A fault of the surroundings that retries did not heal."""


class RolloutEnd(RepoAgentError):
    """The policy cannot go on, for a reason that is not a fault of the surroundings."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


INFRASTRUCTURE = (InfrastructureError, SandboxError)
