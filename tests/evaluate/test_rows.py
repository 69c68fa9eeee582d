"""Rows of one's own through the runner: accuracy and VAS, against the pieces used by hand."""

import dataclasses
import json
from dataclasses import replace

import pytest
import torch

from avar_fast.attention import SpecialTokens, key_types, query_mask, record_attention, sees_image
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.evaluate import Settings, answerer, evaluate_rows, read_result
from avar_fast.evaluate.__main__ import main
from avar_fast.lab.model import build_image_processor, save_base
from avar_fast.lab.tokenizer import build_tokenizer
from avar_fast.lab.world import DEFAULT_SYSTEM, WorldConfig, write_rows
from avar_fast.loading import Loaded
from avar_fast.rollout import greedy_texts
from avar_fast.vas import visual_attention_score

from ..attention.tiny_models import TOKENIZER, models

SETTINGS = Settings(system_prompt=DEFAULT_SYSTEM, max_new_tokens=6)


def loaded_lab():
    fast, _ = models()
    return Loaded(fast, TOKENIZER, build_image_processor(), (TOKENIZER.eos_token_id,))


def rows_of(folder, count=6):
    return load_rows(str(write_rows(folder, WorldConfig(), "test", count, seed=0)))


def test_scores_do_not_depend_on_the_batch_size_and_completions_are_greedy(tmp_path, monkeypatch):
    monkeypatch.setattr(answerer, "CHUNK_BATCHES", 2)
    loaded, rows = loaded_lab(), rows_of(tmp_path)
    results = [evaluate_rows(loaded, rows, SETTINGS, batch_size=size) for size in (1, 2, 6)]
    summary, predictions = results[0]
    for other, others in results[1:]:
        assert [p.completion for p in others] == [p.completion for p in predictions]
        for form, value in summary.vas.items():
            assert other.vas[form] == pytest.approx(value, rel=1e-4)
    encode = Encoder(TOKENIZER, build_image_processor(), DEFAULT_SYSTEM, 1000)
    tokens = SpecialTokens.from_processor(TOKENIZER)

    def inputs_of(some):
        return collate(some, TOKENIZER.pad_token_id, tokens.visual, with_target=False).inputs

    samples = [encode(row) for row in rows]
    want = greedy_texts(loaded.model, TOKENIZER, samples, inputs_of, (tokens.turn_end,), 6)
    assert [p.completion for p in predictions] == want
    assert {"style=chain", "style=direct"} <= set(summary.scores)
    assert torch.tensor(summary.vas_table["share"]).shape == (4, 4)
    assert summary.num == 6


def test_right_answers_count_and_vas_is_that_of_the_user_tokens(tmp_path, monkeypatch):
    loaded, rows = loaded_lab(), rows_of(tmp_path, count=4)
    said = [str(rows[0].target), "<answer>no</answer>", str(rows[2].target), "nonsense"]
    respond = answerer.Answerer.respond

    def with_other_words(self, samples):
        responses = respond(self, samples)
        return [replace(r, text=text) for r, text in zip(responses, said, strict=True)]

    monkeypatch.setattr(answerer.Answerer, "respond", with_other_words)
    summary, predictions = evaluate_rows(loaded, rows, SETTINGS, batch_size=4)
    assert summary.score == 0.5
    assert summary.unparsable == 0.25
    assert [p.parsed is None for p in predictions] == [False, False, False, True]

    encode = Encoder(TOKENIZER, build_image_processor(), DEFAULT_SYSTEM, 1000)
    samples = [encode(row) for row in rows]
    batch = collate(samples, TOKENIZER.pad_token_id, encode.tokens.visual, with_target=False)
    span = (batch.inputs["input_ids"], batch.inputs["attention_mask"])
    tokens = SpecialTokens.from_processor(TOKENIZER)
    queries = query_mask(*span, role="user", tokens=tokens)
    queries &= sees_image(key_types(*span, tokens=tokens))
    with torch.no_grad(), record_attention(loaded.model) as rec:
        loaded.model(**batch.inputs)
    for form in ("ratio", "log_ratio", "share"):
        want = visual_attention_score(rec.mass, queries, 1e-6, form).item()
        assert summary.vas[form] == pytest.approx(want, rel=1e-5)
        of_one = {k: m[1:2] for k, m in rec.mass.items()}
        want = visual_attention_score(of_one, queries[1:2], 1e-6, form).item()
        assert predictions[1].vas is not None
        assert predictions[1].vas[form] == pytest.approx(want, rel=1e-5)
    without, _ = evaluate_rows(loaded, rows, Settings(vas=False, max_new_tokens=2), batch_size=4)
    assert without.vas == {}


