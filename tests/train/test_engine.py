"""ZeRO stages, precisions, frozen parts and adapters: two ranks, one with text-only rows and one
with images."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows

from .runs import alternate, launch, log_of

TRAIN = {"steps": 2, "batch_size": 4, "micro_batch_size": 1, "save_every": 1}
HALF = {"model": {"dtype": "bfloat16"}}
CASES = {
    "zero0": {},
    "zero1": {"engine": {"zero_stage": 1}},
    "zero2": {"engine": {"zero_stage": 2, "offload_optimizer": True}},
    "zero3": {"engine": {"zero_stage": 3}},
    "zero3_offload": {
        "engine": {"zero_stage": 3, "offload_params": True, "offload_optimizer": True}
    },
    "zero3_frozen": {"engine": {"zero_stage": 3}, "model": {"freeze": ["vision", "projector"]}},
    "zero1_frozen": {"engine": {"zero_stage": 1}, "model": {"freeze": ["vision", "projector"]}},
    "lora_zero1": {"lora": {"enabled": True, "rank": 4}, "engine": {"zero_stage": 1}},
    "lora_zero3": {"lora": {"enabled": True, "rank": 4}, "engine": {"zero_stage": 3}},
    "bfloat16_zero2": {"engine": {"zero_stage": 2}, **HALF},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{name: output folder} of every case, and "one": a single rank."""
    folder = tmp_path_factory.mktemp("engine")
    save_base(folder / "model", seed=0)
    write_rows(folder / "rows", WorldConfig(), "train", num_rows=8, seed=0)
    alternate(folder / "rows" / "train.jsonl")
    # So little memory for the head that its weight is sliced, and needed once more backward.
    model = {"path": str(folder / "model"), "dtype": "float32", "head_memory_gib": 1e-6}
    for name, changes in {**CASES, "one": {}}.items():
        recipe = {
            "stage": "sft",
            "model": model,
            "data": {"path": str(folder / "rows" / "train.jsonl"), "shuffle": False},
            "optim": {"lr": 1e-3, "vision_lr": 1e-4, "weight_decay": 0.1},
            "train": TRAIN | {"output_dir": str(folder / name)},
            "engine": {"zero_stage": 0},
            "agto": {"enabled": True, "alpha": 0.01, "beta": 0.01},
        }
        for section, values in changes.items():
            recipe[section] = recipe.get(section, {}) | values
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    launch([folder / "one.yaml"], ranks=1)
    launch([folder / f"{name}.yaml" for name in CASES], ranks=2)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_text_only_rank_and_an_image_rank_train_together(runs, name):
    """The same numbers as one rank with all rows, where the same parameters are trained."""
    got, want = log_of(runs / name), log_of(runs / "one")
    assert [line["step"] for line in got] == [1, 2]
    half = "bfloat16" in name
    assert got[0]["loss"] == pytest.approx(want[0]["loss"], rel=3e-2 if half else 1e-5)
    if name.startswith("zero") and "frozen" not in name:
        assert got[1]["loss"] == pytest.approx(want[1]["loss"], rel=1e-4)
        assert got[0]["grad_norm"] == pytest.approx(want[0]["grad_norm"], rel=1e-4)
    else:
        assert got[1]["loss"] < got[0]["loss"]


def test_a_run_goes_on_where_it_was_in_every_stage(runs, tmp_path):
    """With its newest checkpoint gone, a run repeats its last step, to the bit."""
    names = ["zero2", "zero3", "lora_zero3"]
    for name in names:
        shutil.copytree(runs / name, tmp_path / name, symlinks=True)
        shutil.rmtree(tmp_path / name / "checkpoints" / "step-000002")
        recipe = json.loads((runs / f"{name}.yaml").read_text())
        recipe["train"]["output_dir"] = str(tmp_path / name)
        (tmp_path / f"{name}.yaml").write_text(json.dumps(recipe))
    launch([tmp_path / f"{name}.yaml" for name in names], ranks=2, how="resume")
    for name in names:
        got, want = log_of(tmp_path / name), log_of(runs / name)
        assert [line["step"] for line in got] == [1, 2]
        for key in ("loss", "grad_norm", "lr"):
            assert got[1][key] == want[1][key], (name, key)


