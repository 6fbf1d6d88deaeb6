"""A small world in BugsInPy's own format, for machines that have none of the real subject repositories.

`build_world` writes a mirror directory: a metadata repository with the bugs of two invented subjects, whose histories
lie beside it, and of a third subject that is missing. Between them the bugs have every irregularity of the real data.
The commits are the same on every machine. By hand: `python -m tests.bugsinpy_world DIRECTORY`.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bugsinpy_subjects.ferry_bugs import FERRY, GHOST
from tests.bugsinpy_subjects.records import Commit, State, Subject, SubjectBug, Tree, trees
from tests.bugsinpy_subjects.tally_bugs import TALLY

OWNER = "inkwell"
METADATA = f"{OWNER}/bugs"
SUBJECTS = (TALLY, FERRY, GHOST)
WHO = "Ada Inkwell <ada@inkwell.example>"
FIRST_S = 1_500_000_000
DAY_S = 86_400


@dataclass(frozen=True)
class WorldBug:
    """A bug of the world, and what must come out of it."""

    id: str
    """As a task: tally-1"""
    repository: str
    """`owner/name`, in the mirror"""
    python: str
    buggy_commit: str
    fixed_commit: str
    """Both whole, whatever bug.info says."""
    state: State
    failing: tuple[str, ...]
    """Test ids of run_test.sh that fail on the buggy tree and pass on the fixed one."""
    passing: tuple[str, ...]
    """Test ids of run_test.sh that pass on both."""
    flaky: tuple[str, ...]
    """Test ids of which each run passes exactly one, by chance; two runs pass the same one in 1 of 64 cases."""
    irregular: tuple[str, ...]

    @property
    def expected(self) -> tuple[str, ...]:
        """The ids that every run of the fixed tree passes."""
        return self.failing + self.passing


@dataclass(frozen=True)
class World:
    """What was written."""

    mirror: Path
    """The directory for REPO_AGENT_MIRROR."""
    metadata: str
    """`owner/name` of the metadata repository"""
    commit: str
    bugs: tuple[WorldBug, ...]

    def bug(self, task_id: str) -> WorldBug:
        """The bug of that id."""
        return next(bug for bug in self.bugs if bug.id == task_id)

    def repository(self, name: str) -> Path:
        """What git can clone `owner/name` from."""
        bare = self.mirror / name
        return bare if bare.is_dir() else self.mirror / f"{name}.bundle"


def build_world(directory: Path) -> World:
    """Writes `<directory>/mirror`, which must not be there yet: ferry as a bare repository, the others as bundles."""
    owner = directory / "mirror" / OWNER
    owner.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        commit, bugs = _write_repositories(owner, Path(scratch))
    return World(directory / "mirror", METADATA, commit, bugs)


def _write_repositories(owner: Path, scratch: Path) -> tuple[str, tuple[WorldBug, ...]]:
    """The metadata commit and the bugs."""
    files: Tree = {"README.md": ("100644", b"# Bugs of small projects\n")}
    bugs: list[WorldBug] = []
    for subject in SUBJECTS:
        repository = (owner if subject is FERRY else scratch) / subject.project
        commits = _write_history(repository, subject.history, trees(subject.history))
        files |= _subject_files(subject, repository, commits)
        bugs += (_world_bug(subject, bug, commits) for bug in subject.bugs)
    metadata = _write_history(scratch / "bugs", [Commit("bugs", "All bugs", {})], {"bugs": files})
    for name in ("tally", "bugs"):
        git(scratch / name, "bundle", "create", "--quiet", str(owner / f"{name}.bundle"), "HEAD", "--all")
    return metadata["bugs"], tuple(bugs)


def git(repository: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """What git says, run without any configuration of the user or of the machine."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.devnull,
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    command = ["git", "-C", str(repository), "-c", "core.abbrev=7", *arguments]
    return subprocess.run(command, input=stdin, env=environment, check=True, stdout=subprocess.PIPE).stdout


