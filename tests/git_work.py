"""A git repository that a test writes, and the forms in which suites can be given it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """A work tree. Nothing of the user's configuration has a say in it."""

    place: Path

    @classmethod
    def made(cls, place: Path) -> Work:
        """An empty one."""
        place.mkdir(parents=True)
        work = cls(place)
        work.git("init", "-q")
        return work

    def git(self, *arguments: str, at: Path | None = None) -> str:
        """What git says, without white space at its ends."""
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
        plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
        done = subprocess.run(["git", *identity, *arguments], cwd=at or self.place, env=plain, check=True, stdout=-1)
        return done.stdout.decode().strip()

    def commit(self, files: dict[str, bytes | None]) -> str:
        """Write files, or remove those that are None, and commit everything."""
        for path, content in files.items():
            full = self.place / path
            full.parent.mkdir(parents=True, exist_ok=True)
            full.unlink() if content is None else full.write_bytes(content)
        self.git("add", "--all", "--force")
        self.git("commit", "-qm", "more")
        return self.git("rev-parse", "HEAD")

    def orphan(self, files: dict[str, bytes | None]) -> str:
        """A commit that no branch or tag leads to."""
        before = self.git("rev-parse", "HEAD")
        commit = self.commit(files)
        self.git("reset", "-q", "--hard", before)
        return commit

    def into(self, place: Path) -> Path:
        """As a bundle, or as a bare repository, by the name; in place of what is there."""
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix == ".bundle":
            self.git("bundle", "create", "-q", str(place), "HEAD", "--all")
            return place
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.place / ".git", place)
        self.git("config", "core.bare", "true", at=place)
        return place
