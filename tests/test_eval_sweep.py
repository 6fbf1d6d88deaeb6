"""`repo-agent eval --model A --model B --seeds N`: one directory of ordinary runs, compared, and taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import repo_agent
from eval.compare import compared
from eval.compare_runs import arms_of
from eval.report import Report
from eval.sweep import SWEEP_FILE, is_done, read_sweep
from harness.run_files import read_config
from harness.trace_reader import read_traces
from suites.base import SuiteFile, load, write_suite_file
from tests.chat_server import ChatServer, Reply, Request, completion
from tests.compared_runs import played, single
from tools.protocol import final_text

ROOT = Path(__file__).parents[1]
TASKS = ("account_transfer", "config_layers")


@pytest.fixture(scope="module", autouse=True)
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two tasks whose tests are quick, with a cache of verdicts for all tests."""
    folder = tmp_path_factory.mktemp("suite")
    path = folder / "two.json"
    write_suite_file(path, SuiteFile(name="two", suite="minibugs", version=load("minibugs").version, tasks=TASKS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPO_AGENT_CACHE", str(folder / "cache"))
        patch.setenv("SUITE_OF_TWO", str(path))
        yield path


def common() -> list[str]:
    return ["--suite", os.environ["SUITE_OF_TWO"], "--sandbox", "local"]


def evaluate(root: Path, *flags: str) -> int:
    return repo_agent.main(["eval", *common(), "--trace-dir", str(root), *flags])


def says(request: Request) -> Reply:
    return completion(final_text(f"nothing, says {request.body['model']} of seed {request.body.get('seed')}"))


@pytest.fixture
def served() -> Iterator[tuple[ChatServer, tuple[str, ...]]]:
    """A server of any model, and the flags that reach it."""
    with ChatServer(says) as server:
        yield server, ("--llm-provider", "vllm", "--api-base", server.url)


def test_every_model_is_played_with_every_seed_and_compared(
    tmp_path: Path, served: tuple[ChatServer, tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    server, flags = served
    root = tmp_path / "sweep"
    assert evaluate(root, *flags, "--model", "org/a", "--model", "b", "--seeds", "3", "--seed", "5") == 0
    names = [f"{model}-seed{seed}" for seed in (5, 6, 7) for model in "ab"]
    sweep = read_sweep(root)
    assert (sweep.models, sweep.seeds, list(sweep.runs)) == (("org/a", "b"), (5, 6, 7), names)
    assert sorted(each.name for each in root.iterdir()) == sorted([*names, SWEEP_FILE])
    for name, run in sweep.runs.items():
        config = read_config(root / name)
        assert (config.model, config.seed) == (run.model, run.seed)
        assert len(list(read_traces(root / name))) == 2
        assert is_done(root / name)
    assert Counter(request.body["model"] for request in server.requests) == {"org/a": 6, "b": 6}
    said = capsys.readouterr()
    assert "b against a\n  no task was gained or lost" in said.out
    assert "run 4 of 6: b-seed6" in said.err
    arms = compared(arms_of([root])).arms
    assert [(arm.name, arm.seeds, arm.rollouts) for arm in arms] == [("a", (5, 6, 7), 6), ("b", (5, 6, 7), 6)]


def test_one_model_and_one_seed_are_an_ordinary_run(tmp_path: Path) -> None:
    assert evaluate(tmp_path / "run", "--llm-provider", "noop", "--seeds", "1") == 0
    assert (tmp_path / "run" / "run.json").is_file()
    assert not (tmp_path / "run" / SWEEP_FILE).exists()


def test_seeds_of_a_policy_without_a_model_are_one_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(tmp_path / "s", "--llm-provider", "reference", "--seeds", "2") == 0
    assert sorted(read_sweep(tmp_path / "s").runs) == ["reference-seed0", "reference-seed1"]
    assert "4 of 4" in capsys.readouterr().out


def test_models_of_equal_names_have_directories_of_their_own(tmp_path: Path) -> None:
    recorded = [tmp_path / place / "run" for place in "ab"]
    for run in recorded:
        assert evaluate(run, "--llm-provider", "noop") == 0
    models = [flag for run in recorded for flag in ("--model", str(run))]
    assert evaluate(tmp_path / "s", "--llm-provider", "replay", *models) == 0
    assert {name: run.model for name, run in read_sweep(tmp_path / "s").runs.items()} == {
        "run-seed0": str(recorded[0]),
        "run_2-seed0": str(recorded[1]),
    }


def test_a_killed_sweep_goes_on_with_what_lacks(
    tmp_path: Path, served: tuple[ChatServer, tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    server, flags = served
    root, sweep = tmp_path / "sweep", (*flags, "--model", "a", "--model", "b", "--seeds", "2", "--num-workers", "1")
    assert evaluate(root, *sweep) == 0
    lines = (root / "a-seed1" / "traces.jsonl").read_bytes().splitlines(keepends=True)
    (root / "a-seed1" / "traces.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    (root / "a-seed1" / "report.json").unlink()
    for name in ("traces.jsonl", "report.json", "run.json", "progress.jsonl"):
        (root / "b-seed1" / name).unlink()
    untouched = (root / "b-seed0" / "traces.jsonl").stat().st_mtime_ns
    before = len(server.requests)
    capsys.readouterr()
    assert evaluate(root, *sweep, "--resume") == 0
    assert [(request.body["model"]) for request in server.requests[before:]] == ["a", "b", "b"]
    assert (root / "b-seed0" / "traces.jsonl").stat().st_mtime_ns == untouched
    said = capsys.readouterr()
    assert "run 1 of 4: a-seed0 is done" in said.err
    assert "4 of 4" not in said.out
    assert [arm.rollouts for arm in compared(arms_of([root])).arms] == [4, 4]


def test_seeds_and_models_may_be_added_to_a_sweep(tmp_path: Path) -> None:
    assert evaluate(tmp_path / "s", "--llm-provider", "noop", "--seeds", "2") == 0
    assert evaluate(tmp_path / "s", "--llm-provider", "noop", "--seeds", "3", "--resume") == 0
    assert read_sweep(tmp_path / "s").seeds == (0, 1, 2)


def test_a_run_whose_infrastructure_failed_is_not_done(tmp_path: Path) -> None:
    assert evaluate(tmp_path / "run", "--llm-provider", "noop") == 0
    report = tmp_path / "run" / "report.json"
    content = json.loads(report.read_text())
    content["rollouts"][0]["stop"] = "error"
    assert is_done(tmp_path / "run")
    report.write_text(json.dumps(content))
    assert not is_done(tmp_path / "run")


REFUSED = {
    "used directory": (["--seeds", "2"], "say --resume to continue it"),
    "other flags": (["--seeds", "2", "--max-iters", "3", "--resume"], "max_iters: null there, 3 here"),
    "fewer seeds": (["--seeds", "2", "--seed", "1", "--resume"], "noop-seed0 there, not here"),
    "one run in the place of a sweep": ([], "holds a sweep"),
    "a report": (["--seeds", "2", "--report", "r.json"], "--report is for one run"),
    "a model twice": (["--model", "a", "--model", "a"], "names one model twice"),
    "no seed": (["--seeds", "0"], "must be at least 1"),
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("swept") / "s"
    assert evaluate(root, "--llm-provider", "noop", "--seeds", "2") == 0
    return root


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_this_sweep_is_refused(case: str, swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, why = REFUSED[case]
    assert evaluate(swept, "--llm-provider", "noop", *flags) == 2
    assert why in capsys.readouterr().err


def test_all_that_a_sweep_holds_may_be_named_to_compare_and_view(
    swept: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = [str(path) for path in sorted(swept.iterdir()) if path.name != SWEEP_FILE]
    named = repo_agent.main(["compare", *runs]), capsys.readouterr()
    everything = str(swept / SWEEP_FILE), *runs
    assert (repo_agent.main(["compare", *everything]), capsys.readouterr()) == named
    assert repo_agent.main(["view", *everything, "--out", str(tmp_path / "page.html")]) == 0


def test_a_sweep_is_not_played_into_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = played(tmp_path / "run", single(1, 2))
    assert evaluate(run, "--llm-provider", "noop", "--seeds", "2") == 2
    assert "holds a run, not a sweep" in capsys.readouterr().err


def test_an_interrupted_sweep_ends_in_order_and_is_resumed(tmp_path: Path) -> None:
    root = tmp_path / "s"
    command = [
        sys.executable,
        str(ROOT / "repo_agent.py"),
        "eval",
        *common(),
        "--no-verdict-cache",
        "--num-workers",
        "1",
    ]
    command += ["--max-iters", "8", "--seeds", "3", "--trace-dir", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not steps(root / "search-seed1"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"the sweep goes on with --resume --trace-dir {root}" in errors
    assert not (root / "search-seed2").exists()
    assert Report.model_validate_json((root / "search-seed1" / "report.json").read_bytes()).interrupted
    assert evaluate(root, "--no-verdict-cache", "--max-iters", "8", "--seeds", "3", "--resume") == 0
    assert [arm.rollouts for arm in compared(arms_of([root])).arms] == [6]


def steps(run: Path) -> int:
    return sum(len(trace.steps) for trace in read_traces(run)) if (run / "traces.jsonl").exists() else 0
