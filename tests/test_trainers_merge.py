"""`train merge`: that the merged model is the trained one, that its card hides nothing, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from harness.chat_template import DEFAULT_TEMPLATE, chat_format
from harness.errors import UsageError
from harness.model_files import find_model
from harness.records import Message
from repo_agent import main
from tests.hub_server import hub
from trainers.merge import Merged, merge
from trainers.merge_hub import push
from trainers.merge_ollama import go_template, modelfile
from trainers.tiny_model import TinyShape, init_tiny

pytestmark = pytest.mark.slow
SHAPE = TinyShape(vocab_size=400, hidden_size=32, layers=2, heads=2, intermediate_size=64, max_length=256)
LEAK = "WARNING: rows from 1 tasks of a test split are in this file: quicksort."
TURNS = (
    Message(role="system", content="You repair {{ .Code }}.\n"),
    Message(role="user", content="[tool_result]\n a"),
    Message(role="assistant", content='{"type": "final"}'),
    Message(role="user", content="go on"),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("base") / "tiny"
    init_tiny(directory, shape=SHAPE)
    return directory


def adapter(base: Path, directory: Path, seed: int = 0, **settings: Any) -> Path:
    """An adapter whose weights are random, and large enough to be felt."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(**{"target_modules": "all-linear", "task_type": "CAUSAL_LM", "r": 4, **settings})
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    tuned.save_pretrained(directory)
    AutoTokenizer.from_pretrained(base).save_pretrained(directory)
    return directory


def run(
    base: Path,
    directory: Path,
    kind: str = "sft",
    began_with: Path | None = None,
    leak: str = LEAK,
    suite: str = "quixbugs",
) -> Path:
    """The directory of a training run that has ended."""
    adapter(base, directory / "adapter")
    describe(directory, {"adapter": "adapter", "model": None}, kind, began_with or base, leak, suite)
    return directory


def describe(
    directory: Path, made: dict[str, Any], kind: str, began_with: Path, leak: str, suite: str = "quixbugs"
) -> None:
    data = directory.with_name(f"{directory.name}_rows.jsonl")
    card = directory.with_name(f"{directory.name}_rows.card.json")
    source = {"run": {"suite": suite, "tool_protocol": "json"}}
    card.write_text(json.dumps({"leakage": [leak], "sources": [source]}))
    reference = {"path": str(card), "sha256": hashlib.sha256(card.read_bytes()).hexdigest()}
    train = {
        "settings": {"kind": kind, "model": str(began_with.resolve()), "learning_rate": 0.0002, "lora_r": 4},
        "versions": {"trl": "1.16.0"},
        "data": {"path": str(data), "sha256": "5e" * 32, "rows": 17, "card": reference},
    }
    (directory / "train.json").write_text(json.dumps(train))
    (directory / "metrics.jsonl").write_text('{"step": 1, "loss": 3.25}\n{"step": 2, "loss": 1.5}\n')
    result = {"kind": kind, "backend": "local", "base_model": "tiny", **made, "steps": 2, "rows": 17, "final_loss": 1.5}
    (directory / "result.json").write_text(json.dumps(result))


def logits(model: Any, length: int = 20) -> Any:
    ids = torch.arange(3, 3 + length)[None] * 7 % 400
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def card(directory: Path) -> str:
    return (directory / "README.md").read_text(encoding="utf-8")


