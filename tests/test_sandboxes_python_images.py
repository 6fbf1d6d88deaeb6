"""Images of Python environments: really built by pip, from a real index, on a real engine."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import docker.errors
import pytest

from sandboxes import leftovers
from sandboxes.image_archive import BadArchive, export_images, import_images, read_archive
from sandboxes.image_store import StoredImage, disk_bytes, is_current, stored_images, verify_image
from sandboxes.pip_settings import host_settings
from sandboxes.python_images import BuildFailure, Built, Outcome, PythonImages, base_image
from sandboxes.python_spec import PythonSpec
from sandboxes.run_scope import LABEL, RunScope
from tests.bugsinpy_place import need_base_images

pytestmark = [pytest.mark.slow, pytest.mark.docker]
ROOT = Path(__file__).parent.parent
WITHIN_S = 40.0

ODD = PythonSpec(
    "3.7",
    ("mysqlclient==1.4.0", "six==99.0", "toml==0.10.1"),
    ("jinja2==2.11.3",),
)
"""What cannot be built, what is too new; and an extra with dependencies."""
BARE = PythonSpec("3.7", (), ("six==1.15.0",))
"""On the same base."""
NEVER = PythonSpec("3.6", ("six==1.14.0", "toml==0.10.0"))
"""Its builds are interrupted."""
FOREIGN = PythonSpec("2.7", ("six==1.15.0",))


class _NotFound(BaseHTTPRequestHandler):
    """An index that has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def empty_index() -> Iterator[int]:
    """The port of an index on this machine that has no packages."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NotFound)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """An engine with base images for old Pythons, or a skip with the reason."""
    need_base_images(ODD.python, NEVER.python)
    with leftovers.engine(300) as found:
        yield found


BUILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
from sandboxes.python_images import PythonImages
from sandboxes.python_spec import PythonSpec
python, *requirements = sys.argv[1:]
with PythonImages() as images:
    images.build_all([PythonSpec(python, tuple(requirements))], 1, print)
"""


@contextlib.contextmanager
def builder(spec: PythonSpec) -> Iterator[subprocess.Popen[bytes]]:
    """A process that builds one image."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", BUILD, spec.python, *spec.requirements]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


SECRETS = {name: secrets.token_hex(8) for name in ("user", "word", "host", "certificate", "file")}


@pytest.fixture(scope="module")
def outcomes(
    client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[PythonSpec, Outcome]]:
    """What came of building all, two at a time, with settings of this machine's pip that nobody may see."""
    folder = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch, empty_index() as port:
        trusted = host_settings().certificates
        marked = b"# " + SECRETS["certificate"].encode() + b"\n" + trusted
        (folder / "trusted.pem").write_bytes(marked)
        (folder / "pip.conf").write_text(f"[global]\nfind-links = {folder}/{SECRETS['file']}\ntimeout = 61\n")
        patch.setenv("PIP_CONFIG_FILE", str(folder / "pip.conf"))
        patch.setenv("PIP_EXTRA_INDEX_URL", f"http://{SECRETS['user']}:{SECRETS['word']}@127.0.0.1:{port}/simple")
        patch.setenv("NO_PROXY", f"127.0.0.1,{SECRETS['host']}")
        if trusted:
            patch.setenv("PIP_CERT", str(folder / "trusted.pem"))
        forget(client, ODD, BARE)
        with builder(BARE) as other, PythonImages() as images:  # two processes want the same
            done = images.build_all([ODD, BARE, FOREIGN], 2, lambda outcome: None)
            OTHER_PROCESS.append(other.communicate(timeout=120)[0].decode())
    yield {outcome.spec: outcome for outcome in done}
    forget(client, ODD, BARE)


def forget(client: docker.DockerClient, *specs: PythonSpec) -> None:
    for spec in specs:
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.remove(spec.image)


OTHER_PROCESS: list[str] = []
"""What it has printed."""


