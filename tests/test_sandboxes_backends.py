"""What every backend promises, tried with code that behaves badly."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from sandboxes.base import (
    Command,
    ExecResult,
    Limits,
    PytestRun,
    Resources,
    Sandbox,
    SandboxBackend,
    SandboxError,
    SandboxUnavailable,
)
from sandboxes.bubblewrap_sandbox import BubblewrapBackend
from sandboxes.choose import NO_BOUNDARY, open_backend
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.guest_sandbox import ENVIRONMENT
from sandboxes.local_sandbox import LocalBackend
from sandboxes.run_scope import LABEL
from sandboxes.workspace import File, MappingTree, Mode, Workspace
from tests.conftest import RUN_ID, containers, gone

EMPTY, LIMITS = Workspace(MappingTree({})), Limits()
DEMO = Workspace(
    MappingTree(
        {
            "pkg/__init__.py": b"",
            "pkg/deep/data.txt": b"data\n",
            "run.sh": File(b"#!/bin/sh\necho ran\n", Mode.EXECUTABLE),
            "link": File(b"pkg/deep/data.txt", Mode.SYMLINK),
            "tests/test_one.py": b"def test_one():\n    assert True\n",
        }
    )
)
LISTING = """
import os
for folder, folders, names in os.walk("."):
    for name in names:
        path = os.path.join(folder, name)[2:]
        link = os.path.islink(path)
        content = os.readlink(path) if link else open(path).read()
        print(path, "link" if link else oct(os.stat(path).st_mode & 0o111), repr(content))
    for name in folders:
        print(os.path.join(folder, name)[2:] + "/")
