"""Three steps of stage grpo on two ranks with prompts shared, packed and in rows of their own, in
every ZeRO stage: the same numbers, although ranks and steps differ in their micro-batches."""

import json

import pytest
from safetensors.torch import load_file

from .runs import GRPO, REWARDS, alone, completions_of, launch, log_of

ROW = ["data.max_length=40", "grpo.pack_length=46"]  # hardly more than a prompt with a completion
SEPARATE = "grpo.shared_prompts=false"
CASES = {
    "separate": [SEPARATE, "train.micro_batch_size=3"],
    "packed": [SEPARATE, "data.max_length=110", "train.micro_batch_tokens=150"],
    "shared": [],
    "small_zero1": [*ROW, "engine.zero_stage=1"],
    "small_zero2": [*ROW, "engine.zero_stage=2"],
    "small_zero3": [*ROW, "engine.zero_stage=3"],
    "offload_zero2": [*ROW, "engine.zero_stage=2", "engine.offload_optimizer=true"],
    "lora_separate": [SEPARATE, "train.micro_batch_size=8", "lora.enabled=true"],
    "lora_small_zero3": [*ROW, "lora.enabled=true", "engine.zero_stage=3"],
}
WANT = {name: "lora_separate" if name.startswith("lora") else "separate" for name in CASES}
SAME = (
    "loss", "reward", "reward_visual", "visual_share", "entropy", "grad_norm", "ratio",
    "completion_tokens",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    from avar_fast.config import dump_recipe, load_recipe

    folder = tmp_path_factory.mktemp("layouts")
    for name, overrides in CASES.items():
        recipe = load_recipe(
            world / "recipe.yaml",
            [
                *GRPO, "train.batch_size=4", "train.steps=3", "grpo.group_size=4",
                f"grpo.rewards={{'{REWARDS}:by_letter': 0.5, visual: 0.3}}",
                f"data.path={world / 'rows' / 'mixed.jsonl'}", "engine.zero_stage=0",
                "grpo.loss=dapo", "grpo.overlong_buffer=3", "grpo.sampling_rounds=2",
                "grpo.scoring=always", "optim.warmup_steps=0",
                f"train.output_dir={folder / name}", *overrides,
            ],
        )  # fmt: skip
        (folder / f"{name}.yaml").write_text(dump_recipe(recipe))
    launch([folder / f"{name}.yaml" for name in CASES], ranks=2)
    return folder


@pytest.mark.parametrize("name", [name for name in CASES if WANT[name] != name])
def test_three_steps_are_those_of_separate_rows(runs, name):
    got, want = log_of(runs / name), log_of(runs / WANT[name])
    assert [line["step"] for line in got] == [1, 2, 3]
    for line, separate in zip(got, want, strict=True):
        for metric in SAME:
            assert line[metric] == pytest.approx(separate[metric], rel=2e-3, abs=2e-5), metric
    own = [record["completion"] for record in completions_of(runs / name)]
    assert own == [record["completion"] for record in completions_of(runs / WANT[name])]
    file = "adapter_model.safetensors" if name.startswith("lora") else "model.safetensors"
    before, after = (load_file(runs / n / "latest" / file) for n in (WANT[name], name))
    assert before.keys() == after.keys()
    for key, weight in before.items():
        off = (after[key] - weight).abs()
        # Where a gradient is all rounding, Adam may move the weight by any part of the rate.
        assert (off > 1e-4).float().mean() < 0.01, key


def test_the_log_tells_how_many_tokens_were_not_run(runs):
    for line in log_of(runs / "separate") + log_of(runs / "packed"):
        assert line["prompt_tokens_shared"] == 0
    whole, small = (log_of(runs / name)[0] for name in ("shared", "small_zero1"))
    assert 0.3 < small["prompt_tokens_shared"] < whole["prompt_tokens_shared"] < 0.75
    assert whole["scoring_seconds"] > 0


def both_ways(world, folder, *arguments):
    """The logs of a run without and with a scoring pass."""
    rewards = f"grpo.rewards={{'{REWARDS}:by_letter': 1.0, visual: 0.3}}"
    arguments = [rewards, "train.steps=2", "train.batch_size=4", *arguments]
    for scoring in ("auto", "always"):
        code, printed = alone(world, folder / scoring, *arguments, f"grpo.scoring={scoring}")
        assert code == 0, printed[-2000:]
    return log_of(folder / "auto"), log_of(folder / "always")


def test_without_vars_the_log_still_says_where_completions_look(world, tmp_path):
    """Recording changes neither samples nor updates."""
    rewards = f"grpo.rewards={{'{REWARDS}:by_letter': 1.0}}"
    logs = {}
    for recorded in ("true", "false"):
        arguments = [rewards, "train.steps=2", "train.batch_size=4"]
        arguments.append(f"tracking.visual_share={recorded}")
        code, printed = alone(world, tmp_path / recorded, *arguments)
        assert code == 0, printed[-2000:]
        logs[recorded] = log_of(tmp_path / recorded)
    for with_share, without in zip(logs["true"], logs["false"], strict=True):
        by_layer = with_share["visual_share_by_layer"]
        assert all(0 < share < 1 for share in by_layer.values())
        assert with_share["visual_share"] == pytest.approx(sum(by_layer.values()) / len(by_layer))
        assert with_share["scoring_seconds"] == 0
        assert not any(name.startswith("visual_share") for name in without)
        for metric in ("loss", "reward", "entropy", "grad_norm"):
            assert with_share[metric] == without[metric], metric


def test_without_a_scoring_pass_the_numbers_are_the_same(world, tmp_path):
    """The old log-probabilities are those of the update's own forward, and sampling records the
    masses of VARS."""
    auto, always = both_ways(world, tmp_path, "grpo.visual_layers=[2, 0]")
    for left_out, scored in zip(auto, always, strict=True):
        assert left_out["scoring_seconds"] == 0 < scored["scoring_seconds"]
        for metric in SAME:
            assert left_out[metric] == pytest.approx(scored[metric], rel=1e-4, abs=1e-6), metric
        assert left_out["reward_visual"] > 0
        by_layer = left_out["visual_share_by_layer"]
        assert list(by_layer) == ["0", "2"]
        assert by_layer == pytest.approx(scored["visual_share_by_layer"], rel=1e-4)
        assert left_out["visual_share"] == pytest.approx(sum(by_layer.values()) / 2)
    texts = [
        [record["completion"] for record in completions_of(tmp_path / scoring)]
        for scoring in ("auto", "always")
    ]
    assert texts[0] == texts[1]


def test_in_half_precision_the_visual_reward_without_a_scoring_pass_is_close(world, tmp_path):
    """Decoding and a whole forward round differently in bfloat16."""
    auto, always = both_ways(world, tmp_path, "model.dtype=bfloat16", "train.steps=1")
    gap = auto[0]["reward_visual"] / always[0]["reward_visual"] - 1
    assert abs(gap) < 0.02
    assert auto[0]["reward_by_letter"] == always[0]["reward_by_letter"]


def test_rewards_of_tokens_reach_the_update(world, tmp_path):
    """A constant value per token gives no advantage; one that differs does, also alone."""
    rewards = {f"{REWARDS}:even_tokens": 1.0, f"{REWARDS}:ones": 1.0}
    arguments = [f"grpo.rewards={json.dumps(rewards)}", "train.steps=1", "train.batch_size=4"]
    code, printed = alone(world, tmp_path / "out", *arguments)
    assert code == 0, printed[-2000:]
    (line,), said = log_of(tmp_path / "out"), completions_of(tmp_path / "out")
    assert line["grad_norm"] > 0
    assert line["informative_groups"] > 0
    for record in said:
        assert 0 <= record["rewards"]["even_tokens"] <= 1
        assert record["reward"] == pytest.approx(record["rewards"]["even_tokens"] + 1, abs=1e-5)
    tokens = sum(record["tokens"] for record in said)
    even = sum(record["rewards"]["even_tokens"] * record["tokens"] for record in said)
    assert 0 < even < tokens

    constant = [f"grpo.rewards={{'{REWARDS}:ones': 1.0}}", "train.steps=1"]
    code, printed = alone(world, tmp_path / "ones", *constant)
    assert code == 0, printed[-2000:]
    (line,) = log_of(tmp_path / "ones")
    assert line["informative_groups"] == line["grad_norm"] == 0
