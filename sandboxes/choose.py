"""Which backend to use: the one that was named, or the best that this machine has."""

from __future__ import annotations

from sandboxes.base import Isolation, SandboxBackend, SandboxError, SandboxUnavailable, Wall
from sandboxes.no_sandbox import NONE, NoSandbox
from sandboxes.pool import Pool, PooledBackend

CHOICES = ("auto", "docker", "bubblewrap", "local")
NO_BOUNDARY = (
    "WARNING: the local sandbox is no security boundary: tests run as your own user, with your files and your network"
)


def open_backend(
    choice: str,
    base_image: str = "",
    trusted: bool = False,
    isolation: Isolation = Isolation.CONTAINER,
    workers: int = 2,
) -> tuple[SandboxBackend, list[str]]:
    """A backend with a pool over it, and what the user should be told of the choice.

    Args:
        choice: one of CHOICES, or `none`, where nothing is to be run. `auto` takes Docker if an engine answers and has
            an image, else bubblewrap, else, for a trusted policy only (one that runs no code written by a model), the
            local sandbox.
        workers: so many sandboxes are used at a time.

    Raises:
        SandboxUnavailable: the named backend, or every one that may be chosen, cannot be had.
    """
    if choice == NONE:
        return NoSandbox(), []
    if choice != "auto":
        backend = Pool(_open(choice, base_image, isolation), workers)
        return backend, [NO_BOUNDARY] if choice == "local" else _weaker(backend)
    notices: list[str] = []
    for name in ("docker", "bubblewrap"):
        try:
            backend = Pool(_open(name, base_image, isolation), workers)
        except SandboxError as error:
            notices.append(f"sandbox {name} passed over: {error}")
        else:
            return backend, notices + _weaker(backend)
    if trusted:
        return Pool(_open("local", base_image, isolation), workers), [*notices, NO_BOUNDARY]
    raise SandboxUnavailable(
        f"{'; '.join(notices)}; code written by a model runs without a boundary only with an explicit --sandbox local"
    )


def _weaker(backend: SandboxBackend) -> list[str]:
    """What a shared sandbox here does not give that it could elsewhere."""
    wall = backend.promises.wall
    if backend.isolation is Isolation.CONTAINER or wall is Wall.NAMESPACES:
        return []
    return [f"isolation run in {backend.name}: no namespaces between runs here; what stands between them: {wall}"]


def _open(name: str, base_image: str, isolation: Isolation) -> PooledBackend:
    if name == "docker":
        from sandboxes.docker_sandbox import DockerBackend

        return DockerBackend(base_image, isolation=isolation)
    if name == "bubblewrap":
        from sandboxes.bubblewrap_sandbox import BubblewrapBackend

        return BubblewrapBackend(isolation)
    if name == "local":
        from sandboxes.local_sandbox import LocalBackend

        return LocalBackend(isolation)
    raise SandboxUnavailable(f"unknown sandbox {name!r}: choose from {', '.join(CHOICES)}")
