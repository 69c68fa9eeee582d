"""The VARS study: its arms, its curves, how it goes on where it was left, and its page."""

import dataclasses
import json
import math

import pytest

from avar_fast.config import load_recipe
from avar_fast.lab import vars_arms, vars_study, walk_study_parts
from avar_fast.lab import vars_study_parts as parts
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.study_folder import enter_folder
from avar_fast.lab.style_curves import read_curves
from avar_fast.lab.vars_arms import ARMS, COLD, DATA, FORMS, READER, REFERENCES, settings, setup
from avar_fast.lab.vars_study_report import write_page

from .small_studies import apart, only_alone, passes_alone

TITLES = {arm.key: arm.title for arm in ARMS}


def recipe_of(run):
    return load_recipe(CONFIGS / run.recipe, list(run.settings))


def test_an_arm_with_vars_differs_from_its_reference_in_the_reward_alone():
    arms = {arm.key: recipe_of(arm) for arm in ARMS}
    assert {arms[key].grpo.visual_form for key in FORMS} == set(FORMS)
    assert set(REFERENCES) == {key for key, recipe in arms.items() if recipe.grpo.visual_weight}
    for key, other in REFERENCES.items():
        recipe, plain = arms[key], arms[other]
        rewards = {k: v for k, v in recipe.grpo.rewards.items() if k != "visual"}
        assert recipe.grpo.visual_weight == 0.3
        assert dataclasses.replace(
            recipe.grpo, rewards=rewards, visual_form=plain.grpo.visual_form
        ) == dataclasses.replace(plain.grpo)
        assert (recipe.optim, recipe.model, recipe.data) == (plain.optim, plain.model, plain.data)
        assert dataclasses.replace(recipe.train, output_dir="") == dataclasses.replace(
            plain.train, output_dir=""
        )


def test_the_two_references_differ_in_the_loss_alone():
    plain, unscaled = (
        next(recipe_of(arm) for arm in ARMS if arm.key == key)
        for key in ("plain", "plain-unscaled")
    )
    assert (plain.grpo.loss, unscaled.grpo.loss) == ("grpo", "dr_grpo")
    assert dataclasses.replace(unscaled.grpo, loss="grpo") == plain.grpo


@pytest.mark.parametrize("run", [READER, COLD, *ARMS], ids=lambda run: run.key)
def test_every_run_has_its_rows(run):
    train = recipe_of(run).train
    assert sum(phase.count for phase in DATA[run.data]) == train.steps * train.batch_size


def test_completions_fit_into_the_longest_that_grpo_samples():
    board = vars_arms.SIDE**2
    tokens = 2 * (board + vars_arms.STEPS) + len(";") + len("34") + 4  # and four tags
    assert all(recipe_of(arm).grpo.max_new_tokens >= tokens for arm in ARMS)


def completion(step, row, thoughts, right, visual=None):
    rewards = {"exact": float(right)} | ({} if visual is None else {"visual": visual})
    text = f"<think>{thoughts}</think><answer>1</answer>"
    return {"step": step, "row": f"x.jsonl row {row}", "completion": text, "rewards": rewards}


def curves_of(folder, records):
    """Of completions on two boards, of ones and of twos."""
    boards = ([[1, 1], [1, 1]], [[2, 2], [2, 2]])
    for name, lines in (
        ("rows.jsonl", [{"meta": {"board": board}} for board in boards]),
        ("completions.jsonl", records),
    ):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_curves(folder, folder / "rows.jsonl")


