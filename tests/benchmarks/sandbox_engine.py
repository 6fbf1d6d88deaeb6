"""What isolation costs, on the same work in one run: `python tests/benchmarks/sandbox_engine.py`.

The work: QuixBugs without levenshtein, 39 tasks of four scripted actions (list, read, write the reference, run the
tests). Each arm does it in a fresh process with a cold pool and no cache, and asserts every verdict:

    container  this engine, a container per rollout and another for its score, two workers
    run        this engine, containers that serve many rollouts, each run walled off, two workers
    cli        per task `docker run`, four `docker exec` with a cold pytest, `docker rm`, two workers
    shell      not isolated: one container, one shell, a cold pytest per task, one worker
    mini       mini-swe-agent's Docker environment, one per task (`pip install repo-agent[bench]`), two workers

Medians of interleaved repetitions: wall time from process start to exit, and the CPU time of the whole machine (the
engine included) from there until the arm's last container is gone. Use an otherwise idle machine. Before anything is
measured, every arm has to see a broken program fail.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from typing import Self

from harness.policies.scripted import ScriptedPolicy
from harness.records import Completion, Message, Sampling, Step, StopReason, Task, TestPolicy
from harness.rollout import RolloutEnded, RolloutLimits, rollout
from sandboxes.base import Isolation, SandboxBackend
from sandboxes.choose import open_backend
from sandboxes.run_scope import LABEL, RunScope, owner_of
from suites.base import Suite, load
from tools.protocol import call_text, final_text

IMAGE = os.environ.get("REPO_AGENT_BASE_IMAGE", "repo-agent-base:py311")
"""Has to hold Python and pytest."""
WORKERS, LEFT_OUT, BROKEN_TASK = 2, "levenshtein", "is_valid_parenthesization"
PYTEST = ("python3", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider")
LIST = ("find", ".", "-type", "f")
END, SCRATCH = "END-OF-ACTION", "repo-agent-benchmark"


@dataclass(frozen=True)
class Job:
    """One task and what is written to its program."""

    task: Task
    path: str
    content: str

    @property
    def before(self) -> str:
        return self.task.tree.read(self.path).decode()

    @property
    def pytest(self) -> tuple[str, ...]:
        return (*PYTEST, *self.task.test_args)

    def passed(self, listing: str, text: str, code: int) -> bool:
        """The verdict of the last action, if the first two gave what they should."""
        assert self.path in listing, listing
        assert text.splitlines() == self.before.splitlines(), text
        assert code in (0, 1), f"{self.task.id}: pytest ended with {code}"
        return code == 0


def jobs_of(suite: Suite, broken: bool) -> list[Job]:
    """All repairs; or one task whose program is written back as it was, but for a comment."""
    jobs = []
    for task in suite.tasks():
        reference = suite.reference(task)
        assert reference is not None
        path = next(iter(reference.edits))
        content = task.tree.read(path).decode() + "\n# as it was\n" if broken else reference.read(path).decode()
        jobs.append(Job(task, path, content))
    return [job for job in jobs if (job.task.id == BROKEN_TASK if broken else job.task.id != LEFT_OUT)]


class Nothing:
    """A recorder that keeps nothing."""

    def start(self, prompt: tuple[Message, ...]) -> None: ...
    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None: ...
    def outcome(self, step: Step) -> None: ...
    def done(self, stop: StopReason) -> None: ...
    def end(self, end: RolloutEnded) -> None: ...


def engine(isolation: Isolation) -> Callable[[Suite, Sequence[Job]], list[bool]]:
    """An arm of this engine: the harness's own rollouts."""

    def arm(suite: Suite, jobs: Sequence[Job]) -> list[bool]:
        backend, _ = open_backend("docker", isolation=isolation, workers=WORKERS)
        with closing(backend), ThreadPoolExecutor(WORKERS) as pool:
            backend.prepare(jobs[0].task.resources, jobs[0].task.image, len(jobs))
            return list(pool.map(lambda job: played(suite, job, backend), jobs))

    return arm


def played(suite: Suite, job: Job, backend: SandboxBackend) -> bool:
    write = call_text("write_file", rel_path=job.path, content=job.content)
    policy = ScriptedPolicy(
        (call_text("list_files"), call_text("read_file", rel_path=job.path), write, final_text("written"))
    )
    with suite.environment(job.task, backend, TestPolicy.FINAL) as environment:
        ended = rollout(policy, environment, RolloutLimits(len(policy.texts)), Sampling(), Nothing())
    assert ended.score.value is not None, ended.score.why
    return ended.score.value == 1.0


