"""What the commands that play rollouts share: their flags, and everything that a run needs, opened and closed."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from harness.budget import Budget
from harness.cli import add_sandbox_flags, add_suite_flags, amount, at_least
from harness.errors import UsageError
from harness.model_files import files_sha256, find_model
from harness.policies.litellm_policy import ServiceSettings
from harness.policies.sources import DTYPES, LocalSettings, load_source
from harness.policy import PolicyInfo, PolicySource
from harness.records import StopReason, Task, TestPolicy, Trace
from harness.run import Job, RunOutcome
from harness.run_files import NOTHING_TO_RESUME, Origin, RunConfig, claim_directory, now
from harness.trace_reader import TraceLog
from harness.trace_store import TRACES
from harness.versions import versions
from sandboxes.base import Isolation, SandboxBackend, SandboxUnavailable
from sandboxes.no_sandbox import NONE
from sandboxes.verdict_cache import CachedBackend, verdict_directory
from suites.base import Suite, load
from suites.fetch import mirror_directory
from suites.opening import open_for, prepared, runs_code
from suites.origin import origin_of

EXIT_STOPPED, EXIT_INTERRUPTED = 3, 130


def add_run_flags(made: argparse.ArgumentParser, sweeps: bool = False) -> None:
    """Args: sweeps: --model may be given several times, and is a list."""
    made.set_defaults(command=made.prog.rpartition(" ")[2])
    made.add_argument("--suite", default="minibugs", help="suite name or suite file (default: %(default)s)")
    made.add_argument("--limit", type=at_least(1), help="only the first N tasks")
    add_suite_flags(made)
    _add_policy_flags(made, sweeps)
    made.add_argument(
        "--test-policy",
        choices=[str(item) for item in TestPolicy],
        default="on_write",
        help="when tests run: after each write and at the end (default), at the end only, or never (no score)",
    )
    made.add_argument("--max-iters", type=at_least(1), help="steps per rollout (default: 30; 700 for search)")
    made.add_argument("--rollouts", type=at_least(1), default=1, help="rollouts per task (default: %(default)s)")
    made.add_argument("--stop-on-loop", action="store_true", help="end a rollout when a loop is detected")
    made.add_argument("--seed", type=at_least(0), default=0, help="seed of the run (default: %(default)s)")
    add_sandbox_flags(made)
    made.add_argument(
        "--no-verdict-cache", action="store_true", help="test again what was tested before (replay always does)"
    )
    made.add_argument("--trace-dir", type=Path, help="run directory (default: a new one under runs/)")
    made.add_argument("--resume", action="store_true", help="continue the run that --trace-dir holds")


def _add_policy_flags(made: argparse.ArgumentParser, sweeps: bool) -> None:
    made.add_argument(
        "--llm-provider",
        default="search",
        help="search, reference, noop, replay, a local model by hf or vllm, or a provider of litellm",
    )
    model = "the model's name at the provider; for hf and vllm, a directory or hub name; for replay, a run directory"
    if sweeps:
        made.add_argument("--model", action="append", default=[], help=f"{model}; several make a sweep")
    else:
        made.add_argument("--model", default="", help=model)
    made.add_argument("--api-base", default="", help="address of an OpenAI-compatible server")
    made.add_argument("--temperature", type=amount, default=0.0, help="of sampling (default: %(default)s)")
    made.add_argument("--max-tokens", type=at_least(1), default=4096, help="per completion (default: %(default)s)")
    made.add_argument("--tool-protocol", choices=["json"], default="json", help="how the agent calls tools")
    made.add_argument("--max-cost", type=amount, help="US dollars for the whole run")
    made.add_argument("--max-total-tokens", type=at_least(1), help="tokens for the whole run")
    made.add_argument("--request-timeout", type=amount, default=120.0, help="seconds a model call (%(default)s)")
    made.add_argument("--attempts", type=at_least(1), default=5, help="tries per model call (default: %(default)s)")
    _add_local_flags(made)


def _add_local_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("--device", default="", help="hf: where the model runs (default: cuda if there is one, else cpu)")
    made.add_argument("--dtype", choices=DTYPES, default="", help="hf, vllm: format of numbers (default: the device's)")
    made.add_argument("--hf-batch-size", type=at_least(1), help="hf: rollouts in one batch (default: --num-workers)")
    made.add_argument("--max-context", type=at_least(1), help="hf, vllm: conversation's tokens (default: the model's)")
    made.add_argument("--constrain", choices=["json"], default="", help="vllm: sample messages of the protocol only")
    made.add_argument("--fallback", choices=["hf"], default="", help="vllm: what speaks where vLLM cannot run")
    made.add_argument(
        "--engine-arg",
        type=_engine_arg,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="vllm: an argument of its engine",
    )


def _engine_arg(text: str) -> tuple[str, object]:
    """A value is read as JSON; what is no JSON is a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def local_settings(args: argparse.Namespace) -> LocalSettings:
    return LocalSettings(
        args.device,
        args.dtype,
        args.hf_batch_size,
        args.max_context,
        args.constrain,
        args.fallback,
        dict(args.engine_arg),
        args.num_workers,
    )