def test_curves_are_shares_of_the_completions_of_a_step(tmp_path):
    records = [
        completion(1, 1, "A1C1", True, visual=0.4),
        completion(1, 1, "A1C2", True, visual=0.6),
        completion(1, 2, "A1C3", False, visual=0.0),
        completion(1, 1, "A1B1C1D1;A1C1", True, visual=0.2),
        completion(1, 2, "A1B1C1D1;A1C1", False, visual=0.0),
        completion(1, 2, "A2B2C2D2;A2C2", False, visual=0.0),
        completion(1, 2, "A2B2C1D2;A2C2", False, visual=0.0),
        completion(1, 2, "nothing", False, visual=0.0),
        completion(2, 1, "A1C1", False, visual=0.0),
    ]
    assert curves_of(tmp_path, records) == {
        "accuracy": [pytest.approx(3 / 8), 0.0],
        "look_back": [pytest.approx(3 / 8), 1.0],
        "transcribe": [pytest.approx(4 / 8), 0.0],
        "accuracy_look_back": [pytest.approx(2 / 3), 0.0],
        "accuracy_transcribe": [pytest.approx(1 / 4), None],
        "vars_look_back": [pytest.approx(0.5), None],  # of right answers alone
        "vars_transcribe": [pytest.approx(0.2), None],
        "wrong_transcripts": [pytest.approx(2 / 4), None],
        "follows_wrong": [pytest.approx(1 / 2), None],
    }


def test_without_vars_its_curves_are_empty(tmp_path):
    curves = curves_of(tmp_path, [completion(1, 1, "A1C1", True)])
    assert curves["vars_look_back"] == [None]
    assert curves["accuracy_look_back"] == [1.0]


def curves(accuracy, look_back, visual=0.5, steps=20):
    """Accuracy grows from 0 to twice its mean; the share that looks back jumps at the middle."""
    line = [2 * accuracy * step / (steps - 1) for step in range(steps)]
    half = steps // 2
    return {
        "accuracy": line,
        "look_back": [0.5] * half + [look_back] * half,
        "transcribe": [0.5] * half + [1 - look_back] * half,
        "accuracy_look_back": line,
        "accuracy_transcribe": [0.25] * half + [None] * half,
        "vars_look_back": [visual] * steps,
        "vars_transcribe": [None] * steps,
        "wrong_transcripts": [0.125] * steps,
        "follows_wrong": [0.875] * steps,
    }


def cells_of(table, title):
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {title} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_compares_each_form_with_grpo_alone(tmp_path):
    """Areas .2 and .4 of plain, .3 and .4 of share: differences .1 and 0."""
    results = {key: {0: curves(0.2, 0.5), 1: curves(0.4, 0.5)} for key in TITLES}
    results["share"] = {0: curves(0.3, 1.0), 1: curves(0.4, 0.9)}
    results["log_ratio"] = {0: curves(0.1, 0.25), 1: curves(0.3, 0.25)}
    table = write_page(tmp_path, TITLES, results, setup(), "the command")
    cells = cells_of(table, TITLES["share"])
    half_width = 12.7062 * (0.1 / math.sqrt(2)) / math.sqrt(2)  # t of one degree of freedom
    assert cells[1:3] == ["2", "0.350 \u00b1 0.071"]
    assert cells[3] == f"+0.050 [{0.05 - half_width:+.3f}, {0.05 + half_width:+.3f}]"
    assert cells[6] == "0.950 \u00b1 0.071"
    page = (tmp_path / "vars-study.md").read_text()
    assert table in page
    assert "the command" in page
    assert f"- {TITLES['share']}: no difference shown, +0.050" in page
    assert f"- {TITLES['log_ratio']}: worse, -0.100 [-0.100, -0.100]." in page
    assert "| first | " in page
    assert (tmp_path / "img" / "vars-study-curves.png").read_bytes()[:4] == b"\x89PNG"


def test_a_single_seed_has_no_interval(tmp_path):
    results = {key: {0: curves(0.25, 0.5)} for key in TITLES} | {"ratio": {0: curves(0.375, 0.5)}}
    cells = cells_of(write_page(tmp_path, TITLES, results, setup(), "x"), TITLES["ratio"])
    assert cells[1:4] == ["1", "0.375", "+0.125"]
    assert "no interval from fewer than two pairs" in (tmp_path / "vars-study.md").read_text()


