"""What the viewer shows of a rollout, as plain JSON values: its own steps, with diffs of what it wrote.

The steps that a fork shares with others stand in the document of the rollout that it was forked from, once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from harness.records import PairNote, Rescore, Step, TestReport, Trace
from sandboxes.workspace import PathError, clean_path
from tools.protocol import RESULT_HEAD

Json = dict[str, object]
MOST_DIFF_LINES = 4000
"""A diff's time grows with the square of the lines: longer files are shown whole."""
_HIDDEN = {"token_ids", "logprobs"}


def document(trace: Trace) -> Json:
    """The document of a rollout."""
    header = trace.header
    fields = header.model_dump(mode="json", exclude={"prompt", "expected_tests"})
    own = [(step, diff) for number, (step, diff) in enumerate(_with_diffs(trace)) if number >= trace.shared]
    return {
        **fields,
        "expected": len(header.expected_tests),
        "prompt": [message.model_dump() for message in header.prompt] if header.fork is None else [],
        "steps": [_step(step, diff) for step, diff in own],
        "pending": trace.pending.text if trace.pending else None,
        "stop": trace.stop,
        "score": trace.score.model_dump() if trace.score else None,
        "rescores": [note.model_dump() for note in trace.notes if isinstance(note, Rescore)],
        "step_scores": [[note.step, note.passed, note.expected, note.why] for note in trace.step_scores().values()],
        "error": trace.error,
        "patch": trace.patch,
        "seconds": trace.seconds,
        "score_seconds": trace.score_seconds,
    }


def pair_document(note: PairNote) -> Json:
    """A preference pair, as the tree of its task shows it."""
    return note.model_dump(exclude={"kind"})


def _step(step: Step, diff: Json | None) -> Json:
    completion = step.completion
    return {
        "id": step.id,
        "completion": completion.model_dump(mode="json", exclude=_HIDDEN),
        "call": step.call.model_dump(mode="json", exclude={"raw"}),
        "error": step.error,
        "truncated": step.truncated,
        "observation": step.observation,
        "report": _report(step.report) if step.report else None,
        "loop": step.loop,
        "tool_seconds": step.tool_seconds,
        "test_seconds": step.test_seconds,
        "diff": diff,
    }


def _report(report: TestReport) -> Json:
    fields = report.model_dump(exclude={"messages", "expected"})
    return {**fields, "expected": list(report.expected), "passed": report.count_passed}


# ---- diffs: a trace has no trees, so a file is compared with what the rollout itself last saw or left of it


def _with_diffs(trace: Trace) -> Iterator[tuple[Step, Json | None]]:
    seen: dict[str, str] = {}
    for step in trace.steps:
        yield step, _diff(step, seen)


def _diff(step: Step, seen: dict[str, str]) -> Json | None:
    """The diff of a write that was carried out; keeps in `seen` what each file is now known to hold."""
    path = _path(step)
    if path is None:
        return None
    said = (step.observation or "").removeprefix(RESULT_HEAD).removeprefix("\n")
    if step.call.name == "read_file":
        if not step.truncated and step.call.args.get("start_line", 1) == 1:
            seen[path] = "" if said == "[empty file]" else said
        return None
    before = "" if said.startswith("created ") else seen.get(path)
    after = str(step.call.args["content"])
    seen[path] = after
    return _compared(path, before, after, created=said.startswith("created "))


def _path(step: Step) -> str | None:
    call = step.call
    if not call.usable or step.error is not None or call.name not in ("read_file", "write_file"):
        return None
    try:
        return clean_path(str(call.args["rel_path"]))
    except PathError:
        return None


def _compared(path: str, before: str | None, after: str, created: bool) -> Json:
    if before is None:
        return {"path": path, "against": "unseen", "lines": None}
    old, new = _lines(before), _lines(after)
    if max(len(old), len(new)) > MOST_DIFF_LINES:
        return {"path": path, "against": "long", "lines": None}
    lines = list(difflib.unified_diff(old, new, lineterm="", n=3))[2:]
    return {"path": path, "against": "created" if created else "seen", "lines": lines}


def _lines(text: str) -> list[str]:
    """As a person counts them: `splitlines` ends a line at ten other characters too."""
    return text.removesuffix("\n").split("\n") if text else []
