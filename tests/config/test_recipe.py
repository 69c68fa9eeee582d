"""Recipes: strict keys and types, overrides, and a dump that reads back."""

from pathlib import Path

import pytest

from avar_fast.config import (
    AgtoConfig,
    DataConfig,
    EngineConfig,
    EvalConfig,
    GrpoConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    RolloutConfig,
    TrackingConfig,
    TrainConfig,
    dump_recipe,
    load_recipe,
    read_recipe,
)
from avar_fast.config.recipe_file import read_section
from avar_fast.synthesize.recipe import SynthesisRecipe

ROOT = Path(__file__).parents[2]

TEXT = """
stage: sft
model: {path: some/model}
data: {path: rows.jsonl}
train: {output_dir: runs/x, steps: 10}
optim: {lr: 1e-5}
"""


def recipe(tmp_path, *overrides, text=TEXT):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path, list(overrides))


def test_values_defaults_and_overrides(tmp_path):
    got = recipe(
        tmp_path,
        "train.steps=20",
        "optim.betas=[0.9, 0.99]",
        "agto.layers=[1, 2]",
        "data.system_prompt=null",
    )
    assert (got.train.steps, got.optim.lr, got.optim.betas) == (20, 1e-5, (0.9, 0.99))
    assert got.agto.layers == (1, 2)
    assert got.data.system_prompt is None
    assert got.grpo.rewards == {"accuracy": 1.0, "visual": 0.3, "format": 0.1}


