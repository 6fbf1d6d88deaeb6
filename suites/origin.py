"""Where a run comes from: what is needed, beside its configuration, to play it again."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence

from pydantic import JsonValue

from harness.records import Task, TestPolicy
from harness.run_files import Origin
from sandboxes.base import SandboxBackend
from suites.base import SubsetSuite, Suite

PLACES = frozenset({"command", "trace_dir", "resume", "report", "out", "seeds"})
"""Flags that do not say what one run plays."""


def origin_of(args: argparse.Namespace, suite: Suite, tasks: Sequence[Task], backend: SandboxBackend) -> Origin:
    whole = suite.whole if isinstance(suite, SubsetSuite) else suite
    return Origin(
        command=args.command,
        flags=flags_of(args),
        whole_suite=whole.name,
        prompts_sha256=prompts_sha256(suite, tasks, backend, TestPolicy(args.test_policy)),
    )


def flags_of(args: argparse.Namespace) -> dict[str, JsonValue]:
    """The flags of a run as JSON has them."""
    flags = {name: value for name, value in sorted(vars(args).items()) if name not in PLACES}
    found: dict[str, JsonValue] = json.loads(json.dumps(flags, default=str))
    return found


def prompts_sha256(suite: Suite, tasks: Sequence[Task], backend: SandboxBackend, test_policy: TestPolicy) -> str:
    """A digest of what the agent is told first, task by task."""
    digest = hashlib.sha256()
    for task in tasks:
        with suite.environment(task, backend, test_policy) as environment:
            said = [(message.role, message.content) for message in environment.start()]
        digest.update(json.dumps([task.id, said]).encode())
    return digest.hexdigest()
