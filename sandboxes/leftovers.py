"""What runs have left outside their processes: containers and volumes with our labels, and runs' directories.

The reaper, `repo-agent sandbox` and the Docker backend's `close` find and remove by these functions. What has no label
with a run's id is never touched, nor is a directory without its mark.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from sandboxes.base import SandboxError, SandboxUnavailable
from sandboxes.run_directory import MARK, read_mark, remove_tree
from sandboxes.run_scope import LABEL, owner_alive

_FAULTS = (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)


class Form(StrEnum):
    """What a leftover is to the machine."""

    CONTAINER = "container"
    VOLUME = "volume"
    DIRECTORY = "directory"


@dataclass(frozen=True)
class Leftover:
    """A thing that a run made. `id` is a container's id, a volume's name or a directory's path; times are Unix time."""

    form: Form
    id: str
    kind: str
    run: str
    owner: str
    created: float
    expires: float | None
    image: str = ""
    state: str = ""

    @property
    def owner_alive(self) -> bool | None:
        """None where the owner is a process of another machine, or of none that is named."""
        return owner_alive(self.owner)

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= time.time()

    @property
    def abandoned(self) -> bool:
        """Its owner is gone; or it has expired, and its owner is not known to be alive."""
        alive = self.owner_alive
        return alive is False or (alive is None and self.expired)


@contextlib.contextmanager
def engine(timeout_s: int = 60) -> Iterator[docker.DockerClient]:
    """A client of the Docker engine that the `docker` command would use. Raises SandboxUnavailable."""
    try:
        client = docker.from_env(timeout=timeout_s)
    except _FAULTS as error:
        raise SandboxUnavailable("no Docker engine answers") from error
    try:
        yield client
    finally:
        client.close()


def find(client: docker.DockerClient, run_id: str = "") -> list[Leftover]:
    """The containers, in whatever state, and the volumes of one run, or of all. Raises SandboxError."""
    chosen = {"label": f"{LABEL}.run={run_id}" if run_id else f"{LABEL}.run"}
    with _asked("list what runs have left"):
        containers = client.api.containers(all=True, filters=chosen)
        volumes = client.api.volumes(filters=chosen)["Volumes"] or []
    found = [_container(listed) for listed in containers] + [_volume(listed) for listed in volumes]
    return [item for item in found if item.run]


def _container(listed: dict[str, Any]) -> Leftover:
    said = _labels(listed)
    return Leftover(
        Form.CONTAINER, listed["Id"], created=listed["Created"], image=listed["Image"], state=listed["State"], **said
    )


def _volume(listed: dict[str, Any]) -> Leftover:
    created = datetime.fromisoformat(listed["CreatedAt"]).timestamp()
    return Leftover(Form.VOLUME, listed["Name"], created=created, **_labels(listed))


def _labels(listed: dict[str, Any]) -> dict[str, Any]:
    labels = listed["Labels"]
    run, owner, expires = (labels.get(f"{LABEL}.{name}", "") for name in ("run", "owner", "expires"))
    return {
        "kind": labels.get(LABEL, ""),
        "run": run,
        "owner": owner,
        "expires": float(expires) if expires.isdecimal() else None,
    }


def find_directories(run_id: str = "") -> list[Leftover]:
    """The directories of one run, or of all, that this user has where temporary files are made."""
    found = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{LABEL}-*")):
        mark = read_mark(path)
        if mark and run_id in ("", mark.run):
            created = (path / MARK).stat().st_mtime
            found.append(Leftover(Form.DIRECTORY, str(path), "files", mark.run, mark.owner, created, mark.expires))
    return found


def remove(client: docker.DockerClient | None, item: Leftover) -> bool:
    """Remove a thing (only a directory without a client); False where it stays. Raises SandboxError."""
    if client and item.form is not Form.DIRECTORY:
        with _asked("remove what a run has left"):
            return _removed_by(client, item)
    try:
        remove_tree(Path(item.id))
    except OSError:
        return False
    return True


def _removed_by(client: docker.DockerClient, item: Leftover) -> bool:
    try:
        if item.form is Form.CONTAINER:
            client.api.remove_container(item.id, v=True, force=True)
        else:
            client.api.remove_volume(item.id, force=True)
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError as refusal:
        return "already in progress" in str(refusal.explanation)
    return True


def sweep(client: docker.DockerClient, run_id: str) -> list[Leftover]:
    """Remove all that a run has on the engine; what stays comes back. Raises SandboxError."""
    return [item for item in find(client, run_id) if not remove(client, item)]


@contextlib.contextmanager
def _asked(what: str) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        raise SandboxError(f"Docker could not {what}: {error}") from error
