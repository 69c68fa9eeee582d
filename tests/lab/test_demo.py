"""The demo: its runs, its table, what its files say, on a small scale from end to end."""

import dataclasses
import json
from dataclasses import replace

import pytest
import torch

from avar_fast.attention import attach
from avar_fast.config import load_recipe
from avar_fast.data import load_rows
from avar_fast.lab import demo, demo_parts, walk_runs
from avar_fast.lab.curriculum import Phase
from avar_fast.lab.demo_runs import (
    ABSENT,
    BASE,
    CEILING,
    CURED,
    DATA,
    LONGER,
    ORDER,
    PLAIN,
    RIGHT_HINTS,
    RUNS,
    STEPS,
    TESTS,
    WRONG,
)
from avar_fast.lab.model import save_base
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.walk_hints import hint_digits
from avar_fast.loading import load

from .small_studies import apart, only_alone, passes_alone


def recipe_of(key):
    return load_recipe(CONFIGS / RUNS[key].recipe, list(RUNS[key].settings))


def test_every_run_has_its_data_its_start_and_a_place_in_the_table():
    assert sorted([*ORDER, *(run.key for run in LONGER)]) == sorted(RUNS)
    assert [run.key for run in RUNS.values() if run.start not in RUNS] == ["base"]
    assert {run.data for run in RUNS.values()} == set(DATA)


@pytest.mark.parametrize(("run", "data"), [(BASE, DATA), (walk_runs.BASE, walk_runs.DATA)])
def test_a_base_model_takes_its_rows_once_and_in_order(run, data):
    recipe = load_recipe(CONFIGS / run.recipe, list(run.settings))
    assert not recipe.data.shuffle
    rows = sum(phase.count for phase in data["base"])
    assert recipe.train.steps * recipe.train.batch_size == rows


def test_cold_starts_differ_in_what_their_titles_say():
    plain, cured = recipe_of(PLAIN.key), recipe_of(CURED.key)
    assert not plain.agto.enabled
    assert (cured.agto.alpha, cured.agto.beta, cured.agto.queries) == (0.15, 0.15, "response")
    assert cured.optim == plain.optim == recipe_of(CEILING.key).optim
    expected = {
        "enhance": {"beta": 0.0},
        "suppress": {"alpha": 0.0},
        "placebo": {"beta": 0.0, "enhance_keys": "text"},
    }
    for key, changes in expected.items():
        arm = recipe_of(key)
        assert arm.agto == replace(cured.agto, **changes)
        assert arm.optim == plain.optim
    assert recipe_of("slow").optim == replace(plain.optim, lr=plain.optim.lr / 4)
    assert not recipe_of("slow").agto.enabled


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_every_log_scores_the_same_queries(run):
    """The page draws the scores of all training runs in one figure."""
    logged = demo_parts.logging_responses(run)
    recipe = load_recipe(CONFIGS / logged.recipe, list(logged.settings))
    assert recipe.agto.queries == "response"
    assert replace(recipe.agto, queries="user") == replace(recipe_of(run.key).agto, queries="user")


def test_the_two_runs_of_grpo_differ_in_vars_alone():
    plain, vars_ = recipe_of("grpo"), recipe_of("vars")
    assert plain.optim == vars_.optim
    assert plain.train == dataclasses.replace(vars_.train, output_dir=plain.train.output_dir)
    rewards = {name: weight for name, weight in vars_.grpo.rewards.items() if name != "visual"}
    assert rewards == plain.grpo.rewards
    assert vars_.grpo.rewards["visual"] > 0


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tests")
    rows = {}
    for name, world in TESTS.items():
        demo_parts.write_curriculum(folder / name, (Phase((world,), 40, 40),), 0, split="test")
        rows[name] = load_rows(str(folder / name / "test.jsonl"))
    return rows


def test_all_tests_have_the_same_boards_and_images(tested):
    assert set(tested) == {WRONG, ABSENT, RIGHT_HINTS}
    for wrong, absent, right in zip(*(list(tested[name]) for name in TESTS), strict=True):
        boards = [row.columns["meta"]["board"] for row in (wrong, absent, right)]
        assert boards[0] == boards[1] == boards[2]
        assert right.columns["meta"]["hint"] == right.columns["reasoning"]
        assert wrong.columns["meta"]["hint"] != wrong.columns["reasoning"]
        assert "hint" not in absent.columns["meta"]


