"""The benchmark of GRPO steps: its table, and the completions that every trainer gets."""

import pytest
import torch
from transformers import AutoTokenizer

from bench.bare_rates import bare_flops
from bench.grpo_step.report import case_table, draw_group_sizes
from bench.grpo_step.world import VOCABULARY, fixed_completions, write_model, write_rows


def rows(provider, group, seconds):
    key = dict(
        provider=provider, shape=f"30 M, G = {group}, 32 new tokens, 2 prompts", length="300"
    )
    parts = dict(generation=1.0, reward=0.5, scoring=0.25, update=seconds - 1.75, step=seconds)
    times = [dict(key, mode=n, metric="time", p50=str(v)) for n, v in parts.items()]
    return [
        *times,
        dict(key, mode="step", metric="time_over_avar", p50=str(seconds / 3)),
        dict(key, mode="step", metric="completion_tokens", p50="170"),
        dict(key, mode="update", metric="peak_memory", p50="900"),
    ]


def test_the_table_has_a_line_per_trainer_that_ran():
    lines = case_table(rows("avar", 8, 3.0) + rows("trl", 8, 12.0))
    assert len(lines) == 4
    assert lines[2] == "| avar, VARS | 1.0 | 0.5 | 0.25 | 1.25 | 3.0 | 1.0 | 170 | 900 |"
    assert "| 12.0 | 4.0 |" in lines[3]


def test_the_picture_needs_several_group_sizes(tmp_path):
    assert draw_group_sizes(rows("avar", 8, 3.0), tmp_path) == []
    drawn = rows("avar", 8, 3.0) + rows("avar", 2, 2.0)
    ((path, _),) = draw_group_sizes(drawn, tmp_path)
    assert path.stat().st_size > 0


def test_fixed_completions_are_words_of_the_model(tmp_path):
    write_model(tmp_path / "model", "30 M")
    write_rows(tmp_path / "rows", 64)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer) == VOCABULARY
    completions = fixed_completions(2, 3, 9)
    assert len(completions) == 6
    assert all(3 <= len(ids) <= 9 for ids in completions)
    used = {i for ids in completions for i in ids}
    assert not used & set(tokenizer.all_special_ids)
    assert len(list((tmp_path / "rows/images").iterdir())) == 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bare_rates_are_those_of_a_core(dtype):
    """Between a hundredth and a hundred times of what a core of today does."""
    rate = bare_flops(dtype)
    if rate is None:
        pytest.skip("no gcc, or another kind of machine")
    assert 1e9 < rate < 1e14
