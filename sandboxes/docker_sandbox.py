"""Docker: one container per sandbox, with the guest runner as its first process.

The container has no network, a read-only root, and all capabilities dropped but the five that the runner needs to give
up its identity, to kill what a run left and to clean up; target code runs as `nobody` with none. Its standard input is
the stream to the guest: when that closes, whatever ended the owner, the guest ends, and the engine removes the
container.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import tarfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from sandboxes.base import Promises, Resources, SandboxError, SandboxUnavailable
from sandboxes.guest_sandbox import BOOTSTRAP, ENVIRONMENT, GuestSandbox

DEFAULT_IMAGE = "python:3.11-slim"
LABEL = "repo-agent"
GUEST_CAPABILITIES = ["SETUID", "SETGID", "KILL", "DAC_OVERRIDE", "FOWNER"]
TREE, SCRATCH = "/work", ["/tmp", "/dev/shm"]
BUILD_ENVIRONMENT = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
BUILD_CERTIFICATES = "/tmp/repo-agent-certificates.pem"
_FAULTS = (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)


class DockerBackend:
    """Sandboxes on a Docker engine, found as the `docker` command finds it.

    Raises:
        SandboxUnavailable: no engine answers, or the base image can neither be found nor pulled.
    """

    name = "docker"
    promises = Promises(boundary=True, separate_user=True, memory_limit=True, pids_limit=True)

    def __init__(self, base_image: str = "", run_id: str = "") -> None:
        self.run_id = run_id or uuid.uuid4().hex[:12]
        self._base_image = base_image or os.environ.get("REPO_AGENT_BASE_IMAGE") or DEFAULT_IMAGE
        self._images: dict[str, str] = {}
        self.about: dict[str, str] = {}
        self._lock = threading.Lock()
        try:
            self._client = docker.from_env(timeout=120)
            self._client.ping()
        except _FAULTS as error:
            raise SandboxUnavailable(
                "no Docker engine answers: start one (or set DOCKER_HOST), or choose --sandbox bubblewrap"
            ) from error
        try:
            self._image(self._base_image)
        except BaseException:
            self._client.close()
            raise

    def open(self, resources: Resources, image: str = "") -> GuestSandbox:
        return self._start(resources, self._image(image or self._base_image))

    def _image(self, name: str) -> str:
        """The id of an image that holds pytest: the named one, or one derived from it."""
        with self._lock:
            if name not in self._images:
                self._images[name] = self._with_pytest(self._find(name))
            return self._images[name]

    def _find(self, name: str) -> str:
        try:
            return str(self._client.images.get(name).id)
        except docker.errors.ImageNotFound:
            pass
        except _FAULTS as error:
            raise SandboxError(f"the Docker engine failed: {_said(error)}") from error
        try:
            return str(self._client.images.pull(*_name_and_tag(name)).id)
        except _FAULTS as error:
            raise SandboxUnavailable(
                f"Docker has no image {name} and cannot pull it: "
                "name another with --base-image or REPO_AGENT_BASE_IMAGE"
            ) from error

    def _with_pytest(self, image: str) -> str:
        if self._probe(image)["pytest"]:
            return image
        tag = f"repo-agent-pytest:{image.rpartition(':')[2][:20]}"
        with _engine("find an image"):
            try:
                derived = str(self._client.images.get(tag).id)
            except docker.errors.ImageNotFound:
                derived = self._derive(image, tag)
        self._probe(derived)
        return derived

    def _probe(self, image: str) -> dict[str, Any]:
        """The greeting of a guest in the image; what it says of the first image asked for is what reports say."""
        with self._start(Resources(), image) as sandbox:
            hello = sandbox.hello
        if not self.about.get("pytest"):
            versions = {"python": str(hello["python"]), "pytest": str(hello["pytest"])}
            self.about = {"image": self._base_image, "image_id": image, **versions}
        return hello

    def _derive(self, image: str, tag: str) -> str:
        """Install pytest once. The host's pip settings reach the installation, and never the image."""
        environment, certificates = _build_environment()
        install = ["python3", "-m", "pip", "install", "--no-cache-dir", "--root-user-action=ignore", "pytest"]
        with _engine("build an image with pytest"):
            container = self._client.containers.create(
                image,
                ["sleep", "600"],
                labels=self._labels(),
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
                    said = bytes(output).decode(errors="replace").strip().splitlines()[-1:]  # type: ignore[arg-type]
                    raise SandboxUnavailable(f"pytest is not in image {image} and cannot be installed there: {said}")
                container.exec_run(["rm", "-f", BUILD_CERTIFICATES])
                made = container.commit(*_name_and_tag(tag), conf={"Cmd": ["python3"], "Labels": {LABEL: "image"}})
                return str(made.id)
            finally:
                container.remove(force=True)

    def _labels(self) -> dict[str, str]:
        return {LABEL: "sandbox", f"{LABEL}.run": self.run_id, f"{LABEL}.owner": str(os.getpid())}

    def _start(self, resources: Resources, image: str) -> GuestSandbox:
        with _engine("start a container"):
            api = self._client.api
            created = api.create_container(
                image,
                ["python3", "-s", "-B", "-c", BOOTSTRAP],
                entrypoint=[],
                user="0:0",
                working_dir="/",
                environment=ENVIRONMENT,
                labels=self._labels(),
                stdin_open=True,
                network_disabled=True,
                host_config=api.create_host_config(**_host_config(resources)),
            )
            channel = _ContainerChannel(self._client, created["Id"])
        options = {"root": TREE, "scratch": SCRATCH, "home": "/tmp", "separate_user": True, "address_space": 0}
        return GuestSandbox(channel, options)

    def close(self) -> None:
        """Remove every container of this run."""
        with _engine("remove containers"):
            mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}.run={self.run_id}"}
            for container in self._client.containers.list(all=True, filters=mine, ignore_removed=True):
                with contextlib.suppress(docker.errors.APIError):  # it is going already
                    container.remove(force=True)
        self._client.close()


