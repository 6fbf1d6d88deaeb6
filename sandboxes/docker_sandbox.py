"""Docker: the guest runner as the first process of a container that lives as long as its stream.

The container has no network, a read-only root, and all capabilities dropped but the four that the runner needs to give
up its identity, to kill what a run left and to clean up; target code runs as another user with none. Trees are mounted
read-only, where only the runner can read them. With `Isolation.RUN`, and for large trees, the runner also has
SYS_ADMIN, and two more that overlays take, to give each run namespaces and an overlay on the tree: a compromised runner
is then worse, so such a container never serves more than one backend.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import docker
import docker.errors
from docker.types import LogConfig, Mount

from sandboxes.base import Isolation, Promises, Resources, SandboxError, SandboxUnavailable, Wall
from sandboxes.docker_channel import FAULTS, ContainerChannel, engine_faults
from sandboxes.docker_images import DEFAULT_IMAGE, find_image, fitted_image
from sandboxes.guest.files import BYTES_PER_FILE
from sandboxes.guest.namespaces import ipc_limits
from sandboxes.guest_bundle import guest_version
from sandboxes.guest_sandbox import BOOTSTRAP, ENVIRONMENT, GuestOptions, GuestSandbox
from sandboxes.leftovers import sweep
from sandboxes.run_scope import RunScope
from sandboxes.tree_store import KEPT, TreeStore

GUEST_CAPABILITIES = ["SETUID", "SETGID", "KILL", "DAC_OVERRIDE"]
NAMESPACE_CAPABILITIES = ["SYS_ADMIN", "CHOWN", "FOWNER"]
"""For namespaces, and for an overlay on trees whose files belong to the driver's user."""
TREE, SCRATCH, BASES, SHIPPED = "/work", ("/tmp", "/dev/shm"), "/repo-agent-bases", "/repo-agent-shipped"


