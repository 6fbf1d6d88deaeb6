"""Nothing of a run is left behind, however its process ended: scopes, their reapers, `repo-agent sandbox`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from harness import sandbox_cli
from harness.errors import UsageError
from sandboxes import leftovers
from sandboxes.base import SandboxError, SandboxUnavailable
from sandboxes.leftovers import Form, Leftover
from sandboxes.run_directory import MARK, Mark, read_mark, remove_tree, write_mark
from sandboxes.run_scope import LABEL, RunScope, owner_alive, owner_of

pytestmark = pytest.mark.slow
IMAGE = os.environ.get("REPO_AGENT_BASE_IMAGE") or "python:3.11-slim"
WITHIN_S = 10.0
"""What the issue allows between an owner's end and the end of all that it had."""
ELSEWHERE = "another-machine:1:1"
DAY_S = 24 * 3600


def until(condition: Callable[[], bool], within_s: float = WITHIN_S) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is not only waiting to be waited for."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def reapers(run_id: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if run_id.encode() in words and any(word.endswith(b"reaper.py") for word in words):
                found.append(int(path.parent.name))
    return [pid for pid in found if runs(pid)]


def reaper_of(run_id: str) -> int:
    """The one reaper of a run; just after its start it has no name yet."""
    assert until(lambda: bool(reapers(run_id)))
    (found,) = reapers(run_id)
    return found


@pytest.fixture
def run_id() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def scope(run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunScope]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = RunScope(run_id)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """A Docker engine with the base image, or a skip; where CI requires Docker, a failure."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(leftovers.engine())
            found.images.get(IMAGE)
        except (SandboxUnavailable, docker.errors.ImageNotFound) as error:
            if os.environ.get("CI") and os.environ.get("REPO_AGENT_REQUIRE_DOCKER") == "1":
                pytest.fail(f"Docker is required here: {error}")
            pytest.skip(f"no Docker: {error}")
        yield found


@pytest.fixture
def engine(client: docker.DockerClient, run_id: str) -> Iterator[docker.DockerClient]:
    """The engine, on which nothing of this test's run stays."""
    yield client
    leftovers.sweep(client, run_id)


# ---- the owner that is killed

OWNER = f"""
import multiprocessing, os, signal, sys, time
from sandboxes.run_scope import RunScope
run_id, what = sys.argv[1], sys.argv[2:]
scope = RunScope(run_id, engine=not {{"files", "fork"}} & set(what))
(scope.directory / "file").write_text("left")
if "fork" in what and os.fork() == 0:
    os.close(1)
    time.sleep(600)
if "engine" in what or "flight" in what:
    import docker
    api = docker.from_env().api
    def create():
        host_config = api.create_host_config(network_mode="none")
        return api.create_container("{IMAGE}", ["sleep", "600"], labels=scope.labels(), host_config=host_config)
    api.start(create())
    create()
    api.create_volume(labels=scope.labels("tree"))
if "flight" in what:
    import http.client
    http.client.HTTPConnection.getresponse = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    print("ready", flush=True)
    create()
if "close" in what:
    scope.close()
print("ready", flush=True)
if "exit" not in what:
    time.sleep(600)
"""


@contextlib.contextmanager
def owner(run_id: str, directory: Path, *what: str) -> Iterator[subprocess.Popen[str]]:
    """A process that owns what is named, ready to be killed."""
    environment = {**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(Path(__file__).parent.parent)}
    argv = [sys.executable, "-c", OWNER, run_id, *what]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def is_empty(directory: Path) -> bool:
    return not list(directory.iterdir())


def test_files_and_reaper_are_gone_after_the_owner_was_killed(run_id: str, tmp_path: Path) -> None:
    with owner(run_id, tmp_path, "files") as process:
        assert reaper_of(run_id)
        assert not is_empty(tmp_path)
        process.kill()
        assert until(lambda: is_empty(tmp_path) and not reapers(run_id))


def test_forked_child_that_holds_the_pipe_does_not_stop_the_reaper(run_id: str, tmp_path: Path) -> None:
    with owner(run_id, tmp_path, "fork") as process:
        (child,) = children(process.pid) - {reaper_of(run_id)}
        try:
            process.kill()
            assert until(lambda: is_empty(tmp_path) and not reapers(run_id))
            assert runs(child)
        finally:
            os.kill(child, signal.SIGKILL)


