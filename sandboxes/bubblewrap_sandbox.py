"""bubblewrap: namespaces without an engine. No network, no host files but the interpreter's; no common limit of
memory or processes.

One user id inside: code of a run has the runner's own, so it can change the tree's files while it runs. A sandbox dies
with the thread that opened it (the kernel's parent-death signal follows threads): keep that thread, as a pool does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from sandboxes.base import Isolation, Promises, Resources, SandboxUnavailable, Wall
from sandboxes.guest_bundle import guest_version
from sandboxes.guest_sandbox import BOOTSTRAP, ENVIRONMENT, GuestOptions, GuestSandbox
from sandboxes.host_python import about_host, base_interpreter, pytest_packages
from sandboxes.process_channel import ProcessChannel

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
TREE, SITE, SCRATCH = "/work", "/guest-site", ("/tmp", "/dev/shm")


class BubblewrapBackend:
    """Sandboxes made with `bwrap`. Raises SandboxUnavailable where it is missing or the kernel refuses namespaces."""

    name = "bubblewrap"
    promises = Promises(boundary=True, separate_user=False, memory_limit=False, pids_limit=False, wall=Wall.REMOVAL)

    def __init__(self, isolation: Isolation = Isolation.CONTAINER) -> None:
        self.isolation = isolation
        if not shutil.which("bwrap"):
            raise SandboxUnavailable("bubblewrap is not installed (its command is bwrap)")
        self._packages = pytest_packages()
        self.about = about_host()
        trial = subprocess.run([*self._wrap(Resources()), "/bin/true"], capture_output=True, text=True, timeout=60)
        if trial.returncode:
            raise SandboxUnavailable(f"bubblewrap does not work here: {trial.stderr.strip().splitlines()[-1:]}")

    def _wrap(self, resources: Resources) -> list[str]:
        python = Path(sys.base_prefix).resolve()
        argv = ["bwrap", "--unshare-all", "--die-with-parent", "--as-pid-1", "--uid", "65534", "--gid", "65534"]
        argv += ["--hostname", "sandbox", "--clearenv", "--cap-drop", "ALL"]
        for path in (*SYSTEM, str(python)):
            if Path(path).is_symlink():
                argv += ["--symlink", str(Path(path).readlink()), path]
            elif Path(path).exists() and (path in SYSTEM or not python.is_relative_to("/usr")):
                argv += ["--ro-bind", path, path]
        for name, path_of in self._packages.items():
            argv += ["--ro-bind", str(path_of), f"{SITE}/{name}"]
        for key, value in ENVIRONMENT.items():
            argv += ["--setenv", key, value]
        argv += ["--proc", "/proc", "--dev", "/dev"]
        for path in (TREE, *SCRATCH):
            argv += ["--size", str(resources.disk_bytes), "--tmpfs", path]
        return [*argv, "--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/", "--chdir", "/"]

    def identity(self, image: str = "") -> str:
        return f"{self.about} guest {guest_version()}"

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        """Nothing is started ahead: see sandboxes.pool."""

    def open(self, resources: Resources, image: str = "") -> GuestSandbox:
        guest = [str(base_interpreter()), "-S", "-s", "-B", "-c", BOOTSTRAP, SITE]
        channel = ProcessChannel([*self._wrap(resources), *guest], ENVIRONMENT, lambda: None)
        options = GuestOptions(
            root=TREE,
            scratch=SCRATCH,
            home="/tmp",
            separate_user=False,
            private=True,
            address_space=resources.memory_bytes,
            disk_bytes=resources.disk_bytes,
        )
        path = f"{base_interpreter().parent}:{ENVIRONMENT['PATH']}"
        return GuestSandbox(channel, options, {"PATH": path})

    def close(self) -> None:
        """Nothing is shared between the sandboxes of this backend; each dies with its parent."""
