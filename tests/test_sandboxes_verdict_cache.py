"""The verdict cache over the real local backend: what is answered from disk, what is kept, what the disk may do."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from sandboxes import verdict_cache
from sandboxes.base import (
    Command,
    ExecResult,
    Isolation,
    Limit,
    Limits,
    Promises,
    PytestRun,
    Resources,
    Sandbox,
    SandboxBackend,
    SandboxError,
    SandboxNotStarted,
    TestRecord,
)
from sandboxes.local_sandbox import LocalBackend
from sandboxes.verdict_cache import CacheCounts, CachedBackend, VerdictStore, verdict_key
from sandboxes.workspace import File, MappingTree, Mode, Workspace

ROOT = Path(__file__).parent.parent
TESTS = "def test_good():\n    pass\n\n\ndef test_bad():\n    assert 'hé' == 1\n"
TREE = Workspace(MappingTree({"test_it.py": TESTS.encode()}))
OTHER_TREE = TREE.write("test_it.py", b"def test_good():\n    pass\n")
COMMAND = Command(PytestRun(("test_it.py",)))
SCORING = Command(PytestRun(("test_it.py",), scoring=True))
KEY = "a" * 64
RESULT = ExecResult(1, "hé", records=(TestRecord("test_it.py::test_bad", "failed", "E assert 'hé' == 1", 0.1),))


class Watched:
    """A real backend: counts what is asked of it, and lets a test stand in the way of each run.

    With `always` every sandbox that is opened is that one, which is quicker: a run leaves nothing for the next one.
    """

    def __init__(self, backend: SandboxBackend, always: Sandbox | None = None) -> None:
        self.backend, self.always = backend, always
        self.name, self.isolation, self.promises = backend.name, backend.isolation, backend.promises
        self.about = backend.about
        self.identities = {"": backend.identity()}
        self.opened = self.runs = self.closed = 0
        self.when_open: Callable[[], None] = lambda: None
        self.before_run: Callable[[], None] = lambda: None
        self.alter: Callable[[ExecResult], ExecResult] = lambda result: result
        self._lock = threading.Lock()

    def count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)

    def identity(self, image: str = "") -> str:
        return self.identities[image]

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        self.backend.prepare(resources, image, sandboxes)

    def open(self, resources: Resources, image: str = "") -> WatchedSandbox:
        opened = WatchedSandbox(self, self.always or self.backend.open(resources, image))
        self.count(opened=1)
        self.when_open()
        return opened

    def close(self) -> None:
        self.backend.close()


class WatchedSandbox:
    def __init__(self, watched: Watched, sandbox: Sandbox) -> None:
        self._watched, self._sandbox = watched, sandbox

    def run(self, tree: Workspace, command: Command) -> ExecResult:
        self._watched.count(runs=1)
        self._watched.before_run()
        return self._watched.alter(self._sandbox.run(tree, command))

    def close(self) -> None:
        self._watched.count(closed=1)
        if self._sandbox is not self._watched.always:
            self._sandbox.close()

    def __enter__(self) -> WatchedSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(scope="module")
def local_sandbox(local_backend: LocalBackend) -> Iterator[Sandbox]:
    with local_backend.open(Resources()) as sandbox:
        yield sandbox


@pytest.fixture
def watched(local_backend: LocalBackend, local_sandbox: Sandbox) -> Watched:
    return Watched(local_backend, local_sandbox)


@pytest.fixture
def cache(watched: Watched, tmp_path: Path) -> CachedBackend:
    return CachedBackend(watched, tmp_path / "verdicts")


def ask(cache: CachedBackend, tree: Workspace = TREE, command: Command = COMMAND) -> ExecResult:
    """One run in a sandbox of its own."""
    with cache.open(Resources()) as sandbox:
        return sandbox.run(tree, command)


def outcomes(result: ExecResult) -> dict[str, str]:
    return {record.id.rpartition("::")[2]: record.outcome for record in result.records}


def only_file(directory: Path) -> Path:
    (found,) = [path for path in directory.rglob("*") if path.is_file()]
    return found


# ---- hits


def test_a_known_verdict_is_given_without_opening_a_sandbox(cache: CachedBackend, watched: Watched) -> None:
    first = ask(cache)
    again = ask(cache)
    assert outcomes(first) == {"test_good": "passed", "test_bad": "failed"}
    assert "hé" in first.records[1].message
    assert not first.cached
    assert again == replace(first, cached=True)
    assert (watched.opened, watched.runs, watched.closed) == (1, 1, 1)
    assert cache.counts == CacheCounts(hits=1, misses=1, kept=1)


def test_a_later_process_finds_the_verdict(cache: CachedBackend, watched: Watched, tmp_path: Path) -> None:
    first = ask(cache)
    assert ask(CachedBackend(watched, tmp_path / "verdicts")) == replace(first, cached=True)
    assert watched.opened == 1


def test_a_sandbox_serves_known_and_unknown_verdicts_in_turn(cache: CachedBackend, watched: Watched) -> None:
    ask(cache)
    with cache.open(Resources()) as sandbox:
        found = [sandbox.run(tree, COMMAND).cached for tree in (TREE, OTHER_TREE, TREE, OTHER_TREE)]
    assert found == [True, False, True, True]
    assert (watched.opened, watched.runs, watched.closed) == (2, 2, 2)


def test_programs_other_than_pytest_are_always_run(cache: CachedBackend, watched: Watched, tmp_path: Path) -> None:
    results = [ask(cache, command=Command(("echo", "hello"))) for _ in range(2)]
    assert [(result.output, result.cached) for result in results] == [("hello\n", False)] * 2
    assert (watched.runs, cache.counts, list(tmp_path.iterdir())) == (2, CacheCounts(), [])


def test_a_sandbox_that_ran_nothing_is_closed_without_having_been_opened(
    cache: CachedBackend, watched: Watched
) -> None:
    with cache.open(Resources()):
        pass
    assert (watched.opened, watched.closed) == (0, 0)


# ---- the key


@dataclass(frozen=True)
class Question:
    """All that decides a verdict."""

    name: str = "docker"
    identity: str = "sha256:1"
    isolation: Isolation = Isolation.CONTAINER
    promises: Promises = LocalBackend.promises
    resources: Resources = Resources()
    command: Command = SCORING
    tree: Workspace = TREE

    def key(self, watched: Watched) -> str:
        watched.name, watched.isolation, watched.promises = self.name, self.isolation, self.promises
        watched.identities["image"] = self.identity
        return verdict_key(watched, "image", self.resources, self.tree, self.command)


def altered(value: Any) -> Iterator[tuple[str, Any]]:
    """A value with each of its parts changed in turn, and the changed part's name."""
    if is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            for name, part in altered(getattr(value, each.name)):
                yield f"{each.name}.{name}".rstrip("."), replace(value, **{each.name: part})
    elif isinstance(value, bool):
        yield "", not value
    elif isinstance(value, Enum):
        yield "", next(other for other in type(value) if other is not value)
    elif isinstance(value, int | float):
        yield "", value + 1
    elif isinstance(value, str):
        yield "", value + "x"
    elif isinstance(value, tuple):
        yield "", (*value, "x")
    else:
        yield "", {**value, "NAME": "value"}


