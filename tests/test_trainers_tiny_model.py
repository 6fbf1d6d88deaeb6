"""The model that can be made anywhere: what it is made of, that it is the same again, what it can do untrained."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from harness.chat_template import chat_format
from harness.errors import UsageError
from harness.records import Message
from repo_agent import main

pytest.importorskip("torch", reason="needs the extra 'train'")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainers.copying import learn_to_copy
from trainers.tiny_model import TinyShape, init_tiny, library_texts, tiny_tokenizer

pytestmark = pytest.mark.slow
CONVERSATION = (
    Message(role="system", content="You repair."),
    Message(role="user", content="é ✓ \tdef f(x):\n    pass"),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    init_tiny(directory)
    return directory


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="eager").eval()


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_the_same_seed_gives_the_same_files_and_another_one_other_weights(tiny: Path, tmp_path: Path) -> None:
    init_tiny(tmp_path / "again")
    init_tiny(tmp_path / "other", seed=1)
    assert digests(tmp_path / "again") == digests(tiny)
    differing = {name for name, digest in digests(tmp_path / "other").items() if digests(tiny)[name] != digest}
    assert differing == {"model.safetensors"}


def test_the_tokenizer_is_the_same_after_a_reload(tiny: Path) -> None:
    made, loaded = chat_format(tiny_tokenizer(1024)), chat_format(AutoTokenizer.from_pretrained(tiny))
    assert made.prompt_ids(CONVERSATION) == loaded.prompt_ids(CONVERSATION)
    assert loaded.text(loaded.action_ids(CONVERSATION[1].content)[:-1]) == CONVERSATION[1].content
    assert loaded.action_ids("a")[-1] == loaded.stop_id == loaded.tokenizer.eos_token_id


@pytest.mark.parametrize("head", [0, 1])
def test_the_first_heads_look_one_and_two_tokens_back(model: Any, head: int) -> None:
    ids = torch.randint(3, 1000, (1, 300), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen = model(input_ids=ids, output_attentions=True).attentions[0][0, head]
    assert seen.diagonal(-1 - head).min() > 0.8


def copied(model: Any, length: int, between: int) -> float:
    """The share of random tokens that are predicted when they come again."""
    generator = torch.Generator().manual_seed(0)
    first, other = (torch.randint(3, 1000, (size,), generator=generator) for size in (length, between))
    with torch.inference_mode():
        said = model(input_ids=torch.cat([first, other, first])[None]).logits[0].argmax(-1)
    return float((said[length + between + 1 : -1] == first[2:]).float().mean())


def test_practice_makes_it_copy(model: Any, tiny: Path) -> None:
    before = copied(model, 40, 10)
    torch.manual_seed(0)
    practised = AutoModelForCausalLM.from_pretrained(tiny)
    losses = learn_to_copy(practised, AutoTokenizer.from_pretrained(tiny), library_texts(), 60, 0)
    assert losses[-1] < losses[0]
    assert copied(practised.eval(), 40, 10) > max(0.3, 2 * before)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--heads", "3"], "no multiple"),
        (["--vocab-size", "299"], "at least 300"),
        (["--output-dir", "."], "not empty"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "init-tiny", "--output-dir", "new", *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_sizes_that_do_not_fit_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="300 tokens"):
        init_tiny(tmp_path / "new", shape=TinyShape(vocab_size=100))
    assert not (tmp_path / "new").exists()
