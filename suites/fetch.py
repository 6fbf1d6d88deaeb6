"""Fetching what suites need, once, into a cache; from the network, or from a mirror directory.

A mirror holds `<owner>/<name>.bundle` (or a bare repository of that name, with or without `.git`) for git, and
`datasets/<hub id>/…` for data sets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import UsageError
from sandboxes.cache_directory import cache_directory
from sandboxes.workspace import File, Mode

MIRROR_VARIABLE = "REPO_AGENT_MIRROR"
FETCH_S = 900


def mirror_directory(given: Path | None = None) -> Path | None:
    """The mirror in force: the given one, else REPO_AGENT_MIRROR. Raises UsageError where it is no directory."""
    path = given or (Path(os.environ[MIRROR_VARIABLE]) if os.environ.get(MIRROR_VARIABLE) else None)
    if path is not None and not path.is_dir():
        raise UsageError(f"the mirror {path} is not a directory")
    return path


def git_repository(name: str, commit: str, mirror: Path | None = None) -> Path:
    """A bare clone of `owner/name` that holds the commit, from the cache or fetched now.

    Git's own hashes verify the content: the commit names every byte.

    Raises:
        UsageError: it cannot be fetched, or does not hold the commit; in one line, with what to do.
    """
    cached = cache_directory() / "git" / f"{name}.git"
    if cached.is_dir() and _has_commit(cached, commit):
        return cached
    from_mirror = mirror_directory(mirror)
    source = _source(name, from_mirror)
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
        clone = Path(scratch) / "clone.git"
        done = _git("-c", "transfer.fsckObjects=true", "clone", "--quiet", "--mirror", source, str(clone))
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            why = next((line for line in said if line.startswith(("fatal:", "error:"))), "git failed")
            raise UsageError(f"cannot fetch {name} from {source} ({why}): {_advice(name, from_mirror)}")
        if not _has_commit(clone, commit):
            raise UsageError(f"{source} does not hold commit {commit} of {name}")
        if cached.exists():
            shutil.rmtree(cached, ignore_errors=True)
        clone.rename(cached)
    return cached


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
    raise UsageError(f"the mirror {mirror} has no {name}.bundle")


def _git(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(variable, None)
    try:
        return subprocess.run(
            ["git", *arguments], input=stdin, capture_output=True, timeout=FETCH_S, env=environment, check=False
        )
    except FileNotFoundError:
        raise UsageError("git is not installed: install it first") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"git {arguments[0]} took longer than {FETCH_S} s") from None


def _has_commit(repository: Path, commit: str) -> bool:
    return _git("-C", str(repository), "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def git_files(repository: Path, commit: str, wanted: Callable[[str], bool]) -> dict[str, File]:
    """The wanted files of a commit, read from the object database (so that no attribute or filter changes them)."""
    listing = _git("-C", str(repository), "ls-tree", "-r", "-z", commit)
    entries = [line.split("\t", 1) for line in listing.stdout.decode().split("\0") if line]
    kept = [(meta.split(), path) for meta, path in entries if wanted(path) and meta.split()[1] == "blob"]
    batch = _git("-C", str(repository), "cat-file", "--batch", stdin="".join(f"{m[2]}\n" for m, _ in kept).encode())
    files, data, at = {}, batch.stdout, 0
    for (mode, _, _), path in kept:
        end = data.index(b"\n", at)
        size = int(data[at:end].split()[2])
        files[path] = File(data[end + 1 : end + 1 + size], Mode(mode))
        at = end + 2 + size
    return files
