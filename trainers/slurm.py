"""Jobs for Slurm: a stage of the GSM8K pipeline as a batch script, or as a line for `srun`.

A script holds names of environment variables, never their values: Slurm takes these at submission, and passes over
names that are not set. `man sbatch` has the directives.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

STAGES = ("traces", "sft", "grpo", "exit")
GRACE_S = 120
"""How long before the end of its time a job is interrupted: a training then writes a checkpoint, and can be resumed."""
_PASSED = re.compile(
    r"(REPO_AGENT|GSM8K|HF|HUGGINGFACE|VLLM|NCCL|PYTORCH|TORCH|OMP|TOKENIZERS|TRANSFORMERS|XDG_CACHE)_\w+|\w+_API_KEY"
    r"|PATH|PYTHONPATH|HOME|USER|LANG|LD_LIBRARY_PATH|((https?|no)_proxy)|(HTTPS?|NO)_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE",
    re.ASCII,
)
_TIME = re.compile(r"\d+|\d+:\d{1,2}(:\d{1,2})?|\d+-\d{1,2}(:\d{1,2}){0,2}", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Job:
    """What to run, and on what. One node: `gpus` of it."""

    stage: str
    arguments: tuple[str, ...]
    """Of `repo-agent gsm8k STAGE`."""
    directory: Path
    """Absolute: where the job runs."""
    gpus: int = 1
    cpus: int = 8
    partition: str = ""
    time: str = ""

    @property
    def name(self) -> str:
        return f"gsm8k-{self.stage}"

    @property
    def command(self) -> list[str]:
        """With this Python: the nodes must see its environment. For several GPUs one process each."""
        entry = ["-m", "repo_agent", "gsm8k", self.stage, *self.arguments]
        if self.gpus < 2:
            return [sys.executable, *entry]
        return [sys.executable, "-m", "accelerate.commands.launch", *self._processes(), *entry]

    def _processes(self) -> list[str]:
        """All that accelerate's own configuration file, if there is one, would decide."""
        processes = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(self.gpus)]
        return [*processes, "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]

    @property
    def resources(self) -> list[str]:
        """As `sbatch` and `srun` take them."""
        found = [f"--job-name={self.name}", "--nodes=1", "--ntasks=1", f"--cpus-per-task={self.cpus}"]
        found += [f"--gpus-per-node={self.gpus}"] if self.gpus else []
        found += [f"--partition={self.partition}"] if self.partition else []
        return found + ([f"--time={self.time}"] if self.time else [])


def batch_script(job: Job, log: str, variables: Sequence[str]) -> str:
    """The file for `sbatch`.

    Args:
        log: where the output goes, with Slurm's patterns (%j is the job's number).
        variables: names of those that the job gets.
    """
    directives = [*job.resources, f"--output={_directive(log)}", f"--export={','.join(variables)}"]
    if job.time:
        directives.append(f"--signal=B:INT@{GRACE_S}")
    lines = ["#!/bin/bash", *(f"#SBATCH {each}" for each in directives), "set -euo pipefail"]
    return "\n".join([*lines, f"cd {shlex.quote(str(job.directory))}", f"exec {shlex.join(job.command)}"]) + "\n"


def _directive(value: str) -> str:
    """Quoted as `sbatch` reads it, which is not quite how a shell does."""
    if re.search(r"['\"\\\n\r]", value):
        raise UsageError(f"--log {value!r}: quotes, backslashes and line ends cannot be in a log's path")
    return shlex.quote(value)


def interactive_line(job: Job) -> str:
    """The `srun` line; the job gets the environment of whoever runs it."""
    return shlex.join(["srun", *job.resources, f"--chdir={job.directory}", "--pty", *job.command])


def passed_variables(environ: Mapping[str, str], settings: Iterable[str], named: Iterable[str]) -> list[str]:
    """The names of variables for a job: those that are set and that program and libraries read, and those `named`.

    Raises:
        UsageError: a named one is no name, or not set.
    """
    settings = set(settings)
    for name in named:
        if not _NAME.fullmatch(name):
            raise UsageError(f"--env {name.partition('=')[0]}: a name only; its value is taken at submission")
        if name not in environ:
            raise UsageError(f"--env {name}: it is not set")
    known = {name for name in environ if name in settings or _PASSED.fullmatch(name)}
    return sorted(known | set(named))


def log_path(given: str, job: Job) -> str:
    """An absolute path. Raises UsageError where its directory is missing: Slurm would run the job without a log."""
    here = str(job.directory).replace("%", "%%")
    path = given if given.startswith("/") else f"{here}/{given or f'slurm-{job.name}-%j.log'}"
    folder = Path(path.replace("%%", "%")).parent
    if not folder.is_dir():
        raise UsageError(f"--log {given}: no directory {folder}, and Slurm would make none")
    return path


def check_resources(job: Job) -> None:
    """Raises UsageError for what Slurm would not understand."""
    if job.partition and not re.fullmatch(r"[\w.,-]+", job.partition, re.ASCII):
        raise UsageError(f"--partition {job.partition!r} is no name of a partition")
    if job.time and not _TIME.fullmatch(job.time):
        raise UsageError(f"--time {job.time!r}: minutes, hours:minutes:seconds or days-hours:minutes")


def submit(script: str) -> str:
    """Hand it to `sbatch`; what that says.

    Raises:
        UsageError: there is no `sbatch`, or it refuses.
    """
    try:
        done = subprocess.run(["sbatch"], input=script, capture_output=True, text=True)
    except FileNotFoundError:
        raise UsageError("there is no sbatch on this machine: without --submit the script is printed") from None
    if done.returncode:
        raise UsageError(f"sbatch refused the job: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout.strip()