def test_dump_reads_back_to_the_same_recipe(tmp_path):
    got = recipe(tmp_path, "agto.layers=[0]", "agto.enabled=true", "grpo.rewards={exact: 2}")
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_recipe(got))
    assert load_recipe(path) == got


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.stpes=3", "unknown key train.stpes; did you mean train.steps"),
        ("agot.alpha=3", "unknown key agot; did you mean agto"),
        ("train.steps=many", "train.steps must be of type int; got 'many'"),
        ("train.steps=0", "train.steps must be positive and finite; got 0"),
        ("engine.zero_stage=4", "engine.zero_stage must be one of 0, 1, 2, 3; got 4"),
        ("optim.lr=fast", "optim.lr must be a number; got 'fast'"),
        ("optim.betas=[0.9]", "optim.betas must be a list of 2"),
        ("model=7", "model must be a section; got 7"),
        ("train.steps", "override must read section.key=value"),
        ("stage.sub=1", "names a key inside 'stage', which is no section"),
        ("grpo.group_size=1", "grpo.group_size must be at least 2"),
        ("data.limit=-1", "data.limit must be positive and finite; got -1"),
        ("data.workers=-1", "data.workers must be 0 or more"),
        ("data.pack_length=0", "data.pack_length must be positive"),
        ("data.overlong=shorten", "data.overlong must be one of error, drop, cut; got 'shorten'"),
        ("data.bad_rows=ignore", "data.bad_rows must be one of error, skip; got 'ignore'"),
        ("data.pack_length=100", "data.pack_length must be at least data.max_length = 8192"),
        ("train.save_every=0", "train.save_every must be positive"),
        ("optim.lr=.nan", "optim.lr must be positive and finite; got nan"),
        ("optim.warmup_steps=-5", "optim.warmup_steps must be 0 or more"),
        ("optim.max_grad_norm=-1.0", "optim.max_grad_norm must be 0 or more"),
        ("optim.betas=[0.9, 1.5]", r"optim.betas\[1\] must be in \[0, 1\); got 1.5"),
        ("grpo.clip_low=1.5", r"grpo.clip_low must be in \[0, 1\]"),
        ("grpo.clip_high=-0.1", "grpo.clip_high must be 0 or more"),
        ("grpo.kl_coef=-1.0", "grpo.kl_coef must be 0 or more"),
        ("grpo.visual_clip=0", "grpo.visual_clip must be positive"),
        ("grpo.rewards=[accuracy]", r"grpo.rewards must be a mapping; got \['accuracy'\]"),
        ("grpo.rewards={accurcy: 1}", "grpo.rewards must name accuracy, .*; got 'accurcy'"),
        ("grpo.rewards={accuracy: much}", "grpo.rewards.accuracy must be a number; got 'much'"),
        ("grpo.rewards={accuracy: .nan}", "grpo.rewards.accuracy must be finite"),
        ("grpo.rewards={visual: 1}", "grpo.correct_by must be one of grpo.rewards other than"),
        ("grpo.correct_by=exact", "grpo.correct_by must be .*; got 'exact' and accuracy, visual"),
        ('grpo.rewards={"a:f": 1, "b:f": 1}', "names of their own in the log; got f, f"),
        ("grpo.sampling_rounds=0", "grpo.sampling_rounds must be positive"),
        ("grpo.overlong_buffer=9999", "between 0 and grpo.max_new_tokens = 2048; got 9999"),
        ("grpo.importance_cap=0.5", "grpo.importance_cap at least 1; got 0.0 and 0.5"),
        ("grpo.reward_seconds=0", "grpo.reward_seconds must be positive"),
        ("grpo.on_reward_error=skip", "grpo.on_reward_error must be one of stop, zero"),
        ("agto.eps=-1.0", "agto.eps must be 0 or more"),
        ("agto.alpha=.inf", "agto.alpha must be finite"),
        ("agto.beta_end=.nan", "agto.beta_end must be finite"),
        ("agto.warmup=1", r"agto.warmup must be in \[0, 1\); got 1.0"),
        ("agto.decay=step", "agto.decay must be one of linear, cosine; got 'step'"),
        ("agto.decay_fraction=0.5", "agto.decay_fraction needs agto.alpha_end or agto.beta_end"),
        (
            "agto={alpha_end: 0, warmup: 0.6, decay_fraction: 0.5}",
            "agto.decay_fraction must be positive and leave room for agto.warmup = 0.6; got 0.5",
        ),
        ("optim.betas=[0.9", "override 'optim.betas=.*must be valid YAML"),
        ("agto.eps=0", "agto.eps must be between 1e-30 and 1; got 0"),
        ("agto.eps=1e-50", "agto.eps must be between 1e-30 and 1; got 1e-50"),
        ("agto.eps=1e300", "agto.eps must be at most 1e.30; got 1e.300"),
        ("agto.alpha=1e30", "agto.alpha must be between -1e.06 and 1e.06; got 1e.30"),
        ("agto.beta_end=-1e300", "agto.beta_end must be between -1e.06 and 1e.06"),
        ("optim.lr=1e300", "optim.lr must be at most 1e.30"),
        ("optim.weight_decay=1e10", "optim.weight_decay must be between 0 and 100000"),
        ("lora.alpha=1e30", "lora.alpha must be between 0 and 1e.06"),
        ("lora={enabled: true, targets: []}", "lora.targets must name a layer"),
        ("data.cache_gib=1e300", "data.cache_gib must be at most 1e.30"),
        ("model.head_memory_gib=1e-300", "model.head_memory_gib must be between 9.31323e-10 and"),
        ("model.head_memory_gib=1e20", "model.head_memory_gib must be between .* and 1e.06"),
        (f"train.steps=1{'0' * 400}", "train.steps must be at most 9.0072e.15; got more than 1e60"),
        (f"train.batch_size=1{'0' * 20}", "train.batch_size must be at most 9.0072e.15; got 1000"),
        (f"train.keep_last=1{'0' * 400}", "train.keep_last must be at most"),
        (f"train.seed=1{'0' * 20}", "train.seed must be between"),
        ("grpo.temperature=1e-40", "grpo.temperature must be between 0.0001 and 1e.06; got 1e-40"),
        ("grpo.kl_coef=1e20", "grpo.kl_coef must be between 0 and 1e.06"),
        ("grpo.rewards={exact: 1e300}", "grpo.rewards.exact must be between -1e.06 and 1e.06"),
        ("grpo.visual_clip=1e300", "grpo.visual_clip must be at most 1e.30"),
        ("grpo.clip_high=1e300", "grpo.clip_high must be at most 1e.30"),
        ("grpo.importance_cap=1e300", "grpo.importance_cap must be at most 1e.30"),
        ("agto={enabled: true, alpha: -1}", None),
    ],
)
def test_bad_override_names_key_and_remedy(tmp_path, override, words):
    if words is None:  # a negative weight is the user's experiment
        assert recipe(tmp_path, override).agto.alpha == -1
        return
    with pytest.raises(ValueError, match=words):
        recipe(tmp_path, override)


