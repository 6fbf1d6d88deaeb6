"""Repositories are fetched once, whole or without contents, from a mirror or a server, and read byte by byte."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import UsageError
from sandboxes.workspace import File, Mode
from suites.fetch import git_files, git_repository, listing
from tests.git_work import Work
from tests.small_disk import small_disk

NAME = "owner/thing"
NOT_THERE = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def work(tmp_path: Path) -> Work:
    made = Work.made(tmp_path / "work")
    made.commit({f"f{number}.txt": b"%d\n" % number for number in range(5)})
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REPO_AGENT_MIRROR", raising=False)
    return tmp_path / "cache"


@dataclass
class Server:
    """What answers in place of github.com, and the log of what git was asked to do."""

    work: Work
    place: Path
    log: Path

    def serve(self, **settings: str) -> None:
        bare = self.work.into(self.place / f"{NAME}.git")
        for key, value in settings.items():
            self.work.git("config", f"uploadpack.{key}", value, at=bare)

    def connections(self) -> int:
        """Since the log was last looked at."""
        said = self.log.read_text() if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        return said.count("built-in: git upload-pack")


@pytest.fixture
def server(tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch) -> Server:
    place = tmp_path / "served"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{place}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    return Server(work, place, tmp_path / "trace")


FILTERING = {"allowFilter": "true", "allowAnySHA1InWant": "true"}


def missing(repository: Path, commit: str) -> int:
    """Objects of a commit that a clone does not hold."""
    command = ["git", "-C", str(repository), "rev-list", "--objects", "--missing=print", "--no-walk", commit]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sum(line.startswith("?") for line in said.splitlines())


def contents(repository: Path, commit: str) -> dict[str, bytes]:
    return {path: file.content for path, file in git_files(repository, commit).items()}


# ---- mirrors


@pytest.mark.parametrize("form", ["thing.bundle", "thing.git", "thing"])
def test_every_form_of_a_mirror_gives_all_commits(form: str, work: Work, tmp_path: Path) -> None:
    first = work.git("rev-parse", "HEAD")
    second = work.commit({"f0.txt": b"changed\n", "new/x": b"new\n"})
    work.into(tmp_path / "mirror" / "owner" / form)
    repository = git_repository(NAME, [first, second], tmp_path / "mirror")
    assert contents(repository, first) == {f"f{number}.txt": b"%d\n" % number for number in range(5)}
    assert contents(repository, second)["new/x"] == b"new\n"
    assert missing(repository, second) == 0


def test_once_fetched_the_mirror_is_not_needed(work: Work, tmp_path: Path) -> None:
    commit = work.git("rev-parse", "HEAD")
    work.into(tmp_path / "mirror" / f"{NAME}.bundle")
    git_repository(NAME, [commit], tmp_path / "mirror")
    shutil.rmtree(tmp_path / "mirror")
    assert len(contents(git_repository(NAME, [commit]), commit)) == 5


@pytest.mark.parametrize("form", ["thing.bundle", "thing.git"])
def test_a_mirror_that_lacks_a_commit_is_one_line(form: str, work: Work, tmp_path: Path) -> None:
    work.into(tmp_path / "mirror" / "owner" / form)
    wanted = [work.git("rev-parse", "HEAD"), NOT_THERE]
    for _ in range(2):
        with pytest.raises(UsageError, match=rf"^\S*{form} does not hold commit {NOT_THERE} of {NAME}$"):
            git_repository(NAME, wanted, tmp_path / "mirror")


def test_a_mirror_that_lacks_the_repository_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    with pytest.raises(UsageError, match=r"^the mirror \S+ has no owner/thing.bundle$"):
        git_repository(NAME, [NOT_THERE], tmp_path / "mirror")


def test_a_broken_bundle_is_one_line(work: Work, tmp_path: Path) -> None:
    bundle = work.into(tmp_path / "mirror" / f"{NAME}.bundle")
    bundle.write_bytes(bundle.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"^cannot fetch owner/thing from [^\n]*the mirror's copy is broken$"):
        git_repository(NAME, [work.git("rev-parse", "HEAD")], tmp_path / "mirror")


@pytest.mark.parametrize("form", ["thing.bundle", "thing.git"])
def test_a_clone_that_lacks_a_new_commit_is_brought_up_to_date(form: str, work: Work, tmp_path: Path) -> None:
    mirror, first = tmp_path / "mirror", work.git("rev-parse", "HEAD")
    work.into(mirror / "owner" / form)
    repository = git_repository(NAME, [first], mirror)
    before = repository.stat().st_ino
    second = work.commit({"f0.txt": b"newer\n"})
    work.into(mirror / "owner" / form)
    assert contents(git_repository(NAME, [first, second], mirror), second)["f0.txt"] == b"newer\n"
    assert repository.stat().st_ino == before


def test_a_cached_clone_that_is_torn_is_made_again(work: Work, tmp_path: Path, cache: Path) -> None:
    commit = work.git("rev-parse", "HEAD")
    work.into(tmp_path / "mirror" / f"{NAME}.bundle")
    torn = cache / "git" / f"{NAME}.git"
    (torn / "objects").mkdir(parents=True)
    assert len(contents(git_repository(NAME, [commit], tmp_path / "mirror"), commit)) == 5


def test_a_torn_clone_inside_of_a_checkout_leaves_that_alone(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git would take the repository around it instead, and write its branches."""
    work.into(tmp_path / "mirror" / f"{NAME}.bundle")
    around = Work.made(tmp_path / "around")
    mine = around.commit({"mine.txt": b"mine\n"})
    around.git("checkout", "-q", "-b", "other")
    monkeypatch.setenv("REPO_AGENT_CACHE", str(around.place / "cache"))
    (around.place / "cache" / "git" / f"{NAME}.git").mkdir(parents=True)
    git_repository(NAME, [work.git("rev-parse", "HEAD")], tmp_path / "mirror")
    assert around.git("rev-parse", "main") == mine


