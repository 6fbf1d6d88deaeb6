"""Hostile programs that reach for the host, for privileges, for the runner, for other tasks and for the verdict: each
is refused, and the next run is as it would have been.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from sandboxes.base import Command, Isolation, Limits, PytestRun, Resources
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.pool import Pool
from sandboxes.run_scope import LABEL
from sandboxes.workspace import MappingTree, Workspace
from tests import hostile_escapes as escapes
from tests.conftest import RUN_ID, containers
from tests.hostile_arena import BACKENDS, GROUND, KINDS, SECRET, SMALL, Arena, arena_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=KINDS)
def shared_arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    with arena_of(request) as arena:
        yield arena


@pytest.fixture
def arena(shared_arena: Arena) -> Arena:
    shared_arena.ready()
    return shared_arena


# ---- reaching out


def test_no_network_but_an_empty_loopback(arena: Arena) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        addresses = ("127.0.0.1", "172.17.0.1", "10.0.2.2", own_address())
        result = arena.run(escapes.NETWORK, str(server.getsockname()[1]), *addresses)
    said = json.loads(result.output)
    assert said["worked"] == {}
    assert {"dns", "vsock", "raw", "packet", "new address", "connect 127.0.0.1"} <= set(said["refused"])
    arena.assert_unaffected()


def own_address() -> str:
    """An address of this machine on its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def test_files_of_the_host_are_out_of_reach(arena: Arena, tmp_path: Path) -> None:
    """Asked for by name, through other processes, and by every path that the table of mounts names."""
    (tmp_path / "secret").write_text(SECRET)
    refused = arena.refusals(escapes.HOST_FILES, str(tmp_path / "secret"), str(Path(__file__).parents[1]))
    assert len(refused) > 20
    arena.assert_unaffected()


def test_environment_of_the_host_is_nowhere(arena: Arena) -> None:
    assert os.environ["REPO_AGENT_TEST_SECRET"] == SECRET
    assert "REPO_AGENT" not in arena.run(escapes.ENVIRONMENTS).output
    arena.assert_unaffected()


# ---- becoming more


@pytest.mark.parametrize("forked", [False, True], ids=["program", "test"])
def test_run_has_no_privileges_and_no_descriptor_but_its_own(arena: Arena, forked: bool) -> None:
    test = escapes.AS_A_TEST.replace("PROGRAM", repr(escapes.IDENTITY))
    result = arena.run_test(test) if forked else arena.run(escapes.IDENTITY)
    found = json.loads(result.output.partition("\n")[0])
    assert found.pop("groups") in ([], ["65534"])  # what bubblewrap cannot give up
    (user,) = found.pop("users")
    assert int(user) >= 20000 if arena.kind == "docker-run-users" else user == "65534"
    open_files = [name for name in found.pop("descriptors") if not name.startswith("/tmp/")]  # as pytest has them
    assert [name.partition(":")[0] for name in open_files] == ["/dev/null", "pipe"] + ["pipe"] * forked
    nothing = {"capabilities": [0, 0, 0, 0], "no new privileges": "1", "filtered": "2", "root": False}
    assert found == nothing
    arena.assert_unaffected()


def test_nobody_becomes_root(arena: Arena) -> None:
    arena.refusals(escapes.BECOMING_ROOT)
    arena.assert_unaffected()


def test_no_namespaces_and_no_mounts_can_be_made(arena: Arena) -> None:
    arena.refusals(escapes.ESCAPES)
    arena.assert_unaffected()


def test_kernel_is_asked_in_vain(arena: Arena) -> None:
    """Keys, programs in the kernel, its log, modules, device nodes: all that reaches beyond a process."""
    arena.refusals(escapes.KERNEL)
    arena.assert_unaffected()


def test_settings_of_the_machine_cannot_be_opened(arena: Arena) -> None:
    program = escapes.PROC.replace("SEPARATE", str(arena.backend.promises.separate_user))
    assert len(arena.refusals(program)) > 500
    arena.assert_unaffected()


