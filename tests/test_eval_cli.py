"""`repo-agent eval` and `suites` as a user meets them: real runs, and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eval.metrics import measure
from harness.trace_reader import read_traces
from repo_agent import main
from sandboxes.pool import Pool

ROOT = Path(__file__).parent.parent
SUMMARY_KEYS = (
    "rollouts scored unscored not_tested solved solved_rate solved_interval pass_at_k parse_errors "
    "parse_errors_by_cause parse_errors_after_repair parse_errors_after_repair_by_cause write_file_rate "
    "loop_detections loop_rate avg_steps avg_first_write_step avg_files_read_before_write repeated_calls tool_calls "
    "prompt_tokens completion_tokens cost_usd model_seconds tool_seconds test_seconds test_runs "
    "test_runs_cached seconds retried_faults stop_reasons errors parts"
).split()
REPORT_KEYS = (
    "format config versions sandbox verdict_cache notices interrupted stopped not_started wall_seconds total tasks "
    "rollouts curves origin"
).split()


def evaluate(directory: Path, *flags: str, cache: tuple[str, ...] = ("--no-verdict-cache",)) -> dict[str, Any]:
    code = main(["eval", "--sandbox", "local", "--trace-dir", str(directory), *cache, *flags])
    assert code == 0
    report: dict[str, Any] = json.loads((directory / "report.json").read_text())
    return report


def test_the_keys_of_the_report_are_pinned(tmp_path: Path) -> None:
    report = evaluate(tmp_path / "run", "--llm-provider", "reference", "--limit", "2")
    assert list(report) == REPORT_KEYS
    assert list(report["total"]) == SUMMARY_KEYS
    assert [list(task) for task in report["tasks"].values()] == [SUMMARY_KEYS] * 2


def test_the_reference_solves_and_is_marked_as_an_oracle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluate(tmp_path / "run", "--llm-provider", "reference", "--limit", "2", "--rollouts", "2")
    assert report["total"]["solved"] == 4
    assert report["total"]["pass_at_k"] == {"1": 1.0, "2": 1.0}
    assert report["config"]["oracle"] is True
    assert "oracle" in capsys.readouterr().out
    assert report["sandbox"]["boundary"] is False


def test_noop_solves_nothing_and_never_writes(tmp_path: Path) -> None:
    total = evaluate(tmp_path / "run", "--llm-provider", "noop", "--limit", "1")["total"]
    assert (total["solved"], total["scored"], total["write_file_rate"]) == (0, 1, 0.0)


def test_never_runs_no_test_and_shows_not_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--llm-provider", "reference", "--limit", "2", "--test-policy", "never")
    total = evaluate(tmp_path / "run", *flags)["total"]
    assert (total["not_tested"], total["unscored"], total["scored"], total["solved_rate"]) == (2, 0, 0, None)
    assert total["test_seconds"] < 0.01
    assert "not tested" in capsys.readouterr().out


def test_final_scores_without_feedback(tmp_path: Path) -> None:
    flags = ("--llm-provider", "reference", "--limit", "1", "--test-policy", "final")
    assert evaluate(tmp_path / "run", *flags)["total"]["solved"] == 1
    (trace,) = read_traces(tmp_path / "run")
    assert all(step.report is None for step in trace.steps)


def test_search_repairs_a_task_with_nothing_but_the_tools_and_the_feedback(tmp_path: Path) -> None:
    flags = ("--suite", str(only(tmp_path, "minibugs", "inventory_reorder")), "--max-iters", "200")
    report = evaluate(tmp_path / "run", *flags)
    assert report["total"]["solved"] == 1
    (trace,) = read_traces(tmp_path / "run")
    assert "inventory" not in trace.header.policy
    assert {step.call.name for step in trace.steps} <= {"list_files", "read_file", "write_file", "final"}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_conversation_and_the_same_trees(tmp_path: Path) -> None:
    suite = only(tmp_path, "minibugs", "page_window", "org_chart")
    runs = []
    for name in ("one", "two"):
        evaluate(tmp_path / name, "--suite", str(suite), "--max-iters", "25", "--seed", "7")
        traces = sorted(read_traces(tmp_path / name), key=lambda trace: trace.header.rollout)
        runs.append([(step.completion.text, step.observation, step.digest) for t in traces for step in t.steps])
    assert runs[0] == runs[1]


def test_a_recorded_run_can_be_replayed(tmp_path: Path) -> None:
    suite = only(tmp_path, "minibugs", "inventory_reorder")
    first = evaluate(tmp_path / "one", "--suite", str(suite), "--llm-provider", "reference")
    flags = ("--suite", str(suite), "--llm-provider", "replay", "--model", str(tmp_path / "one"))
    second = evaluate(tmp_path / "two", *flags)
    assert second["total"]["solved"] == first["total"]["solved"] == 1
    digests = [[s.digest for t in read_traces(tmp_path / name) for s in t.steps] for name in ("one", "two")]
    assert digests[0] == digests[1]


def test_verdicts_of_an_earlier_run_are_taken_from_the_cache_and_seen_in_report_and_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    flags = ("--suite", str(only(tmp_path, "minibugs", "inventory_reorder")), "--llm-provider", "reference")
    first, second = (evaluate(tmp_path / name, *flags, cache=()) for name in ("one", "two"))
    assert [report["total"]["test_runs_cached"] for report in (first, second)] == [0, 2]
    assert [report["total"]["test_runs"] for report in (first, second)] == [2, 2]
    assert "test runs: 2, 2 of them from the verdict cache" in capsys.readouterr().out
    (one,), (two,) = (read_traces(tmp_path / name) for name in ("one", "two"))
    assert [measure(trace).test_runs_cached for trace in (one, two)] == [0, 2]
    assert two.score and two.score.cached and two.score.value == 1.0
    assert [step.observation for step in one.steps] == [step.observation for step in two.steps]
    assert list((tmp_path / "cache" / "verdicts").iterdir())


def test_validation_knows_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    assert main(["suites", "validate", "minibugs", "--limit", "1", "--sandbox", "local"]) == 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("flags", [("--no-verdict-cache",), ("--llm-provider", "replay", "--model", "{recorded}")])
def test_without_the_cache_every_test_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    suite = ("--suite", str(only(tmp_path, "minibugs", "inventory_reorder")), "--llm-provider", "reference")
    evaluate(tmp_path / "one", *suite, cache=())
    filled = [flag.replace("{recorded}", str(tmp_path / "one")) for flag in flags]
    report = evaluate(tmp_path / "two", *suite, *filled, cache=())
    assert (report["verdict_cache"], report["total"]["test_runs"], report["total"]["test_runs_cached"]) == (False, 2, 0)
    assert "test runs: 2, no verdict cache" in capsys.readouterr().out
    said = [json.loads((tmp_path / name / "run.json").read_text())["verdict_cache"] for name in ("one", "two")]
    assert said == [True, False]


@pytest.mark.parametrize("isolation", ["container", "run"])
def test_report_and_traces_say_what_the_runs_shared(
    tmp_path: Path, isolation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--llm-provider", "reference", "--limit", "1", "--isolation", isolation)
    report = evaluate(tmp_path / "run", *flags)
    assert report["sandbox"].items() >= {"isolation": isolation, "wall": "removal"}.items()
    assert report["config"]["isolation"] == isolation
    assert f"sandbox local, isolation {isolation}" in capsys.readouterr().out
    (trace,) = read_traces(tmp_path / "run")
    assert (trace.header.sandbox, trace.header.isolation) == ("local", isolation)


@pytest.mark.parametrize(("test_policy", "expected"), [("on_write", [4]), ("final", [2]), ("never", [])])
def test_the_sandboxes_of_a_run_are_announced_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_policy: str, expected: list[int]
) -> None:
    announced: list[int] = []
    monkeypatch.setattr(Pool, "prepare", lambda _self, _resources, _image, sandboxes: announced.append(sandboxes))
    flags = ("--llm-provider", "noop", "--limit", "1", "--rollouts", "2", "--test-policy", test_policy)
    evaluate(tmp_path / "run", *flags)
    assert announced == expected


def only(folder: Path, suite: str, *tasks: str) -> Path:
    from suites.base import SuiteFile, load, write_suite_file

    path = folder / "only.json"
    write_suite_file(path, SuiteFile(name="only", suite=suite, version=load(suite).version, tasks=tasks))
    return path


BAD_INPUT = {
    "unknown command": ["evaluate"],
    "unknown flag": ["eval", "--nonsense"],
    "unknown suite": ["eval", "--suite", "nosuch"],
    "missing suite file": ["eval", "--suite", "nosuch.json"],
    "unreadable suite file": ["eval", "--suite", "{tmp}/broken.json"],
    "suite file that is a directory": ["eval", "--suite", "{tmp}"],
    "suite file with an unknown task": ["eval", "--suite", "{tmp}/unknown_task.json"],
    "suite file of another version": ["eval", "--suite", "{tmp}/other_version.json"],
    "unknown provider": ["eval", "--llm-provider", "nosuch", "--model", "m"],
    "provider without a model": ["eval", "--llm-provider", "openai"],
    "missing key": ["eval", "--llm-provider", "openai", "--model", "gpt-4o"],
    "server without an address": ["eval", "--llm-provider", "vllm", "--model", "m"],
    "replay of nothing": ["eval", "--llm-provider", "replay", "--model", "{tmp}/nothing"],
    "search with a model": ["eval", "--llm-provider", "search", "--model", "m"],
    "bad number": ["eval", "--max-iters", "many"],
    "zero rollouts": ["eval", "--rollouts", "0"],
    "negative temperature": ["eval", "--temperature", "-1"],
    "temperature that is no number": ["eval", "--temperature", "nan"],
    "unknown sandbox": ["eval", "--sandbox", "vm"],
    "unknown isolation": ["eval", "--isolation", "process"],
    "unknown test policy": ["eval", "--test-policy", "always"],
    "missing engine": ["eval", "--sandbox", "docker", "--limit", "1"],
    "no boundary for a model": [
        "eval", "--llm-provider", "vllm", "--model", "m", "--api-base", "http://127.0.0.1:9", "--limit", "1"
    ],
    "mirror that is no directory": ["eval", "--suite", "quixbugs", "--mirror", "{tmp}/nothing"],
    "mirror without the repository": ["eval", "--suite", "quixbugs", "--mirror", "{tmp}"],
    "no network and no mirror": ["eval", "--suite", "quixbugs"],
    "trace directory that is a file": ["eval", "--limit", "1", "--trace-dir", "{tmp}/broken.json"],
    "trace directory of another configuration": ["eval", "--limit", "2", "--trace-dir", "{tmp}/run"],
    "trace directory of the same run": ["eval", "--limit", "1", "--llm-provider", "noop", "--trace-dir", "{tmp}/run"],
    "report that cannot be written": [
        "eval", "--limit", "1", "--llm-provider", "noop", "--report", "{tmp}/broken.json/report.json"
    ],
    "split too large": ["suites", "split", "minibugs", "--test-size", "24"],
    "one fold": ["suites", "split", "minibugs", "--folds", "1"],
    "unknown task": ["suites", "show", "minibugs", "nosuch"],
    "suites without a command": ["suites"],
}  # fmt: skip


@pytest.fixture(scope="module")
def bad_input_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "broken.json").write_text("{")
    suite = {"format": 1, "name": "x", "suite": "minibugs", "version": "0", "tasks": ["nosuch"]}
    (folder / "other_version.json").write_text(json.dumps(suite))
    from suites.base import load

    (folder / "unknown_task.json").write_text(json.dumps(suite | {"version": load("minibugs").version}))
    evaluate(folder / "run", "--llm-provider", "noop", "--limit", "1")
    return folder


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(case: str, bad_input_folder: Path, tmp_path: Path) -> None:
    arguments = [argument.replace("{tmp}", str(bad_input_folder)) for argument in BAD_INPUT[case]]
    if arguments[0] == "eval" and "--sandbox" not in arguments and case != "no boundary for a model":
        arguments += ["--sandbox", "local"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "repo_agent.py"), *arguments],
        cwd=tmp_path,
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "WARNING" not in line and not line.startswith("[")]
    assert done.returncode == 2, done.stderr
    assert len(said) == 1, done.stderr
    assert said[0].startswith("repo-agent: error: ")
    assert "Traceback" not in done.stderr
    assert [path for path in tmp_path.iterdir() if path.name not in ("cache", "bin", ".cache")] == []


def bare_environment(folder: Path) -> dict[str, str]:
    """No key, no mirror, no engine, no bubblewrap, no network."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name in ("git", "env", "sh"):
        link = tools / name
        if not link.exists():
            link.symlink_to(subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip())
    return {
        "PATH": str(tools),
        "HOME": str(folder),
        "REPO_AGENT_CACHE": str(folder / "cache"),
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "https_proxy": "http://127.0.0.1:9",
        "GIT_SSH_COMMAND": "false",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_cleanly_with_what_was_done(number: signal.Signals, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    command = [sys.executable, str(ROOT / "repo_agent.py"), "eval", "--sandbox", "local", "--num-workers", "1"]
    command += ["--no-verdict-cache"]
    command += ["--suite", str(only(tmp_path, "minibugs", "inventory_reorder", "org_chart", "exchange_rates"))]
    process = subprocess.Popen(
        [*command, "--trace-dir", str(directory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: len([t for t in traces_so_far(directory) if t.stop]) >= 1 and steps_in_flight(directory) > 3)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "STOPPED EARLY: interrupted" in output
    report = json.loads((directory / "report.json").read_text())
    assert report["interrupted"] is True
    assert report["total"]["scored"] + report["total"]["unscored"] + report["not_started"] == 3
    assert report["total"]["unscored"] == 1
    assert "interrupted" in [str(trace.stop) for trace in read_traces(directory)]
    assert not left_behind(directory)


def traces_so_far(directory: Path) -> list[Any]:
    return list(read_traces(directory)) if (directory / "traces.jsonl").exists() else []


def steps_in_flight(directory: Path) -> int:
    return sum(len(trace.steps) for trace in traces_so_far(directory) if trace.stop is None)


def left_behind(directory: Path) -> list[str]:
    """Processes that still run the guest of a local sandbox started by the interrupted run."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = subprocess.run(
            ["pgrep", "-f", str(directory)], capture_output=True, text=True, check=False
        ).stdout.split()
        if not left:
            return []
        time.sleep(0.2)
    return left


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def test_automatic_choice_takes_docker_where_an_engine_answers(
    tmp_path: Path, docker_backend: object, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--llm-provider", "reference", "--limit", "1", "--no-verdict-cache"]
    assert main(["eval", *flags, "--trace-dir", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    promises = {"boundary": True, "separate_user": True, "memory_limit": True, "pids_limit": True}
    assert report["sandbox"].items() >= {"name": "docker", **promises}.items()
    assert report["sandbox"]["image_id"].startswith("sha256:")
    assert report["sandbox"]["pytest"]
    assert report["total"]["solved"] == 1


def test_no_name_or_text_of_quixbugs_stands_in_the_search_policy() -> None:
    """The operators are generic: no program is known to them."""
    from suites.base import load

    policy = "".join(
        path.read_text()
        for path in sorted((ROOT / "harness" / "policies").glob("*.py"))
        if path.name.startswith(("search", "mutation", "operators"))
    )
    names = [task.id for task in load("quixbugs").tasks()]
    common = {"flatten", "sieve", "wrap", "sqrt", "gcd", "kth", "lis"}  # also plain words or functions of `math`
    assert not [name for name in names if name in policy and name not in common]
    assert os.environ.get("REPO_AGENT_MIRROR", "-") not in policy