def test_a_user_who_forbids_bare_repositories_that_are_come_upon_is_no_obstacle(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = work.git("rev-parse", "HEAD")
    work.into(tmp_path / "mirror" / f"{NAME}.git")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.bareRepository")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "explicit")
    assert len(contents(git_repository(NAME, [commit], tmp_path / "mirror"), commit)) == 5


def test_a_cache_that_cannot_be_written_is_one_line(work: Work, tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file")
    work.into(tmp_path / "mirror" / f"{NAME}.bundle")
    with pytest.raises(UsageError, match=r"^cannot keep a repository in [^\n]*: Not a directory$"):
        git_repository(NAME, [work.git("rev-parse", "HEAD")], tmp_path / "mirror")


# ---- a server


def test_a_full_disk_is_not_held_for_a_fault_of_the_mirror(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = work.commit({"large.bin": random.Random(1).randbytes(2**21)})
    work.into(tmp_path / "mirror" / f"{NAME}.bundle")
    with small_disk(tmp_path / "disk"):
        monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "disk" / "cache"))
        with pytest.raises(UsageError, match=r"^cannot keep a repository in \S+: No space left on device$"):
            git_repository(NAME, [commit], tmp_path / "mirror")


def test_a_server_gives_a_clone_without_contents_and_these_in_one_go(server: Server, work: Work) -> None:
    commit = work.commit({f"many/{number}.txt": b"many %d\n" % number for number in range(50)})
    server.serve(**FILTERING)
    repository = git_repository(NAME, [commit])
    assert missing(repository, commit) == 55
    server.connections()
    found = contents(repository, commit)
    assert server.connections() == 1
    assert len(found) == 55
    assert found["many/7.txt"] == b"many 7\n"
    assert missing(repository, commit) == 0
    contents(repository, commit)
    assert server.connections() == 0


def test_a_second_commit_costs_only_what_is_new(server: Server, work: Work) -> None:
    first = work.git("rev-parse", "HEAD")
    second = work.commit({"f0.txt": b"changed\n"})
    server.serve(**FILTERING)
    repository = git_repository(NAME, [first, second])
    contents(repository, first)
    assert missing(repository, second) == 1
    assert contents(repository, second)["f0.txt"] == b"changed\n"


def test_a_server_without_filters_gives_everything(server: Server, work: Work) -> None:
    commit = work.git("rev-parse", "HEAD")
    server.serve(allowFilter="false")
    repository = git_repository(NAME, [commit])
    assert missing(repository, commit) == 0
    server.connections()
    assert len(contents(repository, commit)) == 5
    assert server.connections() == 0


@pytest.mark.parametrize("settings", [FILTERING, {"allowFilter": "false", "allowAnySHA1InWant": "true"}])
def test_a_commit_that_no_branch_leads_to_is_fetched(server: Server, work: Work, settings: dict[str, str]) -> None:
    main = work.git("rev-parse", "HEAD")
    lost = [work.orphan({"lost.txt": b"lost %d\n" % number}) for number in range(2)]
    server.serve(**settings)
    repository = git_repository(NAME, [main, *lost])
    assert [contents(repository, commit)["lost.txt"] for commit in lost] == [b"lost 0\n", b"lost 1\n"]


def test_a_clone_from_a_server_is_brought_up_to_date(server: Server, work: Work) -> None:
    first = work.git("rev-parse", "HEAD")
    server.serve(**FILTERING)
    git_repository(NAME, [first])
    second = work.commit({"f0.txt": b"newer\n"})
    server.serve(**FILTERING)
    repository = git_repository(NAME, [first, second])
    assert contents(repository, second)["f0.txt"] == b"newer\n"
    assert contents(repository, first)["f0.txt"] == b"0\n"


def test_a_clone_from_a_server_takes_what_is_new_from_a_mirror(server: Server, work: Work, tmp_path: Path) -> None:
    first = work.git("rev-parse", "HEAD")
    server.serve(**FILTERING)
    git_repository(NAME, [first])
    shutil.rmtree(server.place)
    second = work.commit({f"f{number}.txt": b"newer\n" for number in range(5)})
    work.into(tmp_path / "mirror" / f"{NAME}.bundle")
    repository = git_repository(NAME, [first, second], tmp_path / "mirror")
    assert set(contents(repository, second).values()) == {b"newer\n"}


def test_a_commit_that_the_server_does_not_have_is_one_line(server: Server, work: Work) -> None:
    server.serve(**FILTERING)
    with pytest.raises(UsageError, match=rf"^https://github.com/{NAME}.git does not hold commit {NOT_THERE}"):
        git_repository(NAME, [work.git("rev-parse", "HEAD"), NOT_THERE])


def test_a_server_that_does_not_answer_is_one_line_with_advice(server: Server) -> None:
    with pytest.raises(UsageError, match=r"^cannot fetch owner/thing from https[^\n]* REPO_AGENT_MIRROR [^\n]*$"):
        git_repository(NAME, [NOT_THERE])


def test_contents_that_the_server_refuses_later_are_one_line(server: Server, work: Work) -> None:
    commit = work.git("rev-parse", "HEAD")
    server.serve(**FILTERING)
    repository = git_repository(NAME, [commit])
    shutil.rmtree(server.place)
    with pytest.raises(UsageError, match=r"^cannot fetch the files of thing \([^\n]*\)$"):
        git_files(repository, commit)


def test_threads_that_want_one_repository_fetch_it_once(server: Server, work: Work) -> None:
    commit = work.git("rev-parse", "HEAD")
    server.serve(**FILTERING)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: git_repository(NAME, [commit]), range(4)))) == 1
    assert server.connections() == 1