def test_clocks_cannot_be_set_and_a_locale_is_ones_own(arena: Arena) -> None:
    arena.refusals(escapes.CLOCKS)
    arena.assert_unaffected()


def test_runner_cannot_be_signalled(arena: Arena) -> None:
    program = escapes.ON_THE_RUNNER.replace("SEPARATE", str(arena.backend.promises.separate_user))
    if arena.is_docker:
        arena.refusals(program)
    else:
        assert arena.run(program).exit_code == 0  # it has our user: signals to the first process have no effect
    arena.assert_unaffected()


def test_runner_cannot_be_looked_into(arena: Arena) -> None:
    arena.refusals(escapes.INTO_THE_RUNNER)
    arena.assert_unaffected()


def test_runner_cannot_be_looked_into_by_its_fork(arena: Arena) -> None:
    result = arena.run_test(escapes.AS_A_TEST.replace("PROGRAM", repr(escapes.INTO_THE_RUNNER)))
    assert json.loads(result.output.partition("\n")[0])["worked"] == {}
    arena.assert_unaffected()


# ---- forging


def test_forged_frames_are_output(arena: Arena) -> None:
    result = arena.run(escapes.FRAMES)
    assert (result.exit_code, set(result.hit), result.records) == (3, set(), ())
    assert '"output": "forged"' in result.output
    arena.assert_unaffected()


def test_forged_records_break_no_reply_and_pass_no_test(arena: Arena) -> None:
    result = arena.run_test(escapes.FORGED_RECORDS, scoring=True)
    assert result.tampered or result.canaries_missing
    assert all(record.id.encode() is not None and 0 <= record.seconds < 1e7 for record in result.records)
    assert len(result.records) < 20
    arena.assert_unaffected()


def test_run_that_will_not_end_does_not_return_into_the_runner(arena: Arena) -> None:
    result = arena.run_test(escapes.RETURNS_INTO_THE_RUNNER, limits=Limits(wall_s=2))
    assert [record.outcome for record in result.records] in (["passed"], [])
    arena.assert_unaffected()


# ---- other tasks, other rollouts


def task_with(word: str) -> Workspace:
    """A tree whose base, edits, failures and names all hold the word."""
    test = f"def test_it():\n    print('{word}')\n    assert '{word}' == 'x'\n"
    base = MappingTree({"tests/test_it.py": test.encode(), f"docs/{word}.txt": word.encode()})
    return Workspace(base).write("fix.py", f"# {word}\n".encode() * 50)


def run_beside(arena: Arena, other: Workspace) -> None:
    """Where runs of different tasks share a sandbox, in that one; else in one beside it, with the same store."""
    if arena.backend.isolation is Isolation.RUN:
        assert arena.sandbox.run(other, Command(PytestRun())).records[0].outcome == "failed"
        return
    with arena.backend.open(SMALL) as beside:
        assert beside.run(other, Command(PytestRun())).records[0].outcome == "failed"


@pytest.mark.slow
def test_tree_of_another_task_is_in_no_file(arena: Arena) -> None:
    word = uuid.uuid4().hex
    run_beside(arena, task_with(word))
    assert arena.run(escapes.FIND_WORD, word[:16], word[16:]).output == "[] True\n"
    arena.assert_unaffected()


@pytest.mark.slow
def test_edits_of_another_rollout_are_not_in_the_memory_of_a_fork(arena: Arena, request: pytest.FixtureRequest) -> None:
    if arena.kind == "docker-run-users":
        why = "the runner itself reads the requests, and every run under pytest is a copy of it"
        request.applymarker(pytest.mark.xfail(reason=why, strict=True))
    word = uuid.uuid4().hex
    run_beside(arena, task_with(word))
    texts = [word] + [base64.b64encode(b"-" * shift + word.encode())[4:-4].decode() for shift in range(3)]
    patterns = [f"[{text[0]}]{text[1:]}"[::-1] for text in texts]  # nor can its own source be taken for the word
    result = arena.run_test(escapes.SCAN_MEMORY.replace("PATTERNS", repr(patterns)))
    assert [record.outcome for record in result.records] == ["passed"], result.records[0].message
    arena.assert_unaffected()


