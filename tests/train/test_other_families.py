"""Stages sft and grpo on mixtures of experts and on models with recurrent layers: the same numbers
sharded and whole, adapters, and what a recipe may not ask of recurrent layers."""

import json

import pytest
from safetensors.torch import load_file

from avar_fast.lab.model import build_image_processor
from tests.models.families import TOKENIZER, layer_types, models

from .runs import GRPO, REWARDS, launch, log_of

MIXED = "data.path={world}/rows/mixed.jsonl"
SFT = ["train.steps=2", "train.batch_size=4", "train.micro_batch_size=2", "agto.alpha=0.1", MIXED]
RL = [
    *GRPO, "train.steps=2", "train.batch_size=4", "train.micro_batch_size=3", "grpo.group_size=4",
    f"grpo.rewards={{'{REWARDS}:by_letter': 0.5, visual: 0.3}}", "grpo.shared_prompts=false", MIXED,
]  # fmt: skip
CASES = {
    "sft": [*SFT, "engine.zero_stage=0"],
    "sft_zero2": [*SFT, "engine.zero_stage=2"],
    "sft_zero3": [*SFT, "engine.zero_stage=3", "model.gradient_checkpointing=true"],
    "grpo": [*RL, "engine.zero_stage=0"],
    "grpo_zero3": [*RL, "engine.zero_stage=3"],
    "lora": [*SFT, "lora.enabled=true", "lora.targets=[q_proj, o_proj]"],
}
NAMES = ("qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
SAME = {
    "sft": ("loss", "lm_loss", "agto_enhance", "vas_log_ratio", "grad_norm"),
    "grpo": ("loss", "reward", "reward_visual", "entropy", "grad_norm", "completion_tokens"),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for name in NAMES:
        model, _ = models(name)
        model.save_pretrained(folder / name)
        TOKENIZER.save_pretrained(folder / name)
        build_image_processor().save_pretrained(folder / name)
    return folder


def recipe_of(world, base, output, overrides):
    from avar_fast.config import load_recipe

    overrides = [text.format(world=world) if text == MIXED else text for text in overrides]
    own = [f"model.path={base}", f"train.output_dir={output}", "optim.warmup_steps=0"]
    return load_recipe(world / "recipe.yaml", [*overrides, *own])


@pytest.fixture(scope="module", params=NAMES)
def runs(request, world, bases, tmp_path_factory):
    from avar_fast.config import dump_recipe

    folder = tmp_path_factory.mktemp(request.param)
    for case, overrides in CASES.items():
        recipe = recipe_of(world, bases / request.param, folder / case, overrides)
        (folder / f"{case}.yaml").write_text(dump_recipe(recipe))
    launch([folder / f"{case}.yaml" for case in CASES], ranks=2)
    return folder


@pytest.mark.parametrize("case", ["sft_zero2", "sft_zero3", "grpo_zero3"])
def test_sharded_runs_are_those_of_whole_weights(runs, case):
    stage = case.split("_")[0]
    got, want = log_of(runs / case), log_of(runs / stage)
    assert [line["step"] for line in got] == [1, 2]
    for line, whole in zip(got, want, strict=True):
        for metric in SAME[stage]:
            assert line[metric] == pytest.approx(whole[metric], rel=2e-3, abs=2e-5), metric
    before, after = (load_file(runs / n / "latest" / "model.safetensors") for n in (stage, case))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert (weight - after[name]).abs().max() < 5e-4, name


def test_a_sharded_step_moves_every_part_of_the_text_tower(runs, bases):
    base = load_file(bases / runs.name[:-1] / "model.safetensors")
    trained = load_file(runs / "sft" / "latest" / "model.safetensors")
    for part in ("self_attn.q_proj", "experts", "mlp.gate", "linear_attn", "visual", "lm_head"):
        names = [name for name in base if part in name and base[name].dim() > 1]
        assert all((base[name] != trained[name]).any() for name in names), part


def test_adapters_train_alone(runs):
    adapters = load_file(runs / "lora" / "latest" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in adapters} == {"q_proj", "o_proj"}
    assert any(weight.any() for name, weight in adapters.items() if "lora_B" in name)
    assert log_of(runs / "lora")[0]["grad_norm"] > 0


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([*GRPO], "grpo.shared_prompts=false"),
        ([*GRPO, "grpo.shared_prompts=false", "train.micro_batch_tokens=9000"],
         "train.micro_batch_tokens=null"),
        (["data.packing=true", "train.micro_batch_size=1"], "data.packing=false"),
        (["engine.sequence_parallel=2"], "engine.sequence_parallel=1"),
    ],
)  # fmt: skip
def test_recurrent_layers_take_one_sample_a_row(world, bases, tmp_path, overrides, key):
    from avar_fast.train.memory_plan import memory_plan

    recipe = recipe_of(world, bases / "qwen3_5", tmp_path, overrides)
    name = key.split("=")[0]
    with pytest.raises(ValueError, match=rf"{name} must be .* Qwen3_5For.* recurrent .* {key}\."):
        memory_plan(recipe, 1)
    memory_plan(recipe_of(world, bases / "qwen3_vl_moe", tmp_path, overrides), 1)


def test_adapters_of_stacked_experts_and_layers_without_attention_are_refused(
    world, bases, tmp_path
):
    from avar_fast.models import family_of
    from avar_fast.train.grpo.reward import require_layers
    from avar_fast.train.memory_plan import memory_plan

    targets = ["lora.enabled=true", "lora.targets=[q_proj, gate_proj]"]
    recipe = recipe_of(world, bases / "qwen3_vl_moe", tmp_path, targets)
    with pytest.raises(ValueError, match=r"lora.targets must name .* \(k_proj, .*'gate_proj'"):
        memory_plan(recipe, 1)
    model, _ = models("qwen3_5")
    assert layer_types(model)[0] == "linear_attention"
    recipe = recipe_of(world, bases / "qwen3_5", tmp_path, ["agto.layers=[0, 1]"])
    with pytest.raises(ValueError, match=r"agto.layers .* with attention, 1, 3; got \[0, 1\]"):
        require_layers(recipe, family_of(model).text_attention(model))


def test_the_memory_plan_counts_experts_and_recurrent_states(world, bases, tmp_path):
    from avar_fast.models import family_of
    from avar_fast.train.memory_plan import cache_bytes

    model, _ = models("qwen3_5")
    config = model.config.text_config
    recipe = recipe_of(world, bases / "qwen3_5", tmp_path, RL)
    grpo = recipe.grpo
    tokens = recipe.data.max_length + grpo.group_size * grpo.max_new_tokens
    keys = 2 * 2 * config.num_key_value_heads * config.head_dim  # two layers, keys and values
    heads, size = config.linear_num_value_heads, config.linear_key_head_dim
    channels = 2 * config.linear_num_key_heads * size + heads * config.linear_value_head_dim
    state = heads * size * config.linear_value_head_dim + 4 * channels
    want = 4 * grpo.prompts_per_generation * (tokens * keys + grpo.group_size * 3 * state)
    assert cache_bytes(recipe, family_of(model), model) == want
    assert json.loads((bases / "qwen3_5" / "config.json").read_text())["model_type"] == "qwen3_5"