# ---- content


Mirrored = Callable[[], tuple[Path, str]]


@pytest.fixture
def mirrored(work: Work, tmp_path: Path) -> Mirrored:
    """The repository as it is now, fetched, and its latest commit."""

    def fetched() -> tuple[Path, str]:
        commit = work.git("rev-parse", "HEAD")
        work.into(tmp_path / "mirror" / f"{NAME}.git")
        return git_repository(NAME, [commit], tmp_path / "mirror"), commit

    return fetched


def test_attributes_and_filters_change_nothing(
    work: Work, mirrored: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = b"secret.py export-ignore\n*.py text eol=crlf ident export-subst filter=shout\n"
    code = b"x = 1  # $Id$ $Format:%H$\n"
    work.commit({".gitattributes": attributes, "secret.py": code, "windows.py": b"y = 1\n"})
    shout = {"filter.shout.smudge": "tr a-z A-Z", "filter.shout.clean": "tr a-z A-Z", "core.autocrlf": "true"}
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(shout)))
    for number, (key, value) in enumerate(shout.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    found = contents(*mirrored())
    assert (found["secret.py"], found["windows.py"], found[".gitattributes"]) == (code, b"y = 1\n", attributes)


def test_kinds_names_and_odd_contents_are_kept_and_submodules_left_out(work: Work, mirrored: Mirrored) -> None:
    odd: dict[str, bytes | None] = {
        "größe/日本.txt": b"\xff\x00binary",
        'tab\tand"quote': b"",
        "a\nb": b"no newline at the end",
        "c d": b"\n\n",
    }
    (work.place / "link").symlink_to("größe")
    (work.place / "run.sh").write_text("#!/bin/sh\n")
    (work.place / "run.sh").chmod(0o755)
    work.commit(odd)
    work.git("update-index", "--add", "--cacheinfo", f"160000,{NOT_THERE},vendor/sub")
    work.git("commit", "-qm", "submodule")
    repository, commit = mirrored()
    files = git_files(repository, commit)
    assert {path: files[path].content for path in odd} == odd
    assert files["link"] == File("größe".encode(), Mode.SYMLINK)
    assert files["run.sh"].mode is Mode.EXECUTABLE
    assert "vendor/sub" not in files
    assert set(files) == set(listing(repository, commit))


def test_only_wanted_files_are_given(mirrored: Mirrored) -> None:
    assert list(git_files(*mirrored(), lambda path: path == "f3.txt")) == ["f3.txt"]


def test_a_tree_that_is_not_there_is_one_line(mirrored: Mirrored) -> None:
    repository, _ = mirrored()
    with pytest.raises(UsageError, match=rf"^thing cannot list {NOT_THERE} \([^\n]*\)$"):
        git_files(repository, NOT_THERE)


def test_the_callers_own_repository_is_not_touched(
    work: Work, mirrored: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As inside a git hook, where the environment names another repository."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere" / "index"))
    assert len(contents(*mirrored())) == 5