def _write_history(repository: Path, history: Sequence[Commit], known: dict[str, Tree]) -> dict[str, str]:
    """A bare repository of that history; returns the commit ids by name."""
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--object-format=sha1")
    git(repository, "fast-import", "--quiet", "--export-marks=marks", stdin=_stream(history, known))
    marks = repository / "marks"
    ids = dict(line.split() for line in marks.read_text().splitlines())
    marks.unlink()
    return {commit.name: ids[f":{number}"] for number, commit in enumerate(history, 1)}


def _stream(history: Sequence[Commit], known: dict[str, Tree]) -> bytes:
    """The history in the format of `git fast-import`; tips of side branches that nobody merged get their own names."""
    number = {commit.name: place for place, commit in enumerate(history, 1)}
    lines: list[bytes] = []
    for before, commit in zip([None, *history], history, strict=False):
        place = number[commit.name]
        lines += [b"commit refs/heads/main", b"mark :%d" % place]
        lines += [f"committer {WHO} {FIRST_S + place * DAY_S} +0000".encode(), _data(commit.message.encode())]
        if before:
            lines.append(b"from :%d" % number[commit.parent or before.name])
        if commit.merges:
            lines.append(b"merge :%d" % number[commit.merges])
        lines.append(b"deleteall")
        for path, (mode, content) in known[commit.name].items():
            lines += [f"M {mode} inline {path}".encode(), _data(content)]
    for tip in _side_tips(history):
        lines += [f"reset refs/heads/{tip}".encode(), b"from :%d" % number[tip]]
    return b"\n".join(lines) + b"\n"


def _data(content: bytes) -> bytes:
    return b"data %d\n%b" % (len(content), content)


def _side_tips(history: Sequence[Commit]) -> list[str]:
    followed = {after.parent or before.name for before, after in itertools.pairwise(history)}
    followed |= {commit.merges for commit in history if commit.merges} | {history[-1].name}
    return [commit.name for commit in history if commit.name not in followed]


def _subject_files(subject: Subject, repository: Path, commits: dict[str, str]) -> Tree:
    """The subject's part of the metadata repository."""
    root = f"projects/{subject.project}"
    files = {f"{root}/project.info": subject.info.encode()}
    for bug in subject.bugs:
        directory = f"{root}/bugs/{bug.number}"
        files |= {f"{directory}/{name}": content for name, content in _bug_files(bug, repository, commits).items()}
    return {path: ("100644", content) for path, content in files.items()}


def _bug_files(bug: SubjectBug, repository: Path, commits: dict[str, str]) -> dict[str, bytes]:
    """A bug directory: names to contents."""
    buggy = commits[bug.buggy][:7] if bug.abbreviated else commits[bug.buggy]
    info = bug.info.format(python=bug.python, buggy=buggy, fixed=commits[bug.fixed], tests=bug.test_file)
    before, after = bug.patch_of or (bug.buggy, bug.fixed)
    files = {
        "bug.info": info.encode(),
        "bug_patch.txt": git(repository, "diff", commits[before], commits[after], "--", *bug.patch_paths),
        "run_test.sh": bug.run.encode(),
        "requirements.txt": bug.requirements,
        "setup.sh": bug.setup.encode() if bug.setup else None,
    }
    return {name: content for name, content in files.items() if content is not None}


def _world_bug(subject: Subject, bug: SubjectBug, commits: dict[str, str]) -> WorldBug:
    return WorldBug(
        id=f"{subject.project}-{bug.number}",
        repository=f"{OWNER}/{subject.project}",
        python=bug.python,
        buggy_commit=commits[bug.buggy],
        fixed_commit=commits[bug.fixed],
        state=bug.state,
        failing=tuple(bug.failing),
        passing=tuple(bug.passing),
        flaky=tuple(bug.flaky),
        irregular=tuple(bug.irregular),
    )


def main(arguments: Sequence[str]) -> int:
    """Writes the world into the one directory named, and says how to use it."""
    if len(arguments) != 1:
        print("usage: python -m tests.bugsinpy_world DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[0]).absolute()
    if (directory / "mirror").exists():
        print(f"{directory / 'mirror'} is there already", file=sys.stderr)
        return 2
    world = build_world(directory)
    print(f"REPO_AGENT_MIRROR={world.mirror}")
    print(f"REPO_AGENT_BUGSINPY={world.metadata}@{world.commit}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