"""


def sh(sandbox: Sandbox, script: str, limits: Limits = LIMITS, tree: Workspace = EMPTY) -> ExecResult:
    return sandbox.run(tree, Command(("sh", "-c", script), limits=limits))


def python(sandbox: Sandbox, code: str, limits: Limits = LIMITS, tree: Workspace = EMPTY) -> ExecResult:
    return sandbox.run(tree, Command(("python3", "-c", code), limits=limits))


def pytest_run(sandbox: Sandbox, files: Mapping[str, str], run: PytestRun, limits: Limits = LIMITS) -> ExecResult:
    tree = Workspace(MappingTree({path: text.encode() for path, text in files.items()}))
    return sandbox.run(tree, Command(run, limits=limits))


def outcomes(result: ExecResult) -> dict[str, str]:
    return {record.id.rpartition("::")[2]: record.outcome for record in result.records}


# ---- the outcome of a command


def test_exit_code_and_both_streams_come_back(sandbox: Sandbox) -> None:
    result = sh(sandbox, "echo out; echo err >&2; exit 7")
    assert (result.exit_code, result.output, result.timed_out, result.truncated) == (7, "out\nerr\n", False, False)


def test_death_by_signal_is_a_negative_exit_code(sandbox: Sandbox) -> None:
    assert sh(sandbox, "kill -TERM $$").exit_code == -signal.SIGTERM


def test_missing_program_exits_with_127_and_says_so(sandbox: Sandbox) -> None:
    result = sandbox.run(EMPTY, Command(("no-such-program",)))
    assert result.exit_code == 127
    assert "no-such-program" in result.output


def test_long_output_keeps_head_and_tail(sandbox: Sandbox) -> None:
    code = "print('HEAD'); print('x' * 1_000_000); print('TAIL')"
    result = python(sandbox, code, Limits(output_bytes=1000))
    assert result.truncated
    assert result.output.startswith("HEAD\n")
    assert result.output.endswith("TAIL\n")
    assert len(result.output) < 1100


def test_endless_output_ends_at_the_wall_limit(sandbox: Sandbox) -> None:
    result = sh(sandbox, "yes", Limits(wall_s=0.5, output_bytes=1000))
    assert result.timed_out
    assert result.truncated
    assert result.exit_code == -signal.SIGKILL


def test_output_is_unicode_and_undecodable_bytes_are_replaced(sandbox: Sandbox) -> None:
    result = sh(sandbox, r"printf 'h\303\251 \342\234\223 \377end'")
    assert result.output == "hé ✓ \ufffdend"


def test_paths_of_the_tree_are_shown_relative(sandbox: Sandbox) -> None:
    result = sh(sandbox, "pwd; echo $PWD/pkg/x.py; echo $PWD-not; echo /other$PWD/y")
    lines = result.output.splitlines()
    assert lines[:2] == ["<repository>", "pkg/x.py"]
    assert lines[2].endswith("-not")
    assert not lines[2].startswith("<repository>")
    assert lines[3].startswith("/other/")


def test_temporary_directory_has_the_same_name_everywhere(sandbox: Sandbox) -> None:
    assert python(sandbox, "import tempfile; print(tempfile.gettempdir())").output == "/tmp\n"


def test_frames_on_the_output_do_not_confuse_the_driver(sandbox: Sandbox) -> None:
    code = (
        "import os, struct\n"
        'reply = b\'{"exit_code": 0, "records": []}\'\n'
        "for fd in range(64):\n"
        "    try: os.write(fd, struct.pack('>I', len(reply)) + reply)\n"
        "    except OSError: pass\n"
        "raise SystemExit(3)\n"
    )
    result = python(sandbox, code)
    assert result.exit_code == 3
    assert '"exit_code": 0' in result.output
    assert sh(sandbox, "echo next").output == "next\n"


def test_pipelines_end_by_sigpipe_as_they_do_elsewhere(sandbox: Sandbox) -> None:
    assert sh(sandbox, "yes | head -n 1; echo done").output == "y\ndone\n"


def test_run_may_look_at_its_own_files_under_proc(sandbox: Sandbox) -> None:
    test = "import os\ndef test_it():\n    assert os.listdir('/proc/self/fd')\n    open('/dev/stdout', 'w').close()\n"
    assert outcomes(pytest_run(sandbox, {"test_it.py": test}, PytestRun())) == {"test_it": "passed"}


# ---- limits


def test_cpu_limit_ends_a_busy_loop(sandbox: Sandbox) -> None:
    result = python(sandbox, "while True: pass", Limits(cpu_s=1, wall_s=60))
    assert result.timed_out
    assert result.exit_code == -signal.SIGXCPU


@pytest.mark.slow
def test_cpu_limit_ends_a_process_that_ignores_its_signal(local_backend: LocalBackend) -> None:
    code = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    with local_backend.open(Resources()) as sandbox:
        result = python(sandbox, code, Limits(cpu_s=1, wall_s=60))
    assert (result.exit_code, result.timed_out) == (-signal.SIGKILL, True)


def test_wall_limit_ends_a_sleep(sandbox: Sandbox) -> None:
    result = sh(sandbox, "echo before; sleep 1000", Limits(wall_s=0.3))
    assert result.timed_out
    assert result.output == "before\n"


def test_file_size_limit_holds(sandbox: Sandbox) -> None:
    result = python(sandbox, "open('big', 'wb').write(b'x' * 2_000_000)", Limits(file_bytes=1_000_000))
    assert result.exit_code == 1
    assert "File too large" in result.output


@pytest.fixture(scope="module")
def small_sandbox(backend: SandboxBackend) -> Iterator[Sandbox]:
    with backend.open(Resources(memory_bytes=256 * 2**20)) as opened:
        yield opened


def test_memory_bomb_fails_alone(small_sandbox: Sandbox) -> None:
    code = "blocks = []\nwhile True: blocks.append(bytearray(b'x' * 10_000_000))"
    result = python(small_sandbox, code)
    assert result.exit_code == -signal.SIGKILL or "MemoryError" in result.output
    assert not result.timed_out
    assert sh(small_sandbox, "echo next").output == "next\n"


def test_memory_bomb_inside_pytest_leaves_the_runner_alive(small_sandbox: Sandbox) -> None:
    test = "def test_bomb():\n    blocks = []\n    while True: blocks.append(bytearray(b'x' * 10_000_000))\n"
    result = pytest_run(small_sandbox, {"test_it.py": test}, PytestRun())
    assert outcomes(result).get("test_bomb") != "passed"
    assert sh(small_sandbox, "echo next").output == "next\n"


@pytest.mark.docker
def test_fork_bomb_is_contained_and_the_sandbox_still_works(docker_backend: DockerBackend) -> None:
    code = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    with docker_backend.open(Resources(pids=64)) as sandbox:
        assert python(sandbox, code, Limits(wall_s=1.5)).timed_out
        assert sh(sandbox, "ls /proc | grep -c '^[0-9]'").output.strip() in ("3", "4")  # runner, sh, ls, grep


# ---- pytest


SLOW_TESTS = """
import time

