"""What is special to Docker: how trees get into a container, old interpreters, and many edits in one place."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.base import Command, Isolation, PytestRun, Resources, Sandbox, Wall
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.workspace import MappingTree, PathError, Workspace

pytestmark = pytest.mark.docker
OLD_IMAGES = os.environ.get("REPO_AGENT_OLD_IMAGES", "").split()
LISTING = Command(("find", ".", "-mindepth", "1", "-type", "f", "-exec", "grep", "-H", "", "{}", "+"))


@pytest.fixture(scope="module", params=list(Isolation))
def isolation(request: pytest.FixtureRequest) -> Isolation:
    found: Isolation = request.param
    return found


@pytest.fixture
def backend(isolation: Isolation, docker_backend: DockerBackend) -> Iterator[DockerBackend]:
    """A backend of the test's own, to be spoilt."""
    made = DockerBackend(isolation=isolation)
    made.open(Resources()).close()  # its trial
    yield made
    made.close()


def one_file(number: int) -> Workspace:
    return Workspace(MappingTree({"name.txt": f"tree {number}\n".encode()}))


def name_in(sandbox: Sandbox, number: int) -> str:
    return sandbox.run(one_file(number), Command(("cat", "name.txt"))).output


def test_trees_are_mounted_where_the_engine_shares_our_files(backend: DockerBackend) -> None:
    assert backend.about["trees"] == "mounted read-only"
    with backend.open(Resources()) as sandbox:
        assert sandbox.hello["mounted"]
        assert [name_in(sandbox, number) for number in (1, 2, 1)] == ["tree 1\n", "tree 2\n", "tree 1\n"]


@pytest.mark.slow
def test_trees_are_shipped_to_an_engine_that_cannot_see_our_files(backend: DockerBackend, tmp_path: Path) -> None:
    backend._store.place = tmp_path / "on-another-machine"
    with backend.open(Resources()) as sandbox:
        assert not sandbox.hello["mounted"]
        numbers = [*range(12), 0]  # more than are kept
        assert [name_in(sandbox, number) for number in numbers] == [f"tree {number}\n" for number in numbers]


def test_a_mount_that_is_not_ours_is_not_used(backend: DockerBackend) -> None:
    backend._store.marker = "something else"
    with backend.open(Resources()) as sandbox:
        assert not sandbox.hello["mounted"]
        assert name_in(sandbox, 1) == "tree 1\n"


def test_shipping_is_told_in_the_report(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxes.docker_sandbox.BASES", "/nothing-is-there")
    monkeypatch.setattr("sandboxes.tree_store.TreeStore.marker", "", raising=False)
    monkeypatch.setattr("sandboxes.docker_sandbox.Mount", lambda target, *args, **kwargs: _elsewhere(target))
    backend = DockerBackend(isolation=isolation)
    try:
        assert backend.about["trees"] == "shipped over the stream"
    finally:
        backend.close()


def _elsewhere(target: str) -> dict[str, object]:
    place = f"/elsewhere{target}".replace("/kept", "-kept")
    return {"Target": place, "Source": "/usr", "Type": "bind", "ReadOnly": True}


@pytest.mark.slow
def test_refused_namespaces_leave_the_weaker_wall_and_are_told(docker_backend: DockerBackend) -> None:
    backend = DockerBackend(isolation=Isolation.RUN)
    try:
        assert backend.promises.wall is Wall.NAMESPACES
    finally:
        backend.close()
    refusing = _Refused(isolation=Isolation.RUN)
    try:
        assert refusing.promises.wall is Wall.USER
        assert "not permitted" in refusing.about["namespaces"]
        with refusing.open(Resources()) as sandbox:
            users = {sandbox.run(one_file(1), Command(("id", "-u"))).output for _ in range(3)}
            assert len(users) == 3
            capabilities = sandbox.run(one_file(1), Command(("grep", "CapBnd", "/proc/self/status"))).output
            assert int(capabilities.split()[1], 16) & (1 << 21) == 0  # SYS_ADMIN
    finally:
        refusing.close()


class _Refused(DockerBackend):
    """An engine that grants no SYS_ADMIN, as a security module may do."""

    def _host_config(self, resources: Resources, disk_bytes: int) -> dict[str, object]:
        config = super()._host_config(resources, disk_bytes)
        config["cap_add"] = [name for name in config["cap_add"] if name != "SYS_ADMIN"]
        return config


@pytest.mark.slow
def test_many_edits_one_after_the_other_leave_just_the_tree_that_is_run(backend: DockerBackend) -> None:
    """Files and folders come, change, go, and take each other's names; each run sees its own tree and no other."""
    chance = random.Random(0)
    base = MappingTree({f"d{n % 5}/e{n % 3}/f{n}.txt": b"%d\n" % n for n in range(60)})
    names = [*base.paths[:20], *(f"new{n}/x/y{n}" for n in range(4)), "d0", "d1/e1", "d2/e2/f2.txt/below", "top"]
    with backend.open(Resources()) as sandbox:
        for _ in range(25):
            tree = Workspace(base)
            for _ in range(chance.randrange(8)):
                tree = changed(tree, chance.choice(names), chance)
            wanted = sorted(f"./{path}:{tree.file(path).content.decode().strip()}" for path in tree.paths)
            assert sorted(sandbox.run(tree, LISTING).output.splitlines()) == wanted
        assert not sandbox.doubt


def changed(tree: Workspace, name: str, chance: random.Random) -> Workspace:
    for path in list(tree.below(name)) if name not in tree and chance.random() < 0.5 else []:
        tree = tree.remove(path)
    try:
        return tree.remove(name) if name in tree and chance.random() < 0.5 else tree.write(name, b"edited\n")
    except PathError:
        return tree


@pytest.mark.slow
@pytest.mark.skipif(not OLD_IMAGES, reason="REPO_AGENT_OLD_IMAGES names no images with older interpreters")
@pytest.mark.parametrize("image", OLD_IMAGES)
def test_the_guest_runs_on_old_interpreters(image: str, isolation: Isolation, docker_backend: DockerBackend) -> None:
    backend = DockerBackend(image, isolation=isolation)
    tree = Workspace(MappingTree({"test_it.py": b"def test_a(): pass\ndef test_b(): assert [1] == [2]\n"}))
    try:
        assert backend.promises.wall is (Wall.NAMESPACES if isolation is Isolation.RUN else Wall.USER)
        with backend.open(Resources()) as sandbox:
            for run in (PytestRun(), PytestRun(cold=True), PytestRun(("test_it.py",), scoring=True)):
                result = sandbox.run(tree, Command(run))
                assert [record.outcome for record in result.records] == ["passed", "failed"], result.output
                assert (result.tampered, result.canaries_missing) == ("", False)
            status = sandbox.run(tree, Command(("grep", "CapEff", "/proc/self/status"))).output
            assert int(status.split()[1], 16) == 0
    finally:
        backend.close()
