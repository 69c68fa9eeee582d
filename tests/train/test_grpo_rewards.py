"""Stage grpo as a user starts it: rewards of their own, completions in the log, what ends it."""

import json

import pytest

from .runs import GRPO, REWARDS, alone, completions_of, log_of, run


def test_own_rewards_and_the_file_of_completions_across_a_resume(world, tmp_path):
    own = f"'{REWARDS}:by_letter': 0.5, '{REWARDS}:num_images': 0"
    rewards = f"grpo.rewards={{{own}, format: 0.1, visual: 0.3}}"
    arguments = [rewards, "train.steps=2", "train.save_every=1", "tracking.show_every=2"]
    arguments += ["tracking.show_count=2", "grpo.visual_layers=[1, 2]", "grpo.visual_form=share"]
    code, printed = alone(world, tmp_path / "own", *arguments)
    assert code == 0, printed[-2000:]
    log, said = log_of(tmp_path / "own"), completions_of(tmp_path / "own")
    assert [record["step"] for record in said] == [1] * 4 + [2] * 4
    assert set(said[0]["rewards"]) == {"by_letter", "num_images", "format", "visual"}
    assert [record["rewards"]["num_images"] for record in said] == [1.0] * 4 + [1.5] * 4
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


def test_a_reward_that_hangs_ends_all_ranks_with_one_message_and_loses_nothing(
    world, tmp_path, monkeypatch
):
    monkeypatch.setenv("CALLED_FOLDER", str(tmp_path))
    arguments = [f"grpo.rewards={{'{REWARDS}:hangs_from_the_second_step': 1.0}}"]
    arguments += ["grpo.reward_seconds=2", "train.steps=3", "train.save_every=1"]
    done = run(world, tmp_path / "out", *GRPO, *arguments, ranks=2, check=False)
    assert done.returncode != 0
    message = f"error: step 2: reward {REWARDS}:hangs_from_the_second_step on "
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