def test_cross_field_checks(tmp_path):
    with pytest.raises(ValueError, match="data.system_prompt must be set where AGTO or VARS is on"):
        recipe(tmp_path, "agto.enabled=true", "data.system_prompt=null")
    with pytest.raises(ValueError, match="agto.enabled works in stage sft"):
        recipe(tmp_path, "agto.enabled=true", "stage=grpo")


def test_answers_are_needed_by_the_rewards_that_read_them(tmp_path):
    assert recipe(tmp_path).fields_needed == "sft"
    assert recipe(tmp_path, "stage=grpo").fields_needed == "grpo"
    assert recipe(tmp_path, "stage=grpo", "grpo.rewards={format: 1}").fields_needed is None
    own = recipe(tmp_path, "stage=grpo", 'grpo.rewards={"my.module:f": 1, visual: 0.3}')
    assert own.fields_needed is None
    assert own.grpo.gate == "my.module:f"


def test_packing_checks(tmp_path):
    got = recipe(tmp_path, "data.packing=true", "data.max_length=100")
    assert got.data.pack_capacity == 100
    assert recipe(tmp_path, "data.pack_length=9000").data.pack_capacity == 9000
    with pytest.raises(ValueError, match="data.packing works in stage sft; got stage grpo"):
        recipe(tmp_path, "data.packing=true", "stage=grpo")
    with pytest.raises(ValueError, match="micro_batch_size must be 1 with data.packing.*; got 2"):
        recipe(tmp_path, "data.packing=true", "train.micro_batch_size=2")


def test_micro_batches_of_stage_grpo(tmp_path):
    stage = ["stage=grpo", "data.max_length=100", "grpo.max_new_tokens=20"]
    got = recipe(tmp_path, *stage, "train.micro_batch_size=3")
    assert got.micro_batch_capacity == 360
    assert recipe(tmp_path, *stage, "grpo.pack_length=120").micro_batch_capacity == 120
    separate = [*stage, "grpo.shared_prompts=false"]
    assert recipe(tmp_path, *separate).micro_batch_capacity is None
    got = recipe(tmp_path, *separate, "train.micro_batch_tokens=120")
    assert got.micro_batch_capacity == 120
    for overrides, words in (
        ([*stage, "grpo.pack_length=119"], "grpo.pack_length must be at least .* = 120.*; got 119"),
        ([*separate, "grpo.pack_length=120"], "grpo.pack_length belongs to .*shared_prompts=true"),
        (
            [*separate, "train.micro_batch_tokens=119"],
            "train.micro_batch_tokens must be at least .* = 120.*; got 119",
        ),
        ([*stage, "train.micro_batch_tokens=500"], "micro_batch_tokens needs .*prompts=false"),
        (["train.micro_batch_tokens=500"], "works in stage grpo.*Set data.packing=true"),
        ([*stage, "grpo.scoring=never"], "grpo.scoring must be one of auto, always"),
    ):
        with pytest.raises(ValueError, match=words):
            recipe(tmp_path, *overrides)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match="train must be given"):
        recipe(tmp_path, text="stage: sft\nmodel: {path: x}\ndata: {path: y}\n")
    with pytest.raises(ValueError, match="model.path must be given"):
        recipe(tmp_path, text=TEXT.replace("path: some/model", "dtype: float32"))
    with pytest.raises(ValueError, match=r"recipe.yaml must be valid YAML"):
        recipe(tmp_path, text=TEXT + "  - [")
    with pytest.raises(FileNotFoundError, match=r"recipe must be an existing YAML file"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("train.zero_stage", "engine.zero_stage"),
        ("train.offload_optimizer", "engine.offload_optimizer"),
        ("train.offload_params", "engine.offload_params"),
        ("train.log_every", "tracking.log_every"),
        ("train.loggers", "tracking.loggers"),
        ("grpo.show_every", "tracking.show_every"),
        ("grpo.show_count", "tracking.show_count"),
        ("zero_stage", "engine.zero_stage"),
        ("eval.bach_size", "eval.batch_size"),
        ("tran.batch_size", "train"),
        ("data.lr", "optim.lr"),
    ],
)
def test_an_unknown_key_names_the_nearest_of_all_sections(tmp_path, unknown, nearest):
    with pytest.raises(ValueError, match=rf"unknown key .*; did you mean {nearest}\?"):
        recipe(tmp_path, f"{unknown}=1")


