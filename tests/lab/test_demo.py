"""The demo's runs: recipes that can be read, arms that differ in one thing, what its files say."""

import dataclasses
import json

import pytest

from avar_fast.config import load_recipe
from avar_fast.lab import demo
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.steps import StepScores
from avar_fast.lab.walk_runs import BASE, COLD_STARTS, DATA, GRPO, ORDER, TEST
from avar_fast.report import ReportEntry

RUNS = {run.key: run for run in (BASE, *COLD_STARTS, *GRPO)}


def recipe_of(key):
    return load_recipe(CONFIGS / RUNS[key].recipe, list(RUNS[key].settings))


def test_every_run_has_its_data_its_start_and_a_place_in_the_table():
    assert sorted(ORDER) == sorted(RUNS)
    assert [run.key for run in RUNS.values() if run.start not in RUNS] == ["base"]
    assert {run.data for run in RUNS.values()} == set(DATA)


def test_the_base_model_takes_its_rows_once_and_in_order():
    recipe = recipe_of("base")
    assert not recipe.data.shuffle
    rows = sum(phase.count for phase in DATA["base"])
    assert recipe.train.steps * recipe.train.batch_size == rows


def test_cold_starts_differ_in_the_objective_alone():
    recipes = {run.key: recipe_of(run.key) for run in COLD_STARTS if run.key != "slow"}
    for recipe in recipes.values():
        for section in ("optim", "model", "grpo"):
            assert getattr(recipe, section) == getattr(recipes["plain"], section)
        settings = [
            dataclasses.replace(r.train, output_dir="x") for r in (recipe, recipes["plain"])
        ]
        assert settings[0] == settings[1]
    agto = {key: recipe.agto for key, recipe in recipes.items()}
    assert not agto["plain"].enabled
    assert not agto["ceiling"].enabled
    assert agto["agto"].alpha == agto["agto"].beta == 0.15
    assert agto["enhance"] == dataclasses.replace(agto["agto"], beta=0)
    assert agto["placebo"] == dataclasses.replace(agto["enhance"], enhance_keys="text")


def test_the_two_runs_of_grpo_differ_in_vars_alone():
    plain, vars_ = recipe_of("grpo"), recipe_of("vars")
    assert plain.optim == vars_.optim
    assert plain.train == dataclasses.replace(vars_.train, output_dir=plain.train.output_dir)
    rewards = {name: weight for name, weight in vars_.grpo.rewards.items() if name != "visual"}
    assert rewards == plain.grpo.rewards
    assert vars_.grpo.rewards["visual"] > 0


def test_no_model_is_tested_on_the_prior():
    (phase,) = TEST
    (world,) = phase.configs
    assert world.prior == 0


@pytest.fixture
def measured():
    steps = StepScores(
        accuracy=[1.0, 0.5, 0.7],
        follows_rule=[0.2, 0.4],
        margin=[1.0, 2.0],
        masses={"text": [0.2] * 3, "visual": [0.5, 0.6, 0.7], "system": [0.2] * 3},
        visual_by_head=[[0.6]],
    )
    vas = {"ratio": 12.0, "log_ratio": 2.5, "share": 0.9}
    entry = ReportEntry("plain", 0.25, {}, vas, [0], {}, 3.0, 21.0, [])
    return demo.Measured(steps, 0.125, entry, [])


def test_the_table_has_the_endpoints(measured):
    header, line = demo.table_rows([measured])
    assert dict(zip(header, line, strict=True)) == {
        "model": "plain",
        "late steps": "0.600",
        "first step": "1.000",
        "by the rule": "0.300",
        "whole chains": "0.125",
        "visual mass": "0.600",
        "VAS ratio": "12",
        "VAS log ratio": "2.50",
        "VAS share": "0.900",
        "train s": "21",
        "eval s": "3",
    }


def test_the_numbers_are_kept_step_by_step(measured):
    kept = json.loads(json.dumps(demo.as_dict(measured)))
    assert kept["late_accuracy"] == pytest.approx(0.6)
    assert kept["by_step"]["accuracy"] == [1.0, 0.5, 0.7]
    assert kept["by_step"]["masses"]["visual"] == [0.5, 0.6, 0.7]
    assert kept["vas"]["share"] == 0.9