def questions() -> Iterator[tuple[str, Question]]:
    """The plain question with each part changed in turn."""
    plain = Question()
    for part in ("name", "identity", "isolation", "promises", "resources", "command"):
        for name, value in altered(getattr(plain, part)):
            yield f"{part}.{name}".rstrip("."), replace(plain, **{part: value})
    yield "a file's content", replace(plain, tree=OTHER_TREE)
    yield "a further file", replace(plain, tree=TREE.write("more.py", b""))
    yield "a file less", replace(plain, tree=TREE.write("more.py", b"").remove("test_it.py"))
    mode = MappingTree({"test_it.py": File(TREE.file("test_it.py").content, Mode.EXECUTABLE)})
    yield "a file's mode", replace(plain, tree=Workspace(mode))
    yield "a program", replace(plain, command=Command(("test_it.py",)))


@pytest.mark.parametrize("question", [pytest.param(question, id=name) for name, question in questions()])
def test_each_part_of_the_question_changes_the_key(watched: Watched, question: Question) -> None:
    assert question.key(watched) != Question().key(watched)


def test_all_parts_of_the_question_are_told_apart(watched: Watched) -> None:
    keys = [question.key(watched) for _, question in questions()]
    assert len(set(keys)) == len(keys) > 25


def test_the_same_question_has_the_same_key_however_it_was_put(watched: Watched) -> None:
    there_and_back = Workspace(MappingTree({"test_it.py": TREE.file("test_it.py")})).write("test_it.py", b"")
    same_tree = there_and_back.write("test_it.py", TREE.read("test_it.py"))
    one = replace(SCORING, env={"A": "1", "B": "2"})
    other = replace(SCORING, env=MappingProxyType({"B": "2", "A": "1"}))
    assert Question(command=one).key(watched) == Question(command=other, tree=same_tree).key(watched)


