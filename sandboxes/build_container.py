"""A container in which an image is made: run commands with the network, then commit.

What must not get into the image (certificates, downloads, build trees) lies under /tmp, which is a volume of the
container and goes with it; variables are those of each command, so that neither the configuration nor the history of
the image has any. The container is its run's, so that an interrupted build leaves nothing.
"""

from __future__ import annotations

import base64
import contextlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import docker
import docker.errors
import docker.models.containers
from docker.types import Mount

from sandboxes.base import SandboxError
from sandboxes.docker_channel import engine_faults
from sandboxes.pip_settings import PipSettings
from sandboxes.run_scope import LABEL, RunScope

TEMPORARY, CERTIFICATES, HOST_CACHE, PIP_CACHE = "/tmp", "/tmp/certificates.pem", "/tmp/host-cache", "/tmp/pip-cache"
LIFE_S = 6 * 3600
CHUNK_BYTES = 60_000
"""Of a variable's value: the kernel takes 128 KiB."""
FIXED = {
    "HOME": TEMPORARY,
    "LC_ALL": "C.UTF-8",
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_CACHE_DIR": PIP_CACHE,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_NO_COLOR": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_BREAK_SYSTEM_PACKAGES": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_NO_WARN_SCRIPT_LOCATION": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "DEBIAN_FRONTEND": "noninteractive",
}
APPEND = """
import base64, os, sys, zlib
with open(sys.argv[1], "ab") as file:
    file.write(base64.b64decode(os.environ["CHUNK"]))
if sys.argv[2] == "last":
    data = zlib.decompress(open(sys.argv[1], "rb").read())
    open(sys.argv[1], "wb").write(data)
"""
LINK_CACHE = """
import os, sys
host, cache, wheels = sys.argv[1:]
os.makedirs(cache, exist_ok=True)
if os.path.isdir(host):
    for name, target in (("http", "http"), ("wheels", "wheels-" + wheels)):
        os.makedirs(os.path.join(host, target), exist_ok=True)
        os.symlink(os.path.join(host, target), os.path.join(cache, name))
"""
HAND_OVER = """
import os, sys
if os.path.isdir(sys.argv[1]):
    owner = os.stat(sys.argv[1])
    for folder, folders, files in os.walk(sys.argv[1]):
        for name in folders + files:
            path = os.path.join(folder, name)
            try:
                if os.lstat(path).st_uid != owner.st_uid:
                    os.lchown(path, owner.st_uid, owner.st_gid)
            except OSError:
                pass
"""


class BuildContainer:
    """One container on an image; a context manager.

    Args:
        cache: a directory of this machine that pip's downloads and wheels are kept in; None keeps none.
    """

    def __init__(
        self, client: docker.DockerClient, image: str, scope: RunScope, settings: PipSettings, cache: Path | None = None
    ) -> None:
        self._client, self._image, self._scope = client, image, scope
        self._environment = FIXED | settings.with_certificates_at(CERTIFICATES)
        scope.guard()
        with engine_faults("start a build container"):
            self._container = self._create(cache)
            try:
                self._container.start()
                self._prepare(settings)
            except BaseException:
                self.close()
                raise

    def _create(self, cache: Path | None) -> docker.models.containers.Container:
        labels = self._scope.labels("build")
        mounts = [Mount(TEMPORARY, None, type="volume", labels=labels)]
        if cache:
            cache.mkdir(parents=True, exist_ok=True)
            mounts.append(Mount(HOST_CACHE, str(cache.resolve()), type="bind"))
        try:
            return self._client.containers.create(
                self._image,
                ["sleep", str(LIFE_S)],
                labels=labels,
                entrypoint=[],
                user="0:0",
                working_dir="/",
                network_mode="host",
                hostname="sandbox",
                use_config_proxy=False,
                mounts=mounts,
            )
        except docker.errors.APIError as error:
            if cache and "bind source path" in str(error):  # the engine is on another machine
                return self._create(None)
            raise

    def _prepare(self, settings: PipSettings) -> None:
        self._must(["chmod", "1777", TEMPORARY])
        self._must(["python3", "-c", LINK_CACHE, HOST_CACHE, PIP_CACHE, self._image.rpartition(":")[2][:12]])
        data = zlib.compress(settings.certificates)
        chunks = (
            [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)] if settings.certificates else []
        )
        for number, chunk in enumerate(chunks, 1):
            step = "last" if number == len(chunks) else "more"
            self._must(["python3", "-c", APPEND, CERTIFICATES, step], {"CHUNK": base64.b64encode(chunk).decode()})

    def _must(self, argv: Sequence[str], more: Mapping[str, str] | None = None) -> None:
        code, output = self.run(argv, more)
        if code:
            raise SandboxError(f"a build container cannot be prepared: {output.strip()[-200:]}")

    def run(self, argv: Sequence[str], more: Mapping[str, str] | None = None) -> tuple[int, str]:
        """The exit code and the output of a command that runs as root, with the network. Raises SandboxError."""
        environment = {**self._environment, **(more or {})}
        with engine_faults("run a command in a build container"):
            code, output = self._container.exec_run(list(argv), environment=environment)
        if code is None:
            raise SandboxError("the build container ended")
        return int(code), bytes(output).decode(errors="replace")  # type: ignore[arg-type]

    def commit(self, name: str, labels: Mapping[str, str]) -> str:
        """The id of an image of what is in the container now. Its labels are the given ones, and the base's."""
        none_of_the_run = dict.fromkeys(self._scope.labels(), "")  # they would be inherited
        conf = {"Cmd": ["python3"], "Labels": {**none_of_the_run, LABEL: "image", **labels}}
        repository, _, tag = name.rpartition(":")
        with engine_faults("commit an image"):
            return str(self._container.commit(repository, tag, conf=conf).id)

    def close(self) -> None:
        """Remove the container and its volume. Raises SandboxError."""
        with contextlib.suppress(SandboxError):  # it has ended
            self.run(["python3", "-c", HAND_OVER, HOST_CACHE])
        with contextlib.suppress(docker.errors.NotFound), engine_faults("remove a build container"):
            self._container.remove(v=True, force=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
