"""The tasks themselves: how many, what an agent can see of them, and that they prove themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from harness.records import Task
from harness.statistics import mean
from sandboxes.base import SandboxBackend
from suites.base import Suite, load
from suites.fetch import git_files, git_repository
from suites.quixbugs.suite import COMMIT, UPSTREAM
from suites.validate import validate


@pytest.fixture(scope="session")
def quixbugs() -> Suite:
    suite = load("quixbugs")
    suite.tasks()
    return suite


def test_quixbugs_has_forty_tasks_with_the_276_tests_that_the_references_pass(quixbugs: Suite) -> None:
    assert len(quixbugs.tasks()) == 40
    assert sum(len(task.expected_tests) for task in quixbugs.tasks()) == 276
    assert all(task.expected_tests for task in quixbugs.tasks())


def test_a_quixbugs_tree_holds_no_answer(quixbugs: Suite) -> None:
    references = git_files(git_repository(UPSTREAM, [COMMIT]), COMMIT, lambda path: path.startswith("correct_python"))
    for task in quixbugs.tasks():
        assert len(task.tree.paths) <= 5
        assert not [path for path in task.tree.paths if re.search(r"correct|java|\.git|tester", path)]
        code = {reference.content.partition(b'"""')[0].strip() for reference in references.values()}
        assert all(task.tree.read(path).partition(b'"""')[0].strip() not in code - {b""} for path in task.tree.paths)


def test_the_quixbugs_configuration_has_no_switch_to_the_references(quixbugs: Suite) -> None:
    for task in quixbugs.tasks():
        assert b"addoption" not in task.tree.read("conftest.py")
        assert not task.may_edit("conftest.py")
        assert [path for path in task.tree.paths if task.may_edit(path)] == [f"python_programs/{task.id}.py"]


def test_minibugs_keeps_what_it_promises() -> None:
    suite = load("minibugs")
    tasks = suite.tasks()
    assert len(tasks) >= 16
    assert sum(int(task.extra["edits"]) >= 2 for task in tasks) >= 4
    files = [len([path for path in task.tree.paths if path.endswith(".py")]) for task in tasks]
    assert min(files) >= 3
    assert (mean(files) or 0) > 3
    kinds = {kind for task in tasks for kind in task.extra["kinds"].split(",")}
    assert {"off-by-one", "wrong-operator", "wrong-default", "state", "exception", "generator"} <= kinds


def test_every_fix_of_minibugs_stays_within_the_editable_files() -> None:
    suite = load("minibugs")
    for task in suite.tasks():
        fixed = suite.reference(task)
        assert fixed is not None
        assert fixed.edits
        assert all(task.may_edit(path) for path in fixed.edits)


def test_ids_and_goals_say_what_the_task_is() -> None:
    for task in load("minibugs").tasks():
        assert re.fullmatch(r"[a-z_]+", task.id)
        assert len(task.goal) > 80
        assert "\n" not in task.goal


def invalid(suite: Suite, backend: SandboxBackend, tasks: list[Task]) -> list[str]:
    return [result.task for result in validate(suite, backend, tasks, 2, lambda _: None) if not result.valid]


@pytest.mark.docker
@pytest.mark.slow
def test_minibugs_validates_in_docker(docker_backend: SandboxBackend) -> None:
    suite = load("minibugs")
    assert invalid(suite, docker_backend, list(suite.tasks())) == []


@pytest.mark.docker
@pytest.mark.slow
def test_quixbugs_validates_in_docker(docker_backend: SandboxBackend, quixbugs: Suite) -> None:
    assert invalid(quixbugs, docker_backend, list(quixbugs.tasks())) == []


def test_validation_tells_a_reference_that_fails(local_backend: SandboxBackend) -> None:
    suite = load("minibugs")
    task = suite.tasks()[0]

    class Unfixed:
        def reference(self, task: Task) -> object:
            return task.tree

    (result,) = validate(Unfixed(), local_backend, [task], 1, lambda _: None)  # type: ignore[arg-type]
    assert not result.valid
    assert result.reference == 0.0


def test_the_committed_splits_are_what_the_command_writes(tmp_path: Path) -> None:
    from suites.suites_cli import main

    assert main(["split", "quixbugs", "--out", str(tmp_path)]) == 0
    committed = Path(__file__).parent.parent / "eval" / "suites"
    for name, size in (("quixbugs", 40), ("quixbugs_train", 28), ("quixbugs_test", 12)):
        text = (committed / f"{name}_suite.json").read_text()
        assert text == (tmp_path / f"{name}_suite.json").read_text()
        assert len(json.loads(text)["tasks"]) == size


def test_a_suite_file_is_a_suite(tmp_path: Path) -> None:
    suite = load(str(Path(__file__).parent.parent / "eval" / "suites" / "quixbugs_test_suite.json"))
    assert suite.name == "quixbugs_test_suite"
    assert len(suite.tasks()) == 12
    assert suite.reference(suite.tasks()[0]) is not None


def test_git_content_is_read_from_the_object_database(tmp_path: Path) -> None:
    """A mirror may be a bare repository; attributes of the repository (export-ignore) change nothing."""
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(tmp_path)}
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=work, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (work / ".gitattributes").write_text("secret.py export-ignore\n*.py text eol=crlf\n")
    (work / "secret.py").write_bytes(b"x = 1\n")
    (work / "run.sh").write_bytes(b"#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("secret.py")
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    git("clone", "-q", "--bare", str(work), str(tmp_path / "mirror" / "owner" / "thing.git"))
    files = git_files(git_repository("owner/thing", [commit], tmp_path / "mirror"), commit, lambda _: True)
    assert files["secret.py"].content == b"x = 1\n"
    assert files["run.sh"].mode == "100755"
    assert files["link"].mode == "120000"