@pytest.mark.parametrize(
    ("section", "settings", "words"),
    [
        (ModelConfig, {"path": "", "freeze": ("vision", "projector", "language")}, "model.freeze"),
        (LoraConfig, {"rank": 0}, "lora.rank must be positive"),
        (DataConfig, {"path": "", "min_pixels": 9, "max_pixels": 4}, "data.min_pixels must be at"),
        (OptimConfig, {"vision_lr": -1.0}, "optim.vision_lr must be positive"),
        (TrainConfig, {"output_dir": "", "steps": 0}, "train.steps must be positive"),
        (EngineConfig, {"offload_optimizer": True, "zero_stage": 0}, "engine.zero_stage 1 or"),
        (EngineConfig, {"offload_params": True}, "engine.offload_params needs .*=3; got 1"),
        (TrackingConfig, {"log_every": 0}, "tracking.log_every must be positive"),
        (TrackingConfig, {"show_count": -1}, "tracking.show_count must be 0 or more"),
        (AgtoConfig, {"decay_fraction": 0.5}, "agto.decay_fraction needs"),
        (GrpoConfig, {"group_size": 1}, "grpo.group_size must be at least 2"),
        (RolloutConfig, {"engine": "vllm_server"}, "rollout.server_url must be the address"),
        (RolloutConfig, {"kv_cache_gib": 0.0}, "rollout.kv_cache_gib must be positive"),
        (EvalConfig, {"every": 0}, "eval.every must be positive"),
    ],
)
def test_a_section_that_is_built_by_itself_is_checked(section, settings, words):
    with pytest.raises(ValueError, match=words):
        section(**settings)


def test_a_section_is_read_by_itself():
    assert read_section(RolloutConfig, "rollout", ["engine=vllm", "sleep=true"]).sleep
    with pytest.raises(ValueError, match=r"rollout.gpu_memory must be below 1; got 1.5"):
        read_section(RolloutConfig, "rollout", ["gpu_memory=1.5"])
    with pytest.raises(ValueError, match=r"unknown key rollout.sleeps; did you mean rollout.sleep"):
        read_section(RolloutConfig, "rollout", ["sleeps=true"])


def test_settings_that_do_not_fit_together_over_sections(tmp_path):
    for settings, words in (
        (["stage=grpo", "engine.sequence_parallel=2"], "engine.sequence_parallel must be 1 in"),
        (["lora.enabled=true", "model.freeze=[vision]"], "model.freeze must be empty with lora"),
        (
            ["rollout={engine: vllm_server, server_url: 'http://h:1'}", "data.overlong=cut"],
            "data.overlong must be error or drop with rollout.engine=vllm_server",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            recipe(tmp_path, *settings)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_ship_can_be_read(path):
    kind = SynthesisRecipe if "vard" in path.stem else Recipe
    assert read_recipe(kind, path)


def test_recipes_that_are_named_after_a_source_have_its_numbers():
    """The paper's, and those of the code that was released with it."""
    names = ("sft-agto-paper", "sft-agto-released", "grpo-vars-paper")
    paper, released, grpo = (
        read_recipe(Recipe, ROOT / "configs" / f"qwen2.5-vl-7b-{name}.yaml") for name in names
    )
    rows, prompts = 30_419, 17_900
    assert (paper.optim.lr, paper.train.batch_size, paper.agto.eps_in) == (5e-6, 512, "suppress")
    assert paper.train.steps == round(20 * rows / 512)
    assert (released.optim.lr, released.train.batch_size, released.agto.eps_in) == (
        1e-5,
        32,
        "both",
    )
    assert released.train.steps == round(10 * rows / 32)
    assert released.optim.warmup_steps == round(0.1 * released.train.steps)
    assert (released.data.max_pixels, released.data.max_length) == (262144, 8192)
    for source in (paper, released):
        agto = source.agto
        assert (agto.alpha, agto.beta, agto.eps, agto.queries) == (0.15, 0.15, 1e-6, "prompt")
    assert (grpo.optim.lr, grpo.train.batch_size, grpo.grpo.group_size) == (1e-6, 256, 8)
    assert grpo.train.steps == round(4 * prompts / 256)
    assert (grpo.grpo.kl_coef, grpo.grpo.visual_form, grpo.grpo.visual_clip) == (0.0, "ratio", None)
    assert grpo.grpo.rewards == {"accuracy": 1.0, "visual": 0.3, "format": 0.1}
