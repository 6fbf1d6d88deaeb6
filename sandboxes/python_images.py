"""Images of Python environments: built once per fingerprint, with the network, in a container that is committed."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

import docker
import docker.errors

from sandboxes.base import SandboxError, SandboxUnavailable
from sandboxes.build_container import BuildContainer
from sandboxes.cache_directory import cache_directory
from sandboxes.docker_channel import engine_faults
from sandboxes.docker_images import pulled_image
from sandboxes.image_store import top_bytes
from sandboxes.leftovers import sweep
from sandboxes.pip_output import in_a_few_words
from sandboxes.pip_recipe import Installed, NoCompiler, PipRecipe, check_python
from sandboxes.pip_settings import PipSettings, host_settings
from sandboxes.python_spec import RECIPE, PythonSpec
from sandboxes.run_scope import LABEL, RunScope

TEMPLATE_VARIABLE = "REPO_AGENT_PYTHON_IMAGES"
DEFAULT_TEMPLATE = "python:{version}-slim"
COMPILERS = "repo-agent-compilers"
"""Repository of the base images with a C compiler, one per base image that has none."""
INSTALL_COMPILERS = (
    "apt-get update -qq && apt-get install -qq --no-install-recommends gcc g++ make libc6-dev "
    "&& rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log && command -v gcc"
)
ADVICE = f"name others with --python-images or {TEMPLATE_VARIABLE}"
ENGINE_S = 900
"""Wall-clock seconds for the engine to commit an image."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """An image that is there; `made` where it was not before."""

    spec: PythonSpec
    image: str
    """Its id."""
    made: bool
    seconds: float = 0.0
    own_bytes: int = 0
    """What lies on top of the base image."""
    installed: Installed = Installed()


@dataclass(frozen=True)
class BuildFailure:
    """A spec without an image, and why in one line. It is tried again the next time."""

    spec: PythonSpec
    why: str


Outcome = Built | BuildFailure


def base_image(python: str, template: str = "") -> str:
    """The image that a Python's environments are built on; `{version}` becomes 3.7, `{nodot}` 37."""
    chosen = template or os.environ.get(TEMPLATE_VARIABLE) or DEFAULT_TEMPLATE
    return chosen.replace("{version}", python).replace("{nodot}", python.replace(".", ""))