def test_before():
    pass

def test_busy():
    while True:
        pass

def test_sleep():
    time.sleep(1000)

def test_swallows_exceptions():
    while True:
        try:
            while True:
                pass
        except Exception:
            pass

def test_after():
    pass
"""
UNENDING = """
def test_before():
    pass

def test_swallows_everything():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass

def test_after():
    pass
"""


def test_test_over_its_limits_fails_and_the_others_run(sandbox: Sandbox) -> None:
    result = pytest_run(sandbox, {"test_slow.py": SLOW_TESTS}, PytestRun(test_cpu_s=0.2, test_wall_s=0.4))
    assert outcomes(result) == {
        "test_before": "passed",
        "test_busy": "failed",
        "test_sleep": "failed",
        "test_swallows_exceptions": "failed",
        "test_after": "passed",
    }
    messages = {record.id.rpartition("::")[2]: record.message for record in result.records}
    assert all(
        "over the limit of" in messages[name] for name in ("test_busy", "test_sleep", "test_swallows_exceptions")
    )


def test_test_that_swallows_everything_ends_with_the_run(local_backend: LocalBackend) -> None:
    run = PytestRun(test_cpu_s=0.1, test_wall_s=10)
    with local_backend.open(Resources()) as sandbox:
        result = pytest_run(sandbox, {"test_slow.py": UNENDING}, run, Limits(cpu_s=1, wall_s=60))
    assert result.timed_out
    assert outcomes(result) == {"test_before": "passed"}


KINDS = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError("no fixture")

def test_passes(): pass
def test_fails(): assert 1 == 2
def test_errors(broken): pass
def test_skips(): pytest.skip("why")
@pytest.mark.xfail
def test_xfails(): assert False
@pytest.mark.xfail
def test_xpasses(): pass
"""


def test_each_test_is_reported_with_its_outcome(sandbox: Sandbox) -> None:
    result = pytest_run(
        sandbox, {"test_kinds.py": KINDS, "test_broken.py": "import nothing_of_that_name\n"}, PytestRun()
    )
    assert outcomes(result)["test_broken.py"] == "error"
    alone = pytest_run(sandbox, {"test_kinds.py": KINDS}, PytestRun())
    assert [record.outcome for record in alone.records] == [
        "passed",
        "failed",
        "error",
        "skipped",
        "xfailed",
        "xpassed",
    ]


def test_records_hold_neither_addresses_nor_host_paths(sandbox: Sandbox) -> None:
    test = "import os\ndef test_it(tmp_path):\n    assert object() == (str(tmp_path), os.getcwd() + '/x')\n"
    message = pytest_run(sandbox, {"test_it.py": test}, PytestRun()).records[0].message
    assert "at 0x..." in message
    assert "/tmp/pytest-of-" in message
    assert "repo-agent-local" not in message


FORGED = """
import os

def test_floods_the_report():
    lines = [b"[" * 100000, b'{"id": "x"}', b'{"id": 1, "outcome": {}, "message": "\\\\ud800", "seconds": 1e999}',
             b'{"id": "x", "outcome": "passed", "message": "", "seconds": %s}' % (b"9" * 4000), b"\\xff", b""]
    for fd in range(3, 64):
        for line in lines:
            try: os.write(fd, line + b"\\n")
            except OSError: pass
    for fd in range(3, 64):
        try:
            for _ in range(4): os.write(fd, b"\\n" * 1000000)
        except OSError: pass
"""


