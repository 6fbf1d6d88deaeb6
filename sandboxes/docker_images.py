"""Images for Docker sandboxes: found or pulled, and derived once where pytest is missing or out of reach."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import docker
import docker.errors

from sandboxes.base import SandboxError, SandboxUnavailable
from sandboxes.docker_channel import FAULTS, engine_faults, said
from sandboxes.run_scope import LABEL, RunScope

DEFAULT_IMAGE = "python:3.11-slim"
BUILD_ENVIRONMENT = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
BUILD_CERTIFICATES = "/tmp/repo-agent-certificates.pem"


def find_image(client: docker.DockerClient, name: str) -> str:
    """The id of an image, or of the one that was derived from it; pulled if the engine lacks it.

    Raises:
        SandboxUnavailable: there is no such image to be had.
    """
    try:
        found = str(client.images.get(name).id)
        return _tagged(client, _tag(found)) or found
    except docker.errors.ImageNotFound:
        pass
    except FAULTS as error:
        raise SandboxError(f"the Docker engine failed: {said(error)}") from error
    try:
        return str(client.images.pull(*_name_and_tag(name)).id)
    except FAULTS as error:
        raise SandboxUnavailable(
            f"Docker has no image {name} and cannot pull it: name another with --base-image or REPO_AGENT_BASE_IMAGE"
        ) from error


OPEN_UP = """
import os, sys
for path in {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, sys.executable)}:
    while path != "/":
        path = os.path.dirname(path)
        os.chmod(path, os.stat(path).st_mode | 0o011)
"""


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
    environment, certificates = _build_environment()
    install = ["python3", "-m", "pip", "install", "--no-cache-dir", "pytest"]
    with engine_faults("build an image with pytest"):
        container = client.containers.create(
            image,
            ["sleep", "600"],
            labels=scope.labels("build"),
            entrypoint=[],
            user="0:0",
            network_mode="host",
            hostname="sandbox",
            use_config_proxy=False,
        )
        try:
            container.start()
            container.put_archive("/", certificates)
            code, output = container.exec_run(install, environment=environment)
            if code:
                lines = bytes(output).decode(errors="replace").strip().splitlines()  # type: ignore[arg-type]
                raise SandboxUnavailable(f"pytest is not in image {image} and cannot be installed there: {lines[-1:]}")
            container.exec_run(["python3", "-c", OPEN_UP])
            container.exec_run(["rm", "-f", BUILD_CERTIFICATES])
            labels = dict.fromkeys(scope.labels(), "") | {LABEL: "image"}  # a run's would be inherited from the image
            made = container.commit(*_name_and_tag(tag), conf={"Cmd": ["python3"], "Labels": labels})
            return str(made.id)
        finally:
            container.remove(v=True, force=True)


def _build_environment() -> tuple[dict[str, str], bytes]:
    """Variables for an installation inside a container, and a tar archive of the host's certificates that they name."""
    environment = {key: value for key, value in os.environ.items() if key.upper().startswith(BUILD_ENVIRONMENT)}
    environment |= {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}  # which old ones ignore
    archive = io.BytesIO()
    named = [Path(os.environ[key]) for key in CERTIFICATES if os.environ.get(key)]
    with tarfile.open(fileobj=archive, mode="w") as tar:
        if named and named[0].is_file():
            tar.add(named[0].resolve(), BUILD_CERTIFICATES)
            environment |= dict.fromkeys(CERTIFICATES, BUILD_CERTIFICATES)
    return environment, archive.getvalue()


def _name_and_tag(name: str) -> tuple[str, str | None]:
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")
