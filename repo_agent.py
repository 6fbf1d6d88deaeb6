"""repo-agent: the front door. Imports only the command that was chosen."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

COMMANDS = {
    "eval": ("eval.eval_cli", "evaluate a policy on a suite, with tests in a sandbox"),
    "prefs": ("trainers.prefs_cli", "play rollouts and forks of them, and write preference pairs"),
    "sft-extract": ("trainers.sft_extract_cli", "write rows for supervised fine-tuning from traces"),
    "train": ("trainers.train_cli", "fine-tune a model: sft, dpo, merge, init-tiny"),
    "gsm8k": (
        "trainers.gsm8k.gsm8k_cli",
        "SFT against GRPO on questions: eval, sft, grpo, traces, exit, sweep, compare",
    ),
    "slurm": ("trainers.slurm_cli", "a stage of the GSM8K pipeline as a job for Slurm"),
    "data": ("trainers.data_cli", "check files of training data"),
    "status": ("eval.status_cli", "how a run goes, read from its directory in another terminal"),
    "compare": ("eval.compare_cli", "compare runs task by task: which solves more, and could it be luck"),
    "repeat": ("eval.repeat_cli", "play a run again with the same settings, and compare the two"),
    "replay": ("eval.replay_cli", "carry out stored traces again, and say where they differ"),
    "rescore": ("eval.rescore_cli", "grade stored final trees again"),
    "score-steps": ("eval.score_steps_cli", "count the passing tests after each step of stored traces"),
    "view": ("eval.view_cli", "look at runs in a browser: one HTML page, or served on this machine"),
    "suites": ("suites.suites_cli", "list, show, validate and split suites"),
    "images": ("suites.images_cli", "build, check, remove and carry the images of tasks' environments"),
    "doctor": ("eval.doctor_cli", "what this machine can do, what is missing, and the command that fixes it"),
    "sandbox": ("harness.sandbox_cli", "what runs have left; remove it; check that a sandbox keeps its promises"),
}


def usage() -> str:
    lines = [f"  {name:12} {text}" for name, (_, text) in COMMANDS.items()]
    return "usage: repo-agent COMMAND [flags]\n\n" + "\n".join(lines) + "\n\nrepo-agent COMMAND --help says more."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Bad input is one line on standard error and exit code 2; a sandbox's fault is exit code 3."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("repo-agent"))
        return 0
    if arguments[0] not in COMMANDS:
        return _say(f"unknown command {arguments[0]!r}: choose from {', '.join(COMMANDS)}", 2)
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # the working directory may have a `tools` of its own
    return _run(importlib.import_module(COMMANDS[arguments[0]][0]).main, arguments[1:])


def _run(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    from harness.errors import MachineLacks, UsageError
    from sandboxes.base import SandboxError, SandboxUnavailable

    try:
        return command(arguments)
    except (UsageError, SandboxUnavailable) as error:
        machine = isinstance(error, MachineLacks | SandboxUnavailable)
        return _say(f"{error}{' (repo-agent doctor says more)' * machine}", 2)
    except SandboxError as error:
        return _say(f"the sandbox failed: {error}", 3)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a path that was given, a full disk: the machine's, not the program's fault
        return _say(f"{error.strerror or error}: {str(error.filename or '')[:200]}", 2)


def _say(message: str, code: int) -> int:
    from harness.redaction import Redactor

    print(f"repo-agent: error: {Redactor()(' '.join(message.split()))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
