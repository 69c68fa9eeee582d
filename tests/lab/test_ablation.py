"""The ablation: its rows from the synthesis, its rungs, its scores."""

import dataclasses
import math
import subprocess

import pytest
import torch
from transformers import AutoModelForImageTextToText

from avar_fast.attention import attach
from avar_fast.config import load_recipe
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.evaluate.prediction import Prediction
from avar_fast.lab import ablation_arms, ablation_rows, ablation_scores
from avar_fast.lab.ablation_arms import (
    ARMS,
    BASE,
    HINTED,
    MAX_NEW_TOKENS,
    READ_DATA,
    READER,
    RUNGS,
    SLOW,
    TESTS,
)
from avar_fast.lab.ablation_scores import attention, score
from avar_fast.lab.model import TOWERS, save_base
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.study_folder import read_lines
from avar_fast.lab.tokenizer import build_tokenizer
from avar_fast.lab.world import DEFAULT_SYSTEM, write_rows
from avar_fast.loading import load

POOL = 24
RUNS = {run.key: run for run in (READER, BASE, *ARMS)}


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """{kind: rows} of a small synthesis."""
    folder = tmp_path_factory.mktemp("chains")
    ablation_rows.write_chains(folder, HINTED, POOL, seed=5)
    return folder, {
        kind: load_rows(str(folder / kind / "train.jsonl")) for kind in ablation_rows.KINDS
    }


def text(row, role):
    return "".join(
        part["text"]
        for turn in row.messages
        if turn["role"] == role
        for part in turn["content"]
        if part["type"] == "text"
    )


def test_plain_and_anchored_chains_differ_in_their_words_alone(chains):
    _, rows = chains
    assert 0 < len(rows["plain"]) == len(rows["vard"]) < POOL, "the gates must reject some"
    for plain, vard, unhinted in zip(rows["plain"], rows["vard"], rows["unhinted"], strict=True):
        assert plain.messages == vard.messages
        names = {image.name for row in (plain, vard, unhinted) for image in row.images}
        assert len(names) == 1
        assert plain.answers == vard.answers == unhinted.answers
        assert "the description" in plain.target
        assert "image" not in plain.target
        assert "the image" in vard.target
        assert "description" not in vard.target
        assert unhinted.target == vard.target
        assert text(unhinted, "user") == text(vard, "user")
        assert "Hint" not in text(unhinted, "system")


def test_chains_belong_to_their_scenes(chains):
    """Also those after a row that a gate rejected: the image is the dim one of the same scene."""
    folder, rows = chains
    scenes = {scene["id"]: scene for scene in read_lines(folder / "scenes" / "train.jsonl")}
    for kind in ("plain", "vard"):
        for row in rows[kind]:
            scene = scenes[row.columns["id"]]
            ((digit,),) = scene["meta"]["digits"]
            assert row.answer == str(digit)
            assert row.target.endswith(f"</think>\n<answer>{digit}</answer>")
            assert f"{scene['meta']['line']} holds {digit}." in row.target
            assert text(row, "system") == f"{DEFAULT_SYSTEM} Hint: {scene['meta']['hint']}."
            (image,) = row.images
            assert image.resolve() == (folder / "scenes" / scene["images"][0]).resolve()
            assert image.read_bytes() != (folder / "clear" / scene["images"][0]).read_bytes()


def test_the_base_models_rows_have_both_texts_with_and_without_hints(chains):
    _, rows = chains
    kinds = {("image" in row.target, "Hint" in text(row, "system")) for row in rows["both"]}
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}
    assert len(rows["both"]) == 2 * len(rows["plain"])


def test_chains_are_words_and_fit_into_a_completion(chains):
    _, rows = chains
    tokenizer = build_tokenizer(TOWERS["chains"].words)
    for row in rows["both"]:
        pieces = tokenizer.tokenize(row.target)
        assert not [x for x in pieces if len(x) == 1 and x.isalpha() and x.isascii() and x != "I"]
        assert len(pieces) < MAX_NEW_TOKENS


def test_a_failed_synthesis_is_told(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 4, "", "stopped: the endpoint")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        SystemExit, match="synthesis ended with exit code 4:\nstopped: the endpoint"
    ):
        ablation_rows.write_chains(tmp_path, HINTED, 2, seed=0)
    assert not (tmp_path / "plain").exists()


def recipe_of(key):
    return load_recipe(CONFIGS / RUNS[key].recipe, list(RUNS[key].settings))


def without_objective(key):
    recipe = recipe_of(key)
    train = dataclasses.replace(recipe.train, output_dir="")
    return recipe.optim, train, dataclasses.replace(recipe.data, path=""), recipe.model


