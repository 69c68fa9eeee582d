"""Evaluation of a tiny model: exact match by style and VAS, against the pieces used by hand."""

import json

import pytest
import torch

from avar_fast.attention import SpecialTokens, key_types, query_mask, record_attention, sees_image
from avar_fast.data import load_rows
from avar_fast.evaluation import evaluate
from avar_fast.evaluation.__main__ import main
from avar_fast.lab.model import build_image_processor, save_base
from avar_fast.lab.tokenizer import DEFAULT_SYSTEM
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.vas import visual_attention_score

from ..attention.world import TOKENIZER, models

OPTIONS = dict(system_prompt=DEFAULT_SYSTEM, max_new_tokens=6)


def rows_of(folder, count=6):
    return load_rows(str(write_rows(folder, WorldConfig(), "test", count, seed=0)))


def test_scores_do_not_depend_on_the_batch_size(tmp_path):
    fast, _ = models()
    rows = rows_of(tmp_path)
    results = [
        evaluate(fast, TOKENIZER, build_image_processor(), rows, batch_size=size, **OPTIONS)
        for size in (1, 4, 6)
    ]
    for other in results[1:]:
        assert other.completions == results[0].completions
        for form, value in results[0].vas.items():
            assert other.vas[form] == pytest.approx(value, rel=1e-4)
    assert set(results[0].exact_match_by_style) == {"chain", "direct"}
    assert torch.tensor(results[0].vas_table["share"]).shape == (4, 4)
    assert results[0].num_rows == 6


def test_right_answers_count_and_vas_is_that_of_the_user_tokens(tmp_path, monkeypatch):
    fast, _ = models()
    rows = rows_of(tmp_path, count=4)
    said = [str(rows[0].target), "<answer>no</answer>", str(rows[2].target), "nonsense"]
    monkeypatch.setattr(
        "avar_fast.evaluation.exact_match.greedy_texts",
        lambda *a: said if len(a[2]) == 4 else None,
    )
    result = evaluate(fast, TOKENIZER, build_image_processor(), rows, batch_size=4, **OPTIONS)
    assert result.exact_match == 0.5

    from avar_fast.data import Encoder, collate

    encode = Encoder(TOKENIZER, build_image_processor(), DEFAULT_SYSTEM, 1000)
    samples = [encode(row) for row in rows]
    batch = collate(samples, TOKENIZER.pad_token_id, encode.tokens.visual, with_target=False)
    span = (batch.inputs["input_ids"], batch.inputs["attention_mask"])
    tokens = SpecialTokens.from_processor(TOKENIZER)
    queries = query_mask(*span, role="user", tokens=tokens)
    queries &= sees_image(key_types(*span, tokens=tokens))
    with torch.no_grad(), record_attention(fast) as rec:
        fast(**batch.inputs)
    for form in ("ratio", "log_ratio", "share"):
        want = visual_attention_score(rec.mass, queries, 1e-6, form).item()
        assert result.vas[form] == pytest.approx(want, rel=1e-5)


def test_command_writes_its_result(tmp_path, capsys):
    save_base(tmp_path / "model", seed=0)
    write_rows(tmp_path / "rows", WorldConfig(), "test", 3, seed=0)
    out = tmp_path / "deep" / "result.json"
    main(
        [
            str(tmp_path / "model"),
            str(tmp_path / "rows" / "test.jsonl"),
            "--out",
            str(out),
            "--dtype",
            "float32",
            "--max-new-tokens",
            "3",
        ]
    )
    assert json.loads(out.read_text())["num_rows"] == 3
    assert "exact match" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_an_error_message(tmp_path):
    write_rows(tmp_path, WorldConfig(), "test", 1, seed=0)
    with pytest.raises(SystemExit, match="error"):
        main([str(tmp_path / "none"), str(tmp_path / "test.jsonl")])
