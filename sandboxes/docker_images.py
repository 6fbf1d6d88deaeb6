"""Images for Docker sandboxes: found or pulled, and derived once where pytest is missing or out of reach."""

from __future__ import annotations

import docker
import docker.errors

from sandboxes.base import SandboxError, SandboxUnavailable
from sandboxes.build_container import BuildContainer
from sandboxes.docker_channel import FAULTS, engine_faults, said
from sandboxes.pip_recipe import OPEN_UP
from sandboxes.pip_settings import host_settings
from sandboxes.run_scope import RunScope

DEFAULT_IMAGE = "python:3.11-slim"


def find_image(client: docker.DockerClient, name: str) -> str:
    """The id of an image, or of the one that was derived from it; pulled if the engine lacks it.

    Raises:
        SandboxUnavailable: there is no such image to be had.
    """
    found = pulled_image(client, name, "name another with --base-image or REPO_AGENT_BASE_IMAGE")
    with engine_faults("find an image"):
        return _tagged(client, _tag(found)) or found


def pulled_image(client: docker.DockerClient, name: str, advice: str) -> str:
    """The id of the very image of that name; pulled if the engine lacks it. Raises SandboxUnavailable, with advice."""
    try:
        return str(client.images.get(name).id)
    except docker.errors.ImageNotFound:
        pass
    except FAULTS as error:
        raise SandboxError(f"the Docker engine failed: {said(error)}") from error
    try:
        return str(client.images.pull(*_name_and_tag(name)).id)
    except FAULTS as error:
        raise SandboxUnavailable(f"Docker has no image {name} and cannot pull it: {advice}") from error


def fitted_image(client: docker.DockerClient, image: str, scope: RunScope) -> str:
    """The id of an image derived from one that has no pytest, or whose Python only root can reach. It is made once."""
    with engine_faults("find an image"):
        return _tagged(client, _tag(image)) or _derive(client, image, _tag(image), scope)


def _tag(image: str) -> str:
    return f"repo-agent-pytest:{image.rpartition(':')[2][:20]}"


def _tagged(client: docker.DockerClient, tag: str) -> str | None:
    try:
        return str(client.images.get(tag).id)
    except docker.errors.ImageNotFound:
        return None


def _derive(client: docker.DockerClient, image: str, tag: str, scope: RunScope) -> str:
    """Install pytest. The host's pip settings reach the installation, and never the image."""
    with BuildContainer(client, image, scope, host_settings()) as container:
        code, output = container.run(["python3", "-m", "pip", "install", "--no-cache-dir", "pytest"])
        if code:
            lines = output.strip().splitlines()
            raise SandboxUnavailable(f"pytest is not in image {image} and cannot be installed there: {lines[-1:]}")
        container.run(["python3", "-c", OPEN_UP])
        return container.commit(tag, {})


def _name_and_tag(name: str) -> tuple[str, str | None]:
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")