@contextmanager
def host_trees(jobs: Sequence[Job]) -> Iterator[Path]:
    """A directory that holds each task's tree under the task's id."""
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}-{os.getpid()}-") as folder:
        for job in jobs:
            for path in job.task.tree.paths:
                target = Path(folder, job.task.id, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(job.task.tree.file(path).content)
        yield Path(folder)


def run_options(tree: Path) -> list[str]:
    """No network, as this engine has none; the tree mounted, which is the cheapest way in."""
    labels = [f"--label={name}={value}" for name, value in RunScope().labels("benchmark").items()]
    return ["--network", "none", "-v", f"{tree}:/tree", *labels]


def docker(*args: str, stdin: str | None = None) -> str:
    return subprocess.run(
        ["docker", *args], input=stdin, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    ).stdout


@contextmanager
def cli_container(tree: Path) -> Iterator[str]:
    container = docker("run", "-d", *run_options(tree), "-w", "/tree", IMAGE, "sleep", "600").strip()
    try:
        yield container
    finally:
        docker("rm", "-f", container)


def cli_tests(container: str, job: Job) -> int:
    return subprocess.run(["docker", "exec", container, *job.pytest], stdout=subprocess.DEVNULL, timeout=120).returncode


def cli_task(tree: Path, job: Job) -> bool:
    with cli_container(tree) as container:
        listing = docker("exec", container, *LIST)
        text = docker("exec", container, "cat", job.path)
        docker("exec", "-i", container, "sh", "-c", 'cat > "$0"', job.path, stdin=job.content)
        return job.passed(listing, text, cli_tests(container, job))


def cli(suite: Suite, jobs: Sequence[Job]) -> list[bool]:
    with host_trees(jobs) as root, ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda job: cli_task(root / job.task.id, job), jobs))


class Shell:
    """One shell as the process of one container; it ends with its standard input."""

    def __init__(self, root: Path) -> None:
        command = ["docker", "run", "-i", "--rm", *run_options(root), IMAGE, "sh"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, script: str) -> tuple[str, int]:
        """The script's output and exit code."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{script}\nprintf '\\n{END} %d\\n' $?\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.startswith(END):
                return "".join(lines)[:-1], int(line.split()[1])
            lines.append(line)
        raise RuntimeError("the shell has ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def heredoc(job: Job) -> str:
    """A shell command that writes the content, which ends in a newline."""
    return f"cat > {job.path} <<'{END}'\n{job.content.rstrip()}\n{END}"


def shell_task(shell: Shell, job: Job) -> bool:
    listing, _ = shell.run(f"cd /tree/{job.task.id} && {shlex.join(LIST)}")
    text, _ = shell.run(f"cat {job.path}")
    shell.run(heredoc(job))
    return job.passed(listing, text, shell.run(f"{shlex.join(job.pytest)} </dev/null")[1])


def shell(suite: Suite, jobs: Sequence[Job]) -> list[bool]:
    with host_trees(jobs) as root, Shell(root) as opened:
        return [shell_task(opened, job) for job in jobs]


def mini_task(tree: Path, job: Job) -> bool:
    from minisweagent.environments.docker import DockerEnvironment

    # its `docker stop` waits ten seconds for a sleep that ignores SIGTERM, and its login shell reads profiles
    args = ["--rm", *run_options(tree), "--stop-signal", "KILL"]
    environment = DockerEnvironment(
        image=IMAGE, cwd="/tree", run_args=args, interpreter=["sh", "-c"], timeout=120, logger=getLogger("quiet")
    )
    try:
        listing = environment.execute({"command": shlex.join(LIST)})["output"]
        text = environment.execute({"command": f"cat {job.path}"})["output"]
        environment.execute({"command": heredoc(job)})
        return job.passed(listing, text, environment.execute({"command": shlex.join(job.pytest)})["returncode"])
    finally:
        environment.cleanup()
        environment.container_id = None  # or its __del__ does it again


def mini(suite: Suite, jobs: Sequence[Job]) -> list[bool]:
    with host_trees(jobs) as root, ThreadPoolExecutor(WORKERS) as pool:
        os.environ |= {"MSWEA_SILENT_STARTUP": "1", "MSWEA_GLOBAL_CONFIG_DIR": str(root / ".config")}
        return list(pool.map(lambda job: mini_task(root / job.task.id, job), jobs))


ARMS: dict[str, Callable[[Suite, Sequence[Job]], list[bool]]] = {
    "container": engine(Isolation.CONTAINER),
    "run": engine(Isolation.RUN),
    "cli": cli,
    "shell": shell,
    "mini": mini,
}


def play(arm: str, broken: bool) -> None:
    """The whole of one arm's process."""
    suite = load("quixbugs")
    jobs = jobs_of(suite, broken)
    assert len(jobs) == (1 if broken else 39)
    verdicts = ARMS[arm](suite, jobs)
    wrong = [job.task.id for job, passed in zip(jobs, verdicts, strict=True) if passed is broken]
    assert not wrong, f"wrong verdicts: {wrong}"


