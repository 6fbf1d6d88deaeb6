"""`--backend together` of the train command: the flags, the question about the price, and what is printed."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from harness.cli import amount
from harness.errors import InfrastructureError, UsageError
from harness.model_files import RESULT_FILE
from harness.redaction import Redactor
from harness.run_files import now
from harness.versions import versions
from trainers.service_files import DataFile, Method, checked_file, row_lengths
from trainers.service_jobs import COMPLETED, JobDirectory, JobRecord, ServiceJob
from trainers.together_service import CallSettings, Estimate, JobRequest, Terms, TogetherService
from trainers.train_settings import LOCAL_DEFAULTS

BACKENDS = ("local", "together")
MAX_SUFFIX = 40
SERVICE_ONLY = ("watch", "yes", "from_job", "poll_seconds", "service_url")
"""Names of the flags that mean nothing to a local training; without them each is None or False."""
LOCAL_ONLY = tuple(LOCAL_DEFAULTS)
"""Names of the train command's flags that mean nothing to a service."""
_POLL_S = 10.0
_HELD_OUT = "eval/suites/quixbugs_test_suite.json"
_RESUMED_BY = ("method", "model", "from_checkpoint")
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_JOB = re.compile(r"[\w./-]{1,200}(:\d+)?", re.ASCII)


def add_service_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training at a service")
    group.add_argument("--backend", choices=BACKENDS, default="local", help="who trains (default: %(default)s)")
    group.add_argument("--watch", action="store_true", help="follow the job until it has ended")
    group.add_argument("--yes", action="store_true", help="start the job without asking about its price")
    group.add_argument(
        "--from-job", metavar="ID", help="`train dpo`: go on from the model of this job, or from its step with ID:STEP"
    )
    group.add_argument(
        "--poll-seconds",
        type=amount,
        help=f"pause between two looks at the job; no attempt of a failed call waits longer (default: {_POLL_S:g})",
    )
    group.add_argument("--service-url", metavar="URL", help="address of the service's API (default: the package's)")


def run_service_job(method: Method, args: argparse.Namespace) -> int:
    """Have a file trained on: 0, also where the question was answered with no; 1: the job failed; 3: the service did;
    130: interrupted. A job that was begun goes on without us in the last two cases.

    Raises:
        UsageError: bad input, or a request that the service refuses.
    """
    request = request_of(method, args)
    directory = JobDirectory(_directory(method, args))
    command = _follow_command(method, args, directory.path)
    with directory.claimed():
        try:
            return _run(request, args, directory, command)
        except KeyboardInterrupt:
            return _stopped("interrupted", directory, command, 130)
        except InfrastructureError as error:
            return _stopped(str(error), directory, command, 3)


def request_of(method: Method, args: argparse.Namespace) -> JobRequest:
    """What the flags ask for. Raises UsageError for what no job can be asked."""
    _check_start(method, args)
    _check_steps(args)
    _check_lora(args)
    return JobRequest(
        method=method,
        model=args.model or None,
        n_epochs=int(args.epochs),
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        lora=None if args.from_job else args.lora,
        lora_r=args.lora_r,
        lora_alpha=None if args.lora_alpha is None else int(args.lora_alpha),
        suffix=_suffix(args.suffix),
        random_seed=args.seed,
        dpo_beta=args.beta if method == "dpo" else None,
        from_checkpoint=args.from_job or None,
    )


def _check_start(method: Method, args: argparse.Namespace) -> None:
    if method == "sft" and args.from_job:
        raise UsageError("--from-job is for `train dpo`: it goes on from the model of a job")
    if args.from_job and not _JOB.fullmatch(args.from_job):
        raise UsageError(f"--from-job {args.from_job!r} is no id of a job")
    if args.from_job and args.model:
        raise UsageError("--from-job trains that job's model on: leave --model out")
    if not args.from_job and not args.model:
        raise UsageError("--model is missing: the service's name of the model to train")


def _check_steps(args: argparse.Namespace) -> None:
    if args.epochs != int(args.epochs) or args.epochs < 1:
        raise UsageError(f"--epochs {args.epochs:g}: the service trains for a whole number of epochs, from 1 on")
    if not args.learning_rate > 0:
        raise UsageError(f"--learning-rate must be more than 0, not {args.learning_rate:g}")


def _check_lora(args: argparse.Namespace) -> None:
    shaped = args.lora_r is not None or args.lora_alpha is not None
    if args.from_job and (shaped or not args.lora):
        raise UsageError("--from-job trains what that job trained: leave --lora-r, --lora-alpha and --no-lora out")
    if shaped and not args.lora:
        raise UsageError("--lora-r and --lora-alpha mean nothing with --no-lora")
    if args.lora_alpha is not None and args.lora_alpha != int(args.lora_alpha):
        raise UsageError(f"--lora-alpha {args.lora_alpha:g}: the service takes whole numbers")


def _suffix(suffix: str | None) -> str | None:
    if not suffix:
        return None
    if len(suffix) > MAX_SUFFIX:
        raise UsageError(f"--suffix has {len(suffix)} characters: the service takes {MAX_SUFFIX} at most")
    if not _SUFFIX.fullmatch(suffix):
        raise UsageError(f"--suffix {suffix!r}: letters, digits, '.', '_' and '-' only, the first a letter or digit")
    return suffix


def _directory(method: Method, args: argparse.Namespace) -> Path:
    if args.output_dir is not None:
        return Path(args.output_dir)
    if args.resume:
        raise UsageError("--resume needs --output-dir, the run to continue")
    return Path("runs") / f"train-{datetime.now(UTC):%Y%m%d-%H%M%S}-{method}-together"


