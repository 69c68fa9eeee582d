"""The walk study: its statistics, its arms, how it goes on where it was left, and its page."""

import dataclasses
import json
import math
import shutil
from types import SimpleNamespace

import pytest

from avar_fast.config import load_recipe
from avar_fast.lab import processes, runs, study_folder, walk_arms, walk_study
from avar_fast.lab import walk_study_parts as parts
from avar_fast.lab.curriculum import Phase
from avar_fast.lab.dose import DOSES
from avar_fast.lab.paired import paired_difference, share_of_gap
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.walk_arms import ARMS, STRETCHES, TESTS, TOWERS, setup
from avar_fast.lab.walk_runs import BASE, DATA, MORE
from avar_fast.lab.walk_study_report import write_page
from avar_fast.lab.walk_study_tables import correlations, difference_over_bases, findings

from .small_studies import apart, only_alone, passes_alone

PAIR = (0, 1)
RUNS = {arm.key: arm for arm in ARMS}
TITLES = {arm.key: arm.title for arm in ARMS}


def test_a_paired_difference_is_that_of_a_t_table():
    """Differences .1, .2, .3, .4: mean .25, deviation .12910; t of 3 degrees of freedom 3.1824."""
    difference = paired_difference([0.6, 0.9, 0.7, 1.0], [0.5, 0.7, 0.4, 0.6])
    assert difference.mean == pytest.approx(0.25)
    assert difference.half_width == pytest.approx(3.1824 * 0.12910 / 2, abs=1e-4)
    assert f"{difference:+.3f}" == "+0.250 [+0.045, +0.455]"


def test_pairs_that_move_together_have_a_narrow_interval():
    bases = [0.1, 0.5, 0.9]
    assert paired_difference([x + 0.05 for x in bases], bases).half_width == pytest.approx(0)


@pytest.mark.parametrize("reference", [[0.5], [0.5, 0.6, 0.7]])
def test_values_without_partners_are_refused(reference):
    with pytest.raises(ValueError, match=r"paired, two or more of each; got \d and \d"):
        paired_difference([0.5] if len(reference) == 1 else [0.5, 0.6], reference)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_no_difference(value):
    """NaN is neither above nor below zero, and is no "no difference shown"."""
    with pytest.raises(ValueError, match="must be finite.*Leave out"):
        paired_difference([0.5, value], [0.4, 0.5])
    with pytest.raises(ValueError, match="must be finite"):
        paired_difference([0.4, 0.5], [0.5, value])


def test_the_share_of_the_gap_is_from_the_means():
    assert share_of_gap([0.5, 0.7], [0.4, 0.6], [0.8, 1.0]) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="must differ in their means"):
        share_of_gap([0.5], [0.4], [0.4])


def test_a_correlation_between_arms_need_not_be_one_within():
    """Two arms at (0, 0) and (10, 10); within each, more score is less accuracy."""
    scores, late = [[-1.0, 1.0], [9.0, 11.0]], [[1.0, -1.0], [11.0, 9.0]]
    overall, between, within = correlations(scores, late)
    assert between == pytest.approx(1)
    assert within == pytest.approx(-1)
    assert overall == pytest.approx((100 - 4) / (100 + 4))


def test_a_constant_column_has_no_correlation():
    overall, between, within = correlations([[1.0, 1.0], [2.0, 2.0]], [[0.1, 0.2], [0.3, 0.4]])
    assert overall == pytest.approx(0.2 / math.sqrt(0.05))
    assert between == pytest.approx(1)
    assert math.isnan(within)
    assert all(map(math.isnan, correlations([[1.0, 1.0]] * 2, [[0.1, 0.2], [0.3, 0.4]])))


def recipe_of(key):
    return load_recipe(CONFIGS / RUNS[key].recipe, list(RUNS[key].settings))


def test_arms_differ_in_the_objective_alone():
    plain = recipe_of("plain")
    for key in RUNS.keys() - {"slow"}:
        recipe = recipe_of(key)
        assert (recipe.optim, recipe.model) == (plain.optim, plain.model)
        assert dataclasses.replace(recipe.train, output_dir="") == dataclasses.replace(
            plain.train, output_dir=""
        )
    assert {key for key, arm in RUNS.items() if arm.data == "uniform"} == {"ceiling"}


