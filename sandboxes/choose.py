"""Which backend to use: the one that was named, or the best that this machine has."""

from __future__ import annotations

from sandboxes.base import SandboxBackend, SandboxError, SandboxUnavailable

CHOICES = ("auto", "docker", "bubblewrap", "local")
NO_BOUNDARY = (
    "WARNING: the local sandbox is no security boundary: tests run as your own user, with your files and your network"
)


def open_backend(choice: str, base_image: str = "", trusted: bool = False) -> tuple[SandboxBackend, list[str]]:
    """A backend, and what the user should be told of the choice.

    Args:
        choice: one of CHOICES. `auto` takes Docker if an engine answers and has an image, else bubblewrap, else, for a
            trusted policy only (one that runs no code written by a model), the local sandbox.

    Raises:
        SandboxUnavailable: the named backend, or every one that may be chosen, cannot be had.
    """
    if choice != "auto":
        return _open(choice, base_image), [NO_BOUNDARY] if choice == "local" else []
    notices: list[str] = []
    for name in ("docker", "bubblewrap"):
        try:
            return _open(name, base_image), notices
        except SandboxError as error:
            notices.append(f"sandbox {name} passed over: {error}")
    if trusted:
        return _open("local", base_image), [*notices, NO_BOUNDARY]
    raise SandboxUnavailable(
        f"{'; '.join(notices)}; code written by a model runs without a boundary only with an explicit --sandbox local"
    )


def _open(name: str, base_image: str) -> SandboxBackend:
    if name == "docker":
        from sandboxes.docker_sandbox import DockerBackend

        return DockerBackend(base_image)
    if name == "bubblewrap":
        from sandboxes.bubblewrap_sandbox import BubblewrapBackend

        return BubblewrapBackend()
    if name == "local":
        from sandboxes.local_sandbox import LocalBackend

        return LocalBackend()
    raise SandboxUnavailable(f"unknown sandbox {name!r}: choose from {', '.join(CHOICES)}")
