"""`repo-agent images`, on a suite of two environments; the pipeline of BugsInPy tests what needs real builds."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import docker
import docker.errors
import pytest

import repo_agent
from sandboxes import leftovers
from sandboxes.build_container import BuildContainer
from sandboxes.docker_images import pulled_image
from sandboxes.image_store import stored_images
from sandboxes.pip_settings import PipSettings
from sandboxes.python_images import base_image
from sandboxes.python_spec import PythonSpec
from sandboxes.run_scope import LABEL, RunScope
from suites.base import SUITES, SubsetSuite
from suites.environments import environments_of, prepare
from suites.images_cli import main
from suites.minibugs.suite import MinibugsSuite
from tests.bugsinpy_place import need_base_images

GOOD = PythonSpec("3.7", (), ("six==1.12.0",))
HOPELESS = PythonSpec("2.7", ("six==1.12.0",))
PLAYED_IN = {GOOD: 2, HOPELESS: 1}


class TwoEnvironments(MinibugsSuite):
    """Tasks of minibugs that say that they need images."""

    def environments(self) -> Mapping[PythonSpec, Sequence[str]]:
        ids = iter(task.id for task in self.tasks())
        return {spec: [next(ids) for _ in range(count)] for spec, count in PLAYED_IN.items()}


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> TwoEnvironments:
    made = TwoEnvironments()
    monkeypatch.setitem(SUITES, "two", ("two environments", lambda mirror, part: made))
    return made


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    need_base_images(GOOD.python)
    with leftovers.engine(300) as found:
        yield found


def test_a_suite_says_which_tasks_need_which_environment(suite: TwoEnvironments) -> None:
    ids = [task.id for task in suite.tasks()]
    assert environments_of(suite) == {GOOD: (ids[0], ids[1]), HOPELESS: (ids[2],)}
    assert environments_of(SubsetSuite("some", suite, (ids[1], ids[7]))) == {GOOD: (ids[1],)}


def test_a_suite_without_environments_needs_no_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert repo_agent.main(["images", "plan", "minibugs"]) == 2
    assert capsys.readouterr().err == "repo-agent: error: suite minibugs needs no images\n"


@pytest.mark.docker
def test_a_plan_says_what_is_missing(client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "two"]) == 0
    said = capsys.readouterr().out
    assert GOOD.fingerprint in said
    assert "2 environments, 0 built, 2 missing" in said


@pytest.mark.docker
def test_a_build_that_fails_is_one_line_and_its_tasks_cannot_be_played(
    client: docker.DockerClient, suite: TwoEnvironments
) -> None:
    said: list[str] = []
    task = suite.tasks()[2]
    why = "environments are made for Python 3.6 to 3.11, not 2.7"
    assert prepare(suite, [task], 1, said.append) == {task.id: f"its environment cannot be built: {why}"}
    assert said == [
        "1 of 1 environments are missing: building them",
        f"{HOPELESS.fingerprint}  Python 2.7  FAILED: {why}",
    ]


@pytest.fixture
def outdated(client: docker.DockerClient) -> Iterator[str]:
    """The name of an image that no recipe of today makes."""
    name = f"repo-agent-env:{'0' * 16}"
    scope = RunScope(engine=True)
    with contextlib.closing(scope):
        base = pulled_image(client, base_image(GOOD.python), "")
        with BuildContainer(client, base, scope, PipSettings({})) as container:
            container.run(["mkdir", "/old"])
            container.commit(name, {f"{LABEL}.fingerprint": "0" * 16, f"{LABEL}.recipe": "0"})
    yield name
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.remove(name)


@pytest.mark.docker
def test_an_image_of_another_recipe_is_removed_once_that_is_agreed_to(
    outdated: str, client: docker.DockerClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {image.name for image in stored_images(client)}
    assert outdated in before
    with open("/dev/null", encoding="utf-8") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert repo_agent.main(["images", "prune"]) == 2
    assert "only with --yes" in capsys.readouterr().err
    assert outdated in {image.name for image in stored_images(client)}
    assert main(["prune", "--yes"]) == 0
    assert outdated not in {image.name for image in stored_images(client)}
    assert re.search(r"^removed (\d+) of \1 images", capsys.readouterr().out, re.MULTILINE)  # others may be nameless


@pytest.mark.docker
def test_an_image_that_somebody_removes_meanwhile_is_left_out(
    outdated: str, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = client.api.images(filters={"label": f"{LABEL}.fingerprint"})
    client.images.remove(outdated)
    monkeypatch.setattr(client.api, "images", lambda **asked: listed)
    assert outdated not in {image.name for image in stored_images(client)}


@pytest.mark.docker
def test_a_broken_image_is_told_by_verify(
    outdated: str, client: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    from suites.images_cli import _verified

    (image,) = [image for image in stored_images(client) if image.name == outdated]
    with contextlib.closing(RunScope(engine=True)) as scope:
        assert not _verified(client, scope, outdated, image)
    assert "BROKEN  its labels do not say what it was made from" in capsys.readouterr().out


@pytest.mark.docker
def test_what_is_not_built_cannot_be_exported(
    client: docker.DockerClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repo_agent.main(["images", "export", "two", "--out", str(tmp_path / "x.tar")]) == 2
    assert "of 2 images are not built" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.docker
def test_a_file_that_is_no_export_is_one_line(
    client: docker.DockerClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.tar").write_bytes(b"\0" * 5000)
    assert repo_agent.main(["images", "import", str(tmp_path / "x.tar")]) == 2
    assert repo_agent.main(["images", "import", str(tmp_path / "none.tar")]) == 2
    torn, none = capsys.readouterr().err.splitlines()
    assert torn.startswith(f"repo-agent: error: {tmp_path / 'x.tar'} is torn")
    assert "No such file" in none


def test_an_engine_that_is_away_is_one_line() -> None:
    argv = [sys.executable, "-m", "repo_agent", "images", "ls"]
    environment = {
        "DOCKER_HOST": "unix:///nowhere.sock",
        "PATH": "",
        "PYTHONPATH": str(Path(repo_agent.__file__).parent),
    }
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "repo-agent: error: no Docker engine answers (repo-agent doctor says more)\n"
