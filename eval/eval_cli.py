"""`repo-agent eval`: a policy on a suite, tests in a sandbox, traces and a report on disk."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from eval.metrics import RolloutMetrics
from eval.report import make_report, print_report
from eval.run import REPORT_FILE, RUN_FILE, Run, RunConfig, RunOutcome, claim_directory
from harness.budget import Budget
from harness.cli import Parser, add_sandbox_flags, add_suite_flags, amount, at_least
from harness.errors import UsageError
from harness.policies.litellm_policy import ServiceSettings
from harness.policies.sources import load_source
from harness.policy import PolicyInfo, PolicySource
from harness.progress import progress_view
from harness.records import StopReason, Task, TestPolicy
from harness.redaction import Redactor
from harness.trace_store import TRACES, TraceStore
from harness.versions import versions
from sandboxes.base import Isolation, SandboxBackend
from sandboxes.choose import open_backend
from sandboxes.verdict_cache import CachedBackend, verdict_directory
from suites.base import Suite, load
from suites.fetch import mirror_directory

EXIT_STOPPED, EXIT_INTERRUPTED = 3, 130


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent eval", description="Evaluate a policy on a suite.")
    made.add_argument("--suite", default="minibugs", help="suite name or suite file (default: minibugs)")
    made.add_argument("--limit", type=at_least(1), help="only the first N tasks")
    add_suite_flags(made)
    _policy_flags(made)
    made.add_argument(
        "--test-policy",
        choices=[str(item) for item in TestPolicy],
        default="on_write",
        help="when tests run: after each write and at the end (default), at the end only, or never (no score)",
    )
    made.add_argument("--max-iters", type=at_least(1), help="steps per rollout (default: 30; 700 for search)")
    made.add_argument("--rollouts", type=at_least(1), default=1, help="rollouts per task (default: 1)")
    made.add_argument("--stop-on-loop", action="store_true", help="end a rollout when a loop is detected")
    made.add_argument("--seed", type=at_least(0), default=0, help="seed of the run (default: 0)")
    add_sandbox_flags(made)
    made.add_argument(
        "--no-verdict-cache", action="store_true", help="test again what was tested before (replay always does)"
    )
    made.add_argument("--trace-dir", type=Path, help="run directory (default: a new one under runs/)")
    made.add_argument("--report", type=Path, help="where the report goes (default: report.json in the run directory)")
    return made


def _policy_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--llm-provider", default="search", help="search, reference, noop, replay, or a provider of litellm"
    )
    made.add_argument("--model", default="", help="the model's name at the provider; for replay, a run directory")
    made.add_argument("--api-base", default="", help="address of an OpenAI-compatible server")
    made.add_argument("--temperature", type=amount, default=0.0, help="of sampling (default: 0)")
    made.add_argument("--max-tokens", type=at_least(1), default=4096, help="tokens per completion (default: 4096)")
    made.add_argument("--tool-protocol", choices=["json"], default="json", help="how the agent calls tools")
    made.add_argument("--max-cost", type=amount, help="US dollars for the whole run")
    made.add_argument("--max-total-tokens", type=at_least(1), help="tokens for the whole run")
    made.add_argument("--request-timeout", type=amount, default=120.0, help="seconds per model call (default: 120)")
    made.add_argument("--attempts", type=at_least(1), default=5, help="tries per model call (default: 5)")


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 0, 3 where infrastructure stopped the run, 130 after an interruption."""
    args = parser().parse_args(argv)
    suite = load(args.suite, mirror_directory(args.mirror))
    tasks = list(suite.tasks())[: args.limit]
    budget = Budget(args.max_cost, args.max_total_tokens)
    settings = ServiceSettings(args.api_base, args.request_timeout, args.attempts)
    source = load_source(args.llm_provider, args.model, settings, budget, suite.reference)
    isolation = Isolation(args.isolation)
    backend, notices = open_backend(args.sandbox, args.base_image, source.info.trusted, isolation, args.num_workers)
    if _uses_cache(args):
        backend = CachedBackend(backend, verdict_directory())
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _evaluate(args, suite, tasks, source, backend, budget, notices)
    finally:
        backend.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _uses_cache(args: argparse.Namespace) -> bool:
    return not args.no_verdict_cache and args.llm_provider != "replay"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """The first interruption ends the run; others are not heard, so that what was done is still reported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    print("repo-agent: interrupted: ending the rollouts under way", file=sys.stderr)
    raise KeyboardInterrupt


def _evaluate(
    args: argparse.Namespace,
    suite: Suite,
    tasks: list[Task],
    source: PolicySource,
    backend: SandboxBackend,
    budget: Budget,
    notices: list[str],
) -> int:
    config = _config(args, suite, tasks, source.info, backend)
    directory = args.trace_dir or _new_directory(config)
    sandbox: dict[str, str | bool] = {"name": backend.name, "isolation": backend.isolation, **vars(backend.promises)}
    sandbox |= backend.about
    code = versions()
    about: dict[str, object] = {"sandbox": sandbox, "versions": code, "notices": notices}
    about["verdict_cache"] = _uses_cache(args)
    about["started"] = datetime.now(UTC).isoformat(timespec="seconds")
    jobs = [(task, index) for index in range(config.rollouts) for task in tasks]
    for task, index in jobs:
        source.policy(task, index)  # whatever it lacks is said before the run
    where = _writable(args.report, directory) if args.report else directory / REPORT_FILE
    claim_directory(directory, config, about)
    for line in (f"{len(jobs)} rollouts of {config.policy} on {suite.name}, sandbox {backend.name}", *notices):
        print(f"repo-agent: {line}", file=sys.stderr)
    began = time.monotonic()
    with TraceStore(directory) as store, progress_view(len(jobs)) as progress:
        run = Run(config, suite, source, backend, store, budget, lambda m: progress.done(_line(m), bool(m.solved)))
        outcome = run.play(jobs, args.num_workers)
    report = make_report(config, outcome, code, sandbox, _uses_cache(args), notices, time.monotonic() - began)
    where.write_text(Redactor()(report.model_dump_json(indent=2)) + "\n", encoding="utf-8")
    print_report(report, Console(width=None if sys.stdout.isatty() else 140))
    print(f"report: {where}\ntraces: {directory}")
    return _exit_code(outcome)


def _config(
    args: argparse.Namespace, suite: Suite, tasks: list[Task], info: PolicyInfo, backend: SandboxBackend
) -> RunConfig:
    return RunConfig(
        suite=suite.name,
        suite_version=suite.version,
        tasks=tuple(task.id for task in tasks),
        policy=info.name,
        model=info.model,
        oracle=info.oracle,
        test_policy=TestPolicy(args.test_policy),
        tool_protocol=args.tool_protocol,
        sandbox=backend.name,
        isolation=backend.isolation,
        max_iters=args.max_iters or info.default_max_iters,
        rollouts=args.rollouts,
        seed=args.seed,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        stop_on_loop=args.stop_on_loop,
    )


def _new_directory(config: RunConfig) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{config.suite}-{config.policy}"
    names = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
    return next(path for path in (Path("runs") / name for name in names) if not path.exists())


def _writable(path: Path, directory: Path) -> Path:
    """The path, once it is sure that a report can be written there: better now than after the run."""
    if path.resolve() in ((directory / RUN_FILE).resolve(), (directory / TRACES).resolve()):
        raise UsageError(f"--report {path} would overwrite the run's own file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise UsageError(f"cannot write report {path}: {error.strerror}") from error
    return path


def _line(metrics: RolloutMetrics) -> str:
    verdict = {True: "solved", False: "not solved", None: "no score"}[metrics.solved]
    said = f": {Redactor()(metrics.error)}" if metrics.error else ""
    return f"{metrics.rollout} {verdict}, {metrics.steps} steps, {metrics.seconds:.1f} s{said}"


def _exit_code(outcome: RunOutcome) -> int:
    if outcome.interrupted:
        return EXIT_INTERRUPTED
    nothing_worked = bool(outcome.rollouts) and all(rollout.stop is StopReason.ERROR for rollout in outcome.rollouts)
    return EXIT_STOPPED if outcome.stopped or nothing_worked else 0