class DockerBackend:
    """Sandboxes on a Docker engine, found as the `docker` command finds it. One is started at once, as a trial.

    Raises:
        SandboxUnavailable: no engine answers, or the base image can neither be found nor pulled.
    """

    name = "docker"

    def __init__(self, base_image: str = "", run_id: str = "", isolation: Isolation = Isolation.CONTAINER) -> None:
        self.isolation = isolation
        self.about: dict[str, str] = {}
        self._base_image = base_image or os.environ.get("REPO_AGENT_BASE_IMAGE") or DEFAULT_IMAGE
        self._images: dict[str, str] = {}
        self._refused = False
        self._mounts = True
        self._lock = threading.Lock()
        self._scope = RunScope(run_id, engine=True)
        self._client = _client()
        self._trial: GuestSandbox | None = None
        try:
            self._store = TreeStore(self._scope.directory / "bases")
            self._trial = self._open(Resources(), self._base_image)
            self._describe(self._trial)
        except BaseException:
            self.close()
            raise

    @property
    def run_id(self) -> str:
        return self._scope.run_id

    @property
    def promises(self) -> Promises:
        wall = Wall.NAMESPACES if self._walled(Resources()) else Wall.USER
        return Promises(boundary=True, separate_user=True, memory_limit=True, pids_limit=True, wall=wall)

    def identity(self, image: str = "") -> str:
        return f"{self._image(image or self._base_image)} guest {guest_version()}"

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        """Nothing is started ahead: see sandboxes.pool."""

    def open(self, resources: Resources, image: str = "") -> GuestSandbox:
        with self._lock:
            trial = self._trial
            if trial is not None and (resources, image or self._base_image) == (Resources(), self._base_image):
                self._trial = None
                return trial
        return self._open(resources, image or self._base_image)

    def _open(self, resources: Resources, name: str) -> GuestSandbox:
        """A container of the image, or, where that turns out not to be fit for tests, of one derived from it."""
        known = name in self._images
        sandbox = self._started(resources, self._image(name))
        if known or sandbox.hello["fit"]:
            return sandbox
        sandbox.close()
        with self._lock:
            self._images[name] = fitted_image(self._client, self._images[name], self._scope)
        sandbox = self._started(resources, self._image(name))
        if sandbox.hello["fit"]:
            return sandbox
        sandbox.close()
        raise SandboxUnavailable(f"image {name}: its Python has no pytest that a user other than root can read")

    def _image(self, name: str) -> str:
        with self._lock:
            if name not in self._images:
                self._images[name] = find_image(self._client, name)
            return self._images[name]

    def _started(self, resources: Resources, image: str) -> GuestSandbox:
        """A container; without mount or namespaces where this engine turns out to refuse them."""
        try:
            sandbox = self._start(resources, image)
        except SandboxError as error:
            if not self._mounts or "bind source path" not in str(error):
                raise
            self._mounts = False  # the engine is on another machine
            return self._started(resources, image)
        if self._walled(resources) and sandbox.hello["refused"]:
            self._refused = True
            self.about["namespaces"] = f"refused: {sandbox.hello['refused']}"
            sandbox.close()
            return self._started(resources, image)
        return sandbox

    def _walled(self, resources: Resources) -> bool:
        """Does the runner make namespaces and mounts for each run?"""
        return (self.isolation is Isolation.RUN or resources.tree_by_mount) and not self._refused

    def _start(self, resources: Resources, image: str) -> GuestSandbox:
        self._scope.guard()
        options = self._options(resources)
        with engine_faults("start a container"):
            api = self._client.api
            created = api.create_container(
                image,
                ["python3", "-s", "-B", "-c", BOOTSTRAP],
                entrypoint=[],
                user="0:0",
                working_dir="/",
                environment=ENVIRONMENT,
                labels=self._scope.labels(),
                hostname="sandbox",
                healthcheck={"test": ["NONE"]},  # an image's own would run as root, beside the target
                stdin_open=True,
                host_config=api.create_host_config(**self._host_config(resources, options.disk_bytes)),
            )
            channel = ContainerChannel(self._client, created["Id"])
        return GuestSandbox(channel, options, put=self._store.put)

    def _options(self, resources: Resources) -> GuestOptions:
        return GuestOptions(
            root=TREE,
            scratch=SCRATCH,
            home="/tmp",
            separate_user=True,
            private=True,
            namespaces=self._walled(resources),
            user_per_run=self.isolation is Isolation.RUN,
            disk_bytes=min(resources.disk_bytes, resources.memory_bytes // 4),
            bases=BASES,
            shipped=SHIPPED,
            marker=self._store.marker if self._mounts else "",
        )

    def _host_config(self, resources: Resources, disk_bytes: int) -> dict[str, Any]:
        size = f"rw,nosuid,nodev,exec,size={disk_bytes},nr_inodes={disk_bytes // BYTES_PER_FILE}"
        shared_bytes = disk_bytes // 4
        shared = f"rw,nosuid,nodev,exec,size={shared_bytes},nr_inodes={shared_bytes // BYTES_PER_FILE},mode=1777"
        config: dict[str, Any] = {
            "network_mode": "none",
            "read_only": True,
            "auto_remove": True,
            "log_config": LogConfig(type="none"),  # the stream is a protocol, no log
            "cap_drop": ["ALL"],
            "cap_add": [*GUEST_CAPABILITIES, *(NAMESPACE_CAPABILITIES if self._walled(resources) else [])],
            "security_opt": ["no-new-privileges"],
            "mem_limit": resources.memory_bytes,
            "memswap_limit": resources.memory_bytes,
            "pids_limit": resources.pids,
            "nano_cpus": int(resources.cpus * 1e9),
            "tmpfs": {
                TREE: f"{size},mode=1777",
                "/tmp": f"{size},mode=1777",
                "/dev/shm": shared,
                SHIPPED: f"{size},mode=700",
            },
            # ports of a run are free for the next at once; System V objects hold no more than /dev/shm
            "sysctls": {"net.ipv4.tcp_max_tw_buckets": "0", **ipc_limits(shared_bytes)},
        }
        if self._mounts:
            places = {BASES: self._store.place, f"{BASES}/{KEPT}": self._store.kept}
            config["mounts"] = [Mount(at, str(place), type="bind", read_only=True) for at, place in places.items()]
        return config

    def _describe(self, sandbox: GuestSandbox) -> None:
        """What reports say: taken from the greeting of the first sandbox."""
        image = self._images[self._base_image]
        self.about |= {"image": self._base_image, "image_id": image}
        self.about |= {name: str(sandbox.hello[name]) for name in ("python", "pytest")}
        self.about["trees"] = "mounted read-only" if sandbox.hello["mounted"] else "shipped over the stream"

    def close(self) -> None:
        """Remove every container of this run."""
        with self._lock:
            trial, self._trial = self._trial, None
        if trial is not None:
            trial.close()
        try:
            left = sweep(self._client, self.run_id)
        except SandboxError:  # the reaper goes on trying when this process has ended
            return
        finally:
            self._client.close()
        if not left:
            self._scope.close()


def _client() -> docker.DockerClient:
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except FAULTS as error:
        raise SandboxUnavailable(
            "no Docker engine answers: start one (or set DOCKER_HOST), or choose --sandbox bubblewrap"
        ) from error
    return client
