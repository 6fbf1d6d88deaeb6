"""The pipeline's settings: where a value comes from, which questions they choose, and what a run's directory keeps."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from harness.errors import UsageError
from repo_agent import main
from trainers.gsm8k.grpo import GrpoJob
from trainers.gsm8k.gsm8k_cli import SUBCOMMANDS
from trainers.gsm8k.play import absolute
from trainers.gsm8k.settings import (
    FIELDS,
    Gsm8kSettings,
    add_setting_flags,
    resolve,
    table,
    variable_of,
    write_config,
)
from trainers.rewards import QUESTION

README = Path(__file__).parents[1] / "README.md"


def parsed(*argv: str) -> argparse.Namespace:
    made = argparse.ArgumentParser(exit_on_error=False)
    add_setting_flags(made, FIELDS)
    return made.parse_args(argv)


def test_a_flag_comes_before_a_variable_and_a_variable_before_the_default() -> None:
    environ = {"TRAIN_SAMPLES": "64", "EVAL_SAMPLES": "32", "GSM8K_LORA": "no"}
    found = resolve(parsed("--train-samples", "16"), environ)
    assert (found.train_samples, found.eval_samples, found.prep_train_samples, found.lora) == (16, 32, 128, False)


def test_an_empty_variable_is_not_set() -> None:
    assert resolve(parsed(), {variable_of(name): "" for name in FIELDS}) == Gsm8kSettings()


def test_the_variables_that_others_use_too_have_a_prefix() -> None:
    plain = {variable_of(name) for name in FIELDS if variable_of(name) == name.upper()}
    assert plain == {
        "BASE_MODEL", "TRAIN_SAMPLES", "PREP_TRAIN_SAMPLES", "EVAL_SAMPLES", "NUM_GENERATIONS", "OUTPUT_DIR",
    }  # fmt: skip


def test_the_defaults_are_those_of_the_issue() -> None:
    found = Gsm8kSettings()
    assert found.base_model == "Qwen/Qwen2.5-1.5B"
    assert (found.train_samples, found.prep_train_samples, found.eval_samples, found.num_generations) == (
        512,
        128,
        512,
        8,
    )


def test_a_variable_that_cannot_be_read_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVAL_SAMPLES", "many")
    assert main(["gsm8k", "eval"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "EVAL_SAMPLES" in said and "'many'" in said


@pytest.mark.parametrize(
    "argv", [["--suite", "algebra"], ["--train-samples", "0"], ["--temperature", "nan"], ["--base-model", ""]]
)
def test_a_flag_out_of_range_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = "eval" if argv[0] in ("--suite", "--temperature") else "sft"
    assert main(["gsm8k", command, *argv]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and argv[0] in said


@pytest.mark.parametrize("given", ["luck=1", "score", "score=", "score=-1", "score=inf", "passing_tests=1"])
def test_a_reward_that_questions_do_not_have_is_one_line(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gsm8k", "grpo", "--grpo-rewards", given]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--grpo-rewards: must be NAME=WEIGHT,… with names of score, " in said


def test_rewards_that_are_named_stand_beside_or_instead_of_the_default_ones() -> None:
    settings = Gsm8kSettings(grpo_rewards="exact_format=0,answer=0.5", grpo_kl_beta=0.1, grpo_loss_type="dr_grpo")
    wanted = GrpoJob("model", Path("run"), settings).grpo_settings
    assert wanted.rewards == {**QUESTION, "exact_format": 0, "answer": 0.5}
    assert (wanted.kl_beta, wanted.loss_type) == (0.1, "dr_grpo")


def test_prep_and_train_questions_are_disjoint_and_smaller_sizes_are_nested() -> None:
    settings = Gsm8kSettings(suite="arith", prep_train_samples=20, train_samples=50, eval_samples=30)
    prep, train = (
        [each.id for each in part.questions] for part in (settings.prep_questions(), settings.train_questions())
    )
    assert (len(prep), len(train)) == (20, 50)
    assert not set(prep) & set(train)
    assert [each.id for each in settings.train_questions(count=10).questions] == train[:10]
    assert {each.split for each in settings.eval_questions().questions} == {"test"}
    everything = [each.id for each in settings.all_train_questions().questions]
    assert everything[:50] == train and everything[-20:] == prep and len(set(everything)) == len(everything)


def test_more_questions_than_there_are_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"has 500 questions, not 501"):
        Gsm8kSettings(suite="arith", eval_samples=501).eval_questions()


def test_a_directory_of_a_run_with_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    write_config(tmp_path / "run", "prep_sft", Gsm8kSettings())
    (tmp_path / "run" / "debug").mkdir()
    (tmp_path / "run" / "debug" / "prep_sft_1.csv").touch()
    write_config(tmp_path / "run", "prep_sft", Gsm8kSettings())
    with pytest.raises(UsageError, match=r"epochs: 3\.0 there, 4\.0 here"):
        write_config(tmp_path / "run", "prep_sft", Gsm8kSettings(epochs=4))


def test_a_run_that_came_to_nothing_may_be_begun_with_other_settings(tmp_path: Path) -> None:
    write_config(tmp_path / "run", "prep_sft", Gsm8kSettings())
    write_config(tmp_path / "run", "prep_sft", Gsm8kSettings(epochs=4))
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["epochs"] == 4


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="holds something else"):
        write_config(tmp_path, "prep_sft", Gsm8kSettings())
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


def test_expert_iteration_may_go_on_with_more_rounds(tmp_path: Path) -> None:
    write_config(tmp_path / "run", "exit", Gsm8kSettings(rounds=2))
    (tmp_path / "run" / "correct" / "samples_1").mkdir(parents=True)
    write_config(tmp_path / "run", "exit", Gsm8kSettings(rounds=3))


def test_the_configuration_of_a_model_is_never_overwritten(tmp_path: Path) -> None:
    model = tmp_path / "config.json"
    model.write_text('{"model_type": "qwen2"}', encoding="utf-8")
    with pytest.raises(UsageError, match="is no configuration of this pipeline"):
        write_config(tmp_path, "base", Gsm8kSettings())
    assert model.read_text(encoding="utf-8") == '{"model_type": "qwen2"}'


def test_the_directory_of_a_stage_without_a_result_is_no_model(tmp_path: Path) -> None:
    write_config(tmp_path / "grpo", "grpo", Gsm8kSettings())
    with pytest.raises(UsageError, match="grpo holds no model: the stage in it"):
        absolute(str(tmp_path / "grpo"))
    (tmp_path / "grpo" / "result.json").touch()
    assert absolute(str(tmp_path / "grpo")) == str(tmp_path / "grpo")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sft"], "run `repo-agent gsm8k sft --stage prep` first, or name a model by --base-model"),
        (["grpo"], "run `repo-agent gsm8k sft --stage prep` first, or name a model by --base-model"),
        (["exit"], "run `repo-agent gsm8k sft --stage prep` first, or name a model by --base-model"),
        (["traces"], "run `repo-agent gsm8k grpo` first, or name a model by --grpo-model"),
    ],
)
def test_what_an_earlier_stage_makes_is_asked_for(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path / "root"))
    assert main(["gsm8k", *argv]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_flag_of_the_table_is_one_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    known = set[str]()
    for command in SUBCOMMANDS:
        with pytest.raises(SystemExit):
            main(["gsm8k", command, "--help"])
        known |= set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))
    shown = set(re.findall(r"^\| `[^`]*(--[a-z0-9-]+)`", table(), re.MULTILINE))
    assert len(shown) >= len(FIELDS) - 1 and shown <= known


def test_the_readme_has_the_table_of_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gsm8k", "config"]) == 0
    assert capsys.readouterr().out.strip() == table()
    assert table() in README.read_text(encoding="utf-8")
