"""How long a tool step takes: `python tests/benchmarks/tool_steps.py`.

Prints medians in milliseconds of list, read, grep and write on a QuixBugs tree (of minibugs where QuixBugs cannot be
had), and of list and grep on a generated tree of 5,000 files and 25 MB, warm. Asked for: under 1 ms each on the first;
under 100 ms for list and for grep with a literal-led pattern on the second. Then the time of `Environment.fork()` after
a write on a tree of 5 files and on one of 5,000, in microseconds, and their ratio: it should be about 1.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.environment import RepoEnvironment
from harness.errors import UsageError
from harness.records import Completion, Task, TestPolicy
from sandboxes.local_sandbox import LocalBackend
from sandboxes.workspace import DirectoryTree, Workspace
from suites.base import load
from tools.files import FileState, execute
from tools.protocol import call_text, parse

FILES, FEW_FILES, FILE_BYTES = 5000, 5, 5000


def median_ms(step: Callable[[], object], repeats: int) -> float:
    step()  # warm
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1000


def call(workspace: Workspace, name: str, **args: object) -> Callable[[], object]:
    """One whole step: the message is parsed, and the call carried out."""
    text, state = call_text(name, **args), FileState(workspace)

    def step() -> None:
        _, result = execute(state, parse(text), lambda path: True)
        assert result.error is None, result.content

    return step


def small_tree() -> tuple[str, Workspace, str]:
    """A name, the largest tree of a suite, and its file to edit."""
    for name in ("quixbugs", "minibugs"):
        try:
            tasks = load(name).tasks()
        except UsageError:
            continue
        task = max(tasks, key=lambda each: len(each.tree.paths))
        return f"{name} {task.id}", task.tree, next(path for path in task.tree.paths if task.may_edit(path))
    raise SystemExit("no suite can be had")


def generated_tree(root: Path, files: int) -> Workspace:
    rng = random.Random(0)
    words = ["return", "value", "self", "import", "index", "for", "range", "result", "None", "def", "class", "items"]
    for number in range(files):
        path = root / f"package_{number % 50}" / f"module_{number % 7}" / f"file_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f"def function_{number}_{line}(value):  # {' '.join(rng.choices(words, k=6))}\n" for line in range(100)
        ]
        path.write_text("".join(lines)[:FILE_BYTES].ljust(FILE_BYTES, "#"))
    return Workspace(DirectoryTree(root))


def show(what: str, milliseconds: float) -> None:
    print(f"{what:<60} {milliseconds:9.3f} ms")


def fork_us(tree: Workspace) -> float:
    """Microseconds of a fork of an environment whose agent has listed the files and written one."""
    task = Task("fork", "generated", "", tree, ("**",), expected_tests=(), test_args=())
    with RepoEnvironment(task, LocalBackend(), TestPolicy.FINAL) as environment:
        environment.start()
        environment.step(Completion(text=call_text("list_files")))
        environment.step(Completion(text=call_text("write_file", rel_path="new.py", content="x = 1\n")))
        return median_ms(environment.fork, 10_000) * 1000


def show_forks(small: Workspace, large: Workspace) -> None:
    few, many = fork_us(small), fork_us(large)
    print(f"{f'fork, {len(small.paths)} files':<60} {few:9.3f} us")
    print(f"{f'fork, {len(large.paths)} files':<60} {many:9.3f} us, {many / few:.2f} times as long")


def main() -> None:
    name, tree, path = small_tree()
    content = tree.read(path).decode()
    show(f"{name}: list_files", median_ms(call(tree, "list_files"), 300))
    show(f"{name}: read_file", median_ms(call(tree, "read_file", rel_path=path), 300))
    show(f"{name}: grep, literal-led", median_ms(call(tree, "grep", pattern=r"def \w+"), 300))
    show(f"{name}: grep, no literal", median_ms(call(tree, "grep", pattern=r"\breturn\b"), 300))
    show(f"{name}: write_file", median_ms(call(tree, "write_file", rel_path=path, content=content + "\n"), 300))
    show(
        f"{name}: write_file, a new file",
        median_ms(call(tree, "write_file", rel_path="new/file.py", content=content), 300),
    )
    with tempfile.TemporaryDirectory() as folder:
        large = generated_tree(Path(folder, "large"), FILES)
        size = sum(len(large.file(each).content) for each in large.paths) / 1e6
        where = f"{len(large.paths)} files, {size:.0f} MB"
        edited = large.write("package_1/new.py", b"x = 1\n")
        show(f"{where}: list_files", median_ms(call(large, "list_files"), 20))
        show(f"{where}: grep, literal-led, no match", median_ms(call(large, "grep", pattern=r"no_such_name\("), 20))
        show(
            f"{where}: grep, literal-led, one match", median_ms(call(large, "grep", pattern=r"function_4321_42\("), 20)
        )
        show(f"{where}: grep, literal-led, frequent", median_ms(call(large, "grep", pattern=r"value\b.*zzz"), 3))
        show(f"{where}: grep, no literal", median_ms(call(large, "grep", pattern=r"\w+_4321_42\("), 3))
        show(f"{where}: after an edit, list_files", median_ms(call(edited, "list_files"), 20))
        show(
            f"{where}: write_file, a new file",
            median_ms(call(edited, "write_file", rel_path="a/b.py", content="x"), 20),
        )
        show_forks(generated_tree(Path(folder, "small"), FEW_FILES), large)


if __name__ == "__main__":
    main()
