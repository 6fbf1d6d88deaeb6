"""`repo-agent status`: how a run goes, read from its directory in another terminal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eval.status import Count, RunStatus, RunWatch, State, SweepWatch, is_run, is_sweep, refuse
from eval.status_training import TrainingWatch, is_training
from harness.cli import Parser
from harness.progress import console
from harness.progress_screens import SHOWN_WORKERS, worker_words

WATCH_S = 2.0


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent status", description="How a run goes: from its directory, without touching it.")
    made.add_argument("run", type=Path, help="directory of a run, of a sweep or of a training")
    made.add_argument(
        "--watch", action="store_true", help=f"look again every {WATCH_S:g} seconds until nobody plays it"
    )
    return made


Look = Callable[[float], list[RunStatus]]
"""At all runs that are asked for, at a time."""


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 0, whatever has become of the run."""
    args = parser().parse_args(argv)
    look, sweep = _look_at(args.run), args.run if is_sweep(args.run) else None
    if args.watch:
        _watch(look, sweep)
    else:
        _show(console(), _shown(look(time.time()), sweep))
    return 0


def _look_at(path: Path) -> Look:
    if is_sweep(path):
        return SweepWatch(path).look
    if not is_run(path) and not is_training(path):
        raise refuse(path)
    one = RunWatch(path).look if is_run(path) else TrainingWatch(path).look
    return lambda now: [one(now)]


def _watch(look: Look, sweep: Path | None) -> None:
    """On a terminal in place, else one look under the other."""
    screen = console()
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            found = look(time.time())
            if screen.is_terminal:
                live.update(_shown(found, sweep), refresh=True)
            else:
                _show(screen, _shown(found, sweep))
            if not _goes_on({each.state for each in found}):
                return
            time.sleep(WATCH_S)


def _goes_on(states: set[State]) -> bool:
    """Somebody plays; or a sweep is between two runs."""
    return bool(states & {"running", "elsewhere"}) or states == {"ended", "waiting"}


def _show(screen: Console, shown: RenderableType) -> None:
    screen.print(shown, soft_wrap=True, highlight=False)


def _shown(found: Sequence[RunStatus], sweep: Path | None) -> RenderableType:
    if sweep is not None:
        return _table(found, sweep)
    (only,) = found
    return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines_of(only)))


def lines_of(status: RunStatus) -> Iterator[str]:
    yield f"{status.path}: {status.said}"
    yield status.about
    yield from map(count_line, status.counts)
    yield from status.facts
    if status.tokens:
        yield f"cost: {status.cost_usd:.4f} USD, {status.tokens:,} tokens"
    if status.workers:
        yield "now:" if status.state == "running" else "when last heard of:"
        for each in status.workers[:SHOWN_WORKERS]:
            yield f"  {worker_words(each.rollout, each.step, each.doing, each.seconds)}"
        if status.busy > SHOWN_WORKERS:
            yield f"  and {status.busy - SHOWN_WORKERS} more"
    if status.last:
        yield "last:"
        yield from (f"  {line}" for line in status.last)


def count_line(count: Count) -> str:
    total = f" of {count.total}" if count.total is not None else ""
    said = [f"{count.what}: {count.done}{total} done"]
    if count.good is not None and count.name != count.what:
        scored = count.done - count.unscored
        share = f" ({count.good / scored:.0%} of {scored})" if scored else ""
        said.append(f"{count.good} {count.name}{share}")
    said += [f"{count.unscored} unscored"] if count.unscored else []
    return ", ".join([*said, *([count.pace] if count.pace else [])])


def _table(found: Sequence[RunStatus], sweep: Path) -> Table:
    ended = sum(each.state == "ended" for each in found)
    title = Text(f"{sweep}: {ended} of {len(found)} runs have ended")
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("run", "state", "done", "solved", "pace", "USD"):
        table.add_column(heading, justify="left" if heading in ("run", "state", "pace") else "right")
    for each in found:
        cells = [each.path.name, each.state]
        if each.counts:
            count = each.counts[-1]
            cells += [f"{count.done} of {count.total}", str(count.good), count.pace, f"{each.cost_usd:.4f}"]
        table.add_row(*map(Text, cells))
    return table
