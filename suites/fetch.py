"""Fetching what suites need, once, into a cache; from the network, or from a mirror directory.

A mirror holds `<owner>/<name>.bundle` (or a bare repository of that name, with or without `.git`) for git, and
`datasets/<hub id>/…` for data sets. From the network a repository comes without its files' contents where the server
can do that; they are fetched when a tree is needed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MachineLacks, UsageError
from sandboxes.cache_directory import cache_directory
from sandboxes.workspace import File, Mode

MIRROR_VARIABLE = "REPO_AGENT_MIRROR"
FETCH_S = 3600


class NotFetched(MachineLacks):
    """A repository that cannot be had at all."""


def mirror_directory(given: Path | None = None) -> Path | None:
    """The mirror in force: the given one, else REPO_AGENT_MIRROR. Raises UsageError where it is no directory."""
    path = given or (Path(os.environ[MIRROR_VARIABLE]) if os.environ.get(MIRROR_VARIABLE) else None)
    if path is not None and not path.is_dir():
        raise MachineLacks(f"the mirror {path} is not a directory")
    return path


def git_repository(name: str, commits: Sequence[str], mirror: Path | None = None) -> Path:
    """A bare clone of `owner/name` that holds the commits, from the cache or fetched now.

    Git's own hashes verify the content: a commit names every byte.

    Raises:
        UsageError: it cannot be fetched, or does not hold the commits; in one line, with what to do.
    """
    cached = cache_directory() / "git" / f"{name}.git"
    in_force = mirror_directory(mirror)
    if not _lacks(cached, commits):
        return _served(cached, name, in_force)
    source = _source(name, in_force)
    with _alone(cached):
        if _lacks(cached, commits) and not _fetched_more(cached, source, commits):
            _clone(name, source, cached, in_force)
        if missing := _lacks(cached, commits):
            raise UsageError(f"{source} does not hold commit {missing} of {name}")
    return cached


@contextlib.contextmanager
def _alone(cached: Path) -> Iterator[None]:
    """One process and one thread fetches a repository."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with cached.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UsageError(f"cannot keep a repository in {cached.parent}: {error.strerror}") from error


def _served(cached: Path, name: str, mirror: Path | None) -> Path:
    """A clone that was made without contents takes them from the mirror in force, where that has the repository."""
    if mirror and _is_partial(cached):
        with contextlib.suppress(NotFetched):
            git(cached, "config", "remote.origin.url", _source(name, mirror))
    return cached


def _is_partial(repository: Path) -> bool:
    return git(repository, "config", "remote.origin.promisor").stdout.strip() == b"true"


def _lacks(repository: Path, commits: Sequence[str]) -> str:
    """The first commit that it does not hold; empty where it has them all."""
    if not repository.is_dir():
        return commits[0]
    asked = "".join(f"{commit}^{{commit}}\n" for commit in commits).encode()
    done = git(repository, "cat-file", "--batch-check", stdin=asked)
    if done.returncode:  # no repository at all
        return commits[0]
    said = done.stdout.decode().splitlines()
    return next((commit for commit, line in zip(commits, said, strict=True) if " commit " not in line), "")


