"""The wheel, installed outside the checkout, beside a user's own packages of the same names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listing.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "./source"]
    subprocess.run(command, check=True, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a fresh virtual environment with the wheel in it."""
    place = tmp_path_factory.mktemp("env") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    return place / "bin"


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A directory with packages of the same names as ours."""
    for name in ("tools", "suites", "tests", "harness", "eval"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package was imported')\n")
    return tmp_path


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def test_the_wheel_holds_the_packages_and_the_data_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith("tests/")]
    for wanted in (
        "harness/prompts/system.md",
        "eval/suites/quixbugs_test_suite.json",
        "eval/viewer/assets/main.js",
        "suites/quixbugs/expected_tests.json",
        "suites/minibugs/tasks/page_window/task.toml",
        "sandboxes/guest/runner.py",
        "trainers/__init__.py",
        "repo_agent.py",
    ):
        assert wanted in names
    tasks = ROOT / "suites" / "minibugs" / "tasks"
    committed = {str(path.relative_to(ROOT)) for path in tasks.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert committed == {name for name in names if name.startswith("suites/minibugs/tasks/")}


@pytest.mark.parametrize("front", ["command", "module"])
def test_it_evaluates_minibugs_beside_packages_of_the_same_names(installed: Path, crowded: Path, front: str) -> None:
    start = [str(installed / "repo-agent")] if front == "command" else [str(installed / "python"), "-m", "repo_agent"]
    flags = ["eval", "--sandbox", "local", "--llm-provider", "reference", "--limit", "1", "--trace-dir", "out"]
    flags.append("--no-verdict-cache")
    done = subprocess.run(
        [*start, *flags], cwd=crowded, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((crowded / "out" / "report.json").read_text())
    assert report["total"]["solved"] == 1
    assert report["versions"]["commit"] == ""


def test_a_session_of_pytest_beside_such_packages_is_not_disturbed(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("answer = 42\n")
    (tmp_path / "test_mine.py").write_text("import tools\n\n\ndef test_mine():\n    assert tools.answer == 42\n")
    command = [str(installed / "python"), "-m", "pytest", "-q", "-W", "error"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