def test_the_slow_arm_is_plain_with_smaller_steps():
    slow, plain = recipe_of("slow"), recipe_of("plain")
    assert slow.optim.lr < plain.optim.lr
    assert dataclasses.replace(slow.optim, lr=plain.optim.lr) == plain.optim
    assert (slow.agto, slow.train.steps) == (plain.agto, plain.train.steps)


def fail():
    raise SystemExit("error: no base model")


def test_a_part_that_fails_ends_the_study(capfd):
    with pytest.raises(SystemExit, match="cold starts: a part failed"):
        processes.make_all("cold starts", [fail, fail], jobs=1)
    assert capfd.readouterr().err.count("error: no base model") == 1


def test_arms_have_the_weights_that_their_names_say():
    weights = {}
    for key in RUNS:
        agto = recipe_of(key).agto
        if agto.enabled:
            weights[key] = (agto.queries, agto.alpha, agto.beta, agto.enhance_keys)
    assert weights == {
        "agto-user-15": ("user", 0.15, 0.15, "image"),
        "agto-user-03": ("user", 0.03, 0.03, "image"),
        "agto-response-15": ("response", 0.15, 0.15, "image"),
        "agto-response-03": ("response", 0.03, 0.03, "image"),
        "enhance": ("response", 0.15, 0, "image"),
        "suppress": ("response", 0, 0.15, "image"),
        "placebo": ("response", 0.15, 0, "text"),
    }


def enter(folder):
    study_folder.enter_folder(folder, walk_study.MARKER, walk_arms.settings())


def test_a_folder_of_other_settings_is_one_clear_error(tmp_path, monkeypatch):
    enter(tmp_path / "new")
    enter(tmp_path / "new")  # goes on
    monkeypatch.setattr(walk_arms, "DOSE_ROWS", 7)
    with pytest.raises(SystemExit, match="holds a study with other dose_rows"):
        enter(tmp_path / "new")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(SystemExit, match="must be a new folder"):
        enter(tmp_path / "mine")


def test_a_comment_in_a_recipe_changes_no_setting_and_a_number_does(tmp_path, monkeypatch):
    enter(tmp_path / "new")
    configs = tmp_path / "configs"
    shutil.copytree(runs.CONFIGS, configs)
    monkeypatch.setattr(runs, "CONFIGS", configs)
    recipe = configs / walk_arms.PLAIN
    text = recipe.read_text()
    recipe.write_text("# Another word.\n" + text.replace("runs/demo", "runs/other"))
    enter(tmp_path / "new")
    recipe.write_text(text.replace("warmup_steps: 10", "warmup_steps: 11"))
    with pytest.raises(SystemExit, match="holds a study with other recipes. Name another"):
        enter(tmp_path / "new")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bases", "1", "--seeds", "1"], "--bases times --seeds must be at least 2"),
        (["--bases", "1", "--seeds", "2", "--control-seeds", "1"], "--bases times --control-seeds"),
        (["--jobs", "0"], "--jobs must be at least 1; got 0"),
    ],
)
def test_too_few_runs_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        walk_study.main(arguments)
    assert message in capsys.readouterr().err


@pytest.fixture
def small(monkeypatch):
    """Few rows and two steps; everything else as in the study."""
    few = {
        name: tuple(dataclasses.replace(phase, pool=8, count=16) for phase in phases)
        for name, phases in DATA.items()
    }
    short = ("train.steps=2", "train.batch_size=4", "train.micro_batch_size=4")
    monkeypatch.setattr(parts, "DATA", few)
    monkeypatch.setattr(parts, "TESTS", {k: (world, 6) for k, (world, _) in TESTS.items()})
    monkeypatch.setattr(parts, "DOSE_ROWS", 4)
    monkeypatch.setattr(parts, "READS", 0.0)
    monkeypatch.setattr(parts, "BASE", dataclasses.replace(BASE, settings=short))
    arms = [dataclasses.replace(arm, settings=(*arm.settings, *short)) for arm in ARMS]
    monkeypatch.setattr(parts, "ARMS", tuple(arms))


