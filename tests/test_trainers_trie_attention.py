"""Which models are packed, and the attention that packs them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("trl", reason="needs the extra 'train'")

import torch
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3NextConfig,
)

from harness.errors import UsageError
from tests.trl_trainers import Rows, forest, qwen2, siblings, step_rows
from trainers.trie import build_trie
from trainers.trie_attention import CHAINS, TrieLayout, chain_attention, trie_block_mask
from trainers.trie_packing import add_trie_packing, why_not

pytestmark = pytest.mark.slow

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
WIDE = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
REFUSED = {
    "sliding layers": (Gemma2Config(**WIDE), "sliding_attention"),
    "sliding window": (MistralConfig(**WIDE, sliding_window=16), "sliding window of 16"),
    "upper layers sliding": (
        Qwen2Config(**SMALL, intermediate_size=48, use_sliding_window=True, sliding_window=16, max_window_layers=1),
        "sliding_attention",
    ),
    "recurrent": (MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4), "recurrent"),
    "hybrid": (Qwen3NextConfig(**WIDE, num_experts=2, num_experts_per_tok=1), "recurrent or linear"),
    "rotary over the batch": (
        LlamaConfig(**WIDE, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
        "rotary scaling (dynamic)",
    ),
}


@pytest.mark.parametrize(("config", "reason"), REFUSED.values(), ids=REFUSED)
def test_models_that_packing_would_change_are_refused_with_the_reason(config: Any, reason: str) -> None:
    model = AutoModelForCausalLM.from_config(config)
    assert reason in why_not(model)
    with pytest.raises(UsageError, match="cannot be trie-packed"):
        add_trie_packing(model)


@pytest.mark.parametrize("config", [MistralConfig(**WIDE, sliding_window=None), GPT2Config(**SMALL, n_positions=64)])
def test_other_models_with_plain_attention_are_accepted(config: Any) -> None:
    assert why_not(AutoModelForCausalLM.from_config(config)) == ""


def test_a_model_whose_attention_never_sees_the_trie_fails_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(*args: Any, trie: Any = None, **kwargs: Any) -> Any:
        return chain_attention(*args, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, CHAINS, deaf)
    assert "a trial of packing differed" in why_not(qwen2())


def test_a_model_whose_scores_have_a_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    capped = functools.partial(chain_attention, softcap=30.0)
    monkeypatch.setitem(AttentionInterface._global_mapping, CHAINS, capped)
    assert why_not(qwen2()) == "its attention takes softcap"


def test_a_saved_model_does_not_ask_for_our_attention(tmp_path: Path) -> None:
    model = qwen2()
    add_trie_packing(model)
    model.save_pretrained(tmp_path)
    assert CHAINS not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_a_trial_leaves_the_model_as_it_was() -> None:
    model = qwen2().train()
    before = model.config._attn_implementation
    assert why_not(model) == ""
    assert (model.config._attn_implementation, model.training) == (before, True)


@pytest.mark.parametrize("rows", [step_rows, siblings, forest])
def test_the_block_mask_for_flex_attention_is_the_tries(rows: Callable[[], Rows]) -> None:
    """Block by block, at the size of real blocks: longer rows than the other tests'."""
    long = [[token for token in row for _ in range(9)] for row, _ in rows()]
    trie = build_trie(long)
    mask = trie_block_mask(trie.subtree_end, torch.device("cpu"))
    nodes = torch.arange(len(trie))
    ends = torch.as_tensor(trie.subtree_end)
    expected = (nodes[None] <= nodes[:, None]) & (nodes[:, None] < ends[None])
    assert torch.equal(dense(mask, len(trie)), expected)


def dense(mask: Any, size: int) -> Any:
    """Full blocks as ones, partial ones by the mask's function, all others as zeros."""
    nodes = torch.arange(size)
    allowed = mask.mask_mod(0, 0, nodes[:, None], nodes[None])
    seen = torch.zeros(size, size, dtype=torch.bool)
    for full, counts, columns in (
        (False, mask.kv_num_blocks, mask.kv_indices),
        (True, mask.full_kv_num_blocks, mask.full_kv_indices),
    ):
        for row in range(counts.shape[-1]):
            for column in columns[0, 0, row, : counts[0, 0, row]].tolist():
                block = slice(row * 128, row * 128 + 128), slice(column * 128, column * 128 + 128)
                seen[block] = True if full else allowed[block]
    return seen


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attentions_forward_equals_attention_by_chains() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    trie = build_trie([[token for token in row for _ in range(7)] for row, _ in siblings()])
    query, key, value = (torch.randn(1, heads, len(trie), 8) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    chains, _ = chain_attention(module, query, key, value, None, trie=TrieLayout(trie), scaling=0.3)
    eager = functools.partial(flex_attention, scale=0.3, enable_gqa=True)
    flex = eager(query, key, value, block_mask=trie_block_mask(trie.subtree_end, torch.device("cpu")))
    torch.testing.assert_close(flex.transpose(1, 2), chains, rtol=1e-5, atol=1e-5)