@pytest.mark.parametrize(("reads", "late", "follows"), [("hint", None, 1.0), ("digits", 1.0, 0.0)])
def test_scores_of_a_model_that_copies_and_of_one_that_looks(
    tested, tmp_path, monkeypatch, reads, late, follows
):
    loaded = load(str(save_base(tmp_path / "model", 0, "scarce")), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    rows = tested[WRONG]
    metas = [row.columns["meta"] for row in rows]
    told = [hint_digits(meta["hint"]) if reads == "hint" else meta["digits"] for meta in metas]
    log_probs = torch.nn.functional.one_hot(torch.tensor(told), 10).float()
    masses = torch.rand(2, len(metas), STEPS, 1, 3).softmax(-1)
    monkeypatch.setattr(demo_parts, "predict_digits", lambda *_: (log_probs, masses))
    scores = demo_parts.score_walks(loaded, rows)
    assert scores["follows"] == follows
    chance = sum(
        h == d
        for m in metas
        for h, d in zip(hint_digits(m["hint"])[1:], m["digits"][1:], strict=True)
    ) / (len(metas) * (STEPS - 1))
    assert scores["late"] == pytest.approx(chance if late is None else late)
    assert scores["masses"]["system"] == pytest.approx(masses[..., 2].mean().item(), abs=1e-6)


@only_alone
def test_a_small_demo_alone(tmp_path, monkeypatch, capsys):
    """Trained in processes of their own, on a few rows; GRPO from the AGTO checkpoint."""
    few = {
        name: tuple(replace(p, pool=8, count=64) for p in phases) for name, phases in DATA.items()
    }
    steps = ("train.steps=2", "train.batch_size=4", "train.micro_batch_size=2")
    runs = {
        key: replace(run, settings=(*run.settings, *steps))
        for key, run in RUNS.items()
        if key in ("base", "plain", "agto", "ceiling", "vars")
    }
    for module in (demo, demo_parts):
        for name, value in (("DATA", few), ("RUNS", runs), ("NUM_TEST", 6)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(demo, "BASE", runs["base"])
    monkeypatch.setattr(demo, "MORE", replace(demo.MORE, settings=steps))
    read = iter((0.1, 0.2, 0.1, 0.95))  # the second draw reads after its second stretch
    monkeypatch.setattr(demo, "score_walks", lambda *_: {"late": next(read)})
    few_starts = tuple(runs[key] for key in ("agto", "plain", "ceiling"))
    monkeypatch.setattr(demo.run_all, "__defaults__", (1, few_starts))
    monkeypatch.setattr(demo, "GRPO", (runs["vars"],))
    monkeypatch.setattr(demo, "ORDER", tuple(runs))
    monkeypatch.setattr(demo, "make_all", in_forks)
    out = tmp_path / "demo"
    demo.main(["--out", str(out)])
    table = capsys.readouterr().out
    kept = json.loads((out / "demo.json").read_text())
    assert set(kept["models"]) == set(runs)
    assert kept["models"]["plain"]["wrong"]["late"] <= 1
    for run in runs.values():
        assert run.title in table
    page = (out / "report.html").read_text()
    assert page.count("<svg") > 3 * 3 * STEPS
    assert BASE.title in page
    assert (out / "base").readlink().name == "base-1-1"
    for key in runs:
        assert "  queries: response" in (out / key / "recipe.yaml").read_text(), key
    monkeypatch.setattr(demo, "score_walks", lambda *_: {"late": 0.1})
    monkeypatch.setattr(demo, "DRAWS", 1)
    with pytest.raises(SystemExit, match="is at 10%, the last of 1 draws of its weights. Take"):
        demo.main(["--out", str(out)])  # its own folder is made anew


def in_forks(title, tasks, jobs, preloaded=()):
    for task in tasks:
        apart(task)


def test_a_small_demo():
    passes_alone(__file__, "test_a_small_demo_alone")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="--out must be a new folder"):
        demo.main(["--out", str(tmp_path)])
