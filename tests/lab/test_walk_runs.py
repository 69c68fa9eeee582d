"""The runs on walks: recipes that can be read, arms that differ in one thing."""

import dataclasses

from avar_fast.config import load_recipe
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.walk_runs import BASE, COLD_STARTS, DATA, TEST

RUNS = {run.key: run for run in (BASE, *COLD_STARTS)}


def recipe_of(key):
    return load_recipe(CONFIGS / RUNS[key].recipe, list(RUNS[key].settings))


def test_every_run_has_its_data_and_its_start():
    assert {run.data for run in RUNS.values()} == set(DATA)
    assert {run.start for run in COLD_STARTS} == {BASE.key}


def test_the_base_model_takes_its_rows_once_and_in_order():
    recipe = recipe_of("base")
    assert not recipe.data.shuffle
    rows = sum(phase.count for phase in DATA["base"])
    assert recipe.train.steps * recipe.train.batch_size == rows


def test_cold_starts_differ_in_the_objective_alone():
    recipes = {run.key: recipe_of(run.key) for run in COLD_STARTS}
    for recipe in recipes.values():
        for section in ("optim", "model"):
            assert getattr(recipe, section) == getattr(recipes["plain"], section)
        one, other = (
            dataclasses.replace(r.train, output_dir="x") for r in (recipe, recipes["plain"])
        )
        assert one == other
    agto = {key: recipe.agto for key, recipe in recipes.items()}
    assert not agto["plain"].enabled
    assert not agto["ceiling"].enabled
    assert agto["agto"].alpha == agto["agto"].beta == 0.15
    assert agto["enhance"] == dataclasses.replace(agto["agto"], beta=0)
    assert agto["placebo"] == dataclasses.replace(agto["enhance"], enhance_keys="text")


def test_no_model_is_tested_on_the_prior():
    (phase,) = TEST
    (world,) = phase.configs
    assert world.prior == 0
