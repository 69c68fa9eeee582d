"""Runs that go on with another number of ranks or ZeRO stage, and what must not be lost on the way.

Every run is trained to its end once; then its last checkpoint is taken away and other ranks repeat
the steps behind the one before it.
"""

import json
import shutil
from collections import namedtuple

import pytest
import torch

from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.train import universal
from avar_fast.train.random_state import seed_ranks

from .runs import launch, log_of

Usage = namedtuple("Usage", "total used free")
STEPS, SAVED = 4, 2
PACKED = {"packing": True, "max_length": 100, "pack_length": 300}
GRPO = {"group_size": 2, "max_new_tokens": 4, "prompts_per_generation": 2}
# name: (ranks and ZeRO stage at first, ranks and stage that go on, other settings)
CASES = {
    "stage1_two_to_one": ((2, 1), (1, 1), {}),
    "packed_two_to_one": ((2, 2), (1, 1), {"data": PACKED}),
    "lora_two_to_one": ((2, 3), (1, 3), {"lora": {"enabled": True, "rank": 4}}),
    "stage2_one_to_two": ((1, 1), (2, 2), {}),
    "stage3_one_to_two": ((1, 3), (2, 3), {}),
    "bfloat16_one_to_two": ((1, 2), (2, 1), {"model": {"dtype": "bfloat16"}}),
    "grpo_two_to_one": ((2, 1), (1, 1), {"stage": "grpo", "agto": {"enabled": False}}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder with, of every case, the whole run and under ``again`` the one that went on."""
    folder = tmp_path_factory.mktemp("universal")
    save_base(folder / "model", seed=0)
    write_rows(folder / "rows", WorldConfig(), "train", num_rows=10, seed=0)
    narrower = [name for name, (before, *_) in CASES.items() if before[0] == 2]
    wider = [name for name in CASES if name not in narrower]
    # A run that finds nothing to resume from starts.
    launch([write_recipe(folder, name, again=False) for name in narrower], 2, how="resume")
    launch(
        [cut_short(folder, name) for name in narrower]
        + [write_recipe(folder, name, again=False) for name in wider],
        ranks=1,
        how="resume",
    )
    launch([cut_short(folder, name) for name in wider], 2, how="resume")
    return folder


def cut_short(folder, name):
    """The recipe that goes on from a copy of the run without its last checkpoint."""
    shutil.copytree(folder / name, folder / "again" / name, symlinks=True)
    shutil.rmtree(folder / "again" / name / "checkpoints" / f"step-{STEPS:06d}")
    return write_recipe(folder, name, again=True)


def write_recipe(folder, name, again):
    before, after, changes = CASES[name]
    output = folder / "again" / name if again else folder / name
    recipe = {
        "stage": "sft",
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "data": {"path": str(folder / "rows" / "train.jsonl"), "workers": 0},
        # Rates and decay that differ between groups, warm-up and cosine: all must be carried over.
        "optim": {"lr": 1e-3, "vision_lr": 1e-4, "weight_decay": 0.1, "warmup_steps": 2},
        "train": {
            "output_dir": str(output),
            "steps": STEPS,
            "batch_size": 4,
            "save_every": SAVED,
        },
        "engine": {"zero_stage": (after if again else before)[1]},
        "agto": {"enabled": True, "alpha": 0.01, "beta": 0.01},
        "grpo": GRPO,
    }
    for section, values in changes.items():
        recipe[section] = recipe.get(section, {}) | values if section != "stage" else values
    path = folder / f"{name}{'-again' if again else ''}.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return path


@pytest.mark.parametrize("name", [n for n in CASES if "grpo" not in n])
def test_other_ranks_make_the_same_steps(runs, name):
    """10 rows are no multiple of 4: step 3 goes into the second epoch, where a skipped or repeated
    row would show."""
    want, got = log_of(runs / name), log_of(runs / "again" / name)
    assert [line["step"] for line in got] == list(range(1, STEPS + 1))
    rel = 2e-2 if "bfloat16" in name else 1e-4
    for a, b in zip(want[SAVED:], got[SAVED:], strict=True):
        assert a["samples"] == b["samples"]
        assert b["lr"] == pytest.approx(a["lr"], rel=1e-12)
        for key in ("loss", "lm_loss", "agto_enhance", "grad_norm"):
            assert b[key] == pytest.approx(a[key], rel=rel), key
    states = runs / "again" / name / "checkpoints" / f"step-{SAVED:06d}"
    assert (states / "universal").is_dir()
    assert not (states / "universal.partial").exists()


def test_grpo_goes_on_with_other_samples(runs):
    got = log_of(runs / "again" / "grpo_two_to_one")
    assert [line["step"] for line in got] == list(range(1, STEPS + 1))
    want = log_of(runs / "grpo_two_to_one")
    assert [line["lr"] for line in got] == pytest.approx([line["lr"] for line in want])


def test_each_group_keeps_its_decay_and_rate(runs):
    """DeepSpeed's loader of ZeRO 3 gives all groups what the first one has."""
    folder = runs / "again" / "stage3_one_to_two" / "checkpoints" / f"step-{STEPS:06d}"
    state = torch.load(next((folder / "engine").glob("*_optim_states.pt")), weights_only=False)
    groups = state["optimizer_state_dict"]["optimizer_state_dict"]["param_groups"]
    want = [(1e-3, 0.1), (1e-3, 0.0), (1e-3, 0.1), (1e-3, 0.0), (1e-4, 0.1), (1e-4, 0.0)]
    assert [(g["initial_lr"], g["weight_decay"]) for g in groups] == want


@pytest.fixture
def saved(runs, tmp_path):
    """A copy of a checkpoint that has not been converted."""
    source = runs / "stage1_two_to_one" / "checkpoints" / f"step-{SAVED:06d}"
    return shutil.copytree(source, tmp_path / "saved")


def shapes_of(checkpoint):
    state = torch.load(checkpoint / "engine" / "mp_rank_00_model_states.pt", weights_only=False)
    return {name: tuple(s) for part in state["param_shapes"] for name, s in part.items()}


def files_of(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_too_little_room_is_said_before_anything_is_written(saved, monkeypatch):
    before = files_of(saved)
    monkeypatch.setattr(universal.shutil, "disk_usage", lambda path: Usage(1000, 900, 100))
    with pytest.raises(OSError, match="must have room to convert .* 0.0 GiB are free. Make room"):
        universal.convert(saved)
    assert files_of(saved) == before


def test_a_conversion_that_fails_midway_leaves_the_checkpoint_as_it_was(saved, monkeypatch):
    """As a disk that fills up does, which torch reports as a RuntimeError."""
    from deepspeed.checkpoint import ds_to_universal

    before, save, count = files_of(saved), ds_to_universal._save_checkpoint, iter(range(100))

    def save_some(path, state):
        if next(count) > 50:
            raise RuntimeError("PytorchStreamWriter failed writing file")
        save(path, state)

    monkeypatch.setattr(ds_to_universal, "_save_checkpoint", save_some)
    with pytest.raises(OSError, match="RuntimeError: PytorchStreamWriter.* is unchanged. Resume"):
        universal.convert(saved)
    assert files_of(saved) == before


def test_a_conversion_that_was_killed_is_made_anew_and_a_whole_one_is_taken(saved):
    (saved / "universal.partial").mkdir()
    (saved / "universal.partial" / "half").write_text("of a file")
    universal.convert(saved)
    assert not (saved / "universal.partial").exists()
    made = files_of(saved / "universal")
    assert not any(path.name == "half" for path in made)
    times = {f: f.stat().st_mtime_ns for f in saved.rglob("*")}
    universal.convert(saved)
    assert {f: f.stat().st_mtime_ns for f in saved.rglob("*")} == times


def test_no_optimizer_states_and_another_architecture_are_said(saved):
    shapes = shapes_of(saved)
    universal.require_states_of(saved, shapes)
    name = sorted(shapes)[0]
    with pytest.raises(
        ValueError, match=rf"1 trained parameters differ.* {name}:.*\(3, 5\) in the"
    ):
        universal.require_states_of(saved, shapes | {name: (3, 5)})
    with pytest.raises(ValueError, match="the first more.weight: missing there"):
        universal.require_states_of(saved, shapes | {"more.weight": (2,)})
    for file in (saved / "engine").glob("*_optim_states.pt"):
        file.unlink()
    with pytest.raises(ValueError, match="must hold the optimizer's states to resume"):
        universal.require_states_of(saved, shapes)


def test_states_of_stage_zero_are_checked_as_well(tmp_path):
    """There the optimizer's states are in the file of the weights."""
    (tmp_path / "engine").mkdir()
    state = {"param_shapes": None, "optimizer": {"state": {}}, "module": {"a": torch.ones(2, 3)}}
    torch.save(state, tmp_path / "engine" / "mp_rank_00_model_states.pt")
    universal.require_states_of(tmp_path, {"a": (2, 3)})
    with pytest.raises(
        ValueError, match=r"architecture.* a: \(2, 3\) there, \(3, 2\) in the model"
    ):
        universal.require_states_of(tmp_path, {"a": (3, 2)})
    torch.save(state | {"optimizer": None}, tmp_path / "engine" / "mp_rank_00_model_states.pt")
    with pytest.raises(ValueError, match="must hold the optimizer's states"):
        universal.require_states_of(tmp_path, {"a": (2, 3)})


def test_ranks_that_begin_anew_do_not_repeat_what_they_drew_at_the_start():
    drawn = set()
    for rank in (0, 1):
        for step in (0, 2):
            seed_ranks(0, rank, step)
            drawn.add(tuple(torch.rand(2).tolist()))
    assert len(drawn) == 4
