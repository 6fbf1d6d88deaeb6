"""`repo-agent repeat`: the same settings again, what differs now, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import repo_agent
from eval.report import Report
from harness.run_files import read_config, read_origin
from harness.trace_reader import read_traces
from suites.base import SuiteFile, load, write_suite_file
from tests.compared_runs import played, single
from tests.conftest import NOT_REPLAYABLE

FLAGS = ("--sandbox", "local", "--rollouts", "2", "--seed", "7", "--max-iters", "6", "--stop-on-loop")


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One task whose tests are quick; all tests share a cache of verdicts."""
    folder = tmp_path_factory.mktemp("suite")
    tasks, version = ("account_transfer",), load("minibugs").version
    write_suite_file(folder / "one.json", SuiteFile(name="one", suite="minibugs", version=version, tasks=tasks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPO_AGENT_CACHE", str(folder / "cache"))
        yield folder / "one.json"


@pytest.fixture
def run(suite_file: Path, tmp_path: Path) -> Path:
    flags = ["--suite", str(suite_file), *FLAGS, "--trace-dir", str(tmp_path / "run")]
    assert repo_agent.main(["eval", *flags]) == 0
    return tmp_path / "run"


def repeat(run: Path, *flags: object) -> int:
    return repo_agent.main(["repeat", str(run), *map(str, flags)])


def changed(run: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The same run, as if it had been played under other circumstances."""
    content = json.loads((run / "run.json").read_text())
    change(content)
    (run / "run.json").write_text(json.dumps(content))
    (run / NOT_REPLAYABLE).touch()
    return run


def test_a_run_is_played_again_with_the_same_settings(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert repeat(run, "--trace-dir", tmp_path / "again") == 0
    said = capsys.readouterr()
    assert read_config(tmp_path / "again") == read_config(run)
    texts = [[s.completion.text for t in read_traces(each) for s in t.steps] for each in (run, tmp_path / "again")]
    assert texts[0] == texts[1]
    assert "repo-agent: differs now" not in said.err
    assert said.out.splitlines()[-2] == (
        "now against before: no task was gained or lost, p = 1: no evidence of a difference"
    )


def test_report_and_run_file_name_what_a_repetition_needs(run: Path, suite_file: Path) -> None:
    report = Report.model_validate_json((run / "report.json").read_bytes())
    origin = report.origin
    assert origin and origin == read_origin(run)
    assert (origin.command, origin.whole_suite, len(origin.prompts_sha256)) == ("eval", "minibugs", 64)
    assert origin.flags["suite"] == str(suite_file)
    assert not {"trace_dir", "resume", "report", "seeds", "command"} & set(origin.flags)
    assert {"commit", "python", "pytest", "repo-agent"} <= set(report.versions)
    assert report.config.suite_version == load("minibugs").version
    assert (report.config.seed, report.config.temperature, report.config.policy) == (7, 0.0, "search")


def test_the_prompts_digest_depends_on_what_the_agent_is_told(suite_file: Path, tmp_path: Path) -> None:
    digests = []
    for policy in ("on_write", "final"):
        flags = ["--suite", str(suite_file), "--llm-provider", "noop", "--sandbox", "local", "--test-policy", policy]
        assert repo_agent.main(["eval", *flags, "--trace-dir", str(tmp_path / policy)]) == 0
        origin = read_origin(tmp_path / policy)
        assert origin
        digests.append(origin.prompts_sha256)
    assert digests[0] != digests[1]


def test_what_differs_now_is_said_in_a_line_each(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["versions"] |= {"commit": "0123456789", "pytest": "1.0"}
        content["sandbox"]["image_id"] = "sha256:1"
        content["origin"]["prompts_sha256"] = "abc"

    assert repeat(changed(run, change), "--trace-dir", tmp_path / "again") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "differs now" in line]
    told = [line.split(": ")[2] for line in lines]
    assert told == ["commit", "pytest", "image", "prompts"]
    assert lines[1].startswith("repo-agent: differs now: pytest: 1.0 then, ")
    assert lines[2] == "repo-agent: differs now: image: sha256:1 then, none now"


def other_version(content: dict[str, Any]) -> None:
    content["config"]["suite_version"] = "another"


def test_another_version_of_the_suite_is_refused_and_played_anyway(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(run, other_version)
    assert repeat(run, "--trace-dir", tmp_path / "again") == 2
    assert "cannot be repeated: the suite is of another version (--anyway plays it" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
    assert repeat(run, "--trace-dir", tmp_path / "again", "--anyway") == 0
    said = capsys.readouterr()
    assert "differs now: suite: another then" in said.err
    assert "WARNING: not a fair comparison, other version of the suite" in said.out
    assert "now against before: " in said.out


def test_anyway_finds_the_tasks_without_the_suite_file(run: Path, suite_file: Path, tmp_path: Path) -> None:
    content = suite_file.read_text()
    suite_file.unlink()
    try:
        assert repeat(run, "--trace-dir", tmp_path / "refused") == 2
        assert repeat(run, "--trace-dir", tmp_path / "again", "--anyway") == 0
    finally:
        suite_file.write_text(content)
    assert read_config(tmp_path / "again").tasks == ("account_transfer",)


def without_origin(content: dict[str, Any]) -> None:
    del content["origin"]


def of_prefs(content: dict[str, Any]) -> None:
    content["origin"]["command"] = "prefs"


def with_other_flags(content: dict[str, Any]) -> None:
    content["origin"]["flags"]["nonsense"] = 1


def of_a_model_that_is_gone(content: dict[str, Any]) -> None:
    content["origin"]["flags"] |= {"llm_provider": "replay", "model": "/nonexistent/run"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_origin, "does not say with which flags"),
        (of_prefs, "was played by repo-agent prefs"),
        (with_other_flags, "flags of another version: nonsense"),
        (of_a_model_that_is_gone, "/nonexistent/run"),
    ],
)
def test_what_cannot_be_repeated_is_refused_in_a_line(
    run: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed(run, change)
    capsys.readouterr()
    assert repeat(run, "--trace-dir", tmp_path / "again", "--anyway") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert not (tmp_path / "again").exists()


def test_a_sweep_or_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = played(tmp_path / "run", single(1, 2))
    (tmp_path / "sweep.json").touch()
    assert repeat(tmp_path) == 2
    assert "is a sweep: name one of the runs in it" in capsys.readouterr().err
    assert repeat(tmp_path / "nosuch") == 2
    assert repeat(run) == 2