def _run(request: JobRequest, args: argparse.Namespace, directory: JobDirectory, command: str) -> int:
    there = directory.record()
    _refuse_other_use(there, request, args, directory)
    if there is not None and args.resume:
        request = there.request
    poll_s = _POLL_S if args.poll_seconds is None else args.poll_seconds
    made = there is not None and there.job is not None
    if not made:
        _refuse_silence(args)
    data = there.data if there is not None and made else checked_file(args.dataset, request.method)
    with TogetherService(CallSettings(base_url=args.service_url or "", max_wait_s=poll_s)) as service:
        terms = None if made else service.terms(request)
        job = ServiceJob(service, directory, _record(there, request, data, service.url), _say, poll_s)
        if terms is not None and not _begun(job, terms, args):
            return 0
        if not (args.watch or args.resume):
            _say(f"job {job.record.job} is on its way; follow it with:\n  {command}")
            return 0
        return _ended(job.watch(), directory)


def _refuse_other_use(
    there: JobRecord | None, request: JobRequest, args: argparse.Namespace, directory: JobDirectory
) -> None:
    """A directory is for one job. --resume goes on with the recorded request, which must be of the same model."""
    if there is None:
        if args.resume:
            raise UsageError(f"--resume: {directory.path} holds no job")
        return
    if not args.resume and (there.job is not None or there.stood_before is not None):
        raise UsageError(f"{directory.path} holds a job: say --resume to go on with it, or choose another directory")
    ours, theirs = request.model_dump(), there.request.model_dump()
    different = [name for name in _RESUMED_BY if ours[name] != theirs[name]] if args.resume else []
    if different:
        said = "; ".join(f"{name}: {theirs[name]} there, {ours[name]} here" for name in different)
        raise UsageError(f"{directory.path} holds a job of another request ({said})")


def _record(there: JobRecord | None, request: JobRequest, data: DataFile, url: str) -> JobRecord:
    """The record to go on with: the one that is there, or a new one with the upload of the one that is there."""
    if there is not None and there.service != url:
        raise UsageError(f"the directory holds a job of {there.service}, not of {url}")
    if there is None or there.job is None:
        fresh = JobRecord(service=url, request=request, data=data, created=now(), versions=_versions())
        if there is None:
            return fresh
        same = there.data.sha256 == data.sha256
        if there.stood_before is not None and not same:
            raise UsageError(f"{data.path} is not the file of the job that was begun: it has changed since")
        return fresh.model_copy(update={"upload": there.upload if same else None, "stood_before": there.stood_before})
    return there


def _versions() -> dict[str, str]:
    return {**versions(), "together": version("together")}


def _refuse_silence(args: argparse.Namespace) -> None:
    if not args.yes and not (sys.stdin is not None and sys.stdin.isatty()):
        raise UsageError("a job costs money: say --yes to start it where no terminal can be asked")


def _begun(job: ServiceJob, terms: Terms, args: argparse.Namespace) -> bool:
    """Upload, estimate, ask, create; whether there is a job now."""
    data = job.record.data
    lengths = row_lengths(Path(data.path))
    _say(f"{data.path}: {data.rows} rows, about {lengths.total:,} tokens an epoch (characters / 4)")
    if longer := lengths.over(terms.max_tokens):
        _say(f"WARNING: about {longer} rows are longer than the {terms.max_tokens:,} tokens that the service trains on")
    if job.record.upload is None:
        _say(f"uploading it to {job.record.service}: the price is estimated from the file there")
    file = job.upload()
    _say(_price_line(job.estimate(terms)))
    if not args.yes and not _confirmed():
        _say(f"not started; the file stays at the service as {file}")
        return False
    job.create()
    return True


def _price_line(estimate: Estimate | None) -> str:
    if estimate is None or estimate.price_usd is None:
        return "price: the service gives no estimate for this job"
    tokens = f" for {estimate.train_tokens:,} tokens" if estimate.train_tokens is not None else ""
    short = "; WARNING: the account's balance does not cover it" if estimate.allowed is False else ""
    return f"price: about ${estimate.price_usd:,.2f}{tokens}, as the service estimates{short}"


def _confirmed() -> bool:
    try:
        return input("start it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _ended(record: JobRecord, directory: JobDirectory) -> int:
    if record.status != COMPLETED:
        return _complain(f"job {record.job} ended with {record.status}: {record.failure}", 1)
    _say(f"model: {record.model}\nresult: {directory.path / RESULT_FILE}\nevaluate it with:")
    _say(f"  repo-agent eval --llm-provider together --model {shlex.quote(record.model or '')} --suite {_HELD_OUT}")
    return 0


def _stopped(why: str, directory: JobDirectory, command: str, code: int) -> int:
    """What stands where we stop before the end, and how to go on."""
    record = directory.record()
    if record is None:
        return _complain(why, code)
    if record.job is not None:
        return _complain(f"{why}; job {record.job} goes on at the service, follow it with: {command}", code)
    asked = "it is not known whether there is a job" if record.stood_before is not None else "there is no job yet"
    return _complain(f"{why}; {asked}, go on with: {command}", code)


def _follow_command(method: Method, args: argparse.Namespace, directory: Path) -> str:
    words: Sequence[object] = ["repo-agent", "train", method, "--backend", "together", "--dataset", args.dataset]
    start = ["--from-job", args.from_job] if args.from_job else ["--model", args.model]
    place = ["--service-url", args.service_url] if args.service_url else []
    return shlex.join(map(str, [*words, *start, *place, "--output-dir", directory, "--resume"]))


def _say(line: str) -> None:
    print(Redactor()(line), flush=True)


def _complain(line: str, code: int) -> int:
    print(f"repo-agent: error: {Redactor()(line)}", file=sys.stderr, flush=True)
    return code
