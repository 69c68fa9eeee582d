"""Evaluation during training, and generation under ZeRO-3: ranks with different work of their
own."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText

from avar_fast.attention import attach
from avar_fast.data import Encoder, load_rows
from avar_fast.evaluate import Settings, evaluate_rows
from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.loading import load

from .runs import alternate, launch, log_of, run

EVAL = {"every": 1, "batch_size": 2, "max_new_tokens": 5}
REWARDS = {"tests.train.reward_functions:by_letter": 1.0, "visual": 0.3}
OPTIONS = {"group_size": 2, "max_new_tokens": 5, "rewards": REWARDS}
GRPO = {"stage": "grpo", "agto": {}, "grpo": OPTIONS}
CASES = {
    "zero0": {},
    "zero0_alone": {"eval": {}},
    "zero3": {"engine": {"zero_stage": 3}},
    "zero3_alone": {"engine": {"zero_stage": 3}, "eval": {}},
    "lora_zero3": {"engine": {"zero_stage": 3}, "lora": {"enabled": True, "rank": 4}},
    "grpo_zero0": GRPO,
    "grpo_zero3": GRPO | {"engine": {"zero_stage": 3}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{name: output folder}; the five held-out rows are text and image in turn, over two ranks."""
    folder = tmp_path_factory.mktemp("held_out")
    save_base(folder / "model", seed=0)
    for name, num_rows, seed in (("train", 8, 0), ("test", 5, 1)):
        write_rows(folder / "rows", WorldConfig(), name, num_rows=num_rows, seed=seed)
        alternate(folder / "rows" / f"{name}.jsonl")
    for name, changes in CASES.items():
        recipe = {
            "stage": "sft",
            "model": {"path": str(folder / "model"), "dtype": "float32"},
            "data": {"path": str(folder / "rows" / "train.jsonl"), "shuffle": False},
            "optim": {"lr": 1e-3},
            "train": {"steps": 2, "batch_size": 4},
            "engine": {"zero_stage": 0},
            "agto": {"enabled": True, "alpha": 0.01, "beta": 0.01},
            "eval": EVAL | {"path": str(folder / "rows" / "test.jsonl")},
        }
        for section, values in changes.items():
            new = isinstance(values, str) or not values
            recipe[section] = values if new else recipe.get(section, {}) | values
        recipe["train"]["output_dir"] = str(folder / name)
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))
    launch([folder / f"{name}.yaml" for name in CASES], ranks=2)
    return folder


@torch.no_grad()
def loss_by_rows(folder, rows):
    """Nats per target token, row by row through the model of transformers."""
    loaded = load(str(folder), torch.float32, "cpu")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).double()
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, "You are a helpful assistant.", 999)
    total, count = 0.0, 0
    for i in range(len(rows)):
        sample = encoder(rows[i])
        ids = torch.cat([sample.prompt_ids, sample.target_ids])[None]
        inputs = {"input_ids": ids, "mm_token_type_ids": (ids == encoder.image_pad).int()}
        if sample.pixel_values is not None and sample.image_grid_thw is not None:
            inputs["pixel_values"] = sample.pixel_values.double()
            inputs["image_grid_thw"] = sample.image_grid_thw
        log_probs = model(**inputs).logits.log_softmax(-1)[0, len(sample.prompt_ids) - 1 : -1]
        total -= log_probs.gather(1, sample.target_ids[:, None]).sum().item()
        count += len(sample.target_ids)
    return total / count


def test_the_metrics_are_those_of_the_saved_model_over_all_rows(runs):
    rows = load_rows(str(runs / "rows" / "test.jsonl"))
    last = log_of(runs / "zero0")[-1]
    want = loss_by_rows(runs / "zero0" / "latest", rows)
    assert last["eval_loss"] == pytest.approx(want, rel=1e-5)
    loaded = load(str(runs / "zero0" / "latest"), torch.float32, "cpu")
    attach(loaded.model, loaded.tokenizer)
    want, _ = evaluate_rows(loaded, rows, Settings(max_new_tokens=5), batch_size=1)
    assert last["eval_accuracy"] == want.score
    for form, value in want.vas.items():
        assert last[f"eval_vas_{form}"] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ["zero3", "lora_zero3"])
def test_sharded_weights_give_the_same_metrics(runs, name):
    got, want = log_of(runs / name), log_of(runs / "zero0")
    assert all("eval_loss" in line and "eval_accuracy" in line for line in got)
    if name == "zero3":
        for a, b in zip(got, want, strict=True):
            for key in ("eval_loss", "eval_accuracy", "eval_vas_share"):
                assert a[key] == pytest.approx(b[key], rel=1e-4), key


@pytest.mark.parametrize("name", ["zero0", "zero3"])
def test_training_goes_on_as_if_nothing_had_been_evaluated(runs, name):
    for a, b in zip(log_of(runs / name), log_of(runs / f"{name}_alone"), strict=True):
        assert "eval_loss" not in b
        for key in ("loss", "grad_norm", "lr"):
            assert a[key] == b[key]


def test_grpo_under_zero_3_samples_and_learns_as_under_zero_0(runs):
    for a, b in zip(log_of(runs / "grpo_zero3"), log_of(runs / "grpo_zero0"), strict=True):
        for key in ("reward", "reward_visual", "completion_tokens", "loss", "grad_norm"):
            assert a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-6), key


def test_a_held_out_row_that_cannot_be_used_is_named_before_the_first_step(world, tmp_path):
    rows = world / "rows" / "no_answer.jsonl"
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": "Add row 1."}]}))
    done = run(world, tmp_path / "out", f"eval.path={rows}", check=False)
    assert done.returncode != 0
    assert "no_answer.jsonl row 1: the answer must be there" in done.stderr
    assert not (tmp_path / "out" / "log.jsonl").exists()
