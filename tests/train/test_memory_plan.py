"""What a dry run says about memory."""

import re

from transformers import AutoConfig

from avar_fast.config import load_recipe
from avar_fast.train.memory_plan import memory_plan


def test_caches_of_sampling_and_the_longest_row(world):
    arguments = ["stage=grpo", "agto.enabled=false", "data.max_length=50000"]
    arguments += ["grpo.max_new_tokens=1000", "grpo.group_size=8", "grpo.prompts_per_generation=4"]
    plan = memory_plan(load_recipe(world / "recipe.yaml", arguments), 2)
    text = AutoConfig.from_pretrained(world / "model").text_config
    head = text.hidden_size // text.num_attention_heads
    per_token = text.num_hidden_layers * text.num_key_value_heads * head * 2 * 4
    want = 4 * (50000 + 8 * 1000) * per_token / 2**30
    (got,) = re.findall(r"KV caches +([\d.]+) GiB", plan)
    assert abs(float(got) - want) < 6e-4
    assert want > 0.1
    assert "a forward has up to 204000 tokens" in plan
    recipe = load_recipe(world / "recipe.yaml", [*arguments, "grpo.pack_length=60000"])
    assert "a forward has up to 60000 tokens" in memory_plan(recipe, 2)


def test_other_stages_and_engines_have_no_caches_of_their_own(world):
    assert "KV caches" not in memory_plan(load_recipe(world / "recipe.yaml"), 1)
    server = ["stage=grpo", "agto.enabled=false", "rollout.engine=vllm_server"]
    server += ["rollout.server_url=http://host:8000"]
    assert "KV caches" not in memory_plan(load_recipe(world / "recipe.yaml", server), 1)
