"""Stage grpo as a user starts it: rewards of their own, completions in the log, what ends it."""

import json

import pytest

from tests.test_safety import start
from tests.test_train import log_of, run, world

__all__ = ["world"]
HERE = "tests.stages.rewards_of_test"
GRPO = ["stage=grpo", "agto.enabled=false", "train.batch_size=2"]


def alone(world, output, *arguments):
    process = start(world, output, *GRPO, *arguments)
    printed, _ = process.communicate(timeout=200)
    return process.returncode, printed


def completions_of(output):
    return [json.loads(line) for line in (output / "completions.jsonl").read_text().splitlines()]


def test_own_rewards_and_the_file_of_completions_across_a_resume(world, tmp_path):
    rewards = f"grpo.rewards={{'{HERE}:by_letter': 0.5, format: 0.1, visual: 0.3}}"
    arguments = [rewards, "train.steps=2", "train.save_every=1", "grpo.show_every=2"]
    arguments += ["grpo.show_count=2", "grpo.visual_layers=[1, 2]", "grpo.visual_form=share"]
    code, printed = alone(world, tmp_path / "own", *arguments)
    assert code == 0, printed[-2000:]
    log, said = log_of(tmp_path / "own"), completions_of(tmp_path / "own")
    assert [record["step"] for record in said] == [1] * 4 + [2] * 4
    assert set(said[0]["rewards"]) == {"by_letter", "format", "visual"}
    assert "train.jsonl row " in said[0]["row"]
    assert "Add" in said[0]["prompt"]
    for record in said:
        r = record["rewards"]
        want = 0.5 * r["by_letter"] + 0.1 * r["format"] + 0.3 * r["visual"]
        assert record["reward"] == pytest.approx(want, abs=1e-5)
        assert (r["visual"] > 0) == (r["by_letter"] >= 0.5)
    for i in range(0, 8, 2):
        assert said[i]["row"] == said[i + 1]["row"]
        assert said[i]["advantage"] + said[i + 1]["advantage"] == pytest.approx(0.0, abs=1e-5)
    mean = sum(record["rewards"]["by_letter"] for record in said[:4]) / 4
    assert log[0]["reward_by_letter"] == pytest.approx(mean, abs=1e-5)
    assert "completions of step 1" in printed
    assert "completions of step 2" not in printed
    assert printed.count("|   > ") == 2

    newest = tmp_path / "own" / "checkpoints" / "step-000002"
    (newest / "model.safetensors").unlink()
    with (tmp_path / "own" / "completions.jsonl").open("a") as file:
        file.write('{"step": 3, "ro')
    code, printed = alone(world, tmp_path / "own", *arguments, "--resume")
    assert code == 0, printed[-2000:]
    assert [record["step"] for record in completions_of(tmp_path / "own")] == [1] * 4 + [2] * 4
    assert completions_of(tmp_path / "own") == said


def test_a_reward_that_hangs_ends_all_ranks_with_one_message_and_loses_nothing(world, tmp_path):
    arguments = [f"grpo.rewards={{'{HERE}:hangs_from_the_second_step': 1.0}}"]
    arguments += ["grpo.reward_seconds=2", "train.steps=3", "train.save_every=1"]
    done = run(world, tmp_path / "out", *GRPO, *arguments, ranks=2, check=False)
    assert done.returncode != 0
    message = f"error: step 2: reward {HERE}:hangs_from_the_second_step on "
    assert done.stderr.count(message) == 2, done.stderr[-3000:]
    assert "took longer than 2 s and was killed" in done.stderr
    assert "set grpo.on_reward_error=zero" in done.stderr
    assert [line["step"] for line in log_of(tmp_path / "out")] == [1]
    assert (tmp_path / "out" / "checkpoints" / "step-000001" / "manifest.json").is_file()

    code, printed = alone(
        world, tmp_path / "zero", *arguments, "grpo.on_reward_error=zero", "train.steps=2"
    )
    assert code == 0, printed[-2000:]
    assert "took longer than 2 s and was killed; counted as 0" in printed
    second = log_of(tmp_path / "zero")[1]
    assert second["reward_failures"] == 1
    assert second["reward"] == second["informative_groups"] == second["grad_norm"] == 0


