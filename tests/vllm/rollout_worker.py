"""Run under torchrun by test_colocated: vLLM beside a model whose weights change, with and without
the steps that keep them the same.

argv: model folder, rows, "whole" or "lora". Prints one JSON object: the largest difference of
log-probabilities per case.
"""

import dataclasses
import json
import sys

import torch
from torch.nn.functional import log_softmax

from avar_fast.attention import attach
from avar_fast.config import (
    DataConfig,
    LoraConfig,
    ModelConfig,
    Recipe,
    RolloutConfig,
    TrainConfig,
)
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.loading import load
from avar_fast.rollout import Sampling
from avar_fast.rollout.vllm_colocated import VllmEngine
from avar_fast.train.engine import init_distributed
from avar_fast.train.parameters import add_adapters

SYSTEM = "You are a helpful assistant."


def main() -> None:
    path, rows, kind = sys.argv[1:]
    init_distributed()
    torch.manual_seed(0)
    loaded = load(path, torch.float32)
    model, tokenizer = loaded.model, loaded.tokenizer
    attach(model, tokenizer)
    if kind == "lora":
        train_adapters(model, path)
    encoder = Encoder(tokenizer, loaded.image_processor, SYSTEM, 256)
    tokens = encoder.tokens
    prompts = [encoder(row) for row in load_rows(rows)]
    sampling = Sampling(
        num_samples=4,
        max_new_tokens=10,
        temperature=0.9,
        eos_ids=loaded.eos_ids,
        pad_id=tokenizer.pad_token_id,
        banned_ids=tokens.visual,
    )
    config = RolloutConfig(engine="vllm", kv_cache_gib=0.0625, cuda_graphs=False)
    engine = VllmEngine(path, "float32", config, 256, 16)

    @torch.no_grad()
    def gap() -> float:
        """The largest difference over 12 samples of what vLLM and the model say of them."""
        rollouts = engine.generate(prompts, sampling)
        assert rollouts.log_probs is not None
        distinct = {tuple(ids.tolist()) for ids in rollouts.completion_ids[:4]}
        assert len(distinct) > 1, "a group's samples are all the same"
        worst = 0.0
        for i, mask in enumerate(rollouts.completion_mask):
            prompt, ids = prompts[i // 4], rollouts.completion_ids[i][mask]
            completed = dataclasses.replace(prompt, target_ids=ids)
            batch = collate([completed], tokenizer.pad_token_id, tokens.visual)
            logits = model(**batch.inputs).logits[0, len(prompt.prompt_ids) - 1 : -1]
            logits[:, list(tokens.visual)] = float("-inf")
            own = log_softmax(logits / 0.9, dim=-1).gather(1, ids[:, None])[:, 0]
            worst = max(worst, float((own - rollouts.log_probs[i][mask]).abs().max()))
        return worst

    gaps = {"at the start": gap()}
    for step in range(2):
        change(model, step)
        gaps[f"stale after change {step}"] = gap()
        engine.sync_weights(model)
        gaps[f"synced after change {step}"] = gap()
    forget, engine.forget = engine.forget, lambda: None
    change(model, 2)
    engine.sync_weights(model)
    engine._llm.llm_engine.reset_mm_cache()
    engine._llm.llm_engine.reset_encoder_cache()
    gaps["prefix cache kept"] = gap()
    forget()
    gaps["all forgotten"] = gap()
    change(model, 3)
    engine.sync_weights(model)
    try:
        gaps["caches of images kept"] = gap()
    except RuntimeError as error:  # vLLM's own: it looks for what its worker has dropped
        gaps["caches of images kept"] = str(error)
    print("GAPS " + json.dumps(gaps))


@torch.no_grad()
def change(model, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.1 * noise * parameter.std(correction=0).clamp(min=0.02)


def train_adapters(model, path: str) -> None:
    recipe = Recipe(
        stage="grpo",
        model=ModelConfig(path=path),
        data=DataConfig(path=""),
        train=TrainConfig(output_dir="", steps=1),
        lora=LoraConfig(enabled=True, rank=4, alpha=8.0),
    )
    add_adapters(model, recipe)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


main()