def test_a_small_study_in_a_process_of_its_own():
    passes_alone(__file__, "from_data_to_scores")


@only_alone
def test_a_small_study_from_data_to_scores(small, tmp_path, monkeypatch):
    """Every kind of part is made, and what is made is not made again."""

    def make_all():
        for test in TESTS:
            parts.make_test(tmp_path, test)
        parts.make_base_data(tmp_path, 0)
        apart(parts.train_base, tmp_path, "scarce", 0, 0)
        parts.make_pair_data(tmp_path, PAIR)
        for key in ("plain", "placebo"):
            apart(parts.run_arm, tmp_path, "scarce", PAIR, key)

    def made_again(*_, **__):
        raise AssertionError("a finished part is made again")

    make_all()
    for part in ("train_whole", "write_curriculum", "save_base", "score_model"):
        monkeypatch.setattr(parts, part, made_again)
    make_all()
    folder = tmp_path / "scarce-0" / "seed-1"
    plain, placebo = (
        json.loads((folder / f"{key}.json").read_text()) for key in ("plain", "placebo")
    )
    assert plain["log"]["step"] == [1, 2]
    assert len(plain["doses"]) == len(DOSES)
    assert "doses" not in placebo
    for scores in (plain["scores"], placebo["scores"]):
        assert all(math.isfinite(value) for value in scores.values())
        lost = scores["late_accuracy"] - scores["blind_accuracy"]
        assert scores["reliance"] == pytest.approx(lost)
    assert plain["scores"] != placebo["scores"]


@pytest.fixture
def reads(monkeypatch):
    """No training; a base model reads what the list says after each stretch. Also the list of runs
    and what they started from."""
    accuracies, trained = [], []

    def train_here(run, out, data, seed):
        trained.append((run.key, run.start, run.settings))
        (out / run.key / "checkpoints" / "step" / "engine").mkdir(parents=True)
        (out / run.key / "latest").symlink_to("checkpoints/step")
        steps = load_recipe(CONFIGS / run.recipe, list(run.settings)).train.steps
        (out / run.key / "log.jsonl").write_text(json.dumps({"step": steps}))

    monkeypatch.setattr(study_folder, "train_here", train_here)
    monkeypatch.setattr(parts, "save_base", lambda path, *_: path.mkdir())
    monkeypatch.setattr(parts, "load_attached", lambda *_: None)
    monkeypatch.setattr(parts, "_test_rows", lambda *_: None)
    monkeypatch.setattr(
        parts, "score_steps", lambda *_: SimpleNamespace(late_accuracy=accuracies.pop(0))
    )
    return accuracies, trained


def test_a_base_model_is_trained_until_it_reads(reads, tmp_path):
    accuracies, trained = reads
    accuracies += [0.5, 0.9]
    for stretch in range(STRETCHES):
        parts.train_base(tmp_path, "scarce", 3, stretch)
    assert trained == [
        ("stretch-0-making", "init", BASE.settings),
        ("stretch-1-making", "stretch-0", MORE.settings),
    ]
    assert (tmp_path / "scarce-3" / "base" / "latest").resolve().is_dir()
    assert (tmp_path / "scarce-3" / "base").resolve().name == "stretch-1"


def test_a_base_model_that_never_reads_is_an_error(reads, tmp_path):
    accuracies, _ = reads
    accuracies += [0.5] * STRETCHES
    for stretch in range(STRETCHES - 1):
        parts.train_base(tmp_path, "scarce", 3, stretch)
    with pytest.raises(SystemExit, match=r"base model scarce-3 must be right at 85%.*at 50%"):
        parts.train_base(tmp_path, "scarce", 3, STRETCHES - 1)