def test_a_data_set_without_answers_stops_before_the_first_step(world, tmp_path):
    message = {"role": "user", "content": "Add row 1."}
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"messages": [message]}) for _ in range(4)))
    code, printed = alone(world, tmp_path / "no", f"data.path={rows}", "train.steps=1")
    assert code != 0
    assert "error: " in printed
    assert "rows.jsonl row 1: stage grpo needs an answer to check against; got none" in printed
    assert not (tmp_path / "no" / "log.jsonl").is_file()


def test_groups_of_equal_rewards_give_no_gradient_and_do_not_hang(world, tmp_path):
    """On two ranks, with a KL that would pull; in a later step, after real ones, too."""
    arguments = [f"grpo.rewards={{'{HERE}:equal_in_the_first_step': 1.0}}", "grpo.kl_coef=0.5"]
    arguments += ["train.steps=3", "grpo.updates_per_rollout=2", "train.micro_batch_size=1"]
    arguments += ["grpo.loss=dapo", "grpo.clip_high=0.28", "grpo.overlong_buffer=0"]
    run(world, tmp_path / "equal", *GRPO, *arguments, ranks=2)
    first, second, third = log_of(tmp_path / "equal")
    assert first["informative_groups"] == first["grad_norm"] == first["loss"] == 0
    assert first["ratio"] is first["kl"] is None
    assert second["informative_groups"] > 0
    assert second["grad_norm"] > 0
    assert third["kl"] > 0
    assert second["ratio"] != pytest.approx(1.0, abs=1e-6), "the second update is off-policy"


def test_more_rounds_fill_the_step_with_groups_that_differ(world, tmp_path):
    arguments = [f"grpo.rewards={{'{HERE}:sometimes_equal': 1.0}}", "grpo.sampling_rounds=4"]
    arguments += ["train.steps=2", "train.save_every=1", "train.batch_size=4"]
    code, printed = alone(world, tmp_path / "out", *arguments)
    assert code == 0, printed[-2000:]
    log, said = log_of(tmp_path / "out"), completions_of(tmp_path / "out")
    for line in log:
        of_step = [record for record in said if record["step"] == line["step"]]
        assert len(of_step) == line["sampling_rounds"] * 4 * 2
        differ = [
            a["reward"] != b["reward"] for a, b in zip(of_step[::2], of_step[1::2], strict=True)
        ]
        assert line["informative_groups"] == pytest.approx(sum(differ) / len(differ))
        assert line["sampling_rounds"] == 4 or sum(differ) >= 4
        assert line["grad_norm"] > 0
    assert max(line["sampling_rounds"] for line in log) > 1
    rows = [[r["row"] for r in said if r["step"] == step][0] for step in (1, 2)]
    manifest = json.loads(
        (tmp_path / "out" / "checkpoints" / "step-000002" / "manifest.json").read_text()
    )
    assert manifest["units"] == 2 * 4 * 4
    assert rows[0] != rows[1]


def test_adapters_are_their_own_reference(world, tmp_path):
    """Two steps with a KL: log-probabilities of the reference are the base model's, although no
    copy of it was loaded, and the adapters still learn."""
    arguments = [f"grpo.rewards={{'{HERE}:by_letter': 1.0}}", "grpo.kl_coef=0.1"]
    arguments += ["train.steps=2", "lora.enabled=true", "lora.rank=4", "lora.alpha=8"]
    arguments += ["optim.lr=1e-2", "train.zero_stage=2"]
    code, printed = alone(world, tmp_path / "lora", *arguments)
    assert code == 0, printed[-2000:]
    first, second = log_of(tmp_path / "lora")
    assert first["kl"] == pytest.approx(0.0, abs=1e-7)
    assert second["kl"] > 1e-6
    assert second["grad_norm"] > 0