def test_verdicts_of_shared_containers_never_answer_for_containers_of_ones_own(
    cache: CachedBackend, watched: Watched
) -> None:
    watched.isolation = Isolation.RUN
    ask(cache, command=SCORING)
    watched.isolation = Isolation.CONTAINER
    assert not ask(cache, command=SCORING).cached
    assert watched.runs == 2


# ---- what is kept

DOUBTFUL: dict[str, dict[str, Any]] = {
    **{f"limit {limit}": {"hit": frozenset({limit, Limit.OUTPUT})} for limit in Limit if limit is not Limit.OUTPUT},
    "death by a signal": {"exit_code": -9},
    "tampered": {"tampered": "somebody was here"},
    "missing canaries": {"canaries_missing": True},
    "no test reported": {"records": ()},
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_a_result_that_the_tree_alone_did_not_decide_is_not_kept(
    cache: CachedBackend, watched: Watched, tmp_path: Path, case: str
) -> None:
    watched.alter = lambda result: replace(result, **DOUBTFUL[case])
    assert not ask(cache).cached
    watched.alter = lambda result: result
    assert outcomes(ask(cache)) == {"test_good": "passed", "test_bad": "failed"}
    assert (watched.runs, cache.counts) == (2, CacheCounts(misses=2, kept=1))
    assert only_file(tmp_path)


def test_a_result_whose_output_was_cut_is_kept(cache: CachedBackend, watched: Watched) -> None:
    watched.alter = lambda result: replace(result, hit=frozenset({Limit.OUTPUT}))
    assert ask(cache).truncated
    assert ask(cache).truncated
    assert watched.runs == 1


def test_a_run_that_goes_over_its_time_is_run_again(cache: CachedBackend, watched: Watched) -> None:
    tree = TREE.write("test_it.py", b"import time\n\n\ndef test_slow():\n    time.sleep(1000)\n")
    command = replace(COMMAND, limits=Limits(wall_s=1.0))
    for _ in range(2):
        result = ask(cache, tree, command)
        assert (result.timed_out, result.cached) == (True, False)
    assert (watched.runs, cache.counts.kept) == (2, 0)


def test_a_fault_of_the_sandbox_passes_and_is_not_kept(cache: CachedBackend, watched: Watched, tmp_path: Path) -> None:
    def fail() -> None:
        raise SandboxError("the container is lost")

    watched.before_run = fail
    with pytest.raises(SandboxError, match="lost"):
        ask(cache)
    assert list(tmp_path.iterdir()) == []
    watched.before_run = lambda: None
    assert not ask(cache).cached
    assert watched.closed == 2


def test_a_sandbox_that_cannot_be_started_is_the_fault_of_the_run(cache: CachedBackend, watched: Watched) -> None:
    def fail() -> None:
        raise SandboxNotStarted("no room")

    watched.when_open = fail
    with cache.open(Resources()) as sandbox:
        with pytest.raises(SandboxNotStarted):
            sandbox.run(TREE, COMMAND)
        watched.when_open = lambda: None
        assert sandbox.run(TREE, COMMAND).records


@pytest.mark.parametrize(("isolation", "kept"), [(Isolation.CONTAINER, 0), (Isolation.RUN, 1)])
def test_a_score_from_a_container_that_ran_something_before_is_not_kept(
    cache: CachedBackend, watched: Watched, isolation: Isolation, kept: int
) -> None:
    watched.isolation = isolation
    with cache.open(Resources()) as sandbox:
        sandbox.run(TREE, Command(("true",)))
        sandbox.run(TREE, SCORING)
    assert cache.counts.kept == kept


def test_feedback_from_a_container_that_ran_something_before_is_kept(cache: CachedBackend) -> None:
    with cache.open(Resources()) as sandbox:
        sandbox.run(TREE, Command(("true",)))
        sandbox.run(TREE, COMMAND)
    assert cache.counts.kept == 1


# ---- what the disk may do


def rewritten(**changes: Any) -> Callable[[bytes], bytes]:
    """A verdict's file with fields of its result changed."""

    def rewrite(data: bytes) -> bytes:
        content = json.loads(data)
        content["result"] |= changes
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()

    return rewrite


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"{}",
    "not text": lambda _: b"\xff\x00" * 100,
    "deeply nested": lambda _: b"[" * 10**5,
    "another format": lambda data: data.replace(b'"format":1', b'"format":2'),
    "another key": lambda data: data.replace(b'"key":"', b'"key":"0', 1),
    "another field": rewritten(more=1),
    "a field of another type": rewritten(exit_code="1"),
    "an unknown limit": rewritten(hit=["moon"]),
    "a field less": lambda data: data.replace(b'"tampered":"",', b""),
    "a verdict that is never kept": rewritten(hit=["wall"]),
    "a file larger than any": lambda data: data + b" " * verdict_cache.FOLDER_BYTES,
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_verdict_is_none_and_is_replaced(tmp_path: Path, case: str) -> None:
    whole = kept_file(tmp_path)
    path, store = only_file(tmp_path), VerdictStore(tmp_path)
    path.write_bytes(BROKEN[case](whole))
    assert store.load(KEY) is None
    assert store.keep(KEY, RESULT)
    assert (store.load(KEY), only_file(tmp_path), path.read_bytes()) == (RESULT, path, whole)


def test_a_file_that_is_written_anew_with_the_same_content_is_the_verdict(tmp_path: Path) -> None:
    whole = kept_file(tmp_path)
    only_file(tmp_path).write_bytes(rewritten()(whole))
    assert VerdictStore(tmp_path).load(KEY) == RESULT


def test_a_verdict_whose_file_was_cut_is_run_again(cache: CachedBackend, watched: Watched, tmp_path: Path) -> None:
    ask(cache)
    os.truncate(only_file(tmp_path), 100)
    assert [ask(cache).cached for _ in range(2)] == [False, True]
    assert watched.runs == 2


def kept_file(directory: Path) -> bytes:
    assert VerdictStore(directory).keep(KEY, RESULT)
    return only_file(directory).read_bytes()


def test_a_directory_that_cannot_be_made_breaks_no_run(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = CachedBackend(watched, tmp_path / "file" / "verdicts")
    assert [ask(cache).cached for _ in range(2)] == [False, False]
    assert cache.counts == CacheCounts(misses=2, lost=2)


def test_a_folder_in_the_verdicts_place_breaks_no_run(cache: CachedBackend, watched: Watched, tmp_path: Path) -> None:
    ask(cache)
    path = only_file(tmp_path)
    path.unlink()
    path.mkdir()
    assert outcomes(ask(cache)) == {"test_good": "passed", "test_bad": "failed"}
    assert (watched.runs, cache.counts.lost) == (2, 1)
    assert list(path.parent.iterdir()) == [path]


def test_a_read_only_directory_answers_and_breaks_no_run(
    cache: CachedBackend, watched: Watched, tmp_path: Path
) -> None:
    ask(cache)
    folder = only_file(tmp_path).parent
    for path in (folder, folder.parent):
        path.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("nothing is read-only to this user")
    try:
        assert ask(cache).cached
        assert [ask(cache, OTHER_TREE).cached for _ in range(2)] == [False, False]
        assert (watched.runs, cache.counts.lost) == (3, 2)
    finally:
        for path in (folder.parent, folder):
            path.chmod(0o755)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow over ten bytes: a write fails, for root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_the_verdict_and_leaves_no_scratch_file(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path)
    with full_disk():
        kept = store.keep(KEY, RESULT)
    assert (kept, store.load(KEY)) == (False, None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_result_that_is_no_text_is_lost_and_breaks_nothing(cache: CachedBackend, watched: Watched) -> None:
    watched.alter = lambda result: replace(result, output="\ud800")
    assert [ask(cache).output for _ in range(2)] == ["\ud800"] * 2
    assert cache.counts == CacheCounts(misses=2, lost=2)


# ---- size


def keys(number: int) -> list[str]:
    """Keys of one folder."""
    return [f"ab{each:062x}" for each in range(number)]


def age(directory: Path, key: str, seconds: int) -> None:
    os.utime(directory / key[:2] / f"{key}.json", (10**9 - seconds, 10**9 - seconds))


def test_what_was_not_used_for_longest_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_cache, "FOLDER_FILES", 3)
    store, (old, used, middle, new, other) = VerdictStore(tmp_path), keys(5)
    for seconds, key in ((400, old), (500, used), (300, middle)):
        assert store.keep(key, RESULT)
        age(tmp_path, key, seconds)
    assert store.load(used) == RESULT
    for key in (new, other):
        assert store.keep(key, RESULT)
    assert [store.load(key) is not None for key in (old, used, middle, new, other)] == [False, True, False, True, True]


def test_the_bytes_of_a_folder_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(kept_file(tmp_path / "other"))
    monkeypatch.setattr(verdict_cache, "FOLDER_BYTES", 5 * size)
    store = VerdictStore(tmp_path / "verdicts")
    for key in keys(20):
        assert store.keep(key, RESULT)
    assert sum(path.stat().st_size for path in (tmp_path / "verdicts").rglob("*.json")) == 5 * size
    assert store.load(keys(20)[-1]) == RESULT
    assert not store.keep(KEY, replace(RESULT, output="x" * 5 * size))


def test_a_scratch_file_that_a_killed_process_left_is_pruned_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict_cache, "FOLDER_FILES", 2)
    left = tmp_path / "ab" / "tmpkilled"
    left.parent.mkdir()
    left.write_text("half")
    os.utime(left, (0, 0))
    for key in keys(2):
        VerdictStore(tmp_path).keep(key, RESULT)
    assert not left.exists()


# ---- several at once

HAMMER = """
import random, sys
from dataclasses import replace
from pathlib import Path
from sandboxes import verdict_cache
from tests.test_sandboxes_verdict_cache import RESULT, keys
verdict_cache.FOLDER_FILES = 4
store, chance, found = verdict_cache.VerdictStore(Path(sys.argv[1])), random.Random(sys.argv[2]), 0
for _ in range(600):
    number, key = chance.choice(list(enumerate(keys(6))))
    expected = replace(RESULT, output=str(number) * 1000 * (1 + number))
    result = store.load(key)
    assert result in (None, expected), result
    found += result is not None
    if chance.random() < 0.3:
        store.keep(key, expected)
print(found)
"""


def test_processes_that_write_read_and_prune_the_same_folder_never_see_half_a_verdict(tmp_path: Path) -> None:
    hammers = [
        subprocess.Popen([sys.executable, "-c", HAMMER, str(tmp_path), str(seed)], cwd=ROOT, stdout=subprocess.PIPE)
        for seed in range(4)
    ]
    found = [int(hammer.communicate()[0]) for hammer in hammers]
    assert [hammer.returncode for hammer in hammers] == [0] * 4
    assert all(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict_cache, "FOLDER_FILES", 4)
        assert VerdictStore(tmp_path).keep(keys(1)[0], RESULT)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names <= {f"{key}.json" for key in keys(6)} and len(names) <= 4


def test_threads_with_the_same_question_share_one_run(cache: CachedBackend, watched: Watched) -> None:
    """Each finds no verdict, and opens a sandbox; the run goes on when all of them have."""
    watched.always = None
    all_open = threading.Barrier(4)
    watched.when_open = lambda: void(all_open.wait(60))
    with ThreadPoolExecutor(4) as pool:
        results = [future.result() for future in [pool.submit(ask, cache) for _ in range(4)]]
    assert (watched.opened, watched.runs) == (4, 1)
    assert sorted(result.cached for result in results) == [False, True, True, True]
    assert len({result.records for result in results}) == 1


def test_a_first_run_that_fails_spoils_no_other(cache: CachedBackend, watched: Watched) -> None:
    watched.always = None
    all_open = threading.Barrier(3)

    def fail_first() -> None:
        if watched.runs == 1:
            raise SandboxError("lost")

    watched.when_open, watched.before_run = lambda: void(all_open.wait(60)), fail_first
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(ask, cache) for _ in range(3)]
    assert [str(future.exception()) for future in futures if future.exception()] == ["lost"]
    found = [outcomes(future.result()) for future in futures if not future.exception()]
    assert found == [{"test_good": "passed", "test_bad": "failed"}] * 2
    assert ask(cache).cached


