"""Which files stand behind a --model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.model_files import find_model, name_at_service


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def run(directory: Path, **result: object) -> str:
    write(directory / "result.json", {"kind": "sft", "backend": "local", "adapter": None, "model": None, **result})
    return str(directory)


def test_a_name_on_the_hub_is_taken_as_it_is() -> None:
    assert find_model("Qwen/Qwen2.5-0.5B").base == find_model("Qwen/Qwen2.5-0.5B").tokenizer == "Qwen/Qwen2.5-0.5B"


@pytest.mark.parametrize("name", ["/not/there", "./not-there", "a/b/c"])
def test_a_path_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        find_model(name)


def test_a_run_of_a_whole_model_is_its_model(tmp_path: Path) -> None:
    write(tmp_path / "run" / "model" / "config.json", {})
    found = find_model(run(tmp_path / "run", model="model"))
    assert (found.base, found.adapter) == (str(tmp_path / "run" / "model"), None)


def test_a_run_of_an_adapter_is_the_adapter_on_its_base(tmp_path: Path) -> None:
    write(tmp_path / "run" / "adapter" / "adapter_config.json", {"base_model_name_or_path": str(tmp_path)})
    found = find_model(run(tmp_path / "run", adapter="adapter"))
    assert (found.base, found.adapter) == (str(tmp_path), tmp_path / "run" / "adapter")
    assert found.tokenizer == str(tmp_path)
    write(tmp_path / "run" / "adapter" / "tokenizer_config.json", {})
    assert find_model(str(tmp_path / "run")).tokenizer == str(tmp_path / "run" / "adapter")


def test_an_adapter_whose_base_is_gone_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "adapter_config.json", {"base_model_name_or_path": str(tmp_path / "gone")})
    with pytest.raises(UsageError, match="not there any more"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("content", [{}, {"backend": "together"}, {"model": None, "adapter": None}, {"model": 3}, []])
def test_a_result_that_names_no_model_is_one_line(tmp_path: Path, content: object) -> None:
    write(tmp_path / "result.json", content)
    for find in (find_model, lambda name: name_at_service(name, "together")):
        with pytest.raises(UsageError, match=r"result\.json cannot be read"):
            find(str(tmp_path))


def test_a_run_that_has_not_ended_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "train.json", {})
    with pytest.raises(UsageError, match="--resume"):
        find_model(str(tmp_path))


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model in it"):
        find_model(str(tmp_path))


def test_the_run_of_a_service_gives_its_models_name_there_and_nowhere_else(tmp_path: Path) -> None:
    name = run(tmp_path, backend="together", model="me/model-1")
    assert name_at_service(name, "together") == "me/model-1"
    assert name_at_service("Qwen/Qwen2.5", "together") == "Qwen/Qwen2.5"
    with pytest.raises(UsageError, match="--llm-provider together"):
        name_at_service(name, "openai")
    with pytest.raises(UsageError, match="--llm-provider together"):
        find_model(name)


def test_a_local_run_is_not_for_a_service(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hf or vllm"):
        name_at_service(run(tmp_path, model="model"), "together")