# ---- when there is a doubt


@pytest.fixture(params=["docker-run", "docker-run-users"])
def sharing_backend(request: pytest.FixtureRequest, docker_backend: DockerBackend) -> Iterator[DockerBackend]:
    backend = BACKENDS[request.param](f"{RUN_ID}-{uuid.uuid4().hex[:8]}")
    assert isinstance(backend, DockerBackend)
    yield backend
    backend.close()


@pytest.mark.slow
@pytest.mark.docker
def test_doubted_container_is_retired_and_the_pool_goes_on(sharing_backend: DockerBackend) -> None:
    """A process and a file of root's that are none of the run's: what a run that broke out could leave."""
    pool = Pool(sharing_backend, workers=1)
    with pool.open(Resources()) as lease:

        def hello() -> set[str]:
            before = set(containers(sharing_backend.run_id))
            assert lease.run(GROUND, Command(("echo", "hello"))).output == "hello\n"
            return before

        hello()
        (first,) = hello()
        escaped = ["sh", "-c", "touch /tmp/left; exec sleep 1000"]
        subprocess.run(["docker", "exec", "-d", "-u", "0", first, *escaped], check=True, timeout=60)
        time.sleep(0.5)
        hello()
        hello()
        assert first not in hello()
    pool.close()


# ---- images that are not ours


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.parametrize("isolation", list(Isolation))
def test_health_check_of_an_image_is_not_run_beside_the_target(
    docker_backend: DockerBackend, isolation: Isolation
) -> None:
    """It would be a process of root's that may look at what a target has written."""
    client = docker.from_env()
    name, tag = "repo-agent-test-health", f"{RUN_ID}-{isolation}"
    made = client.containers.create(docker_backend.about["image"], ["true"], labels={f"{LABEL}.run": RUN_ID})
    backend = DockerBackend(isolation=isolation)
    try:
        made.commit(name, tag, changes=["HEALTHCHECK --interval=0.1s CMD sleep 10"])
        with backend.open(Resources(), f"{name}:{tag}") as sandbox:
            code = "import os, time; time.sleep(1.5); print(sum(map(str.isdigit, os.listdir('/proc'))))"
            assert sandbox.run(GROUND, Command(("python3", "-c", code))).output == "2\n"
            assert not sandbox.doubt
    finally:
        backend.close()
        made.remove(force=True)
        client.images.remove(f"{name}:{tag}", force=True)
        client.close()


@pytest.mark.docker
@pytest.mark.skipif(os.getuid() != 0, reason="who is not root tests this with every other test")
def test_trees_of_a_user_that_is_not_root_are_as_any_other(docker_backend: DockerBackend) -> None:
    """Overlays keep a file's owner: a run can add files beside it all the same, and edits can replace it."""
    backend = DockerBackend(isolation=Isolation.RUN)
    try:
        backend._store.put(GROUND.base)
        for folder, _, names in os.walk(backend._store.place):
            for path in [folder, *(os.path.join(folder, name) for name in names)]:
                os.lchown(path, 1000, 1000)
        with backend.open(Resources()) as sandbox:
            code = "open('pkg/new', 'w'); print(open('pkg/value.py').read(), flush=True); open('pkg/value.py', 'a')"
            for tree, text in ((GROUND.write("pkg/value.py", b"edited"), "edited"), (GROUND, "VALUE = 'true'\n")):
                result = sandbox.run(tree, Command(("python3", "-c", code)))
                assert result.output.startswith(text)
                assert "PermissionError" in result.output.splitlines()[-1]
    finally:
        backend.close()