def local_extra(local: LocalSettings) -> dict[str, str | int | float]:
    """What of it decides results, where it is set."""
    engine_args = json.dumps(dict(local.engine_args), sort_keys=True) if local.engine_args else ""
    found: dict[str, str | int | float] = {
        "dtype": local.dtype,
        "max_context": local.max_context or 0,
        "constrain": local.constrain,
        "fallback": local.fallback,
        "engine_args": engine_args,
    }
    return {name: value for name, value in found.items() if value}


def model_extra(info: PolicyInfo) -> dict[str, str | int | float]:
    """Which model a directory held: a run is not continued with another one."""
    found = files_sha256(find_model(info.model)) if info.engine else None
    return {"model_sha256": found} if found else {}


@dataclass(frozen=True)
class Stage:
    """Everything that a run needs."""

    suite: Suite
    tasks: list[Task]
    playable: list[Task]
    """Those of them that this machine can play."""
    source: PolicySource
    backend: SandboxBackend
    budget: Budget
    notices: list[str]
    config: RunConfig
    uses_cache: bool
    origin: Origin | None = None

    @property
    def sandbox(self) -> dict[str, str | bool]:
        """The backend, what its runs share and what it promises."""
        backend = self.backend
        return {"name": backend.name, "isolation": backend.isolation, **vars(backend.promises), **backend.about}

    @property
    def versions(self) -> dict[str, str]:
        """Of the code, and what ran a local model."""
        engine = self.source.info.engine
        return versions() | ({"engine": engine} if engine else {})

    def new_directory(self) -> Path:
        """A run directory under `runs/` that is not there yet."""
        return _new_directory(self.config)

    def claim(self, directory: Path, resume: bool) -> bool:
        """Make the run directory, or take up the run in it; whether one was taken up. Raises UsageError."""
        about: dict[str, object] = {"sandbox": self.sandbox, "versions": self.versions, "notices": self.notices}
        about["verdict_cache"] = self.uses_cache
        about |= {"origin": self.origin.model_dump(mode="json")} if self.origin else {}
        about["started"] = now()
        return claim_directory(directory, self.config, about, resume)

    def jobs(self) -> list[Job]:
        return [Job(task, index) for index in range(self.config.rollouts) for task in self.playable]


def left_to_do(
    stage: Stage, directory: Path, jobs: Sequence[Job], on_finished: Callable[[Trace], None] = lambda trace: None
) -> list[Job]:
    """The jobs of a run that is taken up which are not over; those that had begun go on where they were.

    What its stored calls cost counts against the budget too; what a smaller budget cut off goes on. `on_finished` is
    told of each rollout that is over.
    """
    if not (directory / TRACES).exists():  # it was killed before its first
        return list(jobs)
    over = set()
    with TraceLog(directory) as log:
        for trace in log:
            for completion in [*(step.completion for step in trace.steps[trace.shared :]), trace.pending]:
                if completion:
                    stage.budget.add(completion)
        for trace in log:
            if trace.finished and (trace.stop is not StopReason.BUDGET or stage.budget.spent):
                over.add(trace.header.rollout)
                on_finished(trace)
        left = [job for job in jobs if job.rollout not in over]
        return [replace(job, taken_up=log.trace(job.rollout)) if job.rollout in log else job for job in left]


