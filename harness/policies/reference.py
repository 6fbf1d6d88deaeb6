"""`reference`: an oracle that knows the repair. At a temperature above 0 it makes mistakes, and mends them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import RolloutEnd, UsageError
from harness.policies.mutation import PARSING, edits
from harness.policies.reading import READ_CHARS
from harness.policies.scripted import AtOnce, ScriptedPolicy
from harness.policy import Policy, PolicyInfo
from harness.records import Completion, FinishReason, Message, Sampling, StopReason, Task
from sandboxes.workspace import Workspace
from tools.files import FileState, execute
from tools.protocol import call_text, final_text, parse

MISTAKES = 48
"""A mistake is one of so many one-edit variants of the repaired file."""
EDIT, CUT_OFF = "edit", "cut-off"
KINDS = (EDIT, CUT_OFF)
"""What a mistake is: a write that has one, or a write that falls into a loop of its own and never ends."""
_PIECE, _LOOPED = (20, 200), (200, 2400)
"""Characters of the piece that such a loop repeats, and of all repetitions: from and to."""


@dataclass(frozen=True)
class ReferencePolicy(ScriptedPolicy):
    """Reads each file that the repair changes, writes it, and ends.

    At temperature T a written file has a mistake with probability T / (1 + T), drawn from the seed; the file is then
    written again, for a write counts as done only with the repaired content. After a write that was cut off the file is
    read again before. It ends when the tests pass.
    """

    mistakes: str = EDIT

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        turn = self._done(messages) if "\n[TESTS PASS]" not in messages[-1].content else len(self.texts) - 1
        if turn >= len(self.texts):
            raise RolloutEnd(StopReason.EXHAUSTED)
        if turn and messages[-2].role == "assistant" and parse(messages[-2].content).problem:
            return Completion(text=self.texts[turn - 1])
        chance = random.Random(sampling.seed)
        if chance.random() < sampling.temperature / (1 + sampling.temperature):
            return _mistaken(self.texts[turn], self.mistakes, chance)
        return Completion(text=self.texts[turn])

    def _done(self, messages: Sequence[Message]) -> int:
        """How many of the texts were said. Between them may stand other writes of the same file, and nothing else."""
        turn = 0
        for message in messages:
            turn += message.role == "assistant" and turn < len(self.texts) and message.content == self.texts[turn]
        return turn


def _mistaken(text: str, kind: str, chance: random.Random) -> Completion:
    if kind == EDIT:
        return Completion(text=with_mistake(text, chance))
    call = parse(text)
    if call.name != "write_file":
        return Completion(text=text)
    content = endless(str(call.args["content"]), chance)
    begun = call_text("write_file", **call.args | {"content": content})
    return Completion(text=begun[: begun.rindex('"')], finish_reason=FinishReason.LENGTH)


def endless(content: str, chance: random.Random) -> str:
    """A file whose copy comes back to what it wrote last, again and again: what a small model's long copies end in."""
    end = chance.randint(len(content) // 4, len(content))
    piece = content[max(0, end - chance.randint(*_PIECE)) : end] or "\n"
    length = chance.randint(*_LOOPED)
    return content[:end] + (piece * (length // len(piece) + 1))[:length]


def with_mistake(text: str, chance: random.Random) -> str:
    """A write_file message with one edit in its content; every other message, and a file without edits, as it is."""
    call = parse(text)
    if call.name != "write_file":
        return text
    source = str(call.args["content"])
    with PARSING:
        found = edits(source)[:MISTAKES]
    return call_text("write_file", **call.args | {"content": chance.choice(found).apply(source)}) if found else text


def reads(task: Task, path: str) -> list[str]:
    """The calls that show all of a file: one that was seen in part cannot be written."""
    state, texts, starts = FileState(task.tree), list[str](), [1]
    while starts:
        place = {"start_line": starts[0]} if texts else {}
        texts.append(call_text("read_file", rel_path=path, max_chars=READ_CHARS, **place))
        state, result = execute(state, parse(texts[-1]), task.may_edit)
        left = state.unseen.get(path, frozenset())
        starts = [line for line in [min(left, default=0)] if line > starts[0] and not result.error]
    return texts


@dataclass(frozen=True)
class ReferenceSource(AtOnce):
    """A policy for each task that has a reference."""

    reference: Callable[[Task], Workspace | None]
    mistakes: str = EDIT

    @property
    def info(self) -> PolicyInfo:
        name = "reference" if self.mistakes == EDIT else f"reference:{self.mistakes}"
        return PolicyInfo(name, oracle=True, trusted=True, default_max_iters=50)

    def policy(self, task: Task, rollout_index: int) -> Policy:
        fixed = self.reference(task)
        if fixed is None:
            raise UsageError(f"suite {task.suite} has no reference for {task.id}")
        texts = [call_text("list_files")]
        for path in sorted(fixed.edits):
            content = fixed.read(path).decode()
            texts += reads(task, path) if path in task.tree else []
            texts += [call_text("write_file", rel_path=path, content=content)]
        return ReferencePolicy((*texts, final_text(f"repaired {', '.join(sorted(fixed.edits))}")), self.mistakes)
