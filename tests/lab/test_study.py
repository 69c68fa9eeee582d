"""The study's runs, how it goes on where it was left, and its page."""

import json

import pytest

from avar_fast.config import load_recipe
from avar_fast.lab import study
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.study_report import write_study

TITLES = {run.key: run.title for run in (study.BASE, *study.RUNS)}


def scores(value):
    measures = ("accuracy", "reasoned", "log_ratio", "share", "ratio")
    return {test: dict.fromkeys(measures, value) for test in study.TESTS}


@pytest.mark.parametrize("run", [study.BASE, *study.RUNS], ids=lambda run: run.key)
def test_every_run_is_a_recipe_that_can_be_read(run):
    recipe = load_recipe(CONFIGS / run.recipe, list(run.settings))
    if run.key in ("ratio", "log_ratio", "share"):
        assert recipe.grpo.visual_form == run.key
        assert recipe.grpo.visual_weight > 0


def test_forms_of_the_reward_are_all_that_the_runs_of_grpo_differ_in():
    recipes = {
        run.key: load_recipe(CONFIGS / run.recipe, list(run.settings))
        for run in study.RUNS
        if "grpo" in run.recipe
    }
    assert recipes.keys() == {"grpo", "ratio", "log_ratio", "share"}
    plain = recipes.pop("grpo")
    for recipe in recipes.values():
        for section in ("optim", "data", "model"):
            assert getattr(recipe, section) == getattr(plain, section)
        assert recipe.train.steps == plain.train.steps
        assert {k: v for k, v in recipe.grpo.rewards.items() if k != "visual"} == plain.grpo.rewards


def test_what_is_scored_is_not_run_again(tmp_path, monkeypatch):
    """A study that ends in its second run trains that one anew, and not the first."""
    (tmp_path / "base").mkdir()
    trained, fails = [], ["agto"]

    def train(run, out, data, seed, num_ranks):
        trained.append(run.key)
        assert not (out / run.key).exists()
        (out / run.key).mkdir()
        if run.key in fails:
            raise KeyboardInterrupt

    monkeypatch.setattr(study, "train", train)
    monkeypatch.setattr(study, "_measure", lambda out, key, test: scores(0.5)[test])
    monkeypatch.setattr(study, "write_curriculum", lambda *_, **__: None)
    seed = tmp_path / "seed-0"
    monkeypatch.setattr(study, "_make_data", lambda *_: seed.mkdir())
    with pytest.raises(KeyboardInterrupt):
        study.run_seed(0, seed)
    fails.clear()
    results = study.run_seed(0, seed)
    assert trained == ["sft", "agto", "agto", "grpo", "ratio", "log_ratio", "share"]
    assert results.keys() == TITLES.keys()
    assert json.loads((seed / "agto.json").read_text()) == scores(0.5)


def test_the_page_has_means_and_deviations(tmp_path):
    results = [{key: scores(value) for key in TITLES} for value in (0.2, 0.4, 0.9)]
    curves = {"plain": [[0.0] * 3 + [0.1] * 5, [0.0] * 3 + [0.3] * 5]}
    table = write_study(tmp_path, TITLES, results, curves, 0.7, 100, "the command")
    assert table.count("0.500 ± 0.361") == len(TITLES) * 5
    page = (tmp_path / "study.md").read_text()
    assert table in page
    assert "the command" in page
    assert "0.200 ± 0.141" in page
    for picture in ("img/study-seeds.png", "img/study-grpo-accuracy.png"):
        assert picture in page
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