def test_the_merged_model_gives_the_logits_of_the_base_with_its_adapter(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    place = adapter(base, tmp_path / "adapter")
    merge(str(place), tmp_path / "merged")
    untouched = AutoModelForCausalLM.from_pretrained(base)
    before = logits(untouched)
    tuned = logits(PeftModel.from_pretrained(untouched, place))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.dtype == torch.float32
    assert (logits(merged) - tuned).abs().max() < 1e-5
    assert (tuned - before).abs().max() > 0.01
    assert not list((tmp_path / "merged").glob("adapter*"))
    assert list((tmp_path / "merged").glob("*.safetensors"))


def test_a_reloaded_merged_model_speaks_the_same_tokens(base: Path, tmp_path: Path) -> None:
    merge(str(adapter(base, tmp_path / "adapter")), tmp_path / "merged")
    there, here = (chat_format(AutoTokenizer.from_pretrained(place)) for place in (base, tmp_path / "merged"))
    assert here.prompt_ids(TURNS) == there.prompt_ids(TURNS)
    assert here.action_ids('{"é": "\\n"}') == there.action_ids('{"é": "\\n"}')
    assert GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id == here.stop_id


def test_generation_stops_where_the_template_ends_a_turn_and_where_the_base_stopped(base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base, tmp_path / "other")
    GenerationConfig(eos_token_id=[7, 9], pad_token_id=5).save_pretrained(other)
    merge(str(adapter(other, tmp_path / "adapter")), tmp_path / "merged")
    stop = chat_format(AutoTokenizer.from_pretrained(base)).stop_id
    found = GenerationConfig.from_pretrained(tmp_path / "merged")
    assert found.eos_token_id == [stop, 7, 9]
    assert found.pad_token_id == 5


def test_a_tokenizer_without_a_template_is_saved_with_the_default_one(base: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(base, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert merge(str(adapter(bare, tmp_path / "adapter")), tmp_path / "merged").default_template
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == DEFAULT_TEMPLATE


def test_weights_are_rounded_once_to_the_type_asked_for(base: Path, tmp_path: Path) -> None:
    place = adapter(base, tmp_path / "adapter")
    exact = AutoModelForCausalLM.from_pretrained(merge(str(place), tmp_path / "exact").directory)
    merge(str(place), tmp_path / "half", dtype="bfloat16")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto")
    assert half.dtype == torch.bfloat16
    pairs = zip(exact.parameters(), half.parameters(), strict=True)
    assert all(torch.equal(whole.to(torch.bfloat16), rounded) for whole, rounded in pairs)


def test_the_type_is_that_of_the_base_where_none_is_asked_for(base: Path, tmp_path: Path) -> None:
    half = shutil.copytree(base, tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(half)
    assert merge(str(adapter(half, tmp_path / "adapter")), tmp_path / "merged").about.dtype == "bfloat16"


def test_the_command_takes_a_run_and_eval_takes_what_it_made(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "merged"
    assert main(["train", "merge", "--model", str(run(base, tmp_path / "run")), "--output-dir", str(merged)]) == 0
    assert f"repo-agent eval --llm-provider hf --model {merged}" in capsys.readouterr().out
    files = find_model(str(merged))
    assert (files.base, files.adapter, files.tokenizer) == (str(merged), None, str(merged))


def test_a_model_that_was_trained_whole_is_taken_over_with_a_card(base: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(base, place / "model")
    describe(place, {"adapter": None, "model": "model"}, "sft", base, LEAK)
    merge(str(place), tmp_path / "merged")
    there, here = (load_file(each / "model.safetensors") for each in (base, tmp_path / "merged"))
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in there)
    assert "All weights of this model were trained." in card(tmp_path / "merged")


def test_the_card_measures_a_model_of_the_training_half_on_the_other_half(base: Path, tmp_path: Path) -> None:
    merge(str(run(base, tmp_path / "run", suite="quixbugs_train_suite")), tmp_path / "merged")
    assert "repo-agent eval --suite eval/suites/quixbugs_test_suite.json --llm-provider hf" in card(tmp_path / "merged")


def test_the_card_says_what_the_model_is_made_of(base: Path, tmp_path: Path) -> None:
    merge(str(run(base, tmp_path / "run")), tmp_path / "merged")
    text = card(tmp_path / "merged")
    assert text.startswith("---\nlibrary_name: transformers\n")
    for part in (
        "Base model: `tiny`",
        f"- {LEAK}",
        "### 1. sft",
        f"Rows: `run_rows.jsonl`, sha256 {'5e' * 32}; its data card: `run_rows.card.json`.",
        "| rows | 17 |",
        "| first logged loss | 3.25 |",
        "| final loss | 1.5 |",
        "| learning_rate | 0.0002 |",
        "| trl | 1.16.0 |",
        "JSON tool protocol (`--tool-protocol json`)",
        f"repo-agent eval --suite quixbugs --llm-provider hf --model {tmp_path / 'merged'}",
        "| peft | ",
    ):
        assert part in text, part
    assert str(base) not in text


def test_the_card_tells_of_the_run_that_a_run_began_with(base: Path, tmp_path: Path) -> None:
    first = run(base, tmp_path / "first")
    second = run(base, tmp_path / "second", "dpo", began_with=first, leak="No row comes from a task of a test split.")
    merge(str(second), tmp_path / "merged")
    text = card(tmp_path / "merged")
    assert f"- {LEAK}\n- No row comes" in text
    assert text.index("### 1. sft") < text.index("### 2. dpo")


def test_the_history_goes_on_through_a_merged_model(base: Path, tmp_path: Path) -> None:
    merge(str(run(base, tmp_path / "first")), tmp_path / "merged")
    second = run(tmp_path / "merged", tmp_path / "second", leak="Nothing to say.")
    merge(str(second / "adapter"), tmp_path / "again")
    assert f"- {LEAK}\n- Nothing to say." in card(tmp_path / "again")


@pytest.mark.parametrize(
    "lost", ["the card has changed", "the card is gone", "there is no run", "an earlier run is gone"]
)
def test_a_card_does_not_claim_what_is_not_known(base: Path, tmp_path: Path, lost: str) -> None:
    place = run(base, tmp_path / "run", leak="Nothing to say.")
    reference = tmp_path / "run_rows.card.json"
    if lost == "the card has changed":
        reference.write_text(json.dumps({"leakage": ["Nothing to say."]}))
    elif lost == "the card is gone":
        reference.unlink()
    elif lost == "there is no run":
        place = adapter(base, tmp_path / "bare")
    else:
        place = run(base, tmp_path / "later", began_with=tmp_path / "no more", leak="Nothing to say.")
    merge(str(place), tmp_path / "merged")
    assert "cannot be said" in card(tmp_path / "merged")


def test_the_card_of_a_checkpoint_does_not_give_the_results_of_the_whole_run(base: Path, tmp_path: Path) -> None:
    place = run(base, tmp_path / "run")
    merge(str(adapter(base, place / "checkpoints" / "checkpoint-1")), tmp_path / "merged")
    text = card(tmp_path / "merged")
    assert f"- {LEAK}" in text
    assert "final loss" not in text


def refused(model: Path | str, output: Path, said: str) -> None:
    """One line, and nothing is left."""
    before = set(output.parent.iterdir())
    with pytest.raises(UsageError, match=said) as error:
        merge(str(model), output)
    assert "\n" not in str(error.value)
    assert set(output.parent.iterdir()) == before


def test_what_has_no_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    refused(base, tmp_path / "merged", "nothing to merge")
    refused("org/model", tmp_path / "merged", "nothing to merge")


def test_a_run_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.json").write_text("{}")
    refused(tmp_path / "run", tmp_path / "merged", "has not ended")


def test_a_directory_that_is_not_empty_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine").touch()
    refused(adapter(base, tmp_path / "adapter"), tmp_path / "merged", "not empty")
    assert [each.name for each in (tmp_path / "merged").iterdir()] == ["mine"]


def test_an_empty_directory_is_filled(base: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    merge(str(adapter(base, tmp_path / "adapter")), tmp_path / "merged")
    assert (tmp_path / "merged" / "config.json").is_file()


def test_a_base_that_is_gone_is_refused(base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base, tmp_path / "other")
    place = adapter(other, tmp_path / "adapter")
    shutil.rmtree(other)
    refused(place, tmp_path / "merged", "not there any more")


def test_a_base_that_is_no_model_is_refused(base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base, tmp_path / "other")
    place = adapter(other, tmp_path / "adapter")
    (other / "model.safetensors").unlink()
    refused(place, tmp_path / "merged", "other cannot be loaded: ")


@pytest.mark.parametrize(
    "shape",
    [
        TinyShape(400, 64, 2, 2, 64, 256),
        TinyShape(400, 32, 1, 2, 64, 256),
        TinyShape(400, 32, 3, 2, 64, 256),
    ],
    ids=["wider", "fewer layers", "more layers"],
)
def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path, shape: TinyShape) -> None:
    place = adapter(base, tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    init_tiny(tmp_path / "other", shape=shape)
    config = json.loads((place / "adapter_config.json").read_text())
    changed = {**config, "base_model_name_or_path": str(tmp_path / "other")}
    (place / "adapter_config.json").write_text(json.dumps(changed))
    refused(place, tmp_path / "merged", "does not fit")


def test_an_adapter_that_is_broken_is_refused(base: Path, tmp_path: Path) -> None:
    place = adapter(base, tmp_path / "adapter")
    weights = load_file(place / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, place / "adapter_model.safetensors")
    refused(place, tmp_path / "merged", "NaN")


def test_an_adapter_of_one_end_of_tied_embeddings_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="embedding"):
        place = adapter(base, tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    refused(place, tmp_path / "merged", "its embeddings are tied")


def test_an_adapter_that_is_no_change_of_weights_is_refused(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    refused(tmp_path / "adapter", tmp_path / "merged", "cannot be added to weights")


def test_weights_that_the_type_cannot_hold_are_refused(base: Path, tmp_path: Path) -> None:
    place = adapter(base, tmp_path / "adapter", lora_alpha=10**7)
    with pytest.raises(UsageError, match="float16 cannot hold"):
        merge(str(place), tmp_path / "merged", dtype="float16")


def ollama(base: Path, directory: Path, template: str | None) -> tuple[str, Any]:
    """A Modelfile for the base with another template, and the format."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template or tokenizer.chat_template
    chat = chat_format(tokenizer)
    return modelfile(chat, 256), chat


def test_the_modelfile_lies_beside_the_weights(base: Path, tmp_path: Path) -> None:
    merge(str(adapter(base, tmp_path / "adapter")), tmp_path / "merged", ollama=True)
    assert (tmp_path / "merged" / "Modelfile").read_text() == (
        'FROM .\nTEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}'
        '<|im_start|>assistant\n"""\nPARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 256\n'
    )


def test_a_template_that_is_not_known_is_left_to_ollama(base: Path, tmp_path: Path) -> None:
    text, _ = ollama(base, tmp_path, "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}")
    assert "# No TEMPLATE" in text
    assert "\nTEMPLATE" not in text


GO = """package main
import ("encoding/json"; "os"; "text/template")
func main() {
  var given struct { Template string; Messages []struct { Role, Content string } }
  if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil { panic(err) }
  made := template.Must(template.New("").Option("missingkey=zero").Parse(given.Template))
  if err := made.Execute(os.Stdout, map[string]any{"Messages": given.Messages}); err != nil { panic(err) }
}
"""


@pytest.mark.skipif(not shutil.which("go"), reason="needs Go, whose templates Ollama's are")
@pytest.mark.parametrize("template", [None, DEFAULT_TEMPLATE], ids=["chatml", "default"])
def test_go_renders_the_template_as_the_tokenizer_does(base: Path, tmp_path: Path, template: str | None) -> None:
    _, chat = ollama(base, tmp_path, template)
    (tmp_path / "main.go").write_text(GO)
    messages = [{"Role": turn.role, "Content": turn.content} for turn in TURNS]
    given = json.dumps({"Template": go_template(chat), "Messages": messages})
    done = subprocess.run(["go", "run", "main.go"], cwd=tmp_path, input=given, capture_output=True, text=True)
    assert done.stderr == ""
    assert chat.tokenizer.encode(done.stdout, add_special_tokens=False) == chat.prompt_ids(TURNS)


def pushed(arguments: Sequence[str], address: str, token: str = "hf_secret") -> subprocess.CompletedProcess[str]:
    """In a process of its own, because the library reads its settings once."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_TOKEN_PATH": "no-token-here", "HF_HUB_DISABLE_XET": "1"}  # the server knows no Xet, but LFS
    command = [sys.executable, "-m", "repo_agent", "train", "merge", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_push_to_hub_makes_a_private_model_of_all_files(base: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(run(base, tmp_path / "run")), "--output-dir", str(tmp_path / "merged")]
    with hub() as server:
        done = pushed([*arguments, "--ollama", "--push-to-hub", "me/model"], server.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.private
    assert server.tokens == {"Bearer hf_secret"}
    assert server.files == {each.name: each.read_bytes() for each in (tmp_path / "merged").iterdir()}
    assert f"uploaded: {server.address}/me/model" in done.stdout
    assert "--llm-provider hf --model me/model" in server.files["README.md"].decode()


def test_nothing_is_uploaded_where_others_would_see_what_was_to_be_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hub(private=False) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        with pytest.raises(UsageError, match="on the hub already and public: say --public"):
            push(tmp_path, "me/model", private=True)
    assert server.files == {}


def test_without_a_token_nothing_is_merged(base: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(adapter(base, tmp_path / "adapter")), "--output-dir", str(tmp_path / "merged")]
    done = pushed([*arguments, "--push-to-hub", "me/model"], "http://127.0.0.1:9", token="")
    assert done.returncode == 2
    assert "set HF_TOKEN" in done.stderr
    assert not (tmp_path / "merged").exists()


def test_who_sees_it_is_asked_of_uploads_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "merge", "--model", "x", "--output-dir", str(tmp_path / "merged"), "--public"]) == 2
    assert "--push-to-hub" in capsys.readouterr().err


def test_what_was_made_is_told(base: Path, tmp_path: Path) -> None:
    made = merge(str(adapter(base, tmp_path / "adapter")), tmp_path / "merged")
    assert isinstance(made, Merged)
    assert made.about.parameters == AutoModelForCausalLM.from_pretrained(base).num_parameters()
