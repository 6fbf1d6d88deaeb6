"""The model that can be made anywhere: what it is made of, that it is the same again, what it can do untrained."""

from __future__ import annotations

import hashlib
import json
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

from suites.gsm8k.formats import FORMATS
from trainers import copying
from trainers.tiny_model import LINE_ENDS, TinyShape, init_tiny, library_texts, tiny_tokenizer

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


def test_a_text_and_its_json_string_are_the_same_tokens_but_for_the_line_ends() -> None:
    tokenizer = tiny_tokenizer(1024)
    text = "def f(x):\n    return [\n        x,\n    ]\n\n\nf(1)\n"
    plain, string = tokenizer.encode(text), tokenizer.encode(json.dumps(text)[1:-1])
    end, escaped = tokenizer.convert_tokens_to_ids(list(LINE_ENDS))
    assert [escaped if token == end else token for token in plain] == string


def attention(model: Any, layer: int) -> Any:
    """Of the layer's first head, for random tokens: [queries, keys]."""
    ids = torch.randint(3, 1000, (1, 300), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model(input_ids=ids, output_attentions=True).attentions[layer][0, 0]


def test_the_first_head_sums_the_last_tokens_with_falling_weights(model: Any) -> None:
    seen = attention(model, 0)
    means = [float(seen.diagonal(-back)[20:].mean()) for back in range(8)]
    assert means == sorted(means, reverse=True)
    assert sum(means[:4]) > 0.7
    assert means[1] > means[0] / 2


def test_the_second_layers_head_looks_one_token_back(model: Any) -> None:
    assert attention(model, 1).diagonal(-1).min() > 0.8


def copied(model: Any, tokens: list[int], copy: list[int]) -> float:
    """The share of a copy's tokens that are predicted, after the tokens that it is a copy of."""
    with torch.inference_mode():
        said = model(input_ids=torch.tensor([tokens + copy])).logits[0, len(tokens) - 1 : -1].argmax(-1)
    return float((said == torch.tensor(copy)).float().mean())


def test_untrained_it_copies_what_stood_far_before(model: Any) -> None:
    first, between = (
        torch.randint(3, 1000, (size,), generator=torch.Generator().manual_seed(size)) for size in (80, 600)
    )
    assert copied(model, [*first.tolist(), *between.tolist()], first.tolist()) > 0.85


def test_practice_makes_it_copy_a_program_as_a_json_string(model: Any, tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    program = Path(copying.__file__).read_text(encoding="utf-8")[-1200:]
    pair = tokenizer.encode(program), tokenizer.encode(json.dumps(program))
    practised = AutoModelForCausalLM.from_pretrained(tiny)
    torch.manual_seed(0)
    losses = copying.learn_to_copy(practised, tokenizer, library_texts(), 60, 0)
    assert losses[-1] < losses[0]
    assert copied(practised.eval(), *pair) > copied(model, *pair)


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


def test_a_tokenizer_of_questions_says_them_in_half_the_tokens() -> None:
    form, question = FORMATS["solution"], "Ann finds 3 books each day. How many books does Ann find in 4 days?"
    answer = form.response("In 4 days Ann finds 3 * 4 = 12 books.", "12")
    known, other = (chat_format(tiny_tokenizer(1024, text)) for text in ("arith", "repair"))
    tokens = [len(each.prompt_ids(form.prompt(question)) + each.action_ids(answer)) for each in (known, other)]
    assert tokens[0] < 0.6 * tokens[1]