def test_flood_of_forged_records_is_no_fault_of_the_sandbox(sandbox: Sandbox) -> None:
    result = pytest_run(sandbox, {"test_it.py": FORGED}, PytestRun(test_cpu_s=30), Limits(wall_s=60))
    assert all(record.id.encode() is not None and record.message.encode() is not None for record in result.records)
    assert len(result.records) < 10
    assert sh(sandbox, "echo next").output == "next\n"


def test_broken_streams_at_the_end_do_not_return_into_the_runner(sandbox: Sandbox) -> None:
    test = "import sys\ndef test_it():\n    pass\ndef pytest_unconfigure():\n    sys.stdout = sys.stderr = None\n"
    result = pytest_run(sandbox, {"conftest.py": test, "test_it.py": test}, PytestRun())
    assert outcomes(result) == {"test_it": "passed"}
    assert sh(sandbox, "echo next").output == "next\n"


def test_pythonpath_reaches_the_processes_that_a_test_starts(sandbox: Sandbox) -> None:
    test = """
import subprocess

def test_it():
    assert subprocess.check_output(["python3", "-c", "import lib; print(lib.x)"]) == b"5\\n"
"""
    tree = Workspace(MappingTree({"src/lib.py": b"x = 5\n", "tests/test_it.py": test.encode()}))
    result = sandbox.run(tree, Command(PytestRun(), pythonpath=("src",)))
    assert outcomes(result) == {"test_it": "passed"}, result.output


# ---- what a run leaves

DAEMON = """
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.execvp("sleep", ["sleep", "98" + "765"])
    os._exit(0)
subprocess.Popen(["sleep", "98" + "765"], start_new_session=True, close_fds=False)
"""
SLEEPERS = """
import os
found = []
for pid in os.listdir("/proc"):
    try:
        if ("98" + "765").encode() in open("/proc/%s/cmdline" % pid, "rb").read().split(b"\\0"): found.append(pid)
    except (OSError, ValueError): pass
print(len(found))
"""


def test_no_process_outlives_its_run(sandbox: Sandbox) -> None:
    alive = f"{DAEMON}\nwhile True:\n    time.sleep(0.02)\n" + "\n".join(
        f"    {line}" for line in SLEEPERS.splitlines()
    )
    assert python(sandbox, alive + "\n    if len(found) == 2: break").output.endswith("2\n")
    assert python(sandbox, SLEEPERS).output == "0\n"


VANDAL = r"""
import os
def attempt(function, *args):
    try: return function(*args)
    except OSError: pass
attempt(os.remove, "tests/test_one.py")
attempt(os.rename, "pkg", "moved")
for path in ("run.sh", "pkg/deep/data.txt", "tests/test_one.py", "moved/deep/data.txt"):
    attempt(os.chmod, path, 0)
    attempt(lambda: open(path, "w").write("overwritten"))
os.makedirs("new/read-only/inner"); open("new/read-only/inner/file", "w").close()
os.mkdir("sticky"); open("sticky/file", "w").close(); os.mkdir("sticky/folder"); os.chmod("sticky", 0o1777)
open(b"\xff\xfe odd \n name", "w").close()
os.symlink("/etc", "elsewhere"); os.symlink("nowhere", "dangling"); os.mkfifo("pipe")
os.makedirs("1/2"); open("0", "w").close()
top = os.getcwd()
for _ in range(1500):
    os.mkdir("nested-" + "x" * 40); os.chdir("nested-" + "x" * 40)
os.chdir(top)
os.chmod("new/read-only/inner", 0o500); os.chmod("new/read-only", 0o500); os.chmod("new", 0)
attempt(os.chmod, "pkg", 0); attempt(os.chmod, ".", 0)
"""


