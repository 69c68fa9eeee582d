"""The walk study: its arms, and how it goes on where it was left."""

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
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.walk_arms import ARMS, STRETCHES, TESTS
from avar_fast.lab.walk_runs import BASE, DATA, MORE

from .small_studies import apart, only_alone, passes_alone

PAIR = (0, 1)
RUNS = {arm.key: arm for arm in ARMS}


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


def test_phases_of_the_study_give_every_run_its_rows():
    for key in ("plain", "ceiling"):
        recipe = recipe_of(key)
        (phase,) = DATA[RUNS[key].data]
        assert isinstance(phase, Phase)
        assert phase.count == recipe.train.steps * recipe.train.batch_size
