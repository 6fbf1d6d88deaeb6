"""The fixtures, as a person uses them to test an agent of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AGENT_TEST = """\
import pytest
from harness.records import Completion
from tools.protocol import call_text, final_text


@pytest.mark.repo_tasks(suite="minibugs", limit=2)
def test_my_agent_keeps_to_the_protocol(repo_task, repo_environment):
    system, goal = repo_environment.start()
    assert goal.content.startswith("GOAL: ")
    outcome = repo_environment.step(Completion(text=call_text("list_files")))
    assert outcome.result.error is None
    assert repo_environment.step(Completion(text=final_text("done"))).stop == "final"


@pytest.mark.repo_tasks(suite="minibugs", split="test", limit=1, test_policy="final")
def test_my_agent_repairs(repo_task, repo_environment):
    repo_environment.start()
    assert repo_environment.score().value == 0.0


@pytest.mark.repo_tasks(suite="nosuch")
def test_unknown(repo_task):
    pass
"""


def session(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--repo-sandbox", "local", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("isolation", ["container", "run"])
def test_an_agent_is_tested_once_per_task(tmp_path: Path, isolation: str) -> None:
    (tmp_path / "test_agent.py").write_text(AGENT_TEST.rpartition("@pytest.mark")[0])
    done = session(tmp_path, "-vv", "--repo-isolation", isolation)
    assert done.returncode == 0, done.stdout
    assert "test_my_agent_keeps_to_the_protocol[account_transfer] PASSED" in done.stdout
    assert "3 passed" in done.stdout


def test_an_unknown_suite_is_an_error_of_usage(tmp_path: Path) -> None:
    (tmp_path / "test_agent.py").write_text(AGENT_TEST)
    done = session(tmp_path)
    assert done.returncode != 0
    assert "unknown suite 'nosuch'" in done.stdout


def test_nothing_of_ours_is_imported_where_no_test_asks(tmp_path: Path) -> None:
    names = "('suites', 'tools', 'harness', 'sandboxes', 'eval', 'litellm', 'docker')"
    (tmp_path / "test_mine.py").write_text(
        f"import sys\n\n\ndef test_mine():\n    assert not [name for name in {names} if name in sys.modules]\n"
    )
    done = session(tmp_path)
    assert done.returncode == 0, done.stdout
