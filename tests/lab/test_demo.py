"""The demo: its runs of GRPO, its table, what its files say."""

import dataclasses
import json

import pytest

from avar_fast.config import load_recipe
from avar_fast.lab import demo
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.steps import StepScores
from avar_fast.lab.walk_runs import BASE, COLD_STARTS, DATA, GRPO, ORDER
from avar_fast.report import ReportEntry

RUNS = {run.key: run for run in (BASE, *COLD_STARTS, *GRPO)}


def recipe_of(key):
    return load_recipe(CONFIGS / RUNS[key].recipe, list(RUNS[key].settings))


def test_every_run_has_its_data_its_start_and_a_place_in_the_table():
    assert sorted(ORDER) == sorted(RUNS)
    assert [run.key for run in RUNS.values() if run.start not in RUNS] == ["base"]
    assert {run.data for run in RUNS.values()} == set(DATA)


def test_the_two_runs_of_grpo_differ_in_vars_alone():
    plain, vars_ = recipe_of("grpo"), recipe_of("vars")
    assert plain.optim == vars_.optim
    assert plain.train == dataclasses.replace(vars_.train, output_dir=plain.train.output_dir)
    rewards = {name: weight for name, weight in vars_.grpo.rewards.items() if name != "visual"}
    assert rewards == plain.grpo.rewards
    assert vars_.grpo.rewards["visual"] > 0


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
