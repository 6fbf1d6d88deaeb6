"""Forks: at a state several next actions are drawn, and each of them is played to the end several times.

A state is (messages, file tree), so that a rollout can be gone on with from any step of it. A draw is written as a
rollout that has said one message and not carried it out; where the draws differ, they are carried out and played on,
and more continuations of each action are forked off behind it. Every rollout is an ordinary one in the log, with a
name that says where it comes from, so that a killed command goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, islice, zip_longest

from harness.records import ForkPoint, StopReason, Task, Trace
from harness.rollout import step_id
from harness.run import Job, Run
from harness.trace_reader import TraceLog
from tools.protocol import parse
from trainers.pairs import Candidate, Fork
from trainers.paths import play_of, states
from trainers.values import Play

_AT_ONCE = 2
"""States per worker that are worked on together."""


class ForkAt(StrEnum):
    """Which states of the rollouts are forked."""

    EVERY = "every"
    """All of them."""
    DISAGREEMENT = "disagreement"
    """Those at which rollouts have done different things already."""
    WRITE = "write"
    """Those at which a rollout wrote a file."""


@dataclass(frozen=True)
class ForkSettings:
    """How much is forked."""

    at: ForkAt
    actions: int
    """Draws at a state; the rollouts that came through it count."""
    plays: int
    """Continuations of each action, at least."""
    rollouts: int
    """At most so many forked rollouts are played in all."""


@dataclass(frozen=True)
class _Passing:
    """A rollout that came through a state."""

    rollout: str
    depth: int
    text: str
    play: Play
    ends: bool
    """Its action there was its last."""


@dataclass
class _Group:
    """One action at a state: the same call, strict or not."""

    text: str
    malformed: bool
    passing: list[_Passing] = field(default_factory=list)
    drawn: list[Trace] = field(default_factory=list)
    played: list[Trace] = field(default_factory=list)


@dataclass
class _Place:
    """A state that is being forked."""

    task: Task
    path: Trace
    """The rollout that leads there, up to the state."""
    groups: dict[tuple[str, bool], _Group] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return len(self.path.steps)

    @property
    def stem(self) -> str:
        return f"{self.path.header.rollout}@{step_id(self.depth)}"

    @property
    def point(self) -> ForkPoint:
        """The state; after the last step, which may be stored with a rollout that this one was forked from."""
        return ForkPoint(rollout=self.path.header.rollout, step=self.path.steps[-1].id if self.depth else None)

    def group(self, text: str) -> _Group:
        call = parse(text)
        key = call.canonical, call.problem is not None
        return self.groups.setdefault(key, _Group(text, key[1]))


class ForkPlayer:
    """Plays the forks of a run.

    Args:
        run: plays the jobs; its `on_done` is not used here: results are read from the log's own traces.
        log: the rollouts that were played before, forks of a killed command among them.
    """

    def __init__(
        self, settings: ForkSettings, tasks: Mapping[str, Task], run: Run, log: TraceLog, results: Results, workers: int
    ) -> None:
        self._settings, self._tasks, self._run, self._log = settings, tasks, run, log
        self._results, self._workers = results, workers
        self._had = 0
        """Jobs whose traces there were, of this run or stored."""
        self.short = False
        """A state was left out because it takes more than was left."""
        self.states = 0
        """States at which actions were played against each other."""
        self.left = settings.rollouts
        """Forked rollouts that may still be played."""

    def forks(self, rollouts: Sequence[str]) -> Iterator[Fork]:
        """Fork the states of these finished rollouts, a few at a time, until nothing is left to spend."""
        chosen = self._chosen(rollouts)
        while not self.short and (some := list(islice(chosen, _AT_ONCE * self._workers))):
            before = self._had
            yield from self._worked_on([self._place(passing) for passing in some])
            if self._run.over and self._had == before:  # nor does the log have any more of them
                return

    # ---- which states

    def _chosen(self, rollouts: Sequence[str]) -> Iterator[list[_Passing]]:
        """The states to fork, each as the rollouts that came through it; all tasks get their turn."""
        by_task: dict[str, dict[str, list[_Passing]]] = defaultdict(lambda: defaultdict(list))
        for rollout in rollouts:
            trace = self._log.trace(rollout)
            if not trace.finished:
                continue
            for depth, (state, step) in enumerate(zip(states(trace), trace.steps, strict=False)):
                ends = _ends(trace, depth)
                passing = _Passing(rollout, depth, step.completion.text, play_of(trace, depth), ends)
                by_task[trace.header.task][state].append(passing)
        for mixed in (True, False):  # where some rollouts solved the task and some did not, there is more to learn
            queues = [
                [found[state] for state in sorted(found, key=_shuffled) if self._wanted(found[state])]
                for _, found in sorted(by_task.items())
                if _is_mixed(found) is mixed
            ]
            yield from (each for each in chain.from_iterable(zip_longest(*queues)) if each is not None)

    def _wanted(self, passing: list[_Passing]) -> bool:
        calls = [parse(each.text) for each in passing]
        match self._settings.at:
            case ForkAt.EVERY:
                return True
            case ForkAt.WRITE:
                return any(call.usable and call.name == "write_file" for call in calls)
            case ForkAt.DISAGREEMENT:
                return len({call.canonical for call in calls}) > 1

    def _place(self, passing: list[_Passing]) -> _Place:
        first = passing[0]
        trace = self._log.trace(first.rollout)
        path = trace.model_copy(update={"steps": trace.steps[: first.depth], "pending": None, "notes": ()})
        place = _Place(self._tasks[trace.header.task], path)
        for each in passing:
            place.group(each.text).passing.append(each)
        return place

    # ---- drawing and playing

    def _worked_on(self, places: list[_Place]) -> Iterator[Fork]:
        self._draw(places)
        places = [place for place in places if len(place.groups) > 1 and self._affords(place)]
        self.states += len(places)
        spent = 0
        for jobs_of in (self._first, self._more):
            groups = [(place, group) for place in places for group in place.groups.values()]
            spent += self._play([(group, job) for place, group in groups for job in jobs_of(place, group)])
        self.left += sum(map(self._needed, places)) - spent  # an action that ends a rollout is played once
        for place in places:
            yield self._fork(place)

    def _draw(self, places: list[_Place]) -> None:
        jobs = {}
        for place in places:
            came = sum(len(group.passing) for group in place.groups.values())
            for number in range(came, self._settings.actions):
                job = self._job(place, f"{place.stem}.{number}", place.point, place.path, draw_only=True)
                jobs[job.rollout] = place, job
        for rollout, trace in sorted(self._done([job for _, job in jobs.values()]).items()):
            said = [step.completion for step in trace.steps[trace.shared :]] + [trace.pending]
            if said[0]:
                jobs[rollout][0].group(said[0].text).drawn.append(trace)

    def _needed(self, place: _Place) -> int:
        """The most plays that a state takes."""
        return sum(max(0, self._settings.plays - len(group.passing)) for group in place.groups.values())

    def _affords(self, place: _Place) -> bool:
        """A state is played to the end or not begun. What it may take is set aside."""
        needed = self._needed(place)
        if needed > self.left:
            self.short = True
            return False
        self.left -= needed
        return True

    def _first(self, place: _Place, group: _Group) -> list[Job]:
        """The drawn messages are carried out and played on, as many as plays are wanted."""
        wanted = self._settings.plays - len(group.passing)
        return [self._job(place, trace.header.rollout, place.point, trace) for trace in group.drawn[: max(0, wanted)]]

    def _more(self, place: _Place, group: _Group) -> list[Job]:
        """More continuations, forked off behind the action; none where the action ends the rollout."""
        missing = self._settings.plays - len(group.passing) - len(group.played)
        origin = self._origin(place, group)
        if origin is None or missing <= 0:
            return []
        behind = origin.model_copy(update={"steps": origin.steps[: place.depth + 1], "pending": None, "notes": ()})
        point = ForkPoint(rollout=origin.header.rollout, step=step_id(place.depth))
        stem = origin.header.rollout if origin.header.fork else f"{origin.header.rollout}@{step_id(place.depth)}.0"
        return [self._job(place, f"{stem}+{number}", point, behind) for number in range(missing)]

    def _origin(self, place: _Place, group: _Group) -> Trace | None:
        """A rollout that took the action and went on after it."""
        for trace in group.played:
            if len(trace.steps) > place.depth + 1:
                return trace
        for each in group.passing:
            if not each.ends:
                return self._log.trace(each.rollout)
        return None

    def _job(self, place: _Place, name: str, point: ForkPoint, path: Trace, draw_only: bool = False) -> Job:
        there = self._log.trace(name) if name in self._log and path.header.rollout != name else path
        return Job(place.task, path.header.index, name, point, there, draw_only)

    def _play(self, jobs: list[tuple[_Group, Job]]) -> int:
        names = [job.rollout for _, job in jobs]
        assert len(set(names)) == len(names), "two jobs of one name would write one rollout"
        done = self._done([job for _, job in jobs])
        for group, job in jobs:
            if job.rollout in done:
                group.played.append(done[job.rollout])
        return len(jobs)

    def _done(self, jobs: list[Job]) -> dict[str, Trace]:
        """The traces of these jobs: those that the log has already, and the others once they are played."""
        spent = self._run.over
        over = {job.rollout: job.taken_up for job in jobs if job.taken_up and _is_over(job, spent)}
        self._results.clear()
        self._run.play([job for job in jobs if job.rollout not in over], self._workers)
        found = over | self._results.taken()
        self._had += len(found)
        return found

    def _fork(self, place: _Place) -> Fork:
        candidates = [self._candidate(place, group) for group in place.groups.values()]
        header = place.path.header
        return Fork(header.task, place.point.rollout, place.point.step, tuple(each for each in candidates if each))

    def _candidate(self, place: _Place, group: _Group) -> Candidate | None:
        plays = [each.play for each in group.passing] + [play_of(trace, place.depth) for trace in group.played]
        ended = any(each.ends for each in group.passing) or any(_ends(trace, place.depth) for trace in group.played)
        if not plays:
            return None
        if ended and self._origin(place, group) is None:  # the same result each time
            plays += [plays[0]] * (self._settings.plays - len(plays))
        rollout = group.passing[0].rollout if group.passing else group.played[0].header.rollout
        samples = len(group.passing) + len(group.drawn)
        return Candidate(group.text, group.malformed, rollout, step_id(place.depth), samples, tuple(plays))


def _ends(trace: Trace, depth: int) -> bool:
    """Its step number `depth` is the last one, whoever takes it there."""
    certain = (StopReason.FINAL, StopReason.LOOP, StopReason.MAX_ITERS)
    return depth + 1 == len(trace.steps) and trace.stop in certain


class Results:
    """What a run's `on_done` is told of forked rollouts, until it is asked for."""

    def __init__(self) -> None:
        self._traces: dict[str, Trace] = {}

    def add(self, trace: Trace) -> None:
        self._traces[trace.header.rollout] = trace

    def clear(self) -> None:
        self._traces = {}

    def taken(self) -> dict[str, Trace]:
        return self._traces


def _is_over(job: Job, spent: bool) -> bool:
    """Nothing of it is left to do. `spent`: what a budget cut off cannot go on."""
    there = job.taken_up
    if there is None or there.header.rollout != job.rollout:
        return False
    if there.stop is StopReason.BUDGET and not spent:
        return False
    return there.finished or (job.draw_only and (there.pending is not None or len(there.steps) > there.shared))


def _is_mixed(states_of_task: Mapping[str, list[_Passing]]) -> bool:
    return len({each.play.value for passing in states_of_task.values() for each in passing}) > 1


def _shuffled(state: str) -> str:
    """States in an order that has nothing to do with where they stand in a rollout."""
    return hashlib.sha256(state.encode()).hexdigest()
