"""vLLM in the ranks' processes, for real, against its CPU build."""

import json

import pytest

from .environment import needs_vllm, read_log, torchrun, write_recipe

pytestmark = needs_vllm

FLOAT32_GAP = 1e-4  # the sum of a few dozen tokens' roundings, in nats


@pytest.fixture(scope="module", params=["whole", "lora"])
def gaps(request, model, rows):
    said = torchrun("tests/vllm/rollout_worker.py", model, rows, request.param)
    line = next(line for line in said.splitlines() if line.startswith("GAPS "))
    return json.loads(line.removeprefix("GAPS "))


def test_samples_have_the_models_log_probabilities(gaps):
    assert gaps["at the start"] < FLOAT32_GAP


@pytest.mark.parametrize("step", [0, 1])
def test_weights_are_taken_over(gaps, step):
    assert gaps[f"stale after change {step}"] > 100 * FLOAT32_GAP
    assert gaps[f"synced after change {step}"] < FLOAT32_GAP


def test_caches_of_earlier_weights_must_go(gaps):
    assert gaps["prefix cache kept"] > 100 * FLOAT32_GAP
    assert gaps["all forgotten"] < FLOAT32_GAP
    assert "cache" in gaps["caches of images kept"]


@pytest.mark.parametrize(("zero_stage", "ranks"), [(0, 1), (1, 2), (2, 2), (3, 2)])
def test_training_samples_from_the_weights_of_each_step(tmp_path, model, rows, zero_stage, ranks):
    recipe = write_recipe(tmp_path, model, rows, engine={"zero_stage": zero_stage})
    torchrun("-m", "avar_fast.train", recipe, ranks=ranks)
    log = read_log(tmp_path)
    assert len(log) == 3
    for step in log:
        assert step["log_prob_gap"] < FLOAT32_GAP
        assert step["importance_bounded"] == 0
        assert step["grad_norm"] > 0


def test_a_resumed_run_goes_on_as_the_one_that_was_not_stopped(tmp_path, model, rows):
    whole = write_recipe(tmp_path, model, rows, "whole")
    torchrun("-m", "avar_fast.train", whole)
    first = write_recipe(tmp_path, model, rows, "halves", train={"steps": 2})
    torchrun("-m", "avar_fast.train", first)
    torchrun("-m", "avar_fast.train", first, "train.steps=3", "--resume")
    one, other = read_log(tmp_path, "whole")[-1], read_log(tmp_path, "halves")[-1]
    for name in ("reward", "loss", "completion_tokens"):
        assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_adapters_are_trained_with_vllm(tmp_path, model, rows):
    lora = {"enabled": True, "rank": 4, "alpha": 8.0}
    first = write_recipe(tmp_path, model, rows, "first", lora=lora)
    torchrun("-m", "avar_fast.train", first)
    again = write_recipe(tmp_path, tmp_path / "first" / "latest", rows, "again", lora=lora)
    torchrun("-m", "avar_fast.train", again)
    for name in ("first", "again"):
        assert max(step["log_prob_gap"] for step in read_log(tmp_path, name)) < FLOAT32_GAP


def test_bfloat16_needs_the_correction_and_gets_it(tmp_path, model, rows):
    recipe = write_recipe(
        tmp_path,
        model,
        rows,
        model={"dtype": "bfloat16"},
        grpo={"importance_level": "token", "importance_mode": "truncate", "importance_cap": 1.0},
    )
    torchrun("-m", "avar_fast.train", recipe)
    log = read_log(tmp_path)
    assert all(1e-4 < step["log_prob_gap"] < 0.5 for step in log)
    assert any(step["importance_bounded"] > 0 for step in log)


def test_an_engine_with_other_weights_ends_the_run(tmp_path, model, rows):
    recipe = write_recipe(tmp_path, model, rows, rollout={"largest_gap": 1e-9})
    said = torchrun("-m", "avar_fast.train", recipe, expect=1)
    assert "rollout.engine=vllm must hold the model's weights" in said
    assert "rollout.largest_gap = 1e-09" in said
