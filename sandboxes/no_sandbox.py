"""The backend of tasks that run no code: nothing is opened, and so nothing has to be walled off."""

from __future__ import annotations

from typing import NoReturn

from sandboxes.base import Isolation, Promises, Resources, SandboxError, Wall

NONE = "none"


class NoSandbox:
    """A `SandboxBackend` without sandboxes. It keeps every promise, since no code runs."""

    name = NONE
    isolation = Isolation.CONTAINER
    promises = Promises(boundary=True, separate_user=True, memory_limit=True, pids_limit=True, wall=Wall.NAMESPACES)

    @property
    def about(self) -> dict[str, str]:
        return {}

    def identity(self, image: str = "") -> str:
        return NONE

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        return None

    def open(self, resources: Resources, image: str = "") -> NoReturn:
        raise SandboxError("no sandbox was chosen, since these tasks run no code")

    def close(self) -> None:
        return None
