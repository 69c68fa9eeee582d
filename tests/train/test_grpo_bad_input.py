"""Stage grpo as a user gets it wrong: one message each, and nothing that was saved is lost."""

import importlib.util
import json

import pytest

from .runs import REWARDS, alone, completions_of, log_of

NO_SERVER = ["rollout.engine=vllm_server", "rollout.server_url=http://127.0.0.1:9"]
NO_SERVER += ["rollout.server_seconds=1"]
RULE = "grpo.rewards={format: 1}"  # needs no process


def test_a_server_that_is_not_there_ends_the_run_with_one_message(world, tmp_path):
    """It ended in a traceback; a run under way goes on from what it has saved."""
    rewards = [f"grpo.rewards={{'{REWARDS}:by_letter': 1.0}}", "train.save_every=1"]
    code, printed = alone(world, tmp_path / "out", *rewards, "train.steps=1")
    assert code == 0, printed[-2000:]
    saved = tmp_path / "out" / "checkpoints" / "step-000001"
    code, printed = alone(
        world, tmp_path / "out", *rewards, *NO_SERVER, "train.steps=2", "--resume"
    )
    assert code == 1
    assert "Traceback" not in printed
    assert "error: rollout.server_url must be a vLLM server; http://127.0.0.1:9/v1/mod" in printed
    assert "did not answer in 1 s, tried 1 times" in printed
    assert f"--resume continues from {saved}." in printed
    assert (saved / "manifest.json").is_file()


def test_a_package_that_is_missing_is_named(world, tmp_path):
    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    code, printed = alone(world, tmp_path / "out", "rollout.engine=vllm", RULE, "train.steps=1")
    assert code == 1
    assert "Traceback" not in printed
    assert "error: rollout.engine=vllm needs the package vllm" in printed


def test_prompts_longer_than_the_longest_are_named(world, tmp_path):
    code, printed = alone(world, tmp_path / "out", "data.max_length=20", RULE, "train.steps=1")
    assert code == 1
    assert "a sample must have at most data.max_length = 20 tokens; this has" in printed
    assert "Raise it, shrink the images, or set data.overlong to drop or cut." in printed


def test_one_completion_that_makes_a_function_raise_costs_no_other_its_reward(world, tmp_path):
    """All rewards of the step counted as 0."""
    arguments = [f"grpo.rewards={{'{REWARDS}:raises_now_and_then': 1.0}}", "train.steps=1"]
    arguments += ["grpo.on_reward_error=zero", "train.batch_size=8"]
    code, printed = alone(world, tmp_path / "zero", *arguments)
    assert code == 0, printed[-2000:]
    (line,) = log_of(tmp_path / "zero")
    said = completions_of(tmp_path / "zero")
    failed = [record for record in said if record["reward"] == 0]
    assert 0 < len(failed) < len(said)
    assert line["reward_failures"] == len(failed) / len(said)
    assert f"on {failed[0]['row']} raised ValueError: an odd one; counted as 0" in printed
    assert json.dumps(said).count('"raises_now_and_then": 1.0') == len(said) - len(failed)
