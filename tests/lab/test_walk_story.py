"""The steps of single walks, against the scores of many, and the HTML that tells them."""

import dataclasses
import itertools
import re

import pytest
import torch

from avar_fast.attention import attach, intervene
from avar_fast.data import load_rows
from avar_fast.lab.model import save_base
from avar_fast.lab.steps import score_steps
from avar_fast.lab.walk import WalkConfig, rule_digit
from avar_fast.lab.walk_story import story, walk_steps
from avar_fast.lab.world import write_rows
from avar_fast.loading import load

NUM_ROWS = 6


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walks")
    return load_rows(str(write_rows(folder, WalkConfig(), "test", NUM_ROWS, seed=0)))


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
    scores = score_steps(loaded, rows)
    for number, accuracy in enumerate(scores.accuracy):
        right = [walk[number].read == walk[number].digit for walk in walks]
        assert sum(right) / NUM_ROWS == pytest.approx(accuracy)
    masses = torch.tensor([[step.looks.sum() for step in walk] for walk in walks])
    assert masses.mean(0).tolist() == pytest.approx(scores.masses["visual"], abs=1e-5)


def test_steps_are_those_of_the_walk(rows, walks):
    for number, walk in enumerate(walks):
        meta = rows[number].columns["meta"]
        assert [step.cell for step in walk] == meta["cells"]
        assert [step.digit for step in walk] == meta["digits"]
        assert walk[0].tempting is None
        for before, step in itertools.pairwise(walk):
            assert step.tempting == rule_digit(before.digit)
        assert all(step.looks.shape == (4, 4) for step in walk)


def test_maps_are_refused_under_an_intervention(loaded, rows):
    with intervene(loaded.model, visual_bias=1.0), pytest.raises(ValueError, match="intervention"):
        walk_steps(loaded, rows[0])


def test_the_story_names_what_each_model_reads(rows, walks):
    digit, tempting = walks[0][1].digit, walks[0][1].tempting
    other = next(d for d in range(10) if d not in (digit, tempting))
    kinds = {}
    for kind, read in (("right", digit), ("tempted", tempting), ("wrong", other)):
        if kind == "tempted" and tempting == digit:
            continue
        walk = [dataclasses.replace(step, read=step.digit) for step in walks[0]]
        walk[1] = dataclasses.replace(walk[1], read=read)
        text = story([rows[0]], {"a <model>": [walk]}, 0.97)
        kinds[kind] = re.findall(r'<b class="is-(\w+)">reads (\d)', text)[1]
        assert "97%" in text
        assert "a &lt;model&gt;" in text
        assert text.count("<svg") == len(walk)
        assert text.count('stroke="#00e5ff"') == len(walk)
    assert kinds["right"] == ("right", str(digit))
    assert kinds["wrong"] == ("wrong", str(other))
    assert kinds.get("tempted", ("tempted", str(tempting))) == ("tempted", str(tempting))