def _fetched_more(cached: Path, source: str, commits: Sequence[str]) -> bool:
    """Bring a clone up to date; a server may have to be asked for a commit that no branch leads to any more."""
    if not cached.is_dir():
        return False
    git(cached, "fetch", "--quiet", source, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    while missing := _lacks(cached, commits):
        if git(cached, "fetch", "--quiet", source, missing).returncode or _lacks(cached, [missing]):
            return False
    return True


def _clone(name: str, source: str, cached: Path, mirror: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
        clone = Path(scratch) / "clone.git"
        done = git(None, "clone", "--quiet", "--bare", "--filter=blob:none", source, str(clone))
        if done.returncode:
            if os.strerror(errno.ENOSPC) in why(done):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise NotFetched(f"cannot fetch {name} from {source} ({why(done)}): {_advice(name, mirror)}")
        git(clone, "config", "gc.auto", "0")  # trees that are made here hang on no branch
        if cached.exists():
            shutil.rmtree(cached, ignore_errors=True)
        clone.rename(cached)


def why(done: subprocess.CompletedProcess[bytes]) -> str:
    """What git says went wrong, in one line."""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return next((line for line in said if line.startswith(("fatal:", "error:"))), "git failed")


def _advice(name: str, mirror: Path | None) -> str:
    if mirror:
        return "the mirror's copy is broken"
    return f"connect to the network, or set {MIRROR_VARIABLE} (or --mirror) to a directory that holds {name}.bundle"


def _source(name: str, mirror: Path | None) -> str:
    if mirror is None:
        return f"https://github.com/{name}.git"
    for candidate in (mirror / f"{name}.bundle", mirror / f"{name}.git", mirror / name):
        if candidate.exists():
            return str(candidate.resolve())
    raise NotFetched(f"the mirror {mirror} has no {name}.bundle")


def git(
    repository: Path | None,
    *arguments: str,
    stdin: bytes | None = None,
    index: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a bare repository, and in no other that lies around it, whatever the user's environment says.

    Args:
        index: another index file than the repository's.

    Raises UsageError where there is no git, or it takes longer than FETCH_S.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _LOCATIONS}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    environment |= {"GIT_INDEX_FILE": str(index)} if index else {}
    place = ["-C", str(repository), "--git-dir=."] if repository else []
    try:
        return subprocess.run(
            ["git", *place, *arguments], input=stdin, capture_output=True, timeout=FETCH_S, env=environment, check=False
        )
    except FileNotFoundError:
        raise MachineLacks("git is not installed: install it first") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"git {arguments[0]} took longer than {FETCH_S} s") from None


_LOCATIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")


@dataclass(frozen=True)
class Entry:
    """A file of a git tree: its kind, and the id of its content."""

    mode: Mode
    blob: str


def listing(repository: Path, tree: str) -> dict[str, Entry]:
    """The files of a commit or tree by path, submodules left out. Raises UsageError where git cannot list it."""
    done = git(repository, "ls-tree", "-r", "-z", "--full-tree", tree)
    if done.returncode:
        raise UsageError(f"{repository.stem} cannot list {tree} ({why(done)})")
    entries = {}
    for line in done.stdout.split(b"\0")[:-1]:
        meta, path = line.decode(errors="surrogateescape").split("\t", 1)
        mode, kind, blob = meta.split()
        if kind == "blob":
            entries[path] = Entry(_MODES.get(mode, Mode.REGULAR), blob)
    return entries


_MODES = {str(mode): mode for mode in Mode}


def _fetch_contents(repository: Path, tree: str) -> None:
    """What a partial clone lacks, in one go; asked for one by one they would take a connection each."""
    if not _is_partial(repository):
        return
    said = git(repository, "rev-list", "--objects", "--missing=print", "--no-walk", tree).stdout
    missing = sorted(line[1:].decode() for line in said.splitlines() if line.startswith(b"?"))
    if missing:
        wanted = "".join(f"{blob}\n" for blob in missing).encode()
        options = ("--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--stdin")
        done = git(repository, "-c", "fetch.negotiationAlgorithm=noop", "fetch", "origin", *options, stdin=wanted)
        if done.returncode:
            raise UsageError(f"cannot fetch the files of {repository.stem} ({why(done)})")


def git_files(repository: Path, tree: str, wanted: Callable[[str], bool] = lambda path: True) -> dict[str, File]:
    """The wanted files of a commit or tree, read from the object database, so that no attribute or filter changes them.

    Submodules are left out. Raises UsageError where git cannot give them.
    """
    entries = {path: entry for path, entry in listing(repository, tree).items() if wanted(path)}
    _fetch_contents(repository, tree)
    asked = "".join(f"{each.blob}\n" for each in entries.values()).encode()
    batch = git(repository, "cat-file", "--batch", stdin=asked)
    files, data, at = {}, batch.stdout, 0
    for path, entry in entries.items():
        end = data.find(b"\n", at)
        head = data[at:end].split()
        if end < 0 or len(head) != 3:
            raise UsageError(f"{repository.stem} cannot give {path} of {tree} ({why(batch)})")
        files[path] = File(data[end + 1 : end + 1 + int(head[2])], entry.mode)
        at = end + 2 + int(head[2])
    return files