def children(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_reaper_does_not_hear_what_ends_the_owner(run_id: str, tmp_path: Path) -> None:
    with owner(run_id, tmp_path, "files") as process:
        reaper = reaper_of(run_id)
        assert os.getsid(reaper) == reaper
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(reaper, number)
        process.kill()
        assert until(lambda: is_empty(tmp_path) and not reapers(run_id))


def test_output_of_the_owner_ends_with_it_and_not_with_the_reaper(run_id: str, tmp_path: Path) -> None:
    with owner(run_id, tmp_path, "files") as process:
        assert process.stdout
        reaper = reaper_of(run_id)
        os.kill(reaper, signal.SIGSTOP)
        process.kill()
        assert process.stdout.read() == ""
        os.kill(reaper, signal.SIGCONT)
        assert until(lambda: is_empty(tmp_path) and not reapers(run_id))


def test_owner_that_says_goodbye_leaves_no_reaper(run_id: str, tmp_path: Path) -> None:
    with owner(run_id, tmp_path, "files", "close") as process:
        assert is_empty(tmp_path)
        assert not children(process.pid)
        assert not reapers(run_id)


def test_files_are_removed_although_the_engine_is_away(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with owner(run_id, tmp_path) as process:
        process.kill()
        assert until(lambda: is_empty(tmp_path))


@pytest.mark.docker
@pytest.mark.slow
def test_containers_and_volumes_are_gone_after_the_owner_was_killed(
    run_id: str, tmp_path: Path, engine: docker.DockerClient
) -> None:
    with owner(run_id, tmp_path, "engine") as process:
        found = leftovers.find(engine, run_id)
        assert sorted((item.form, item.state) for item in found) == [
            (Form.CONTAINER, "created"),
            (Form.CONTAINER, "running"),
            (Form.VOLUME, ""),
        ]
        process.kill()
        assert until(lambda: not leftovers.find(engine, run_id) and is_empty(tmp_path) and not reapers(run_id))


@pytest.mark.docker
@pytest.mark.slow
def test_container_that_was_being_created_when_the_owner_died_is_removed(
    run_id: str, tmp_path: Path, engine: docker.DockerClient
) -> None:
    with owner(run_id, tmp_path, "flight"):
        assert until(lambda: not leftovers.find(engine, run_id) and is_empty(tmp_path) and not reapers(run_id))
    assert not leftovers.find(engine, run_id)


@pytest.mark.docker
@pytest.mark.slow
def test_container_that_comes_to_be_after_the_first_look_is_removed(
    run_id: str, tmp_path: Path, engine: docker.DockerClient
) -> None:
    with owner(run_id, tmp_path, "engine") as process:
        labels = {f"{LABEL}.run": run_id}
        process.kill()
        assert until(lambda: not leftovers.find(engine, run_id))
        engine.api.create_container(IMAGE, ["sleep", "600"], labels=labels)
        assert until(lambda: not leftovers.find(engine, run_id) and not reapers(run_id))


# ---- the scope


def test_scope_that_made_nothing_starts_no_process_and_makes_no_file(scope: RunScope, tmp_path: Path) -> None:
    assert is_empty(tmp_path)
    assert not reapers(scope.run_id)


def test_labels_name_the_run_its_owner_and_its_end(scope: RunScope) -> None:
    labels = scope.labels("tree")
    expires = int(labels.pop(f"{LABEL}.expires"))
    assert labels == {LABEL: "tree", f"{LABEL}.run": scope.run_id, f"{LABEL}.owner": owner_of(os.getpid())}
    assert abs(expires - time.time() - DAY_S) < 3600


def test_directory_is_private_marked_and_gone_after_close(scope: RunScope, tmp_path: Path) -> None:
    assert scope.directory == scope.directory
    assert scope.directory.stat().st_mode & 0o777 == 0o700
    mark = read_mark(scope.directory)
    assert mark
    assert (mark.run, mark.owner) == (scope.run_id, scope.owner)
    scope.close()
    assert is_empty(tmp_path)
    assert not reapers(scope.run_id)


def test_closing_twice_is_closing_once_and_a_closed_scope_makes_nothing(scope: RunScope, tmp_path: Path) -> None:
    scope.guard()
    scope.close()
    scope.close()
    with pytest.raises(SandboxError, match="closed"):
        scope.guard()
    with pytest.raises(SandboxError, match="closed"):
        _ = scope.directory
    assert is_empty(tmp_path)


def test_guard_starts_one_reaper_and_replaces_one_that_was_killed(scope: RunScope) -> None:
    scope.guard()
    scope.guard()
    first = reaper_of(scope.run_id)
    os.kill(first, signal.SIGKILL)
    assert until(lambda: not runs(first))
    scope.guard()
    assert reaper_of(scope.run_id) != first


def test_closing_outlives_the_death_of_the_reaper(scope: RunScope, tmp_path: Path) -> None:
    assert scope.directory.is_dir()
    os.kill(reaper_of(scope.run_id), signal.SIGKILL)
    scope.close()
    assert is_empty(tmp_path)


def test_forked_child_that_closes_the_scope_takes_nothing_from_its_parent(scope: RunScope) -> None:
    directory = scope.directory
    code = "import os\nscope.guard()\nscope.close()\n"
    child = os.fork()
    if child == 0:
        try:
            exec(code, {"scope": scope})
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert directory.is_dir()
    assert reaper_of(scope.run_id)


@pytest.mark.parametrize("name", ["../x", "a b", "-x", "x" * 101, "ä"])
def test_run_id_is_fit_for_a_file_name_and_a_label(name: str) -> None:
    with pytest.raises(ValueError, match="run's id"):
        RunScope(name)


# ---- removal of directories


def test_vandalised_directory_is_removed(scope: RunScope, tmp_path: Path) -> None:
    deep = os.open(scope.directory, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("a-rather-long-name", dir_fd=deep)
        inner = os.open("a-rather-long-name", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    for name in ("b/c/d", "e"):
        (scope.directory / name).mkdir(parents=True)
    (scope.directory / "b" / "c" / "file").touch()
    for name in ("b/c", "b", "e", "."):
        (scope.directory / name).chmod(0)
    scope.close()
    assert is_empty(tmp_path)


def test_removal_does_not_follow_links(tmp_path: Path) -> None:
    kept, removed = tmp_path / "kept", tmp_path / "removed"
    kept.mkdir()
    (kept / "file").touch()
    (removed / "inner").mkdir(parents=True)
    (removed / "link").symlink_to(kept)
    (removed / "inner" / "link").symlink_to(kept)
    remove_tree(removed)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]
    (tmp_path / "link").symlink_to(kept)
    with pytest.raises(OSError, match="link"):
        remove_tree(tmp_path / "link")
    assert (kept / "file").exists()


def test_removal_of_what_is_gone_is_no_fault(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


# ---- owners


def test_owner_is_alive_until_it_ends() -> None:
    process = subprocess.Popen(["sleep", "600"])
    value = owner_of(process.pid)
    assert owner_alive(value) is True
    process.kill()
    assert until(lambda: owner_alive(value) is False)  # although nobody has waited for it
    process.wait()
    assert owner_alive(value) is False


def test_later_process_with_the_same_number_is_not_the_owner() -> None:
    host, pid, started = owner_of(os.getpid()).split(":")
    assert owner_alive(f"{host}:{pid}:{int(started) - 1}") is False


@pytest.mark.parametrize("value", ["", "1", "another:1:1", "{host}:x:1", "{host}:-1:1", "{host}:1", "{host}:1:"])
def test_owner_that_this_machine_cannot_know_is_unknown(value: str) -> None:
    host = owner_of(os.getpid()).split(":")[0]
    assert owner_alive(value.format(host=host)) is None


def test_owner_of_an_impossible_number_is_gone() -> None:
    host = owner_of(os.getpid()).split(":")[0]
    assert owner_alive(f"{host}:{2**70}:1") is False


# ---- `repo-agent sandbox`


@pytest.fixture
def gone_owner() -> str:
    process = subprocess.Popen(["sleep", "600"])
    value = owner_of(process.pid)
    process.kill()
    process.wait()
    return value


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No engine answers, and temporary files have a place of their own."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def directory_of(owner_value: str, place: Path, expires_in_s: float = DAY_S) -> Path:
    directory = place / f"{LABEL}-{uuid.uuid4().hex}"
    directory.mkdir()
    write_mark(directory, Mark(f"run-{directory.name[-4:]}", owner_value, int(time.time() + expires_in_s)))
    return directory


def test_prune_removes_what_has_no_owner_any_more(no_engine: Path, gone_owner: str) -> None:
    alive, gone, elsewhere = (directory_of(each, no_engine) for each in (owner_of(os.getpid()), gone_owner, ELSEWHERE))
    old_alive, old_elsewhere = (directory_of(each, no_engine, -1) for each in (owner_of(os.getpid()), ELSEWHERE))
    assert sandbox_cli.main(["prune"]) == 0
    assert [path.exists() for path in (alive, gone, elsewhere)] == [True, False, True]
    assert [path.exists() for path in (old_alive, old_elsewhere)] == [True, False]


def test_prune_of_a_run_removes_that_run_and_of_all_every_one(no_engine: Path) -> None:
    first, second, third = (directory_of(owner_of(os.getpid()), no_engine) for _ in range(3))
    mark = read_mark(second)
    assert mark
    assert sandbox_cli.main(["prune", "--run", mark.run]) == 0
    assert [path.exists() for path in (first, second, third)] == [True, False, True]
    assert sandbox_cli.main(["prune", "--all"]) == 0
    assert is_empty(no_engine)


def test_prune_leaves_alone_what_has_no_mark(no_engine: Path, gone_owner: str) -> None:
    (no_engine / f"{LABEL}-results").mkdir()
    (no_engine / f"{LABEL}-file").write_text("x")
    (no_engine / f"{LABEL}-broken").mkdir()
    (no_engine / f"{LABEL}-broken" / MARK).write_text("me\n")
    (no_engine / f"{LABEL}-link").symlink_to(directory_of(gone_owner, no_engine))
    (no_engine / "other").mkdir()
    write_mark(no_engine / "other", Mark("run", gone_owner, 0))
    assert sandbox_cli.main(["prune", "--all"]) == 0
    left = {"broken", "file", "link", "results"}
    assert {path.name for path in no_engine.iterdir()} == {"other", *(f"{LABEL}-{name}" for name in left)}


def test_missing_engine_is_said_in_one_line_and_is_no_failure(
    no_engine: Path, gone_owner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = directory_of(gone_owner, no_engine)
    assert sandbox_cli.main(["ps"]) == 0
    listed = capsys.readouterr()
    assert listed.err == "repo-agent: no Docker engine answers: only directories are looked for\n"
    assert f"{gone_owner.split(':')[1]} gone" in listed.out
    assert sandbox_cli.main(["prune"]) == 0
    removed, total = capsys.readouterr().out.splitlines()
    assert removed.startswith(f"removed directory {directory} of run ")
    assert total == "removed in all: container 0, volume 0, directory 1"


def test_run_and_all_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="not allowed with"):
        sandbox_cli.main(["prune", "--run", "x", "--all"])


def container(engine: docker.DockerClient, labels: dict[str, str], **changed: str) -> str:
    said = {**labels, **{f"{LABEL}.{name}": value for name, value in changed.items()}}
    return str(engine.api.create_container(IMAGE, ["sleep", "600"], labels=said)["Id"])


@pytest.fixture
def items(scope: RunScope, engine: docker.DockerClient, gone_owner: str) -> Callable[[], dict[str, Leftover]]:
    """What is there of containers with all kinds of owners, by a name for each."""
    labels, past = scope.labels(), str(int(time.time()) - 1)
    made = {
        "alive": container(engine, labels),
        "gone": container(engine, labels, owner=gone_owner),
        "elsewhere": container(engine, labels, owner=ELSEWHERE),
        "elsewhere, expired": container(engine, labels, owner=ELSEWHERE, expires=past),
        "alive, expired": container(engine, labels, expires=past),
        "unlabelled": container(engine, {f"{LABEL}.run": scope.run_id}),
    }

    def left() -> dict[str, Leftover]:
        found = {item.id: item for item in leftovers.find(engine, scope.run_id)}
        return {name: found[made_id] for name, made_id in made.items() if made_id in found}

    return left


@pytest.mark.docker
def test_containers_are_judged_by_owner_and_expiry(items: Callable[[], dict[str, Leftover]]) -> None:
    abandoned = {name: item.abandoned for name, item in items().items()}
    assert abandoned == {
        "alive": False,
        "gone": True,
        "elsewhere": False,
        "elsewhere, expired": True,
        "alive, expired": False,
        "unlabelled": False,
    }


@pytest.mark.docker
def test_ps_shows_and_prune_removes_containers(
    items: Callable[[], dict[str, Leftover]], scope: RunScope, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sandbox_cli.main(["ps"]) == 0
    table = capsys.readouterr().out
    assert all(item.id[:12] in table for item in items().values())
    assert f"{os.getpid()} alive" in table
    assert "1 elsewhere" in table
    assert sandbox_cli.main(["prune"]) == 0
    assert items().keys() == {"alive", "elsewhere", "alive, expired", "unlabelled"}
    assert sandbox_cli.main(["prune", "--run", scope.run_id]) == 0
    assert not items()


@pytest.mark.docker
def test_containers_without_the_label_of_a_run_are_not_found(
    engine: docker.DockerClient, scope: RunScope, run_id: str
) -> None:
    mine = container(engine, scope.labels())
    of_an_image = container(engine, {LABEL: "image", f"{LABEL}.run": ""})
    try:
        assert [item.id for item in leftovers.find(engine, run_id)] == [mine]
        assert of_an_image not in [item.id for item in leftovers.find(engine)]
    finally:
        engine.api.remove_container(of_an_image)