def test_tree_is_restored_after_a_run_that_vandalised_it(sandbox: Sandbox) -> None:
    before = python(sandbox, LISTING, tree=DEMO).output
    assert "run.sh 0o111" in before
    assert "link link 'pkg/deep/data.txt'" in before
    assert python(sandbox, VANDAL, tree=DEMO).exit_code == 0
    assert sorted(python(sandbox, LISTING, tree=DEMO).output.splitlines()) == sorted(before.splitlines())


def test_run_that_removes_its_own_directory_does_not_break_the_next(sandbox: Sandbox) -> None:
    python(sandbox, "import os, shutil; shutil.rmtree(os.getcwd(), ignore_errors=True)", tree=DEMO)
    assert sh(sandbox, "cat pkg/deep/data.txt", tree=DEMO).output == "data\n"


def test_temporary_files_are_gone_after_a_run(sandbox: Sandbox) -> None:
    code = "import tempfile; tempfile.mkdtemp(); open(tempfile.gettempdir() + '/x', 'w').close()"
    assert python(sandbox, code).exit_code == 0
    assert python(sandbox, "import os, tempfile; print(os.listdir(tempfile.gettempdir()))").output == "[]\n"


def test_no_place_of_a_bounded_sandbox_keeps_files_between_runs(bounded_sandbox: Sandbox) -> None:
    code = """
import os
for folder, folders, _ in os.walk("/"):
    if folder.startswith(("/proc", "/sys", "/usr", "/root")): folders[:] = []; continue
    try: open(folder + "/left-by-a-run", "w").close(); print(folder)
    except OSError: pass
"""
    wrote = python(bounded_sandbox, code).output.splitlines()
    assert {"/tmp", "/dev/shm"} <= set(wrote)
    find = r"find / \( -path /proc -o -path /sys -o -path /usr -o -path /root \) -prune -o -name left-by-a-run -print"
    assert sh(bounded_sandbox, f"{find} 2>/dev/null").output == ""


def test_edits_are_laid_over_the_base_and_removed_files_are_absent(sandbox: Sandbox) -> None:
    tree = DEMO.write("pkg/new.py", b"new").write("pkg/deep/data.txt", b"changed").remove("tests/test_one.py")
    assert sh(sandbox, "cat pkg/new.py link; ls tests 2>&1; ./run.sh", tree=tree).output.startswith("newchanged")
    assert sh(sandbox, "cat link; ls tests", tree=DEMO).output == "data\ntest_one.py\n"


def test_environment_is_exactly_the_declared_one(backend: SandboxBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_AGENT_TEST_SECRET", "from-the-host")
    monkeypatch.setenv("PYTHONPATH", "/from/the/host")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    with backend.open(Resources()) as sandbox:
        result = sandbox.run(EMPTY, Command(("python3", "-c", code), env={"DECLARED": "yes"}))
    found = json.loads(result.output)
    assert found.pop("PATH").endswith(ENVIRONMENT["PATH"])
    expected = ENVIRONMENT | {"DECLARED": "yes", "HOME": "/tmp", "TMPDIR": "/tmp", "PYTHONPATH": "<repository>"}
    expected["PYTEST_DEBUG_TEMPROOT"] = "/tmp"
    assert found == {key: value for key, value in expected.items() if key != "PATH"}


# ---- boundaries


def test_no_network_reaches_the_host(bounded_sandbox: Sandbox) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
import socket
for address in ("127.0.0.1", "172.17.0.1", "10.0.2.2", "localhost"):
    try: socket.create_connection((address, {port}), timeout=2); print("REACHED", address)
    except OSError as error: print("no")
print(sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line))
"""
        result = python(bounded_sandbox, code)
    assert result.output.splitlines() == ["no"] * 4 + ["['lo']"]


def test_host_files_are_not_visible(bounded_sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    checkout = Path(__file__).parents[1]
    code = f"""
import os
for path in ({str(tmp_path / "secret")!r}, {str(checkout)!r}, "/var/run/docker.sock", "/run/docker.sock", "/etc/shadow",
             "/root/.ssh", "/root/.cache", "/root/.bash_history"):
    try: open(path).read(); print("READ", path)
    except IsADirectoryError: print("DIRECTORY", path)
    except OSError: print("no")
