"""Stage grpo as a user starts it: which groups it learns from, and its reference."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from .runs import GRPO, REWARDS, alone, completions_of, log_of, run


def test_ends_of_completions_and_pixels_are_those_of_the_model_and_the_recipe(world, tmp_path):
    """A completion that ended with another token of the generation config was trained on as if it
    had been cut off. The pixels of data.max_pixels stay with the checkpoint."""
    model = shutil.copytree(world / "model", tmp_path / "model")
    config = json.loads((model / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(model)
    most = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids][:-20]
    config["eos_token_id"] = [*most, tokenizer.eos_token_id]
    (model / "generation_config.json").write_text(json.dumps(config))
    arguments = [f"grpo.rewards={{'{REWARDS}:by_letter': 1.0}}", "train.steps=1"]
    arguments += [f"model.path={model}", "data.max_pixels=1568"]
    code, printed = alone(world, tmp_path / "out", *arguments)
    assert code == 0, printed[-2000:]
    (line,), said = log_of(tmp_path / "out"), completions_of(tmp_path / "out")
    for record in said:  # almost every token ends one, and none of those is part of the text
        ends = record["tokens"] - len(tokenizer.encode(record["completion"]))
        assert ends == (record["tokens"] < 6 or ends)
    assert line["truncated"] < 0.5
    assert line["completion_tokens"] < 3
    held = json.loads((tmp_path / "out" / "latest" / "preprocessor_config.json").read_text())
    assert held["size"]["longest_edge"] == 1568
    ids = json.loads((tmp_path / "out" / "latest" / "generation_config.json").read_text())
    assert ids["eos_token_id"] == config["eos_token_id"]


def test_groups_of_equal_rewards_give_no_gradient_and_do_not_hang(world, tmp_path):
    """On two ranks, with a KL that would pull; in a later step, after real ones, too."""
    arguments = [f"grpo.rewards={{'{REWARDS}:equal_in_the_first_step': 1.0}}", "grpo.kl_coef=0.5"]
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
    arguments = [f"grpo.rewards={{'{REWARDS}:sometimes_equal': 1.0}}", "grpo.sampling_rounds=4"]
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
    rows = [next(r["row"] for r in said if r["step"] == step) for step in (1, 2)]
    manifest = json.loads(
        (tmp_path / "out" / "checkpoints" / "step-000002" / "manifest.json").read_text()
    )
    assert manifest["units"] == 2 * 4 * 4
    assert rows[0] != rows[1]


def test_adapters_are_their_own_reference(world, tmp_path):
    """Two steps with a KL: log-probabilities of the reference are the base model's, although no
    copy of it was loaded, and the adapters still learn."""
    arguments = [f"grpo.rewards={{'{REWARDS}:by_letter': 1.0}}", "grpo.kl_coef=0.1"]
    arguments += ["train.steps=2", "lora.enabled=true", "lora.rank=4", "lora.alpha=8"]
    arguments += ["optim.lr=1e-2", "engine.zero_stage=2"]
    code, printed = alone(world, tmp_path / "lora", *arguments)
    assert code == 0, printed[-2000:]
    first, second = log_of(tmp_path / "lora")
    assert first["kl"] == pytest.approx(0.0, abs=1e-7)
    assert second["kl"] > 1e-6
    assert second["grad_norm"] > 0

    # A run from these adapters stays near them, not near the model that they belong to.
    further = ["train.steps=1", f"model.path={tmp_path / 'lora' / 'latest'}"]
    code, printed = alone(world, tmp_path / "further", *arguments, *further)
    assert code == 0, printed[-2000:]
    (line,) = log_of(tmp_path / "further")
    assert line["kl"] == pytest.approx(0.0, abs=1e-7)