def test_threads_with_different_questions_do_not_wait_for_each_other(cache: CachedBackend, watched: Watched) -> None:
    watched.always = None
    both = threading.Barrier(2)
    watched.before_run = lambda: void(both.wait(60))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda tree: ask(cache, tree), (TREE, OTHER_TREE)))
    assert [len(result.records) for result in results] == [2, 1]


def void(_: object) -> None:
    """For a lambda that gives nothing."""


# ---- ends


def test_a_closed_sandbox_runs_nothing(cache: CachedBackend, watched: Watched) -> None:
    sandbox = cache.open(Resources())
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        sandbox.run(TREE, COMMAND)
    assert watched.opened == 0


def test_a_sandbox_closed_while_it_is_opened_is_closed_for_good(cache: CachedBackend, watched: Watched) -> None:
    sandbox = cache.open(Resources())
    watched.when_open = sandbox.close
    with pytest.raises(SandboxError):
        sandbox.run(TREE, COMMAND)
    assert (watched.opened, watched.closed) == (1, 1)


def test_the_wrapped_backend_is_what_is_reported(cache: CachedBackend, local_backend: LocalBackend) -> None:
    assert (cache.name, cache.isolation, cache.promises, cache.about, cache.identity()) == (
        local_backend.name,
        local_backend.isolation,
        local_backend.promises,
        local_backend.about,
        local_backend.identity(),
    )


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"REPO_AGENT_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a/verdicts"),
        ({"REPO_AGENT_CACHE": "", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/repo-agent/verdicts"),
        ({"HOME": "/c"}, "/c/.cache/repo-agent/verdicts"),
    ],
)
def test_verdicts_lie_in_the_cache_directory(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("REPO_AGENT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert verdict_cache.verdict_directory() == Path(expected)