def test_each_rung_changes_one_thing():
    assert [(rung.key, rung.before) for rung in RUNGS] == [
        ("plain", "base"), ("vard", "plain"), ("agto", "vard"), ("grpo", "agto"), ("vars", "grpo"),
    ]  # fmt: skip
    colds = [run.key for run in ARMS if run.start == BASE.key]
    assert len(colds) == 6
    colds.remove(SLOW.key)
    assert all(without_objective(key) == without_objective("plain") for key in colds)
    slow, vard = recipe_of(SLOW.key), recipe_of("vard")
    assert (slow.optim.lr, SLOW.data) == (vard.optim.lr / 4, RUNS["vard"].data)
    assert dataclasses.replace(slow, optim=vard.optim) == vard
    assert recipe_of("vard") == recipe_of("plain")
    assert (RUNS["plain"].data, RUNS["vard"].data) == ("cold/plain", "cold/vard")
    agto = recipe_of("agto").agto
    assert (agto.enabled, agto.alpha, agto.beta, agto.queries) == (True, 0.15, 0.15, "response")
    assert not recipe_of("vard").agto.enabled
    grpo, vars_ = recipe_of("grpo"), recipe_of("vars")
    assert RUNS["grpo"].start == RUNS["vars"].start == "agto"
    assert without_objective("grpo") == without_objective("vars")
    assert {k: v for k, v in vars_.grpo.rewards.items() if k != "visual"} == grpo.grpo.rewards
    assert vars_.grpo.rewards["visual"] > 0
    assert vars_.grpo.visual_form == "share"


def test_rows_suffice_for_the_steps():
    train = recipe_of("reader").train
    assert sum(phase.count for phase in READ_DATA) == train.steps * train.batch_size
    grpo = recipe_of("grpo").train
    assert grpo.steps * grpo.batch_size == ablation_arms.PROMPTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of an untrained model, one head a layer."""
    return save_base(tmp_path_factory.mktemp("model"), 0, "chains")


def test_attention_is_that_of_attention_matrices(folder, chains):
    """Row by row without padding."""
    _, rows = chains
    rows = list(rows["vard"])[:5]
    loaded = load(str(folder), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    found = attention(loaded, rows)
    eager = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    at_digit, of_response = [], []
    for row in rows:
        sample = encoder(row)
        batch = collate([sample], 0, encoder.tokens.visual)
        with torch.no_grad():
            out = eager(**batch.inputs, use_cache=False, output_attentions=True)
        weights = torch.stack(out.attentions)[:, 0].mean((0, 1))
        pieces = loaded.tokenizer.convert_ids_to_tokens(batch.inputs["input_ids"][0])
        visual = weights[:, pieces.index("<|image_pad|>")]
        system = weights[:, : pieces.index("<|im_end|>") + 2].sum(1)  # with its newline
        digit = next(i for i in range(len(sample.prompt_ids), len(pieces)) if pieces[i].isdigit())
        at_digit.append((visual[digit - 1], system[digit - 1]))
        of_response.append(visual[len(sample.prompt_ids) : -2])  # without the end of the turn
    assert found["visual_digit"] == pytest.approx(float(sum(v for v, _ in at_digit) / 5), abs=1e-5)
    assert found["system_digit"] == pytest.approx(float(sum(s for _, s in at_digit) / 5), abs=1e-5)
    assert found["visual_response"] == pytest.approx(float(torch.cat(of_response).mean()), abs=1e-3)
    assert 0 < found["vas_user_share"] < 1


def test_a_response_without_a_digit_has_no_mass_there(folder, chains):
    _, rows = chains
    loaded = load(str(folder), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    found = attention(loaded, [dataclasses.replace(rows["vard"][0], target="I see")])
    assert found["visual_digit"] != found["visual_digit"]  # NaN
    assert 0 < found["visual_response"] < 1


def test_without_responses_there_is_no_attention(folder, chains):
    """A model may end every response at once; its scores have the usual names."""
    _, rows = chains
    loaded = load(str(folder), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    found = attention(loaded, [])
    assert all(math.isnan(value) for value in found.values())
    assert found.keys() == attention(loaded, [rows["vard"][0]]).keys()


def test_hints_that_are_followed_are_counted(tmp_path, monkeypatch):
    """Of four questions with wrong hints: right, the hint, another digit, no answer at all."""
    tests = {
        name: load_rows(str(write_rows(tmp_path / name, world, "test", 4, seed=1)))
        for name, world in TESTS.items()
    }
    assert len({tuple(row.answer for row in rows) for rows in tests.values()}) == 1

    def predictions(rows):
        answers = [row.answer for row in rows]
        if rows is tests["wrong"]:
            hint = rows[1].columns["meta"]["hint"]
            other = next(
                d
                for d in range(10)
                if str(d) != answers[2] and d != rows[2].columns["meta"]["hint"]
            )
            answers = [answers[0], str(hint), str(other), None]
        return [
            Prediction("rows", str(i), row.answer, a or "", a, a == row.answer, 9, a is None, {})
            for i, (row, a) in enumerate(zip(rows, answers, strict=True))
        ]

    given = []
    monkeypatch.setattr(
        ablation_scores, "evaluate_rows", lambda _, rows, *__: (None, predictions(rows))
    )
    monkeypatch.setattr(ablation_scores, "attention", lambda _, rows: given.extend(rows) or {})
    found = score(None, tests)
    assert found == {"absent": 1, "wrong": 0.25, "right": 1, "follows": 0.25, "answered": 0.75}
    assert [row.target for row in given] == [p.completion for p in predictions(tests["wrong"])[:3]]
