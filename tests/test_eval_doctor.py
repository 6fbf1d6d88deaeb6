"""`repo-agent doctor`: what it finds on this machine and on poorer ones, and that nothing makes it wait."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from eval import doctor_models
from eval.doctor import Check, Finding, Health, in_child, missing, ok, run_checks
from eval.doctor_models import KEYS
from harness.policies.litellm_policy import COMMON, PREFIXES, import_litellm
from repo_agent import main
from suites.fetch import MIRROR_VARIABLE

ROOT = Path(__file__).parents[1]


def doctor(environment: Mapping[str, str], *flags: str) -> tuple[int, dict[str, Finding], list[str]]:
    """Run in a process of its own: the exit code, the findings by name, the sandboxes that work."""
    argv = [sys.executable, "-m", "repo_agent", "doctor", "--json", *flags]
    done = subprocess.run(argv, cwd=ROOT, env=os.environ | dict(environment), capture_output=True, text=True)
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    found = [Finding(each["name"], Health(each["health"]), each["said"], each["fix"]) for each in said["findings"]]
    return done.returncode, {each.name: each for each in found}, said["sandboxes"]


@pytest.fixture(scope="module")
def here() -> tuple[int, dict[str, Finding], list[str]]:
    return doctor({"OPENAI_API_KEY": "sk-of-a-test-0123456789", "ODD_API_KEY": " "}, "--timeout", "60")


def test_the_local_sandbox_is_tried_and_makes_the_exit_code_0(
    here: tuple[int, dict[str, Finding], list[str]],
) -> None:
    code, found, sandboxes = here
    assert code == 0
    assert found["sandbox local"].said.startswith("a test ran in it")
    assert "local" in sandboxes
    assert {name for name, each in found.items() if name.startswith("sandbox") and each.health is Health.OK} == {
        f"sandbox {name}" for name in sandboxes
    }


def test_keys_are_shown_by_name_and_never_by_value(here: tuple[int, dict[str, Finding], list[str]]) -> None:
    keys = here[1]["API keys"]
    assert keys.health is Health.OK
    assert "OPENAI_API_KEY" in keys.said
    assert "ODD_API_KEY" not in keys.said
    assert not [each for each in here[1].values() if "sk-of-a-test" in each.said + each.fix]


def test_the_versions_of_what_is_here_are_shown(here: tuple[int, dict[str, Finding], list[str]]) -> None:
    assert here[1]["repo-agent"].said.startswith(version("repo-agent"))
    assert all(each.fix for each in here[1].values() if each.health is Health.MISSING and each.name != "sandbox docker")


def test_an_engine_that_takes_the_call_and_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        _, found, sandboxes = doctor({"DOCKER_HOST": f"tcp://127.0.0.1:{server.getsockname()[1]}"}, "--timeout", "20")
        assert time.monotonic() - began < 60
    assert found["Docker engine"].health is not Health.OK
    assert found["Docker engine"].fix
    assert "docker" not in sandboxes


def test_without_an_engine_and_programs_what_is_missing_comes_with_what_fixes_it(tmp_path: Path) -> None:
    environment = {
        "DOCKER_HOST": f"unix://{tmp_path}/none.sock",
        "PATH": str(tmp_path),
        "REPO_AGENT_CACHE": str(tmp_path / "cache"),
        MIRROR_VARIABLE: str(tmp_path),
    }
    code, found, sandboxes = doctor(environment, "--timeout", "60")
    assert (code, sandboxes) == (0, ["local"])
    for name, fix in {
        "Docker engine": "start the Docker engine",
        "sandbox bubblewrap": "apt-get install bubblewrap",
        "git": "apt-get install git",
        "suites": "put jkoppel/QuixBugs.bundle, soarsmu/BugsInPy.bundle, datasets/openai/gsm8k there",
    }.items():
        assert found[name].health is Health.MISSING
        assert fix in found[name].fix


def test_without_a_sandbox_the_exit_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none = [Check(name, lambda name=name: [missing(name, "no", "f")]) for name in ("sandbox docker", "sandbox local")]  # type: ignore[misc]
    monkeypatch.setattr("eval.doctor_sandboxes.checks", lambda: none)
    monkeypatch.setattr("eval.doctor_machine.checks", list)
    monkeypatch.setattr("eval.doctor_models.checks", lambda timeout_s: [])
    assert main(["doctor"]) == 1
    assert "NO SANDBOX WORKS HERE" in capsys.readouterr().out


def test_a_check_that_hangs_or_breaks_is_a_finding_and_the_others_are_whole() -> None:
    def breaks() -> list[Finding]:
        raise ZeroDivisionError("by nought")

    hanging = threading.Event()
    checks = [
        Check("hangs", lambda: [ok("hangs", str(hanging.wait()))], "pull the plug"),
        Check("breaks", breaks),
        Check("works", lambda: [ok("works", "yes")]),
    ]
    began = time.monotonic()
    hung, broke, worked = run_checks(checks, timeout_s=0.3)
    assert time.monotonic() - began < 5
    hanging.set()
    assert (hung.health, hung.said, hung.fix) == (Health.BROKEN, "no answer within 0.3 s", "pull the plug")
    assert (broke.health, broke.said) == (Health.BROKEN, "ZeroDivisionError: by nought")
    assert worked == Finding("works", Health.OK, "yes")


def test_an_import_that_takes_too_long_is_ended() -> None:
    assert "no answer within 0.5 s" in in_child("import time; time.sleep(60)", 0.5)["error"]
    assert in_child("import not_there_at_all", 60)["error"] == "ModuleNotFoundError: No module named 'not_there_at_all'"


def test_training_libraries_that_do_not_go_together_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"torch": "2.13.0+cpu", "transformers": "4.40.0", "trl": "1.16.0", "peft": "0.21.2", "datasets": "5.2.0"}
    monkeypatch.setattr(doctor_models, "installed", lambda name: found.get(name, ""))
    (finding,) = doctor_models._training()
    assert finding.health is Health.BROKEN
    assert "transformers 4.40.0, not <5.20,>=5.16.1" in finding.said
    found["transformers"] = "5.17.0"
    (finding,) = doctor_models._training()
    assert finding.health is Health.OK
    assert "tested together with transformers" in finding.said
    del found["trl"]
    (finding,) = doctor_models._training()
    assert (finding.health, finding.fix) == (Health.MISSING, "pip install -c constraints.txt '.[train]'")


def test_the_names_of_keys_are_those_that_litellm_looks_for() -> None:
    litellm = import_litellm()
    for provider in COMMON:
        wanted = litellm.validate_environment(f"{PREFIXES.get(provider, provider)}/x")["missing_keys"]
        assert set(wanted) <= set(KEYS.get(provider, ()))


@pytest.mark.parametrize(
    "argv",
    [
        ["eval", "--llm-provider", "openai", "--model", "gpt-5"],
        ["eval", "--suite", "quixbugs", "--mirror", "/nowhere"],
        ["eval", "--sandbox", "bubblewrap"],
    ],
)
def test_a_start_that_fails_for_want_of_something_here_points_to_the_doctor(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # where no bwrap is
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" (repo-agent doctor says more)")


def test_a_wrong_flag_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--num-workers", "0"]) == 2
    assert "doctor" not in capsys.readouterr().err
