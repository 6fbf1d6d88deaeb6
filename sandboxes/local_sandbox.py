"""No isolation: the guest runs as a plain process of this user. For trusted policies only (search, reference, noop)."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from sandboxes.base import Isolation, Promises, Resources, Wall
from sandboxes.guest_bundle import guest_version
from sandboxes.guest_sandbox import BOOTSTRAP, ENVIRONMENT, GuestOptions, GuestSandbox
from sandboxes.host_python import about_host, pytest_packages
from sandboxes.process_channel import ProcessChannel
from sandboxes.run_scope import RunScope


class LocalBackend:
    """Runs in a temporary directory of the host. Code inside can do all that the user can do."""

    name = "local"
    promises = Promises(boundary=False, separate_user=False, memory_limit=False, pids_limit=False, wall=Wall.REMOVAL)

    def __init__(self, isolation: Isolation = Isolation.CONTAINER) -> None:
        self.isolation = isolation
        self._scope = RunScope()
        self._packages = pytest_packages()
        self.about = about_host()

    def identity(self, image: str = "") -> str:
        return f"{self.about} guest {guest_version()}"

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        """Nothing is started ahead: see sandboxes.pool."""

    def open(self, resources: Resources, image: str = "") -> GuestSandbox:
        place = Path(tempfile.mkdtemp(prefix="sandbox-", dir=self._scope.directory))
        tree, scratch, site = place / "tree", place / "scratch", place / "site"
        for folder in (tree, scratch, site):
            folder.mkdir()
        for name, path in self._packages.items():
            (site / name).symlink_to(path)
        argv = [sys.executable, "-S", "-s", "-B", "-c", BOOTSTRAP, str(site)]
        channel = ProcessChannel(argv, ENVIRONMENT, lambda: shutil.rmtree(place, ignore_errors=True))
        options = GuestOptions(
            root=str(tree),
            scratch=(str(scratch),),
            home=str(scratch),
            separate_user=False,
            private=False,
            address_space=resources.memory_bytes,
        )
        return GuestSandbox(channel, options, {"PATH": f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"})

    def close(self) -> None:
        """Remove what the sandboxes left on the disk."""
        self._scope.close()
