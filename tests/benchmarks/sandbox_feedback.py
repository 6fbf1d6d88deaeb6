"""Test runs inside one rollout against `docker exec … pytest`: `python tests/benchmarks/sandbox_feedback.py`.

Ours are steps of the environment, each a write and the run of tests that follows it; medians of interleaved
repetitions on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path

from harness.records import Completion, TestPolicy
from sandboxes.base import Isolation
from sandboxes.choose import open_backend
from suites.base import Suite, load
from tools.protocol import call_text

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.sandbox_engine import Job, cli_container, cli_tests, host_trees, jobs_of

TASK = "gcd"


def feedback_rate(isolation: Isolation, suite: Suite, job: Job, runs: int) -> float:
    """Steps per second of one rollout, each of them a write and the run of tests that follows it."""
    backend, _ = open_backend("docker", isolation=isolation, workers=1)
    with closing(backend), suite.environment(job.task, backend, TestPolicy.ON_WRITE) as environment:
        for number in range(runs + 1):
            if number == 1:  # the sandbox is open now
                started = time.perf_counter()
            content = f"{job.content}\n# {number}\n"
            text = call_text("write_file", rel_path=job.path, content=content)
            report = environment.step(Completion(text=text)).report
            assert report is not None and report.passed and not report.cached
    return runs / (time.perf_counter() - started)


def exec_rate(job: Job, runs: int) -> float:
    """Runs per second of a cold pytest in one container."""
    with host_trees([job]) as root, cli_container(root / job.task.id) as container:
        (root / job.task.id / job.path).write_text(job.content)
        for number in range(runs + 1):
            if number == 1:
                started = time.perf_counter()
            assert cli_tests(container, job) == 0
        return runs / (time.perf_counter() - started)


def feedback(repeat: int, runs: int) -> None:
    suite = load("quixbugs")
    job = next(job for job in jobs_of(suite, broken=False) if job.task.id == TASK)
    rates: dict[str, list[float]] = {"docker exec": [], **{f"isolation {each}": [] for each in Isolation}}
    for _ in range(repeat):
        rates["docker exec"].append(exec_rate(job, runs))
        for isolation in Isolation:
            rates[f"isolation {isolation}"].append(feedback_rate(isolation, suite, job, runs))
    print(f"test runs of {job.task.id} inside one rollout; medians of {repeat} times {runs}")
    for name, of in rates.items():
        rate = statistics.median(of)
        print(f"{name:<24}{rate:>8.2f} runs/s{rate / statistics.median(rates['docker exec']):>8.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description="test runs a second inside one rollout; see the module's docstring")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--runs", type=int, default=30, help="test runs a repetition")
    args = parser.parse_args()
    feedback(args.repeat, args.runs)


if __name__ == "__main__":
    main()