class PythonImages:
    """Builds on a Docker engine; a context manager, at whose end nothing but the images is left.

    Raises:
        SandboxUnavailable: no engine answers.
    """

    def __init__(self, template: str = "", say: Say = lambda line: None) -> None:
        self._template, self._say = template, say
        self._settings: PipSettings | None = None
        self._scope = RunScope(engine=True)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        try:
            self._client = docker.from_env(timeout=ENGINE_S)
            self._client.ping()
        except Exception as error:
            raise SandboxUnavailable("no Docker engine answers: start one, or set DOCKER_HOST") from error

    def build_all(
        self, specs: Sequence[PythonSpec], jobs: int, on_done: Callable[[Outcome], None], rebuild: bool = False
    ) -> list[Outcome]:
        """Build so many at a time; `on_done` is called from this thread, in the order in which they end."""
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(self._outcome, spec, rebuild): spec for spec in dict.fromkeys(specs)}
            try:
                for future in as_completed(futures):
                    on_done(future.result())
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                sweep(self._client, self._scope.run_id)  # commands that run in them end
                raise
        return [future.result() for future in futures]

    def _outcome(self, spec: PythonSpec, rebuild: bool) -> Outcome:
        try:
            return self.build(spec, rebuild)
        except SandboxError as error:
            return BuildFailure(spec, str(error))

    def build(self, spec: PythonSpec, rebuild: bool = False) -> Built:
        """The image of a spec, built now where the engine lacks it. Raises SandboxError."""
        check_python(spec.python)
        with self._alone(spec.fingerprint):
            found = self.image_id(spec)
            if found and not rebuild:
                return Built(spec, found, made=False)
            base = pulled_image(self._client, self._base_name(spec), ADVICE)
            built = self._build_on(self._compiling(base) or base, spec)
            if found and found != built.image:
                self._forget(found)
            return built

    def image_id(self, spec: PythonSpec) -> str | None:
        """The id of a spec's image, where the engine has it. Raises SandboxError."""
        try:
            with engine_faults("find an image"):
                return str(self._client.images.get(spec.image).id)
        except docker.errors.ImageNotFound:
            return None

    def _build_on(self, base: str, spec: PythonSpec) -> Built:
        try:
            return self._build_once(base, spec)
        except NoCompiler:
            return self._build_once(self._with_compilers(base), spec)

    def _build_once(self, base: str, spec: PythonSpec) -> Built:
        began = time.monotonic()
        with self._container(base) as container:
            installed = PipRecipe(container.run).install(spec)
            if installed.python.rpartition(".")[0] != spec.python:
                raise SandboxError(f"{self._base_name(spec)} has Python {installed.python}, not {spec.python}")
            seconds = time.monotonic() - began
            labels = _labels(spec, installed, seconds, f"{self._base_name(spec)} {base}")
            image = container.commit(spec.image, labels)
        own_bytes = top_bytes(self._client.images.get(image))
        return Built(spec, image, True, seconds, own_bytes, installed)

    def _base_name(self, spec: PythonSpec) -> str:
        return base_image(spec.python, self._template)

    def _container(self, base: str) -> BuildContainer:
        with self._lock:
            if self._stopping.is_set():
                raise SandboxError("interrupted")
            self._settings = self._settings or host_settings()
        return BuildContainer(self._client, base, self._scope, self._settings, cache_directory() / "pip")

    def _compiling(self, base: str) -> str | None:
        """The id of the base image with a C compiler, where one was made."""
        try:
            with engine_faults("find an image"):
                return str(self._client.images.get(_compilers_on(base)).id)
        except docker.errors.ImageNotFound:
            return None

    def _with_compilers(self, base: str) -> str:
        """The same, made now where there is none."""
        name = _compilers_on(base)
        with self._alone(name.replace(":", "-")):
            if found := self._compiling(base):
                return found
            self._say("the base image has no C compiler: installing gcc, g++ and make in one derived from it")
            with self._container(base) as container:
                code, output = container.run(["sh", "-c", INSTALL_COMPILERS])
                if code:
                    last = in_a_few_words((output.strip().splitlines() or ["no output"])[-1])
                    raise SandboxError(f"something must be compiled, and no compiler can be installed: {last}")
                return container.commit(name, {})

    def _forget(self, image: str) -> None:
        try:
            self._client.images.remove(image)
        except docker.errors.APIError:
            self._say(f"the former image {image[7:19]} is in use, and stays until `repo-agent images prune`")

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Nobody else on this machine builds the same meanwhile, in this process or another."""
        path = cache_directory() / "images" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            while not _locked(file.fileno()):
                if self._stopping.wait(0.2):
                    raise SandboxError("interrupted")
            yield

    def close(self) -> None:
        """Remove what an interrupted build may have left."""
        try:
            left = sweep(self._client, self._scope.run_id)
        except SandboxError:  # the reaper goes on trying when this process has ended
            return
        finally:
            self._client.close()
        if not left:
            self._scope.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _compilers_on(base: str) -> str:
    return f"{COMPILERS}:{base.rpartition(':')[2][:20]}"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _labels(spec: PythonSpec, installed: Installed, seconds: float, base: str) -> dict[str, str]:
    said = {
        "fingerprint": spec.fingerprint,
        "recipe": str(RECIPE),
        "python": installed.python,
        "base": base,
        "requirements": json.dumps(asdict(spec)),
        "relaxed": json.dumps(installed.relaxed),
        "dropped": json.dumps(installed.dropped),
        "added": json.dumps(installed.added),
        "packages": json.dumps(installed.packages),
        "seconds": f"{seconds:.0f}",
    }
    return {f"{LABEL}.{name}": value for name, value in said.items()}