"""
    assert set(python(bounded_sandbox, code).output.splitlines()) == {"no"}


def test_host_processes_are_not_visible(bounded_sandbox: Sandbox) -> None:
    code = f"import os; print({os.getpid()} in map(int, filter(str.isdigit, os.listdir('/proc'))), os.getppid())"
    assert python(bounded_sandbox, code).output == "False 1\n"


def test_bounded_code_has_no_privileges(bounded_sandbox: Sandbox) -> None:
    code = """
import os
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(os.getuid(), os.getgid(), os.getgroups() in ([], [65534]))
print([int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")], status["NoNewPrivs"])
print([line.split()[3].split(",")[0] for line in open("/proc/mounts") if line.split()[1] == "/"])
"""
    expected = "65534 65534 True\n[0, 0, 0, 0] 1\n['ro']\n"
    assert python(bounded_sandbox, code).output == expected


@pytest.mark.docker
def test_docker_target_cannot_change_the_tree_it_is_graded_by(docker_sandbox: Sandbox) -> None:
    code = """
import os
def attempt(function, *args):
    try: function(*args); print("DONE", function, args)
    except OSError: print("no")
attempt(open, "tests/test_one.py", "w")
attempt(os.remove, "tests/test_one.py")
attempt(os.rename, "tests/test_one.py", "tests/other.py")
attempt(os.rename, "tests", "moved")
attempt(os.chmod, "tests/test_one.py", 0o777)
attempt(os.chmod, "tests", 0o777)
open("tests/scratch.txt", "w").close()
"""
    result = python(docker_sandbox, code, tree=DEMO)
    assert result.output == "no\n" * 6
    assert result.exit_code == 0


PROBE_RUNNER = """
import ctypes, os
def attempt(function, *args):
    try: print("DONE", function(*args))
    except OSError: print("no")
runner = os.getppid()
attempt(os.open, "/proc/%d/fd/0" % runner, os.O_RDONLY)
attempt(os.readlink, "/proc/%d/fd/1" % runner)
attempt(open, "/proc/%d/mem" % runner, "rb")
attempt(open, "/proc/%d/environ" % runner, "rb")
attempt(os.readlink, "/proc/%d/exe" % runner)
libc = ctypes.CDLL(None, use_errno=True)
print("no" if libc.ptrace(16, runner, None, None) == -1 else "TRACED")
"""


def test_bounded_code_cannot_look_into_the_runner(bounded_sandbox: Sandbox) -> None:
    assert python(bounded_sandbox, PROBE_RUNNER).output == "no\n" * 6
    test = f"def test_it():\n    exec({PROBE_RUNNER!r}, {{}})\n    assert False\n"
    records = pytest_run(bounded_sandbox, {"test_it.py": test}, PytestRun()).records
    assert records[0].message.endswith("no\n" * 6)


def test_bounded_code_cannot_kill_the_runner(bounded_sandbox: Sandbox) -> None:
    code = """
import os, signal
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGINT):
    try: os.kill(1, number)
    except OSError: pass
"""
    python(bounded_sandbox, code)
    assert sh(bounded_sandbox, "echo next").output == "next\n"


# ---- lives and deaths of sandboxes


@pytest.mark.docker
def test_containers_carry_labels_and_are_gone_after_close(docker_backend: DockerBackend) -> None:
    before = set(containers(RUN_ID))
    with docker_backend.open(Resources()) as sandbox:
        (mine,) = set(containers(RUN_ID)) - before
        client = docker.from_env()
        labels = client.containers.get(mine).labels
        client.close()
        assert (labels[LABEL], labels[f"{LABEL}.run"]) == ("sandbox", RUN_ID)
        assert f":{os.getpid()}:" in labels[f"{LABEL}.owner"]
        assert float(labels[f"{LABEL}.expires"]) > time.time() + 3600
        assert sh(sandbox, "echo hello").output == "hello\n"
    deadline = time.monotonic() + 30
    while mine in containers(RUN_ID) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mine not in containers(RUN_ID)


OWNER = """
import sys
from sandboxes.base import Command, Resources
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.workspace import MappingTree, Workspace
backend = DockerBackend(run_id=sys.argv[1])
idle, busy = backend.open(Resources()), backend.open(Resources())
print("ready", flush=True)
busy.run(Workspace(MappingTree({})), Command(("sleep", "1000")))
"""


@pytest.mark.docker
@pytest.mark.usefixtures("docker_backend")
def test_containers_are_gone_after_their_owner_was_killed() -> None:
    run_id = f"{RUN_ID}-killed"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, run_id], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout
        assert owner.stdout.readline() == "ready\n"
        assert len(containers(run_id)) == 2
        time.sleep(0.5)  # the second one is in its run
    finally:
        owner.kill()
        owner.communicate()
    assert gone(run_id)


def in_thread(function: Callable[[], ExecResult]) -> Future[ExecResult]:
    """Like an executor's `submit`, in a thread that nothing waits for."""
    result: Future[ExecResult] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except Exception as error:  # noqa: BLE001
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result


def started(sandbox: Sandbox) -> Future[ExecResult]:
    """A run that would take long, and has begun."""
    running = in_thread(lambda: sh(sandbox, "sleep 1000"))
    time.sleep(0.5)
    assert not running.done()
    return running


def test_closing_a_sandbox_from_another_thread_ends_its_run(backend: SandboxBackend) -> None:
    with backend.open(Resources()) as sandbox:
        running = started(sandbox)
        sandbox.close()
        assert isinstance(running.exception(timeout=60), SandboxError)
        with pytest.raises(SandboxError):
            sh(sandbox, "echo again")


def children(pid: int) -> list[int]:
    """The processes that the threads of a process started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread may end while it is looked at
            found += map(int, (task / "children").read_text().split())
    return found


def test_loss_of_the_guest_during_a_run_is_a_sandbox_error(backend: SandboxBackend) -> None:
    containers_before = set(containers(RUN_ID)) if backend.name == "docker" else set()
    children_before = set(children(os.getpid()))
    with backend.open(Resources()) as sandbox:
        running = started(sandbox)
        if backend.name == "docker":
            (mine,) = set(containers(RUN_ID)) - containers_before
            subprocess.run(["docker", "kill", mine], check=True, capture_output=True)
        else:
            (guest,) = set(children(os.getpid())) - children_before
            os.kill(guest, signal.SIGKILL)
        assert isinstance(running.exception(timeout=60), SandboxError)


def test_target_that_kills_its_runner_is_a_sandbox_error_where_nothing_hinders_it(local_backend: LocalBackend) -> None:
    with local_backend.open(Resources()) as sandbox, pytest.raises(SandboxError):
        sh(sandbox, "kill -9 $PPID; sleep 1000")


def test_sandboxes_run_at_the_same_time_without_mixing(backend: SandboxBackend) -> None:
    def work(number: int) -> set[str]:
        tree = Workspace(MappingTree({"name.txt": b"tree %d" % number}))
        with backend.open(Resources()) as sandbox:
            return {sh(sandbox, "cat name.txt; ls", tree=tree).output for _ in range(3)}

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [{f"tree {number}name.txt\n"} for number in range(3)]


def test_local_sandbox_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    backend = LocalBackend()
    with backend.open(Resources()) as sandbox:
        assert list(tmp_path.iterdir())
        sh(sandbox, "mkdir -p a/b; touch a/b/c; chmod 0 a/b", tree=DEMO)
    backend.close()
    assert not list(tmp_path.iterdir())


# ---- which backend is taken


def test_automatic_choice_falls_to_bubblewrap_without_an_engine(
    bubblewrap_backend: BubblewrapBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    backend, notices = open_backend("auto")
    backend.close()
    assert backend.name == bubblewrap_backend.name
    assert notices[0].startswith("sandbox docker passed over: no Docker engine answers")


def test_automatic_choice_reaches_local_only_for_trusted_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setenv("PATH", "/nowhere")
    backend, notices = open_backend("auto", trusted=True)
    backend.close()
    assert backend.name == "local"
    assert notices[-1] == NO_BOUNDARY
    with pytest.raises(SandboxUnavailable, match="--sandbox local"):
        open_backend("auto")


def test_named_docker_without_an_engine_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(SandboxUnavailable, match="no Docker engine answers"):
        open_backend("docker")


@pytest.mark.docker
@pytest.mark.usefixtures("docker_backend")
def test_automatic_choice_passes_over_an_engine_without_an_image(
    bubblewrap_backend: BubblewrapBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, notices = open_backend("auto", base_image="127.0.0.1:9/no-such-image:none")
    backend.close()
    assert backend.name == bubblewrap_backend.name
    assert "has no image 127.0.0.1:9/no-such-image:none" in notices[0]


# ---- images

UNPYTEST = (
    "rm -rf /usr/lib/python3/dist-packages/*pytest* && "
    "python3 -m venv /v && cp -r /v/lib/python3*/site-packages/pip /usr/lib/python3/dist-packages/ && rm -rf /v"
)


@pytest.mark.slow
@pytest.mark.docker
def test_image_without_pytest_gets_a_derived_one_once(docker_backend: DockerBackend) -> None:
    base, derived = f"repo-agent-test-nopytest:{RUN_ID}", set[str]()
    client = docker.from_env()

    def made() -> set[str]:
        return {image.id for image in client.images.list("repo-agent-pytest") if image.id}

    before = made()
    container = client.containers.create(
        os.environ.get("REPO_AGENT_BASE_IMAGE", "python:3.11-slim"),
        ["sh", "-c", UNPYTEST],
        labels={f"{LABEL}.run": RUN_ID},
    )
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0, container.logs()
        container.commit("repo-agent-test-nopytest", RUN_ID)
        for _ in range(2):
            with docker_backend.open(Resources(), base) as sandbox:
                assert outcomes(pytest_run(sandbox, {"test_it.py": "def test_it(): pass"}, PytestRun())) == {
                    "test_it": "passed"
                }
        derived = made() - before
        (image,) = derived
        assert client.containers.run(image, ["ls", "-A", "/tmp"], remove=True) == b""
        found = client.images.get(image)
        attributes = json.dumps([found.attrs, found.history()])
        for word in ("PIP_", "SSL_CERT", "PROXY", "CA_BUNDLE", socket.gethostname()):
            assert word not in attributes
        again = DockerBackend(base)
        assert made() - before == derived
        again.close()
    finally:
        container.remove(force=True)
        for name in (*derived, base):
            client.images.remove(name, force=True)
        client.close()


def test_failures_name_no_file_of_the_machine(backend: SandboxBackend) -> None:
    files = {
        "t/test_a.py": b"import json\nimport broken\n",
        "t/test_b.py": b"import json\n\n\ndef test_b():\n    json.loads('{')\n",
    }
    tree = Workspace(MappingTree({**files, "broken.py": b"def f(:\n"}))
    with backend.open(Resources()) as sandbox:
        result = sandbox.run(tree, Command(PytestRun(("t",))))
        apart = sandbox.run(tree, Command(PytestRun(("t/test_b.py",))))
    messages = "\n".join(record.message for record in result.records + apart.records)
    assert "broken.py" in messages
    assert "t/test_b.py:5: in test_b" in messages
    assert "JSONDecodeError" in messages
    assert not [line for line in messages.split("\n") if line.startswith(("/", "<frozen", ".."))]


def test_temporary_files_of_tests_lie_in_the_sandbox(backend: SandboxBackend) -> None:
    code = b"def test_a(tmp_path):\n    print(tmp_path)\n    assert 0\n"
    command = Command(PytestRun(("test_a.py",)))
    with backend.open(Resources()) as sandbox:
        runs = [sandbox.run(Workspace(MappingTree({"test_a.py": code})), command) for _ in range(2)]
    assert "/tmp/pytest-of-nobody/pytest-0/test_a0" in runs[0].records[0].message
    assert runs[0].records[0].message == runs[1].records[0].message