def test_a_run_that_was_stopped_is_trained_anew(small, tmp_path, monkeypatch):
    """A run that ends in its second step leaves nothing that would be taken for a result."""

    def stopped(run, out, data, seed):
        (out / run.key / "checkpoints").mkdir(parents=True)
        raise KeyboardInterrupt

    (tmp_path / "scarce-0").mkdir()
    monkeypatch.setattr(study_folder, "train_here", stopped)
    with pytest.raises(KeyboardInterrupt):
        parts.run_arm(tmp_path, "scarce", PAIR, "plain")
    seen = []

    def trained(run, out, data, seed):
        seen.append((out / run.key).exists())
        raise SystemExit("error: no base model")

    monkeypatch.setattr(study_folder, "train_here", trained)
    with pytest.raises(SystemExit, match="no base model"):
        parts.run_arm(tmp_path, "scarce", PAIR, "plain")
    assert seen == [False]


def test_a_run_that_sigterm_ended_is_no_result(reads, tmp_path, monkeypatch):
    """The trainer then saves a checkpoint and returns as if it were done."""
    whole = study_folder.train_here

    def train_here(run, out, data, seed):
        whole(run, out, data, seed)
        (out / run.key / "log.jsonl").write_text(json.dumps({"step": 17}))

    monkeypatch.setattr(study_folder, "train_here", train_here)
    with pytest.raises(SystemExit, match="base model was stopped at step 17 of 600"):
        parts.train_base(tmp_path, "scarce", 3, 0)
    assert not (tmp_path / "scarce-3" / "stretch-0").exists()


def result(late):
    scores = dict.fromkeys(
        (
            *("late_accuracy", "first_accuracy", "follows_rule", "margin", "visual_mass"),
            *("blind_accuracy", "reliance", "prior_accuracy", "prior_blind_accuracy"),
            *("prior_reliance", "accuracy_0", "accuracy_1"),
            *(f"vas_{role}_{form}" for role in ("user", "response") for form in ("ratio", "share")),
            *(f"vas_{role}_log_ratio" for role in ("user", "response")),
        ),
        late,
    )
    names = ("late_accuracy", "first_accuracy", "follows_rule", "visual_mass")
    doses = [{name: late + number / 100 for name in names} for number in range(len(DOSES))]
    return {"scores": scores, "log": {"lm_loss": [9.0, 1.0] + [0.5] * 20}, "doses": doses}


