"""How good preference pairs are, and how many there are: `python tests/benchmarks/pair_quality.py`.

A scripted stochastic policy plays a toy task whose actions' true values are known. Its six turns: two that change
nothing, one of eight ways (half of them worth the higher value, half the lower), one more that changes nothing, a draw
that decides with the way's probability, and the end. Pairs come from `fork` at the way, from `fork` at every turn but
the draw, from `merge`, and from whole rollouts (the first action in which a solved rollout and a failed one differ). A
pair is right when the chosen action's true value is the higher one.

Real rollouts (harness.rollout) are played first, to see that the fast direct simulation of the same process agrees
action by action. Writes docs/pair_quality.md and docs/pair_quality.svg. Under three minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.environment import StepOutcome
from harness.policies.scripted import turn_of
from harness.records import Completion, Message, Sampling, Score, Step, StopReason
from harness.rollout import Past, RolloutEnded, RolloutLimits, derived_seed, rollout
from sandboxes.workspace import MappingTree, Workspace
from tools.files import FileState, execute
from tools.protocol import FINAL, RESULT_HEAD, call_text, final_text, parse
from trainers.pairs import Candidate, Fork, Pair, fork_pairs, merge_pairs
from trainers.values import Finished, Play, PolicyKey, Visit

GAPS = ((0.8, 0.2), (0.7, 0.3), (0.6, 0.4), (0.5, 0.5))
PLAYS = (4, 8, 16, 32, 64)
DRAWS = 8
"""Next actions that are sampled at a fork, with replacement."""
WAY, DRAW, TURNS = 2, 4, 6
POLICY = PolicyKey("toy", "", 1.0)
DOCS = Path(__file__).parents[2] / "docs"
LIMITS = RolloutLimits(TURNS)


@dataclass(frozen=True)
class Toy:
    """The process. An action is a short text; `message` is what the policy says for it."""

    high: float
    low: float
    ways: int = 8
    good: int = 4

    def choose(self, turn: int, seed: int) -> str:
        """What the policy does: a function of the turn and of a seed of 31 bits."""
        uniform = seed / 2**31
        if turn == WAY:
            return f"way {int(uniform * self.ways)}"
        if turn == DRAW:
            return f"draw {uniform:.6f}"
        return f"note {int(uniform * 2)}" if turn < DRAW else FINAL

    def worth(self, way: str) -> float:
        return self.high if int(way.split()[1]) < self.good else self.low

    def score(self, way: str, draw: str) -> float:
        return float(float(draw.split()[1]) < self.worth(way))

    def true_value(self, history: Sequence[str], action: str) -> float:
        """The probability that the policy scores after this action."""
        if len(history) == WAY:
            return self.worth(action)
        if len(history) == DRAW:
            return self.score(history[WAY], action)
        mean = (self.good * self.high + (self.ways - self.good) * self.low) / self.ways
        return self.worth(history[WAY]) if len(history) > WAY else mean

    def play(self, history: tuple[str, ...], seed: int) -> tuple[str, ...]:
        """All actions of a rollout that goes on from `history`; each seed derived as in harness.rollout."""
        return history + tuple(self.choose(turn, derived_seed(seed, turn)) for turn in range(len(history), TURNS))

    def result(self, name: str, actions: tuple[str, ...]) -> Play:
        return Play(name, self.score(actions[WAY], actions[DRAW]), len(actions), 10 * len(actions))


def message(turn: int, action: str) -> str:
    return final_text("done") if action == FINAL else call_text("write_file", rel_path=f"{turn}.txt", content=action)


@dataclass(frozen=True)
class ToyPolicy:
    toy: Toy

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        turn = turn_of(messages)
        return Completion(text=message(turn, self.toy.choose(turn, sampling.seed)))


class ToyEnvironment:
    """The real tools on a tree in memory; the score reads what was written."""

    def __init__(self, toy: Toy, state: FileState | None = None) -> None:
        self.toy, self.state = toy, state or FileState(Workspace(MappingTree({"README": b"toy\n"})))

    def start(self) -> tuple[Message, ...]:
        return (Message(role="system", content="A toy."), Message(role="user", content="Play."))

    def step(self, completion: Completion) -> StepOutcome:
        call = parse(completion.text)
        if call.name == FINAL:
            return StepOutcome(call, stop=StopReason.FINAL, digest=self.state.workspace.digest)
        self.state, result = execute(self.state, call, lambda path: True)
        text = f"{RESULT_HEAD}\n{result.content}"
        return StepOutcome(call, result, observation=text, digest=self.state.workspace.digest)

    def follow(self, step: Step) -> StepOutcome:
        return self.step(step.completion)

    def score(self) -> Score:
        way, draw = (self.state.workspace.read(f"{turn}.txt").decode() for turn in (WAY, DRAW))
        return Score(value=self.toy.score(way, draw))

    def patch(self) -> str:
        return self.state.workspace.diff()

    def fork(self) -> ToyEnvironment:
        return ToyEnvironment(self.toy, self.state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Steps:
    """A recorder that keeps the steps."""

    def __init__(self, steps: tuple[Step, ...] = ()) -> None:
        self.steps = steps

    def start(self, prompt: tuple[Message, ...]) -> None:
        return None

    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None:
        return None

    def outcome(self, step: Step) -> None:
        self.steps += (step,)

    def done(self, stop: StopReason) -> None:
        return None

    def end(self, end: RolloutEnded) -> None:
        return None


def check_agreement(toy: Toy, rollouts: int) -> None:
    """Play real rollouts, each with a fork at the way.

    Raises AssertionError where one differs from its direct simulation in an action or in the score.
    """
    for seed in range(rollouts):
        whole, actions = _really(toy, seed, ()), toy.play((), seed)
        forked_off = _really(toy, seed + rollouts, whole[0][:WAY])
        fork_actions = toy.play(actions[:WAY], seed + rollouts)
        for (steps, value), expected in ((whole, actions), (forked_off, fork_actions)):
            said = tuple(step.completion.text for step in steps)
            assert said == tuple(message(turn, action) for turn, action in enumerate(expected))
            assert value == toy.result("", expected).value


def _really(toy: Toy, seed: int, past: tuple[Step, ...]) -> tuple[tuple[Step, ...], float | None]:
    steps = Steps(past)
    with ToyEnvironment(toy) as environment:
        sampling = Sampling(temperature=1.0, seed=seed)
        ended = rollout(ToyPolicy(toy), environment, LIMITS, sampling, steps, past=Past(past))
    return steps.steps, ended.score.value


@dataclass
class Tally:
    """What one way to make pairs gave."""

    pairs: int = 0
    right: int = 0
    sure: int = 0
    """Pairs of confidence 0.95."""
    tested: int = 0
    """Pairs that could have been made: two candidates each."""
    forks: int = 0
    rollouts: int = 0

    @property
    def accuracy(self) -> float | None:
        return self.right / self.pairs if self.pairs else None

    @property
    def per_100(self) -> float:
        return 100 * self.pairs / self.rollouts

    @property
    def right_per_100(self) -> float:
        return 100 * self.right / self.rollouts

    def count(self, toy: Toy, history: Sequence[str], pairs: Sequence[Pair]) -> None:
        """Count the pairs of one state."""
        self.pairs += len(pairs)
        self.sure += sum(pair.confidence is not None and pair.confidence >= 0.95 for pair in pairs)
        for pair in pairs:
            chosen, rejected = (toy.true_value(history, text) for text in (pair.chosen_text, pair.rejected_text))
            self.right += chosen > rejected


def forked(toy: Toy, history: tuple[str, ...], k: int, seed: int) -> Fork:
    """Eight draws of the next action; each distinct one is played to the end k times."""
    drawn = [toy.choose(len(history), derived_seed(seed, "draw", number)) for number in range(DRAWS)]
    candidates = []
    for action in sorted(set(drawn)):
        after = (*history, action)
        ends = (toy.play(after, derived_seed(seed, action, number)) for number in range(k))
        plays = tuple(toy.result(f"{action}/{number}", end) for number, end in enumerate(ends))
        candidates.append(Candidate(action, False, f"{seed}", f"s{len(history):04d}", drawn.count(action), plays))
    return Fork("toy", str(seed), None, tuple(candidates))


def fork_tally(toy: Toy, k: int, forks: int, turns: Sequence[int], seed: int = 0) -> Tally:
    """Fork a rollout at each of the turns; `forks` forks in all."""
    tally = Tally()
    for number in range(forks // len(turns)):
        actions = toy.play((), derived_seed(seed, "base", number))
        tally.rollouts += 1
        for turn in turns:
            fork = forked(toy, actions[:turn], k, derived_seed(seed, number, turn))
            tally.forks += 1
            tally.tested += len(fork.candidates) // 2
            tally.rollouts += sum(len(each.plays) for each in fork.candidates)
            tally.count(toy, actions[:turn], fork_pairs(fork))
    return tally


def finished(toy: Toy, number: int, actions: tuple[str, ...]) -> Finished:
    visits = tuple(Visit("/".join(actions[:turn]), each, False, f"s{turn:04d}") for turn, each in enumerate(actions))
    return Finished("toy", POLICY, visits, toy.result(f"r{number:06d}", actions))


def merge_tally(toy: Toy, k: int, tasks: int, seed: int = 0) -> tuple[Tally, Tally]:
    """Tasks with 8 k rollouts each, so that each way is met k times: the pairs at the way, and all pairs."""
    at_way, everywhere = Tally(), Tally()
    for task in range(tasks):
        played = [toy.play((), derived_seed(seed, "merge", task, number)) for number in range(toy.ways * k)]
        at_way.rollouts += len(played)
        everywhere.rollouts += len(played)
        for pair in merge_pairs(finished(toy, number, actions) for number, actions in enumerate(played)):
            history = played[int(pair.chosen.rollout[1:])][: int(pair.chosen.step[1:])]
            everywhere.count(toy, history, [pair])
            if len(history) == WAY:
                at_way.count(toy, history, [pair])
    return at_way, everywhere


def whole_tally(toy: Toy, k: int, tasks: int, seed: int = 0) -> Tally:
    """One pair for each k rollouts of a task: the best against the worst, at the first action in which they differ."""
    tally = Tally()
    for task in range(tasks):
        played = [toy.play((), derived_seed(seed, "whole", task, number)) for number in range(k)]
        tally.rollouts += k
        best, worst = (pick(played, key=lambda each: toy.score(each[WAY], each[DRAW])) for pick in (max, min))
        if toy.score(best[WAY], best[DRAW]) > toy.score(worst[WAY], worst[DRAW]):
            turn = next(turn for turn in range(TURNS) if best[turn] != worst[turn])
            tally.pairs += 1
            tally.right += toy.true_value(best[:turn], best[turn]) > toy.true_value(worst[:turn], worst[turn])
    return tally


METHODS = ("fork at the way", "fork at every turn", "merge at the way", "merge at every turn", "whole rollouts")
Cells = dict[tuple[Toy, int], tuple[Tally, ...]]
"""By (toy, k) the tallies of the methods."""


def measure() -> Cells:
    cells: Cells = {}
    for toy in (*(Toy(*gap) for gap in GAPS), Toy(0.7, 0.3, good=2)):
        for k in PLAYS:
            at_way = fork_tally(toy, k, 800, (WAY,))
            every = fork_tally(toy, k, 800, (0, 1, WAY, 3))
            merged = merge_tally(toy, k, 1600 // k)
            cells[toy, k] = (at_way, every, *merged, whole_tally(toy, k, 2000))
    return cells


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def table(cells: Cells) -> str:
    """Markdown: right, and pairs made per 100 rollouts played, for each method."""
    head = ["values", "k", *METHODS, "pairs per fork", "of the tested, confidence 0.95"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (toy, k), tallies in cells.items():
        name = f"{toy.high}/{toy.low}" + ("" if toy.good == 4 else f", {toy.good} of {toy.ways}")
        known = toy.high != toy.low
        shown = [f"{percent(each.accuracy if known else None)}, {each.per_100:.2f}" for each in tallies]
        fork = tallies[0]
        shown += [f"{fork.pairs / fork.forks:.2f}", percent(fork.sure / fork.tested)]
        lines.append("| " + " | ".join([name, str(k), *shown]) + " |")
    return "\n".join(lines)


COLOURS = ("#0b6e4f", "#7fb69e", "#1f5fa8", "#8fb3dc", "#b3261e")
WIDTH, HEIGHT, LEFT, TOP = 190, 150, 60, 40


def figure(cells: Cells) -> str:
    """SVG: above, the share of right pairs; below, right pairs per 100 rollouts; by k, a column for each gap."""
    parts: list[str] = []
    for column, gap in enumerate(GAPS[:3]):
        for row in range(2):
            x, y = LEFT + column * (WIDTH + 40), TOP + row * (HEIGHT + 50)
            parts += _panel(cells, Toy(*gap), row, x, y)
    for number, name in enumerate(METHODS):
        x, y = LEFT + number * 140, TOP + 2 * HEIGHT + 95
        parts.append(f'<path d="M{x} {y - 4}h16" stroke="{COLOURS[number]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 20}" y="{y}">{name}</text>')
    size = f'width="760" height="{TOP + 2 * HEIGHT + 110}"'
    style = 'font-family="sans-serif" font-size="11" fill="#333"'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{background}\n' + "\n".join(parts) + "\n</svg>\n"


def _panel(cells: Cells, toy: Toy, row: int, x: int, y: int) -> Iterator[str]:
    top, title = ((1.0, "right"), (4.0, "right pairs per 100 rollouts"))[row]
    yield f'<text x="{x}" y="{y - 6}">{title}, {toy.high}/{toy.low}</text>'
    yield f'<path d="M{x} {y}v{HEIGHT}h{WIDTH}" fill="none" stroke="#999"/>'
    for tick in range(3):
        yield f'<text x="{x - 6}" y="{y + 4 + tick * HEIGHT // 2}" text-anchor="end">{top * (2 - tick) / 2:g}</text>'
    at = {k: x + 10 + (WIDTH - 20) * number / (len(PLAYS) - 1) for number, k in enumerate(PLAYS)}
    for k, across in at.items():
        yield f'<text x="{across:.0f}" y="{y + HEIGHT + 14}" text-anchor="middle">{k}</text>'
    for number, colour in enumerate(COLOURS):
        tallies = {k: cells[toy, k][number] for k in PLAYS}
        shares = {k: (each.accuracy, each.right_per_100)[row] for k, each in tallies.items()}
        heights = {k: y + HEIGHT * (1 - min(share, top) / top) for k, share in shares.items() if share is not None}
        points = " ".join(f"{at[k]:.0f},{height:.1f}" for k, height in heights.items())
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'


TEXT = """# How good preference pairs are

