"""How a run goes, told by what lies in its directory: nothing is written there, and the run is not asked.

Who plays it, how far it is and what its workers do stands in `progress.jsonl`. Where there is none, since another
version played the run, the traces are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.status_progress import PhaseNow, ProgressReader, Session
from eval.sweep import SWEEP_FILE, read_sweep
from harness.errors import UsageError
from harness.progress_log import WorkerNow
from harness.progress_screens import rate_words, span
from harness.run_files import REPORT_FILE, RUN_FILE, read_config
from harness.trace_store import TRACES
from sandboxes.run_scope import owner_alive

State = Literal["running", "ended", "interrupted", "stopped", "failed", "died", "elsewhere", "waiting", "unknown"]


@dataclass(frozen=True)
class Count:
    """So many of something are over; `total` is None where that is not known."""

    what: str
    done: int
    total: int | None = None
    good: int | None = None
    name: str = ""
    """What those are called that ended well."""
    unscored: int = 0
    pace: str = ""


@dataclass(frozen=True)
class RunStatus:
    """What is known of one run."""

    path: Path
    about: str
    state: State
    said: str
    """The state in words, with what can be done."""
    counts: tuple[Count, ...] = ()
    facts: tuple[str, ...] = ()
    cost_usd: float = 0.0
    tokens: int = 0
    workers: tuple[WorkerNow, ...] = ()
    busy: int = 0
    last: tuple[str, ...] = ()


class RunWatch:
    """Looks at a run directory again and again. Raises UsageError where it is none."""

    def __init__(self, path: Path) -> None:
        self.path, self._progress = path, ProgressReader(path)
        config = read_config(path)
        who = f"{config.policy} {config.model}".strip()
        self._about = f"{config.suite}, policy {who}, seed {config.seed}, sandbox {config.sandbox}"
        self._total = None if "trained" in config.extra else len(config.tasks) * config.rollouts

    def look(self, now: float) -> RunStatus:
        session = self._progress.read()
        if session is None:
            return self._by_traces()
        state, said = state_of(session, now)
        return RunStatus(self.path, self._about, state, said, **told(session, state, now))

    def _by_traces(self) -> RunStatus:
        ends = list(_ends(self.path / TRACES))
        counts = [_tally("rollouts", [score for fork, score in ends if not fork], self._total)]
        if forks := [score for fork, score in ends if fork]:
            counts.append(_tally("forks", forks, None))
        state, said = _by_report(self.path / REPORT_FILE)
        return RunStatus(self.path, self._about, state, said, tuple(counts))


def _tally(what: str, scores: Sequence[float | None], total: int | None) -> Count:
    good, unscored = sum(score == 1 for score in scores), sum(score is None for score in scores)
    return Count(what, len(scores), total, good, "solved", unscored)


def _by_report(report: Path) -> tuple[State, str]:
    found = read_json(report)
    if not found:
        return "unknown", "no progress.jsonl and no report: not known whether it is played"
    if found.get("interrupted"):
        return "interrupted", "interrupted, as its report says"
    return ("stopped", f"stopped: {found['stopped']}") if found.get("stopped") else ("ended", "ended: it has a report")


def _ends(traces: Path) -> Iterator[tuple[bool, float | None]]:
    """Of the rollouts that are over, read from their end events alone: whether it is a fork, and its score."""
    if not traces.is_file():
        return
    with traces.open("rb") as file:
        for line in file:
            if line.startswith(b'{"event":"end"') and line.endswith(b"\n"):
                event = json.loads(line)
                yield "@" in event["rollout"], event["score"]["value"]


# ---- what a log of progress tells


def state_of(session: Session, now: float) -> tuple[State, str]:
    """Whether somebody plays the run, in one word and in a sentence."""
    began, over = session.began, session.over
    who = f"process {began.pid} on {began.host}"
    if over:
        why = f": {over.why}" if over.why else ""
        return over.state, f"{over.state} {span(now - over.time)} ago, after {span(over.time - began.time)}{why}"
    alive = owner_alive(began.owner)
    heard = f"last heard of {span(now - session.heard)} ago"
    if alive:
        return "running", f"running: {who}, for {span(now - began.time)}"
    if alive is None:
        return "elsewhere", f"played by {who}, another machine than this one; {heard}"
    return "died", f"died: {who} is gone without a word; {heard}; the same command with --resume goes on"


def told(session: Session, state: State, now: float) -> dict[str, Any]:
    """The figures of a RunStatus."""
    phases = list(session.phases.values())
    newest = max((each.figures for each in phases), key=lambda figures: figures.tokens, default=None)
    latest = phases[-1] if phases else None
    return {
        "counts": tuple(_count(each, state, now) for each in phases),
        "cost_usd": max((each.figures.cost_usd for each in phases), default=0.0),
        "tokens": newest.tokens if newest else 0,
        "last": tuple(session.lines),
        **(_doing(latest, state, now) if latest else {}),
    }


def _doing(latest: PhaseNow, state: State, now: float) -> dict[str, Any]:
    """What the workers do, or did when they were last heard of: nothing in a run that was left in order."""
    if latest.beat is None or state not in ("running", "elsewhere", "died"):
        return {}
    since = now - latest.beat.time if state == "running" else 0.0
    workers = [each.model_copy(update={"seconds": each.seconds + since}) for each in latest.beat.workers]
    return {"workers": tuple(workers), "busy": latest.beat.busy}


def _count(there: PhaseNow, state: State, now: float) -> Count:
    phase, figures = there.phase, there.figures
    spent = (now if state == "running" else there.heard) - phase.time
    pace = rate_words(figures.done, phase.total, spent) if state == "running" else ""
    done, good = figures.done + phase.before, figures.good + phase.before_good
    return Count(phase.what, done, phase.total + phase.before, good, phase.good, figures.unscored, pace)


# ---- which kind of directory


class SweepWatch:
    """Looks at all runs of a sweep, in the order in which they are played. Raises UsageError where it is none."""

    def __init__(self, path: Path) -> None:
        self._path, self._names = path, list(read_sweep(path).runs)
        self._runs: dict[str, RunWatch] = {}

    def look(self, now: float) -> list[RunStatus]:
        return [self._look(name, now) for name in self._names]

    def _look(self, name: str, now: float) -> RunStatus:
        if name not in self._runs:
            if not is_run(self._path / name):
                return RunStatus(self._path / name, "", "waiting", "not begun")
            self._runs[name] = RunWatch(self._path / name)
        return self._runs[name].look(now)


def is_run(path: Path) -> bool:
    return (path / RUN_FILE).is_file()


def is_sweep(path: Path) -> bool:
    return (path / SWEEP_FILE).is_file()


def refuse(path: Path) -> UsageError:
    what = "is no run, sweep or training" if path.is_dir() else "is no directory"
    return UsageError(f"{path} {what}: name a directory that holds {RUN_FILE}, {SWEEP_FILE} or train.json")


def read_json(path: Path) -> dict[str, Any]:
    """Empty where it cannot be read: it may be written just now."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
