"""The steps of single walks, against the scores of many, and the HTML that tells them."""

import dataclasses
import json
import re

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from avar_fast.attention import attach, intervene
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.lab.demo_parts import score_walks
from avar_fast.lab.model import save_base
from avar_fast.lab.walk_hints import HintedWalkConfig, hint_digits
from avar_fast.lab.walk_story import Step, story, walk_steps
from avar_fast.lab.world import DEFAULT_SYSTEM, write_rows
from avar_fast.loading import load

NUM_ROWS = 6
TYPES = ("text", "visual", "system")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walks")
    world = HintedWalkConfig(side=3, steps=4)
    return load_rows(str(write_rows(folder, world, "test", NUM_ROWS, seed=0)))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = save_base(tmp_path_factory.mktemp("model"), seed=0, tower="scarce")
    loaded = load(str(path), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    return loaded


@pytest.fixture(scope="module")
def walks(loaded, rows):
    return [walk_steps(loaded, rows[i]) for i in range(NUM_ROWS)]


def test_steps_agree_with_the_scores_of_all_walks(loaded, rows, walks):
    scores = score_walks(loaded, rows)
    for number, accuracy in enumerate(scores["accuracy"]):
        right = [walk[number].read == walk[number].digit for walk in walks]
        assert sum(right) / NUM_ROWS == pytest.approx(accuracy)
    masses = torch.tensor([[step.masses for step in walk] for walk in walks]).mean(dim=(0, 1))
    assert dict(zip(TYPES, masses.tolist(), strict=True)) == pytest.approx(scores["masses"])
    late = [step for walk in walks for step in walk[1:] if step.hinted != step.digit]
    follows = sum(step.read == step.hinted for step in late) / len(late)
    assert follows == pytest.approx(scores["follows"])


def test_looks_add_up_to_the_masses(walks):
    for step in (step for walk in walks for step in walk):
        assert sum(map(sum, step.looks)) == pytest.approx(step.masses[1], abs=1e-5)
        assert 0 < sum(step.hint_looks) < step.masses[2]


def test_looks_at_the_hint_are_those_at_its_characters(loaded, rows, walks):
    """The attention weights of transformers' own eager attention, at the tokens whose text is the
    hint."""
    eager = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        loaded.model.name_or_path, attn_implementation="eager", dtype=torch.float32
    )
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    for row, walk in zip(rows, walks, strict=True):
        batch = collate([encoder(row)], loaded.tokenizer.pad_token_id, encoder.tokens.visual)
        with torch.no_grad():
            layers = eager(**batch.inputs, output_attentions=True).attentions
        weights = torch.stack(layers).mean(dim=(0, 1, 2))
        texts = [loaded.tokenizer.decode([token]) for token in batch.inputs["input_ids"][0]]
        hint = row.columns["meta"]["hint"]
        at = next(i for i in range(len(texts)) if "".join(texts[i : i + len(hint)]) == hint)
        reading = [i for i, text in enumerate(texts) if text.isdigit() and i > at + len(hint)]
        for step, digit in zip(walk, reading, strict=False):
            looked = weights[digit - 1, at : at + len(hint)].tolist()
            assert step.hint_looks == pytest.approx(looked, abs=1e-5)


def test_steps_are_those_of_the_walk(rows, walks):
    for number, walk in enumerate(walks):
        meta = rows[number].columns["meta"]
        assert [step.cell for step in walk] == meta["cells"]
        assert [step.digit for step in walk] == meta["digits"]
        assert [step.hinted for step in walk] == hint_digits(meta["hint"])
        assert all(len(step.looks) == len(step.looks[0]) == 3 for step in walk)


def test_steps_are_kept_as_json(walks):
    kept = json.loads(json.dumps([step.as_dict() for step in walks[0]]))
    assert [Step(**step) for step in kept] == walks[0]


def test_maps_are_refused_under_an_intervention(loaded, rows):
    with intervene(loaded.model, visual_bias=1.0), pytest.raises(ValueError, match="intervention"):
        walk_steps(loaded, rows[0])


def test_the_story_names_what_each_model_reads(rows, walks):
    base = [dataclasses.replace(step, digit=3, hinted=5) for step in walks[0]]
    for kind, read in (("right", 3), ("hint", 5), ("wrong", 7)):
        walk = [dataclasses.replace(step, read=read) for step in base]
        text = story([rows[0]], {"a <model>": [walk]}, 0.97)
        assert re.findall(r'<b class="is-(\w+)">reads (\d)', text) == [(kind, str(read))] * 4
        assert "97%" in text
        assert "a &lt;model&gt;" in text
        assert text.count("<svg") == text.count('stroke="#00e5ff"') == 4
        assert text.count('class="shares"') == 4
        letters = re.findall(r'title="[\d.]+%">(\w)</i>', text)
        assert "".join(letters) == rows[0].columns["meta"]["hint"] * 4
