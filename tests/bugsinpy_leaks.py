"""What nobody who repairs a bug of the small world may see, and a walk over all that a test run can read."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.records import Task
from sandboxes.base import Command, SandboxBackend
from suites.bugsinpy.paths import is_test_path, patch_paths
from tests.bugsinpy_world import World, WorldBug, git

SHORTEST = 12
"""Characters of a line that tells something."""
WALK = r"""
import hashlib, json, os, re, sys
lines, blobs = json.loads(bytes.fromhex(sys.argv[1]).decode())
lines = [line.encode() for line in lines]
skipped = {"/proc", "/sys", "/bin", "/lib", "/lib64", "/sbin", "/usr/bin", "/usr/lib", "/usr/sbin", "/usr/share"}
skipped |= {"/usr/include", "/usr/local/include"}
name_tells = re.compile(r"\.git$|\.patch$|\.diff$|\.bundle$|bug_patch|bug\.info$")
found, seen = [], 0
for top, folders, files in os.walk("/"):
    folders[:] = [each for each in folders if os.path.join(top, each) not in skipped]
    if re.search(r"/python3\.\d+$", top):
        folders[:] = [each for each in folders if each != "test"]
    found += [os.path.join(top, each) for each in folders + files if name_tells.search(each)]
    for each in files:
        path = os.path.join(top, each)
        try:
            if not os.path.isfile(path) or os.path.getsize(path) > 2000000:
                continue
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            continue
        seen += 1
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        stripped = {line.strip() for line in data.splitlines()} if any(line in data for line in lines) else set()
        found += [path + ": " + line.decode() for line in lines if line in stripped]
        found += [path + ": a later version"] if blob in blobs else []
print(json.dumps([seen, found]))
"""
"""Everything but the programs and libraries of the base image, and the tests of Python itself."""


@dataclass(frozen=True)
class Secrets:
    """Of one bug."""

    lines: tuple[str, ...]
    """Those that the fix adds, where the buggy commit has them nowhere."""
    blobs: frozenset[str]
    """The files that the fix changes as they are in the fixed commit and after it, as git names them."""

    def found_in(self, files: Mapping[str, bytes]) -> list[str]:
        """Where any of it is."""
        told = [f"{path}: {line}" for path, data in files.items() for line in self.lines if line in stripped(data)]
        return told + [f"{path}: a later version" for path, data in files.items() if blob_of(data) in self.blobs]


def stripped(data: bytes) -> set[str]:
    """Lines without the blanks around them."""
    return {line.strip() for line in data.decode(errors="replace").splitlines()}


def blob_of(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def secrets_of(world: World, bug: WorldBug) -> Secrets:
    """By git alone, from the patch and the history."""
    project, number = bug.id.rsplit("-", 1)
    with clone(world, world.metadata) as metadata, clone(world, bug.repository) as repository:
        patch = git(metadata, "show", f"{world.commit}:projects/{project}/bugs/{number}/bug_patch.txt")
        paths = [path for path in patch_paths(patch) if not is_test_path(path)]
        if "patch does not reverse" in bug.irregular:
            patch = git(repository, "diff", bug.buggy_commit, bug.fixed_commit, "--", *paths)
        after = git(repository, "rev-list", "--all", "--ancestry-path", f"^{bug.fixed_commit}").decode().split()
        later = {blob for commit in [bug.fixed_commit, *after] for blob in _blobs(repository, commit, paths)}
        known = stripped(b"\n".join(_contents(repository, bug.buggy_commit)))
        lines = [line for line in _added(patch) if line not in known]
        assert lines, bug.id
        return Secrets(tuple(lines), frozenset(later) - set(_blobs(repository, bug.buggy_commit, paths)))


@contextmanager
def clone(world: World, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        git(Path(scratch), "clone", "--quiet", "--mirror", str(world.repository(name)), "clone")
        yield Path(scratch) / "clone"


def _blobs(repository: Path, commit: str, paths: list[str]) -> list[str]:
    listed = git(repository, "ls-tree", "-r", commit, "--", *paths).decode()
    return [line.split()[2] for line in listed.splitlines()]


def _contents(repository: Path, commit: str) -> list[bytes]:
    return [git(repository, "cat-file", "blob", blob) for blob in _blobs(repository, commit, ["."])]


def _added(patch: bytes) -> list[str]:
    """The lines that a patch adds to what is no test."""
    found, takes = [], False
    for line in patch.decode(errors="replace").splitlines():
        if line.startswith("+++ "):
            takes = not is_test_path(line[6:])
        elif takes and line.startswith("+") and len(line[1:].strip()) >= SHORTEST:
            found.append(line[1:].strip())
    return found


def leaks_in_container(backend: SandboxBackend, task: Task, secrets: Secrets) -> list[str]:
    """What a run of that task, walking over the whole file system as its own user, finds of the secrets."""
    asked = json.dumps([secrets.lines, sorted(secrets.blobs)]).encode().hex()
    with backend.open(task.resources, task.image) as sandbox:
        result = sandbox.run(task.tree, Command(("python3", "-B", "-c", WALK, asked)))
    assert result.exit_code == 0, result.output
    seen, found = json.loads(result.output.splitlines()[-1])
    assert seen > len(task.tree.paths) + 100, "the tree and the packages at least"
    return [str(each) for each in found]
