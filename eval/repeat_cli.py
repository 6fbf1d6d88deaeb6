"""`repo-agent repeat`: a run played again with the same settings; what differs now, and whether it came out alike."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval import eval_cli
from eval.compare import compared
from eval.compare_runs import Arm, read_runs
from eval.sweep import SWEEP_FILE
from harness.cli import Parser
from harness.errors import UsageError
from harness.progress import notice
from harness.run_files import RunConfig, read_config, read_origin, read_run_file
from suites.run_cli import Stage, stage

_SHOWN_CHARS = 40


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent repeat", description="Play a run of eval again with the same settings.")
    made.add_argument("run", type=Path, metavar="RUN", help="run directory")
    made.add_argument("--trace-dir", type=Path, help="the new run's directory (default: a new one under runs/)")
    made.add_argument(
        "--anyway", action="store_true", help="also where the suite or the model is not what it was at that time"
    )
    return made


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is that of the new run.

    Raises:
        UsageError: the run is not one that can be repeated.
    """
    args = parser().parse_args(argv)
    before = _read(args.run)
    flags = before.flags(args.anyway)
    ids = set(before.config.tasks)
    with stage(flags, lambda suite, task: not args.anyway or task.id in ids) as made:
        for line in [*before.changes(made), *before.not_known(made)] or ["nothing that is recorded differs now"]:
            notice(line)
        if not args.anyway:
            before.refuse_other(made)
        flags.trace_dir = args.trace_dir or made.new_directory()
        code = eval_cli.evaluate(flags, made)
    _compare(args.run, flags.trace_dir)
    return code


def _compare(before: Path, now: Path) -> None:
    arms = [Arm(name, tuple(read_runs(path))) for name, path in (("before", before), ("now", now))]
    found = compared(arms)
    for line in found.warnings:
        print(f"WARNING: {line}")
    print(f"now against before: {found.comparisons[0].verdict}")
    print(f"repo-agent compare {before} {now} says more")


@dataclass(frozen=True)
class _Before:
    """The run that is repeated."""

    directory: Path
    config: RunConfig
    given: Mapping[str, Any]
    whole_suite: str
    about: Mapping[str, str]

    def flags(self, anyway: bool) -> argparse.Namespace:
        """The run's own, in the sandbox that it had. `anyway`: its tasks, whatever has become of its suite file."""
        made = eval_cli.parser().parse_args([])
        if unknown := sorted(set(self.given) - set(vars(made))):
            raise UsageError(f"{self.directory} was played with flags of another version: {', '.join(unknown)}")
        changed = {
            "sandbox": self.config.sandbox,
            "mirror": Path(self.given["mirror"]) if self.given.get("mirror") else None,
            "engine_arg": [tuple(each) for each in self.given.get("engine_arg", ())],
            **({"suite": self.whole_suite, "limit": None} if anyway else {}),
        }
        return argparse.Namespace(**{**vars(made), **self.given, **changed})

    def changes(self, now: Stage) -> list[str]:
        """A line for each thing that is not as it was."""
        prompts = now.origin.prompts_sha256 if now.origin else ""
        about = _about(now.config, now.versions, now.sandbox, prompts)
        names = dict.fromkeys([*self.about, *about])
        pairs = ((name, self.about.get(name, ""), about.get(name, "")) for name in names)
        return [
            f"differs now: {name}: {_shown(there)} then, {_shown(here)} now"
            for name, there, here in pairs
            if there != here
        ]

    def not_known(self, now: Stage) -> list[str]:
        """A line where both checkouts had changes of their own."""
        commits = {self.about.get("commit", ""), now.versions.get("commit", "")}
        told = "commit: there were changes that are in no commit, then and now: whether they are the same is not known"
        return [told] if len(commits) == 1 and commits.pop().endswith("+") else []

    def refuse_other(self, now: Stage) -> None:
        """Raises UsageError where the same settings are not the same question any more."""
        there, here = self.config, now.config
        other = {
            "the suite is of another version": there.suite_version != here.suite_version,
            "the tasks are others": there.tasks != here.tasks,
            "the model is another one": there.extra.get("model_sha256") != here.extra.get("model_sha256"),
        }
        said = [what for what, so in other.items() if so]
        if said:
            raise UsageError(f"{self.directory} cannot be repeated: {', '.join(said)} (--anyway plays it all the same)")


def _read(directory: Path) -> _Before:
    """Raises UsageError for what cannot be repeated."""
    if (directory / SWEEP_FILE).exists():
        raise UsageError(f"{directory} is a sweep: name one of the runs in it")
    config, content, origin = read_config(directory), read_run_file(directory), read_origin(directory)
    if origin is None:
        raise UsageError(f"{directory} cannot be repeated: it does not say with which flags it was played")
    if origin.command != "eval":
        raise UsageError(f"{directory} was played by repo-agent {origin.command}: only runs of eval can be repeated")
    about = _about(config, content.get("versions") or {}, content.get("sandbox") or {}, origin.prompts_sha256)
    return _Before(directory, config, origin.flags, origin.whole_suite, about)


def _about(config: RunConfig, versions: Mapping[str, str], sandbox: Mapping[str, Any], prompts: str) -> dict[str, str]:
    """What can have changed between two runs of the same flags, by the name that it is told by."""
    settled = config.model_dump(mode="json", exclude={"extra", "suite", "suite_version", "tasks"})
    return {
        **versions,
        "suite": config.suite_version,
        "tasks": ", ".join(config.tasks),
        "image": str(sandbox.get("image_id", "")),
        "sandbox's python": str(sandbox.get("python", "")),
        "sandbox's pytest": str(sandbox.get("pytest", "")),
        "prompts": prompts,
        **{name: str(value) for name, value in (*settled.items(), *config.extra.items())},
    }


def _shown(text: str) -> str:
    return (text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…") or "none"