@pytest.fixture(scope="module")
def archive(
    outcomes: dict[PythonSpec, Outcome], client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Both images, exported."""
    path, passed = tmp_path_factory.mktemp("archive") / "images.tar", list[int]()
    export_images(client, [ODD.image, BARE.image], path, passed.append)
    assert passed[-1] == path.stat().st_size
    assert [each.name for each in path.parent.iterdir()] == ["images.tar"]
    yield path
    path.unlink()


@pytest.fixture
def built(outcomes: dict[PythonSpec, Outcome]) -> Built:
    return made(outcomes[ODD])


def made(outcome: Outcome) -> Built:
    assert isinstance(outcome, Built), outcome
    return outcome


def stored(client: docker.DockerClient, spec: PythonSpec) -> StoredImage:
    return next(image for image in stored_images(client) if image.name == spec.image)


def test_what_cannot_be_had_is_relaxed_or_dropped_and_recorded(built: Built, client: docker.DockerClient) -> None:
    installed = built.installed
    assert installed.relaxed == {"six==99.0": "1.17.0"}
    assert installed.dropped == {"mysqlclient==1.4.0": "OSError: mysql_config not found"}
    assert {"six==1.17.0", "toml==0.10.1"} <= set(installed.packages)
    image = stored(client, ODD)
    assert image.recorded("relaxed") == installed.relaxed
    assert image.recorded("dropped") == installed.dropped
    assert json.loads(image.said("packages")) == list(installed.packages)
    assert image.spec == ODD
    assert image.said("python").startswith("3.7.")
    assert image.said("base").startswith(base_image("3.7"))


def test_an_extra_comes_with_its_dependencies_and_pytest_comes_always(built: Built) -> None:
    names = {package.partition("==")[0].lower() for package in built.installed.packages}
    assert {"jinja2", "markupsafe", "pytest"} <= names
    assert "cython" not in names
    assert any(package.startswith("pytest==") for package in built.installed.added)


def test_a_python_that_the_recipe_is_not_for_fails_alone(outcomes: dict[PythonSpec, Outcome]) -> None:
    assert outcomes[FOREIGN] == BuildFailure(FOREIGN, "environments are made for Python 3.6 to 3.11, not 2.7")


def test_an_image_that_is_there_is_not_built_again(built: Built) -> None:
    with PythonImages() as images:
        assert images.build(ODD) == Built(ODD, built.image, made=False)


def test_nothing_of_the_hosts_settings_is_in_the_image(archive: Path, client: docker.DockerClient) -> None:
    image = client.images.get(ODD.image)
    described = json.dumps([image.history(), image.attrs]).encode()
    assert [word for word in ("PIP_", "EXTRA_INDEX", "NO_PROXY") if word.encode() in described] == []
    certificates = host_settings().certificates.split(b"-----BEGIN CERTIFICATE-----\n")[1:]
    last = [each[:200] for each in certificates[-3:]]  # those that a machine adds of its own
    hidden = [*(word.encode() for word in SECRETS.values()), *last]
    for text in (described, *built_layers(archive, client)):
        assert [word for word in hidden if word in text] == []


def built_layers(archive: Path, client: docker.DockerClient) -> Iterator[bytes]:
    """The layers that were built here, as they lie in what `docker save` writes."""
    base_layers = client.images.get(base_image(ODD.python)).attrs["RootFS"]["Layers"]
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        layers = next(entry["Layers"] for entry in manifest if entry["RepoTags"] == [ODD.image])
        assert len(layers) == len(base_layers) + 1
        for name in layers[len(base_layers) :]:
            file = tar.extractfile(name)
            assert file
            yield file.read()


def test_a_layer_has_no_cache_no_build_tree_and_no_file_of_the_build(
    archive: Path, client: docker.DockerClient
) -> None:
    names: list[str] = []
    for layer in built_layers(archive, client):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            names += tar.getnames()
    assert len(names) > 100
    assert [name for name in names if name.startswith(("tmp/", "root/.cache", "var/", "run/"))] == []
    assert [name for name in names if name.rpartition("/")[2].startswith("pip-") and "dist-info" not in name] == []
    assert any(name.endswith("toml/__pycache__/decoder.cpython-37.pyc") for name in names)


def test_the_configuration_is_that_of_the_base(built: Built, client: docker.DockerClient) -> None:
    config, base = (client.images.get(name).attrs["Config"] for name in (ODD.image, base_image("3.7")))
    assert config["Env"] == base["Env"]
    assert config["Cmd"] == ["python3"]
    assert not config.get("Volumes")
    assert config["Labels"][LABEL] == "image"
    assert not any(config["Labels"].get(f"{LABEL}.{name}") for name in ("run", "owner", "expires"))


@pytest.mark.parametrize("spec", [ODD, BARE], ids=["odd", "bare"])
def test_a_forked_pytest_runs_in_the_image(
    spec: PythonSpec, outcomes: dict[PythonSpec, Outcome], client: docker.DockerClient
) -> None:
    made(outcomes[spec])
    scope = RunScope(engine=True)
    try:
        found = verify_image(client, scope, stored(client, spec))
    finally:
        scope.close()
    assert found.faults == []
    assert found.pytest


def test_sizes_count_what_images_share_once(outcomes: dict[PythonSpec, Outcome], client: docker.DockerClient) -> None:
    images = [stored(client, ODD), stored(client, BARE)]
    own, shared = disk_bytes(images)
    assert own == sum(image.own_bytes for image in images)
    assert all(0 < image.own_bytes < 100e6 < image.size_bytes or image.size_bytes < 200e6 for image in images)
    assert {shared} == {image.size_bytes - image.own_bytes for image in images}


# ---- to another machine


def test_an_exported_image_comes_back_by_import(archive: Path, client: docker.DockerClient) -> None:
    before, passed = stored(client, BARE), list[int]()
    client.images.remove(BARE.image)
    assert BARE.image not in {image.name for image in stored_images(client)}
    assert set(import_images(client, archive, passed.append)) == {ODD, BARE}
    assert stored(client, BARE).id == before.id
    assert passed[-1] == archive.stat().st_size


def test_a_torn_archive_is_told(archive: Path, client: docker.DockerClient, tmp_path: Path) -> None:
    with open(archive, "rb") as file:
        (tmp_path / "torn.tar").write_bytes(file.read(2**20 + 1))
    (tmp_path / "torn.tar.gz").write_bytes(gzip.compress(os.urandom(2**20))[: 2**19])
    (tmp_path / "text.tar").write_text("no archive at all\n" * 1000)
    for name in ("torn.tar", "torn.tar.gz", "text.tar"):
        with pytest.raises(BadArchive, match="torn, or"):
            import_images(client, tmp_path / name, lambda done: None)


def archive_of(path: Path, tag: str, labels: dict[str, str]) -> Path:
    """What `docker save` would write of an image without layers."""
    config = json.dumps({"config": {"Labels": labels}, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [tag], "Layers": []}]).encode()
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in (("config.json", config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_an_archive_of_anything_else_is_refused_before_it_is_loaded(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    asked_for = {"python": "3.7", "requirements": ["six==1.16.0"], "extras": []}
    spec = PythonSpec("3.7", ("six==1.16.0",))
    labels = {f"{LABEL}.requirements": json.dumps(asked_for), f"{LABEL}.fingerprint": spec.fingerprint}
    refused = {
        "no image of ours": archive_of(tmp_path / "1.tar", spec.image, {}),
        "its labels say": archive_of(tmp_path / "2.tar", spec.image, {**labels, f"{LABEL}.fingerprint": "0" * 16}),
        "is named wrongly": archive_of(tmp_path / "3.tar", "python:3.7-slim", labels),
    }
    for why, path in refused.items():
        with pytest.raises(BadArchive, match=why):
            import_images(client, path, lambda done: None)
    assert spec.image not in {image.name for image in stored_images(client)}
    assert read_archive(archive_of(tmp_path / "4.tar.gz", spec.image, labels)) == [spec]


# ---- interruption


def left_of(client: docker.DockerClient, pid: int) -> list[str]:
    return [f"{item.form} {item.id}" for item in leftovers.find(client) if f":{pid}:" in item.owner]


def wait_until(condition: bool, client: docker.DockerClient, pid: int, within_s: float) -> list[str]:
    """Until the process has something on the engine, or nothing any more."""
    deadline = time.monotonic() + within_s
    while bool(found := left_of(client, pid)) is not condition and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(("number", "after_s"), [(signal.SIGKILL, 0.0), (signal.SIGINT, 2.0)])
def test_an_interrupted_build_leaves_nothing(
    number: signal.Signals, after_s: float, client: docker.DockerClient
) -> None:
    with builder(NEVER) as process:
        assert wait_until(True, client, process.pid, 30)
        time.sleep(after_s)
        process.send_signal(number)
        process.wait(WITHIN_S)
        assert wait_until(False, client, process.pid, WITHIN_S) == []
    assert NEVER.image not in {image.name for image in stored_images(client)}


def test_two_processes_build_an_image_once(outcomes: dict[PythonSpec, Outcome]) -> None:
    (said,) = OTHER_PROCESS
    assert sorted([made(outcomes[BARE]).made, "made=True" in said]) == [False, True], said


def test_an_image_whose_labels_lie_is_not_current() -> None:
    image = StoredImage("sha256:0", NEVER.image, {f"{LABEL}.fingerprint": NEVER.fingerprint}, 0.0, 1, 1, ())
    assert not is_current(image)


def test_an_index_on_this_disk_is_not_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path} https://wheels.example/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file://{tmp_path}/simple")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    environment = host_settings().environment
    assert environment["PIP_FIND_LINKS"] == "https://wheels.example/"
    assert {"PIP_EXTRA_INDEX_URL", "PIP_REQUIRE_VIRTUALENV"}.isdisjoint(environment)