def write_results(out, keys, seeds):
    for seed in seeds:
        (out / f"seed-{seed}").mkdir(exist_ok=True)
        for key in keys:
            text = json.dumps(curves(0.2 + seed / 10, 0.5))
            (out / f"seed-{seed}" / f"{key}.json").write_text(text)


def test_the_page_of_an_unfinished_study_has_what_is_finished(tmp_path, capsys):
    out = tmp_path / "study"
    enter_folder(out, vars_study.MARKER, settings())
    write_results(out, ["plain", "share"], [0, 1])
    with pytest.raises(SystemExit, match="every arm must have a finished run.*log_ratio, ratio"):
        vars_study.main(["--out", str(out), "--page"])
    write_results(out, TITLES, [0, 1])
    write_results(out, ["plain"], [2])
    vars_study.main(["--out", str(out), "--page"])
    counts = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert counts == ["3", "2", "2", "2", "2", "2"]


def test_a_folder_of_other_settings_is_refused(tmp_path, monkeypatch):
    vars_study.enter_folder(tmp_path / "study", vars_study.MARKER, settings())
    monkeypatch.setattr(vars_arms, "LAST", 3)
    with pytest.raises(SystemExit, match="holds a study with other last"):
        vars_study.main(["--out", str(tmp_path / "study"), "--page"])


@pytest.mark.parametrize("name", ["--seeds", "--jobs"])
def test_a_count_below_one_is_refused(name, capsys):
    with pytest.raises(SystemExit):
        vars_study.main([name, "0"])
    assert f"{name} must be at least 1; got 0" in capsys.readouterr().err


@pytest.fixture
def small(monkeypatch):
    """Few rows and two steps; everything else as in the study."""
    few = {
        name: tuple(dataclasses.replace(phase, pool=8, count=16) for phase in phases)
        for name, phases in DATA.items()
    }
    short = ("train.steps=2", "train.batch_size=4", "train.micro_batch_size=4")
    monkeypatch.setattr(parts, "DATA", few)
    monkeypatch.setattr(parts, "CLEAN_ROWS", 6)
    monkeypatch.setattr(walk_study_parts, "READS", 0.0)
    for name in ("READER", "COLD"):
        run = getattr(parts, name)
        monkeypatch.setattr(parts, name, dataclasses.replace(run, settings=short))
    arms = (dataclasses.replace(arm, settings=(*arm.settings, *short)) for arm in ARMS)
    monkeypatch.setattr(parts, "ARMS", tuple(arms))


def test_a_small_study_in_a_process_of_its_own():
    passes_alone(__file__, "from_data_to_curves")


@only_alone
def test_a_small_study_from_data_to_curves(small, tmp_path, monkeypatch):
    """Every kind of part is made, and what is made is not made again."""

    def make_all():
        parts.make_test(tmp_path)
        parts.make_data(tmp_path, 1)
        apart(parts.train_base, tmp_path, 1, 0)
        apart(parts.train_cold, tmp_path, 1)
        for key in ("plain", "share", "share-unscaled"):
            apart(parts.run_arm, tmp_path, 1, key)

    def made_again(*_, **__):
        raise AssertionError("a finished part is made again")

    make_all()
    for part in ("train_whole", "write_curriculum", "save_base", "read_curves"):
        monkeypatch.setattr(parts, part, made_again)
    make_all()
    results = parts.read_results(tmp_path, seeds=2)
    finished = [key for key, runs in results.items() if list(runs) == [1]]
    assert finished == ["plain", "share", "share-unscaled"]
    for key in finished:
        assert len(results[key][1]["accuracy"]) == 2
    completions = (tmp_path / "seed-1" / "share" / "completions.jsonl").read_text().splitlines()
    assert len(completions) == 2 * 4 * 8
    assert "visual" in json.loads(completions[0])["rewards"]