def weights(folder):
    return load_file(folder / "latest" / "model.safetensors")


def test_frozen_parts_keep_their_weights_and_the_rest_moves(runs):
    before = load_file(runs / "model" / "model.safetensors")
    for name in ("zero1_frozen", "zero3_frozen"):
        for key, after in weights(runs / name).items():
            frozen = key.startswith("visual.") or ".visual." in key
            assert torch.equal(after, before[key]) == frozen, key


def test_every_stage_saves_the_same_model(runs):
    """Adam's first step divides a gradient by its own size: where one is all rounding, the weight
    may move by any part of the rate, 5.5e-4."""
    want = weights(runs / "one")
    for name in ("zero0", "zero1", "zero2", "zero3", "zero3_offload"):
        got = weights(runs / name)
        assert got.keys() == want.keys()
        for key in want:
            off = (got[key] - want[key]).abs()
            assert off.max() < 1e-4, (name, key)
            assert (off > 2e-5).sum() <= 2, (name, key)


def test_each_part_has_its_learning_rate(runs):
    """Adam's first step moves a weight by its rate, whatever the gradient (and decay by rate times
    weight)."""
    from avar_fast.config import load_recipe
    from avar_fast.train.parameters import optimizer_groups

    model = AutoModelForImageTextToText.from_pretrained(runs / "model")
    groups = optimizer_groups(model, load_recipe(runs / "one.yaml"))
    rate = {p: g["lr"] for g in groups for p in g["params"]}
    decay = {p: g["weight_decay"] for g in groups for p in g["params"]}
    assert rate.keys() == set(model.parameters())
    for name, parameter in model.named_parameters():
        tower = ".visual." in name and ".merger." not in name
        assert rate[parameter] == (1e-4 if tower else 1e-3), name
        assert decay[parameter] == (0.1 if parameter.dim() > 1 else 0.0), name


def test_an_adapter_checkpoint_loads_as_a_model_and_without_it_is_the_base(runs):
    base = AutoModelForImageTextToText.from_pretrained(runs / "model")
    ids = torch.arange(12)[None]
    for name in ("lora_zero1", "lora_zero3"):
        model = AutoModelForImageTextToText.from_pretrained(runs / name / "latest")
        with torch.no_grad():
            tuned, plain = model(input_ids=ids).logits, base(input_ids=ids).logits
            model.disable_adapters()
            untuned = model(input_ids=ids).logits
        assert not torch.allclose(tuned, plain, atol=1e-4)
        assert torch.equal(untuned, plain)
    first = load_file(runs / "lora_zero1" / "latest" / "adapter_model.safetensors")
    second = load_file(runs / "lora_zero3" / "latest" / "adapter_model.safetensors")
    assert first.keys() == second.keys()
    for key in first:
        assert torch.allclose(first[key], second[key], atol=2e-5), key


def test_adapters_of_a_checkpoint_are_trained_on(runs):
    from avar_fast.config import load_recipe
    from avar_fast.loading import load
    from avar_fast.train.parameters import choose_trainable

    path = runs / "lora_zero1" / "latest"
    model = load(str(path), torch.float32).model
    recipe = load_recipe(runs / "lora_zero1.yaml", [f"model.path={path}"])
    choose_trainable(model, recipe)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    saved = load_file(path / "adapter_model.safetensors")
    assert len(trained) == len(saved)
    with pytest.raises(ValueError, match="holds adapters. Set lora.enabled=true"):
        choose_trainable(model, load_recipe(runs / "one.yaml", [f"model.path={path}"]))