def resume_notices(asked: bool, resumed: bool, done: int, torn_bytes: int) -> list[str]:
    lines = [f"resumed: {done} rollouts were done before"] if resumed else []
    lines += [NOTHING_TO_RESUME] if asked and not resumed else []
    return lines + ([f"the log ended in a torn line of {torn_bytes} bytes, which was cut off"] if torn_bytes else [])


@contextmanager
def stage(
    args: argparse.Namespace,
    wanted: Callable[[Suite, Task], bool] = lambda suite, task: True,
    **extra: str | int | float,
) -> Iterator[Stage]:
    """Open what the flags ask for, and close it at the end; until then an interruption ends the run in order.

    Args:
        wanted: which tasks of the suite are played.
        extra: settings of the command that decide the results too.
    """
    suite = load(args.suite, mirror_directory(args.mirror))
    tasks = [task for task in suite.tasks() if wanted(suite, task)][: args.limit]
    _check_policy(args, suite, tasks)
    budget = Budget(args.max_cost, args.max_total_tokens)
    settings, local = ServiceSettings(args.api_base, args.request_timeout, args.attempts), local_settings(args)
    with closing(load_source(args.llm_provider, args.model, settings, budget, suite.reference, local)) as source:
        playable, left_out = prepared(suite, tasks, args.num_workers)
        if not playable and left_out:
            raise SandboxUnavailable(f"no task can be played: {left_out[0]}")
        backend, notices = _opened(args, playable, source.info.trusted)
        notices = [*source.info.notices, *left_out, *notices]
        with in_order(backend):
            settled = extra | local_extra(local) | model_extra(source.info)
            config = _config(args, suite, tasks, source.info, backend, settled)
            uses_cache = isinstance(backend, CachedBackend)
            origin = origin_of(args, suite, playable, backend)
            yield Stage(suite, tasks, playable, source, backend, budget, notices, config, uses_cache, origin)


def _check_policy(args: argparse.Namespace, suite: Suite, tasks: Sequence[Task]) -> None:
    """Raises UsageError for what repairs repositories, where the tasks are questions."""
    if not tasks or any(map(runs_code, tasks)):
        return
    if args.llm_provider in ("search", "reference"):
        raise UsageError(
            f"--llm-provider {args.llm_provider} repairs code, and {suite.name} holds questions: choose a model's"
        )
    if args.constrain:
        raise UsageError(f"--constrain {args.constrain} leaves no answers to the questions of {suite.name}")


def _opened(args: argparse.Namespace, tasks: Sequence[Task], trusted: bool) -> tuple[SandboxBackend, list[str]]:
    """The backend that the flags ask for, and what is to be announced about it."""
    isolation = Isolation(args.isolation)
    backend, notices = open_for(tasks, args.sandbox, args.base_image, trusted, isolation, args.num_workers)
    if args.no_verdict_cache or args.llm_provider == "replay" or backend.name == NONE:
        return backend, notices
    return CachedBackend(backend, verdict_directory()), notices


@contextmanager
def in_order(backend: SandboxBackend) -> Iterator[None]:
    """Close the backend at the end; until then an interruption ends the run in order."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        backend.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """The first interruption ends the run; others are not heard, so that what was done is still reported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    print("repo-agent: interrupted: ending the rollouts under way", file=sys.stderr)
    raise KeyboardInterrupt


def _config(
    args: argparse.Namespace,
    suite: Suite,
    tasks: list[Task],
    info: PolicyInfo,
    backend: SandboxBackend,
    extra: dict[str, str | int | float],
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
        extra=extra,
    )


def _new_directory(config: RunConfig) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = re.sub(r"[^\w.-]", "_", f"{stamp}-{config.suite}-{config.policy}")
    names = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
    return next(path for path in (Path("runs") / name for name in names) if not path.exists())


def exit_code(outcome: RunOutcome) -> int:
    """0, 3 where infrastructure stopped the run or spoilt all of it, 130 after an interruption."""
    if outcome.interrupted:
        return EXIT_INTERRUPTED
    nothing_worked = outcome.played > 0 and outcome.failed == outcome.played
    return EXIT_STOPPED if outcome.stopped or nothing_worked else 0