Made by `python tests/benchmarks/pair_quality.py`, which says what the toy task is; seeds are fixed. A cell is the share
of right pairs (the chosen action's true value is the higher one), and how many pairs 100 played rollouts give. Pairs of
`fork` and `merge` have a confidence of at least 0.9 and a margin of at least 0.2. k is plays per candidate for `fork`
(half of them choose, half measure), rollouts per way for `merge`, and rollouts per task for whole rollouts (one pair a
task, the best against the worst, at the first action in which they differ).

![right pairs and yield by k](pair_quality.svg)

"""
NOTES = """

- Whole rollouts: their first difference is most often at a turn that changes nothing, whatever k is.
- At every turn, three of four states have actions that are all worth the same, and any pair there counts as wrong: the
  share of right pairs depends on how often states matter, not on the confidence alone.
- The last column: of the pairs that the choosing halves could propose (each candidate is in one), those that reach a
  confidence of 0.95. At 0.5/0.5 all of them do so by luck.
- "2 of 8": two of the eight ways are worth 0.7, six 0.3. Elsewhere it is four and four.
"""


def main() -> None:
    check_agreement(Toy(0.7, 0.3), 500)
    print("1000 real rollouts, half of them forks, agree with the direct simulation in every action and score\n")
    cells = measure()
    shown = table(cells)
    print(shown)
    DOCS.mkdir(exist_ok=True)
    (DOCS / "pair_quality.md").write_text(TEXT + shown + NOTES, encoding="utf-8")
    (DOCS / "pair_quality.svg").write_text(figure(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