@dataclass(frozen=True)
class Cost:
    """What one arm's process took: seconds, and CPU seconds of the whole machine."""

    wall_s: float
    cpu_s: float


def machine_cpu_s() -> float:
    """CPU seconds of all processes since the machine's start, idle, waiting and stolen time left out."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def left(owner: str) -> list[str]:
    """The containers of an arm's process."""
    return docker("ps", "-aq", "--filter", f"label={LABEL}.owner={owner}").split()


def cpu_s_when_gone(owner: str, patience_s: float) -> float:
    """The machine's CPU time once the arm has no container; after a while they are removed, and the benchmark ends."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        cpu_s = machine_cpu_s()
        if not left(owner):
            return cpu_s
        time.sleep(0.2)
    containers = left(owner)
    subprocess.run(["docker", "rm", "-f", *containers], stdout=subprocess.DEVNULL)
    raise SystemExit(f"an arm left {len(containers)} containers behind; they were removed")


def measured(arm: str, *options: str) -> Cost:
    """Run one arm in a process of its own."""
    before, started = machine_cpu_s(), time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, "--arm", arm, *options])
    owner = owner_of(process.pid)
    try:
        process.wait(timeout=600)
        wall_s = time.perf_counter() - started
    finally:
        process.kill()
        code = process.wait()
        for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}-{process.pid}-*"):  # of an arm that was killed
            shutil.rmtree(folder)
        cpu_s = cpu_s_when_gone(owner, patience_s=2 if code else 30) - before
    if code:
        raise SystemExit(f"arm {arm} failed")
    return Cost(wall_s, cpu_s)


def cpus_in_use() -> float:
    """CPU seconds a second of whatever else runs."""
    before = machine_cpu_s()
    time.sleep(3)
    return (machine_cpu_s() - before) / 3


def compare(arms: Sequence[str], repeat: int) -> None:
    print(f"before the start {cpus_in_use():.2f} CPUs are in use", flush=True)
    for arm in arms:
        measured(arm, "--broken")  # it also warms the disk's cache
    costs: dict[str, list[Cost]] = {arm: [] for arm in arms}
    for _ in range(repeat):
        for arm in arms:
            costs[arm].append(measured(arm))
    medians = {
        arm: Cost(statistics.median(each.wall_s for each in of), statistics.median(each.cpu_s for each in of))
        for arm, of in costs.items()
    }
    print(f"39 QuixBugs tasks, four actions each; medians of {repeat} repetitions (least to most)")
    print(f"{'arm':<10}{'wall':>9}{'':>16}{'CPU':>10}{'':>16}{'wall / cli':>12}{'CPU / cli':>11}{'shell / wall':>14}")
    for arm, of in costs.items():
        print(f"{arm:<10}{row(medians[arm], of)}{ratios(medians[arm], medians.get('cli'), medians.get('shell'))}")


def row(median: Cost, of: Sequence[Cost]) -> str:
    wall, cpu = sorted(each.wall_s for each in of), sorted(each.cpu_s for each in of)
    return (
        f"{median.wall_s:>7.2f} s{f'({wall[0]:.2f} to {wall[-1]:.2f})':>16}"
        f"{median.cpu_s:>8.2f} s{f'({cpu[0]:.2f} to {cpu[-1]:.2f})':>16}"
    )


def ratios(cost: Cost, cli: Cost | None, shell: Cost | None) -> str:
    against = f"{cost.wall_s / cli.wall_s:>12.3f}{cost.cpu_s / cli.cpu_s:>11.3f}" if cli else f"{'':>23}"
    return against + (f"{shell.wall_s / cost.wall_s:>13.2f}x" if shell else "")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="what isolation costs; see the module's docstring")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="the arms to compare")
    parser.add_argument("--arm", choices=ARMS, help="be one arm's process")
    parser.add_argument("--broken", action="store_true", help="with --arm: one task, whose program stays broken")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    if args.arm:
        return play(args.arm, args.broken)
    arms = [arm for arm in args.arms if arm != "mini" or find_spec("minisweagent")]
    if arms != args.arms:
        print("mini-swe-agent is not installed: its arm is left out")
    return compare(arms, args.repeat)


if __name__ == "__main__":
    main()
