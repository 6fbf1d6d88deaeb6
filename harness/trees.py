"""The file trees of a stored rollout, made again from its calls: no sandbox, no model, no stored copy of a file.

Only reading and writing matter to a tree (what was read in part cannot be written), so nothing else is carried out.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.errors import Diverged
from harness.records import Step, Task, Trace
from sandboxes.workspace import Workspace
from tools.files import FileState, execute

_CHANGES_STATE = ("read_file", "write_file")


def trees(task: Task, trace: Trace) -> Iterator[tuple[Step | None, Workspace]]:
    """The task's own tree (with None), then each step of the whole path with the tree after it.

    `task` must be of the suite version that the trace was recorded with; the trees have the recorded digests.

    Raises:
        Diverged: a tree has another digest than was recorded: the suite or the tools have changed since.
    """
    state = FileState(task.tree)
    yield None, state.workspace
    for step in trace.steps:
        if step.call.usable and step.call.name in _CHANGES_STATE:
            state = execute(state, step.call, task.may_edit)[0]
        if state.workspace.digest != step.digest:
            raise Diverged(
                f"rollout {trace.header.rollout}: the tree after step {step.id} is not the one that was recorded: "
                "the suite or the tools have changed since, or the log masks a secret there"
            )
        yield step, state.workspace


def carried_trees(task: Task, trace: Trace) -> Iterator[tuple[Step | None, Workspace]]:
    """As `trees`, on the task of another suite version: what each recorded write left in its file, over the new tree.

    What cannot be written there (a path that is a directory now) is left out; what may not be edited there any more is
    left out by the grade.
    """
    tree = task.tree
    yield None, tree
    for step in trace.steps:
        if step.error is None and step.call.usable and step.call.name == "write_file":
            tree = execute(FileState(tree), step.call, _anything)[0].workspace
        yield step, tree


def _anything(_path: str) -> bool:
    return True


def tree_after(task: Task, trace: Trace, step: str | None, carried: bool = False) -> Workspace:
    """The tree after a step (None: the task's own tree).

    Args:
        carried: the task is of another suite version than the trace; see `carried_trees`.

    Raises:
        Diverged: see `trees`.
        KeyError: the path has no such step.
    """
    for each, tree in (carried_trees if carried else trees)(task, trace):
        if (each.id if each else None) == step:
            return tree
    raise KeyError(step)


def final_tree(task: Task, trace: Trace, carried: bool = False) -> Workspace:
    """The tree that a rollout ended with, or has come to. Arguments and errors as of `tree_after`."""
    return tree_after(task, trace, trace.steps[-1].id if trace.steps else None, carried)