def _host_config(resources: Resources) -> dict[str, Any]:
    size = f"rw,nosuid,nodev,exec,size={resources.disk_bytes}"
    return {
        "network_mode": "none",
        "read_only": True,
        "auto_remove": True,
        "cap_drop": ["ALL"],
        "cap_add": GUEST_CAPABILITIES,
        "security_opt": ["no-new-privileges"],
        "mem_limit": resources.memory_bytes,
        "memswap_limit": resources.memory_bytes,
        "pids_limit": resources.pids,
        "nano_cpus": int(resources.cpus * 1e9),
        "shm_size": 64 * 2**20,
        "tmpfs": {TREE: f"{size},mode=1777", "/tmp": f"{size},mode=1777"},
    }


def _build_environment() -> tuple[dict[str, str], bytes]:
    """Variables for an installation inside a container, and a tar archive of the host's certificates that they name."""
    environment = {key: value for key, value in os.environ.items() if key.upper().startswith(BUILD_ENVIRONMENT)}
    environment["PIP_BREAK_SYSTEM_PACKAGES"] = "1"
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


def _said(error: Exception) -> str:
    said = str(getattr(error, "explanation", None) or error).strip() or type(error).__name__
    return said.splitlines()[0]


@contextlib.contextmanager
def _engine(what: str) -> Iterator[None]:
    """Faults of the engine, told apart from everything else in one place."""
    try:
        yield
    except docker.errors.ImageNotFound:
        raise
    except _FAULTS as error:
        raise SandboxError(f"Docker could not {what}: {_said(error)}") from error


class _ContainerChannel:
    """The attached standard streams of a container, which it starts; Docker frames the output by stream."""

    def __init__(self, client: docker.DockerClient, container: str) -> None:
        self._client, self._container = client, container
        self._output, self._errors = bytearray(), bytearray()
        self._open = True
        self._in_use = threading.Lock()
        try:
            streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            self._attached = client.api.attach_socket(container, params=streams)
            self._socket = getattr(self._attached, "_sock", self._attached)  # over TLS it is the socket itself
            client.api.start(container)
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        try:
            with self._in_use:
                self._socket.settimeout(60)
                self._socket.sendall(data)
        except OSError as error:
            raise self._lost() from error

    def receive(self, size: int, deadline: float) -> bytes:
        with self._in_use:
            return self._receive(size, deadline)

    def _receive(self, size: int, deadline: float) -> bytes:
        while len(self._output) < size:
            kind, length = struct.unpack(">B3xI", self._read(8, deadline))
            (self._errors if kind == 2 else self._output).extend(self._read(length, deadline))
            del self._errors[:-4096]
        data = bytes(self._output[:size])
        del self._output[:size]
        return data

    def _read(self, size: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                data = self._socket.recv(min(size, 1 << 20))
            except TimeoutError as error:
                raise SandboxError("the container did not answer in time") from error
            except OSError as error:
                raise self._lost() from error
            if not data:
                raise self._lost()
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _lost(self) -> SandboxError:
        said = self._errors.decode(errors="replace").strip().splitlines()
        return SandboxError("the container ended unexpectedly" + (f": {said[-1]}" if said else ""))

    def close(self) -> None:
        """Remove the container; a read in another thread then ends with SandboxError."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(AttributeError, OSError):  # wakes up a thread that is reading
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(*_FAULTS):  # auto-removal may have been faster
            self._client.api.remove_container(self._container, force=True)
        with self._in_use, contextlib.suppress(AttributeError, OSError):  # its descriptor is not taken away before
            self._attached.close()
            self._socket.close()
