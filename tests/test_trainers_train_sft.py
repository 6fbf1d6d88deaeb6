"""`repo-agent train sft`, with real TRL on a model of a few thousand parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from harness.model_files import find_model
from harness.records import Message
from tests.local_models import torn_adapter
from tests.training_world import ACTIONS, conversation, make_tiny, metrics, record, result, step_rows, train
from trainers.train_data import SftCollator, plain_forest
from trainers.train_model import load_tokenizer, locate
from trainers.train_rows import read_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return step_rows(tmp_path_factory.mktemp("rows") / "sft.jsonl")


def _losses(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run) if "loss" in line]


def _weights(directory: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(next(directory.glob("*.safetensors"))))


def test_a_whole_model_learns_the_rows_and_is_found_by_its_run(tiny: Path, rows: Path, tmp_path: Path) -> None:
    assert train("sft", tiny, rows, tmp_path / "r", "--no-lora", "--learning-rate", "1e-2", "--epochs", "12") == 0
    losses = _losses(tmp_path / "r")
    assert losses[-1] < losses[0] / 2
    assert find_model(str(tmp_path / "r")).base == str(tmp_path / "r" / "model")
    ended = result(tmp_path / "r")
    assert (ended["kind"], ended["backend"], ended["adapter"], ended["rows"]) == ("sft", "local", None, 12)
    assert ended["steps"] == len(losses) and ended["final_loss"] == losses[-1]


def test_a_trained_model_plays_what_it_was_taught_and_stops(tiny: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    taught = step_rows(tmp_path / "sft.jsonl", tasks=1)
    flags = ["--no-lora", "--learning-rate", "1e-2", "--epochs", "200", "--warmup-ratio", "0", "--save-steps", "1000"]
    assert train("sft", tiny, taught, tmp_path / "r", *flags) == 0
    chat = load_tokenizer(locate(str(tmp_path / "r")))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "r/model")
    for step in range(4):
        seen = chat.prompt_ids([Message.model_validate(message) for message in conversation("t0", step)])
        ids = torch.tensor([seen])
        spoken = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False)
        assert spoken[0, len(seen) :].tolist() == chat.action_ids(ACTIONS[step])


def test_an_adapter_is_saved_with_a_base_that_is_found_from_anywhere(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    assert train("sft", Path("tiny"), rows, tmp_path / "r", "--max-steps", "1") == 0
    monkeypatch.chdir(tmp_path)
    found = find_model("r")
    assert (found.base, found.adapter) == (str(tiny), Path("r/adapter"))
    assert found.tokenizer == "r/adapter"


@pytest.mark.parametrize("shape", [["--no-lora"], ["--lora-r", "4"]])
def test_packed_and_unpacked_training_have_the_same_losses(
    tiny: Path, rows: Path, tmp_path: Path, shape: list[str]
) -> None:
    flags = [*shape, "--learning-rate", "1e-3", "--batch-size", "12", "--max-steps", "4"]
    assert train("sft", tiny, rows, tmp_path / "packed", *flags, "--packing", "trie") == 0
    assert train("sft", tiny, rows, tmp_path / "plain", *flags, "--packing", "none") == 0
    assert _losses(tmp_path / "packed") == pytest.approx(_losses(tmp_path / "plain"), rel=1e-4)
    packed = result(tmp_path / "packed")
    assert packed["computed_tokens"] < packed["tokens"] / 2
    assert result(tmp_path / "plain")["computed_tokens"] is None


@pytest.mark.parametrize("packing", ["trie", "none"])
def test_gradient_checkpointing_changes_no_loss(tiny: Path, rows: Path, tmp_path: Path, packing: str) -> None:
    flags = ["--learning-rate", "1e-2", "--batch-size", "12", "--max-steps", "2", "--packing", packing]
    assert train("sft", tiny, rows, tmp_path / "a", *flags) == 0
    assert train("sft", tiny, rows, tmp_path / "b", *flags, "--gradient-checkpointing") == 0
    assert _losses(tmp_path / "a") == pytest.approx(_losses(tmp_path / "b"), rel=1e-5)


@pytest.mark.parametrize("shape", [["--lora"], ["--no-lora"]])
def test_bfloat16_comes_close_to_float32(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: list[str]
) -> None:
    import trainers.train_local as local

    flags = [*shape, "--learning-rate", "1e-3", "--batch-size", "12", "--max-steps", "3"]
    assert train("sft", tiny, rows, tmp_path / "a", *flags) == 0
    monkeypatch.setattr(local, "device_of", lambda asked: ("cpu", "bf16"))
    assert train("sft", tiny, rows, tmp_path / "b", *flags) == 0
    assert record(tmp_path / "b")["batches"]["packed"] is True
    assert _losses(tmp_path / "a") == pytest.approx(_losses(tmp_path / "b"), rel=2e-2)


def test_gradient_accumulation_gives_the_losses_of_the_larger_batch(tiny: Path, rows: Path, tmp_path: Path) -> None:
    flags = ["--no-lora", "--learning-rate", "1e-3", "--packing", "none"]
    assert train("sft", tiny, rows, tmp_path / "a", *flags, "--batch-size", "6") == 0
    assert train("sft", tiny, rows, tmp_path / "b", *flags, "--batch-size", "2", "--gradient-accumulation", "3") == 0
    assert _losses(tmp_path / "a") == pytest.approx(_losses(tmp_path / "b"), rel=1e-4)


def test_labels_are_the_action_and_its_end_and_nothing_else(tiny: Path, rows: Path) -> None:
    chat = load_tokenizer(locate(str(tiny)))
    read = read_rows(rows, "sft", chat, 512)
    batch = SftCollator(plain_forest(read.rows, 4).rows, chat.tokenizer.pad_token_id).of_rows(read.rows)
    for ids, labels, row in zip(batch["input_ids"], batch["labels"], read.rows, strict=True):
        trained = [int(token) for token in labels if token != -100]
        assert trained[-1] == chat.stop_id and chat.stop_id not in trained[:-1]
        assert trained == row.sequences[0][-len(trained) :].tolist()
        assert ids[: len(row.sequences[0])].tolist() == row.sequences[0].tolist()


def test_the_gradient_comes_from_the_completion_only(tiny: Path, rows: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    chat = load_tokenizer(locate(str(tiny)))
    row = read_rows(rows, "sft", chat, 512).rows[3]
    batch = SftCollator([row], chat.tokenizer.pad_token_id).of_rows([row])
    model = AutoModelForCausalLM.from_pretrained(tiny)
    logits = model(input_ids=batch["input_ids"]).logits
    logits.retain_grad()
    torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:], ignore_index=-100).backward()
    reached = [place + 1 for place, grad in enumerate(logits.grad[0]) if grad.abs().sum() > 0]
    length = len(row.sequences[0])
    completion = sum(int(label) != -100 for label in batch["labels"][0])
    assert reached == list(range(length - completion, length))


def test_an_adapter_is_trained_on(tiny: Path, rows: Path, tmp_path: Path) -> None:
    flags = ["--learning-rate", "1e-2", "--epochs", "3"]
    assert train("sft", tiny, rows, tmp_path / "a", *flags) == 0
    assert train("sft", tmp_path / "a", rows, tmp_path / "b", *flags, "--lr-scheduler", "constant") == 0
    assert result(tmp_path / "b")["base_model"] == str(tiny)
    assert _losses(tmp_path / "b")[0] < _losses(tmp_path / "a")[0]
    assert _weights(tmp_path / "a/adapter").keys() == _weights(tmp_path / "b/adapter").keys()


def test_an_adapter_whose_weights_are_not_complete_is_not_trained_on(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn_adapter(tiny, tmp_path / "torn")
    assert train("sft", tmp_path / "torn", rows, tmp_path / "r") == 2
    assert "weights of the adapter" in capsys.readouterr().err


def test_without_lora_an_adapter_is_merged_and_the_whole_trained(tiny: Path, rows: Path, tmp_path: Path) -> None:
    assert train("sft", tiny, rows, tmp_path / "a", "--learning-rate", "1e-2", "--epochs", "3") == 0
    assert train("sft", tmp_path / "a", rows, tmp_path / "b", "--no-lora", "--max-steps", "1") == 0
    assert _losses(tmp_path / "b")[0] < _losses(tmp_path / "a")[0]
    assert not any("lora" in name for name in _weights(tmp_path / "b/model"))


def test_a_model_without_a_template_gets_the_default_one(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    from harness.chat_template import DEFAULT_TEMPLATE

    base = _copy(tiny, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    assert AutoTokenizer.from_pretrained(base).chat_template is None
    assert train("sft", base, rows, tmp_path / "r", "--max-steps", "1") == 0
    assert "has no chat template" in capsys.readouterr().err
    assert AutoTokenizer.from_pretrained(tmp_path / "r/adapter").chat_template == DEFAULT_TEMPLATE


def _copy(source: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(source, target)
    return target


def test_a_llama_is_trained_packed(tiny: Path, rows: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=512, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    assert train("sft", tmp_path / "llama", rows, tmp_path / "r", "--batch-size", "12", "--max-steps", "2") == 0
    assert record(tmp_path / "r")["batches"]["packed"] is True


def test_a_model_with_a_sliding_window_goes_unpacked_and_says_so(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    base = _copy(tiny, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}
    config["layer_types"] = ["sliding_attention"] * 2
    (base / "config.json").write_text(json.dumps(config))
    assert train("sft", base, rows, tmp_path / "r", "--max-steps", "1") == 0
    assert "rows are not packed: " in capsys.readouterr().err
    assert record(tmp_path / "r")["batches"]["packed"] is False


def test_rows_that_are_too_long_are_left_out_and_counted(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("sft", tiny, rows, tmp_path / "r", "--max-length", "150", "--max-steps", "1") == 0
    data = record(tmp_path / "r")["data"]
    assert 0 < data["dropped_over_length"] < 12 and data["rows"] + data["dropped_over_length"] == 12
    assert data["longest"] <= 150
    assert f"({data['dropped_over_length']} longer than allowed were left out)" in capsys.readouterr().err


def test_batch_size_max_is_found_and_recorded(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("sft", tiny, rows, tmp_path / "r", "--batch-size", "max", "--max-steps", "2") == 0
    assert record(tmp_path / "r")["batches"]["batch_size"] == 12
    assert "--batch-size max: 12 of the longest rows fit" in capsys.readouterr().err
    assert train("sft", tiny, rows, tmp_path / "same", "--batch-size", "12", "--max-steps", "2") == 0
    assert metrics(tmp_path / "r") == metrics(tmp_path / "same")


def test_the_loss_on_evaluation_rows_is_measured_after_each_epoch(tiny: Path, rows: Path, tmp_path: Path) -> None:
    held_out = step_rows(tmp_path / "eval.jsonl", tasks=1)
    assert train("sft", tiny, rows, tmp_path / "r", "--epochs", "2", "--eval-dataset", str(held_out)) == 0
    assert len([line for line in metrics(tmp_path / "r") if "eval_loss" in line]) == 2
    assert record(tmp_path / "r")["eval_data"]["rows"] == 4
