"""Copies of QuixBugs' training tasks under other names: data that a name cannot be learnt by heart from.

`quixbugs+renamed:N` has N copies of each task of the training half. A copy's function, its files, its parameters and
its local names are new words, in the tree, the tests and the reference alike; what the program does stays. No copy is
made of a task of the test half.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal

from harness.records import Task
from harness.training_history import COPY_MARK
from sandboxes.workspace import File, MappingTree, Workspace
from suites.base import RepoSuite
from suites.quixbugs.suite import QuixbugsSuite
from tools.protocol import TOOLS, call_text, final_text

MAX_COPIES = 1000
_KNOWN_SHARE, _PROTOCOL_SHARE = 0.5, 0.2
"""Of the words in new names those that programs really have, and those that messages of the protocol have too."""
# fmt: off
_SYLLABLES = (
    "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "qui", "ro",
    "su", "ta", "ve", "wi", "xo", "yu", "za", "bel", "cor", "dan", "fen", "gil", "hom", "jur",
    "kal", "lem", "mon", "nor", "pal", "rin", "sol", "tum", "van", "wer", "zig",
)
# fmt: on


@dataclass
class RenamedQuixbugs(RepoSuite):
    """The training half of QuixBugs, each task so many times."""

    whole: QuixbugsSuite
    copies: int

    def __post_init__(self) -> None:
        self.name = f"{self.whole.name}+renamed:{self.copies}"
        self.version = self.whole.version

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    @cached_property
    def _tasks(self) -> list[Task]:
        originals = [task for task in self.whole.tasks() if self.whole.split_of(task) == "train"]
        return [self._copy(task, number) for number in range(self.copies) for task in originals]

    def _copy(self, task: Task, number: int) -> Task:
        rename, rename_all = self._renaming(task, number)
        files = {path: task.tree.file(path) for path in task.tree.paths}
        tree = {
            rename(path): _edited(file, rename_all if path in task.editable else rename) for path, file in files.items()
        }
        return replace(
            task,
            id=f"{task.id}{COPY_MARK}{number}",
            suite=self.name,
            goal=rename(task.goal),
            tree=Workspace(MappingTree(tree)),
            editable=tuple(map(rename, task.editable)),
            expected_tests=tuple(map(rename, task.expected_tests)),
            test_args=tuple(map(rename, task.test_args)),
        )

    def _renaming(self, task: Task, number: int) -> tuple[Callable[[str], str], Callable[[str], str]]:
        """What renames the task, everywhere, and what renames its program, local names included.

        A copy of a number is the same whatever the number of copies.
        """
        (program,) = task.editable
        taken = {word for path in task.tree.paths for word in re.findall(r"[a-z]+", task.tree.read(path).decode())}
        words = _words(random.Random(f"{task.id} {number}"), taken | set(keyword.kwlist) | set(dir(builtins)))
        name = next(words)
        local = {each: next(words) for each in local_names(task.tree.read(program).decode()) if each != task.id}
        return _renamer(task.id, name, {}), _renamer(task.id, name, local)

    def group_of(self, task: Task) -> str:
        """The original, which all its copies give away."""
        return task.id.partition(COPY_MARK)[0]

    def split_of(self, task: Task) -> Literal["train", "test", ""]:
        return "train"

    def reference(self, task: Task) -> Workspace:
        name, _, number = task.id.partition(COPY_MARK)
        original = next(each for each in self.whole.tasks() if each.id == name)
        rename, rename_all = self._renaming(original, int(number))
        (program,) = original.editable
        repaired = self.whole.reference(original).read(program).decode()
        return task.tree.write(rename(program), rename_all(repaired).encode())


def local_names(source: str) -> list[str]:
    """Parameters, variables and inner functions whose name no attribute, keyword or import has, sorted."""
    nodes = list(ast.walk(ast.parse(source)))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    other = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    other |= {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}
    other |= {part for node in nodes if isinstance(node, ast.alias) for part in node.name.split(".")}
    return sorted(bound - other)


def _renamer(task: str, name: str, local: Mapping[str, str]) -> Callable[[str], str]:
    """Replaces the task's name where it is a word or part of a name (`test_gcd`), local names where they are words."""
    words = "|".join(map(re.escape, sorted(local, key=len, reverse=True)))
    pattern = rf"(?<![A-Za-z0-9])(?<!math\.){re.escape(task)}(?![A-Za-z0-9])" + (
        rf"|(?<![.\w])(?:{words})\b" if words else ""
    )
    return lambda text: re.sub(pattern, lambda match: local.get(match[0], name), text)


def _edited(file: File, rename: Callable[[str], str]) -> File:
    return replace(file, content=rename(file.content.decode()).encode())


@cache
def _vocabulary() -> tuple[str, ...]:
    """Words that names of programs consist of: those of the training half of minibugs."""
    from suites.minibugs.suite import MinibugsSuite

    suite = MinibugsSuite()
    trees = [task.tree for task in suite.tasks() if suite.split_of(task) == "train"]
    texts = [tree.read(path).decode() for tree in trees for path in tree.paths if path.endswith(".py")]
    return _parts(texts)


@cache
def _protocol_vocabulary() -> tuple[str, ...]:
    """Words after which a message goes on otherwise than a name that has them."""
    return _parts(
        [call_text(name, **dict.fromkeys(tool.model_fields, "")) for name, tool in TOOLS.items()] + [final_text("")]
    )


def _parts(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of texts and of the names in them, in small letters."""
    words = {word.lower() for text in texts for word in re.findall(r"[A-Z]?[a-z]+", text) if len(word) > 1}
    return tuple(sorted(words - set(keyword.kwlist)))


def _word(chance: random.Random) -> str:
    """A word of programs, one of the protocol, or one that is new."""
    kind = chance.random()
    if kind < _KNOWN_SHARE:
        return chance.choice(_vocabulary())
    if kind < _KNOWN_SHARE + _PROTOCOL_SHARE:
        return chance.choice(_protocol_vocabulary())
    return "".join(chance.choices(_SYLLABLES, k=2))


def _words(chance: random.Random, taken: set[str]) -> Iterator[str]:
    """New names, of one to three words. None begins with `test`: pytest would take such a function for a test."""
    while True:
        word = "_".join(_word(chance) for _ in range(chance.randint(1, 3)))
        if word not in taken and not word.startswith("test"):
            taken.add(word)
            yield word