def test_the_page_compares_each_arm_with_plain(tmp_path):
    """Plain .2 and .4, ceiling .6 higher, enhance .3 and .1 higher: half the gap is .2 of .6."""
    late = {key: [0.3, 0.5] for key in RUNS} | {
        "plain": [0.2, 0.4],
        "ceiling": [0.8, 1.0],
        "enhance": [0.5, 0.5],
    }
    results = {
        tower: {
            key: {(base, 0): result(value) for base, value in enumerate(late[key])} for key in keys
        }
        for tower, keys in TOWERS.items()
    }
    table = write_page(tmp_path, TITLES, results, setup(), "the command")
    (line,) = (line for line in table.splitlines() if TITLES["enhance"] in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    half_width = 12.7062 * (0.2 / math.sqrt(2)) / math.sqrt(2)  # t of one degree of freedom
    assert cells[1:3] == ["2", "0.500 \u00b1 0.000"]
    assert cells[3] == f"+0.200 [{0.2 - half_width:+.3f}, {0.2 + half_width:+.3f}]"
    assert cells[4] == "33%"
    assert cells[-1] == "0.500 \u00b1 0.000"
    page = (tmp_path / "walk-study.md").read_text()
    assert table in page
    assert "the command" in page
    assert "| +0.300 | +0.100 | +0.200 [" in page  # enhance by base model
    assert "ceiling): better, +0.600 [+0.600, +0.600]; over base models better, +0.600" in page
    assert f"- {TITLES['enhance']}: no difference shown, +0.200" in page
    for picture in ("arms", "steps", "scores", "doses"):
        assert f"img/walk-study-{picture}.png" in page
        assert (tmp_path / "img" / f"walk-study-{picture}.png").read_bytes()[:4] == b"\x89PNG"


def test_more_seeds_of_the_same_base_models_do_not_narrow_the_interval_over_base_models():
    """Base 0 gains .1 in every seed, base 1 gains .3. Means .1 and .3: mean .2, deviation .1414; t
    of one degree of freedom 12.7062, so the half width is 12.7062 * .1414 / sqrt(2) = 1.2706."""
    plain = {(base, seed): result(0.2 + seed / 10) for base in (0, 1) for seed in range(5)}
    gains = {(0, seed): 0.1 for seed in range(5)} | {(1, seed): 0.3 for seed in range(5)}
    arm = {pair: result(plain[pair]["scores"]["late_accuracy"] + gains[pair]) for pair in plain}
    arms = {"plain": plain, "enhance": arm}
    of_bases = difference_over_bases(arm, plain)
    assert f"{of_bases:+.3f}" == "+0.200 [-1.071, +1.471]"
    (line,) = findings(TITLES, arms)
    assert "enhance only, response, 0.15: better, +0.200 [+0.125, +0.275]; over base" in line
    assert line.endswith("over base models no difference shown, +0.200 [-1.071, +1.471].")
    one = {pair: plain[pair] for pair in plain if pair[0] == 0}
    assert difference_over_bases(arm, one) is None


def write_results(out, tower, keys, pairs):
    for base, seed in pairs:
        folder = out / f"{tower}-{base}" / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for key in keys:
            (folder / f"{key}.json").write_text(json.dumps(result(base + seed / 10)))


def test_the_page_of_an_unfinished_study_has_what_is_finished(tmp_path, capsys):
    """Two pairs are whole, a third has one arm, and the control has not begun."""
    enter(tmp_path)
    write_results(tmp_path, "scarce", RUNS, [(0, 0), (1, 0)])
    write_results(tmp_path, "scarce", ["plain"], [(2, 0)])
    walk_study.main(["--out", str(tmp_path), "--page"])
    counts = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert sorted(counts) == ["2"] * (len(RUNS) - 1) + ["3"]
    assert "No run of it is finished" in (tmp_path / "walk-study.md").read_text()
    write_results(tmp_path, "plenty", ["plain"], [(0, 0), (1, 0)])
    with pytest.raises(
        SystemExit, match=r"plenty tower must have two finished runs.*ceiling \(0\)"
    ):
        walk_study.main(["--out", str(tmp_path), "--page"])


def test_an_arm_that_is_ahead_of_plain_is_compared_where_both_are_finished(tmp_path):
    """AGTO has runs of pairs that plain or the ceiling lack. It gains .1 wherever plain has a run;
    of the gap, .4, that is a quarter. The pair (2, 0), far above, counts in the mean alone."""
    pairs = [(0, 0), (1, 0)]
    arms = {
        key: {pair: result(0.2 + pair[0] / 10 + {"ceiling": 0.4}.get(key, 0.0)) for pair in pairs}
        for key in RUNS
    }
    arms["enhance"] = {pair: result(0.3 + pair[0] / 10) for pair in pairs}
    arms["enhance"][2, 0] = result(0.9)
    table = write_page(tmp_path, TITLES, {"scarce": arms}, setup(), "the command")
    (line,) = (line for line in table.splitlines() if TITLES["enhance"] in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == "3"
    assert cells[3:5] == ["+0.100 [+0.100, +0.100]", "25%"]
    page = (tmp_path / "walk-study.md").read_text()
    assert f"({2 * len(RUNS)} runs)" in page  # of the pairs that every arm has


def test_runs_that_share_no_pairs_are_one_clear_error(tmp_path):
    enter(tmp_path)
    write_results(tmp_path, "scarce", RUNS.keys() - {"slow"}, [(0, 0), (1, 0), (2, 0)])
    write_results(tmp_path, "scarce", ["slow"], [(0, 1), (1, 0), (2, 1)])
    with pytest.raises(SystemExit, match="two bases and seeds of the scarce tower must have"):
        walk_study.main(["--out", str(tmp_path), "--page"])


def test_phases_of_the_study_give_every_run_its_rows():
    for key in ("plain", "ceiling"):
        recipe = recipe_of(key)
        (phase,) = DATA[RUNS[key].data]
        assert isinstance(phase, Phase)
        assert phase.count == recipe.train.steps * recipe.train.batch_size