@pytest.mark.parametrize(("checker", "right"), [("accuracy", True), ("exact", False)])
def test_the_checker_is_that_of_the_setting(tmp_path, monkeypatch, checker, right):
    """One half is 0.5 for math-verify and another text for the exact rule, as \\frac{1}{2}."""
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"problem": "One over two?", "answer": "0.5"}))
    monkeypatch.setattr(
        answerer.Answerer,
        "respond",
        lambda *a: [answerer.Response("<answer>\\frac{1}{2}</answer>", 3, False, None)],
    )
    settings = Settings(checker=checker)
    summary, predictions = evaluate_rows(loaded_lab(), load_rows(str(file)), settings)
    assert predictions[0].right is right
    assert summary.vas == {}


def test_completions_end_at_every_token_of_the_model(tmp_path):
    """11 % right where transformers' generate gets 95 %: the answer behind the end counted."""
    loaded, rows = loaded_lab(), rows_of(tmp_path, count=3)
    encode = Encoder(TOKENIZER, build_image_processor(), DEFAULT_SYSTEM, 1000)
    sample, visual = encode(rows[0]), encode.tokens.visual
    given = collate([sample], TOKENIZER.pad_token_id, visual, with_target=False)
    free = loaded.model.generate(
        **given.inputs,
        max_new_tokens=6,
        do_sample=False,
        suppress_tokens=list(visual),
    )
    ids = free[0, len(sample.prompt_ids) :].tolist()
    stop = ids[2]
    ended = dataclasses.replace(loaded, eos_ids=(*loaded.eos_ids, stop))
    got = evaluate_rows(ended, rows, SETTINGS)[1]
    first = ids[: ids.index(stop)]
    assert got[0].completion == TOKENIZER.decode(first)
    assert (got[0].num_tokens, got[0].truncated) == (len(first), False)


def test_what_the_template_has_written_is_part_of_the_completion(tmp_path):
    """A template that opens <think>: an answer inside the open reasoning does not count."""
    loaded, rows = loaded_lab(), rows_of(tmp_path, count=2)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "assistant\\n", "assistant\\n<think>\\n"
    )
    thinking = dataclasses.replace(loaded, tokenizer=tokenizer)
    for prediction in evaluate_rows(thinking, rows, SETTINGS)[1]:
        assert prediction.completion.startswith("<think>\n")


def test_images_are_resized_to_max_pixels(tmp_path):
    row = rows_of(tmp_path, count=1)[0]
    patches = []
    for most in (None, 28 * 28):
        answers = answerer.Answerer(loaded_lab(), Settings(max_pixels=most), batch_size=1)
        grid = answers.encoder(row).image_grid_thw
        assert grid is not None
        patches.append(int(grid.prod()))
    assert patches[1] < patches[0]


def test_command_writes_one_json_and_prints_a_table(tmp_path, capsys):
    save_base(tmp_path / "model", seed=0)
    write_rows(tmp_path / "rows", WorldConfig(), "test", 3, seed=0)
    out = tmp_path / "deep" / "result.json"
    given = [str(tmp_path / "model"), "--data", str(tmp_path / "rows" / "test.jsonl")]
    given += ["--out", str(out), "--dtype", "float32", "--max-new-tokens", "3"]
    assert main(given) == 0
    assert [file.name for file in out.parent.iterdir()] == ["result.json"]
    result = read_result(out)
    assert result.benchmarks["rows"].num == len(result.predictions) == 3
    assert result.head["settings"]["max_new_tokens"] == 3
    assert "| rows " in capsys.readouterr().out
    assert main(given) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["none", "runs/none", "a/b/c"])
def test_a_model_that_is_not_there_is_named_at_once_and_leaves_nothing(
    tmp_path, capsys, monkeypatch, name
):
    """A path below a folder that exists could be a hub name by its form; the Hub is not asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    write_rows(tmp_path, WorldConfig(), "test", 1, seed=0)
    path = str(tmp_path / name) if name == "none" else name
    assert main([path, "--data=test.jsonl", "--out=r.json"]) == 1
    assert f"a folder or a hub name; {path} is neither" in capsys.readouterr().err
    assert not (tmp_path / "r.json.parts").exists()
