"""A run of stage sft on one synthetic sample.

Its attention and objective can change between steps, so all variants share weights, optimizer and
allocator.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import one_hot

from avar_fast.attention import (
    Recording,
    SpecialTokens,
    attach,
    detach,
    key_types,
    record_attention,
)
from avar_fast.config import (
    AgtoConfig,
    DataConfig,
    EngineConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    TrainConfig,
)
from avar_fast.data import Batch, Collator, ResponseBatch, Sample, lay_out, plan_forwards
from avar_fast.data.rows import Row
from avar_fast.models import family_of
from avar_fast.models.flops import model_flops
from avar_fast.models.vision import use_linear_patch_embedding
from avar_fast.train import sft
from avar_fast.train.engine import Engine, init_distributed
from avar_fast.train.forward import HeadLimits
from avar_fast.train.run import Run
from avar_fast.train.throughput import Throughput

from .models import DTYPE, TOKENIZER, build, sample
from .shapes import DEVICE

# With these sizes the LM head has its share of the whole model's weights although there are few
# layers: a tenth on a CPU (Qwen2.5-VL-3B), a fourteenth on a GPU (7B).
VOCABULARY = {"cpu": 8192, "cuda": 36864}[DEVICE]
TOKENS = SpecialTokens.from_processor(TOKENIZER)


class OneSample:
    """A feed that always gives the same batch."""

    def __init__(self) -> None:
        self.batch: Batch | None = None

    def next_step(self) -> list[Batch]:
        assert self.batch is not None
        return [self.batch]


@functools.cache
def the_run() -> Run:
    """The run of this process. Its weights hardly move: float32 rounds such small steps away."""
    _, world_size, device = init_distributed()
    model = build("avar", VOCABULARY).train()
    use_linear_patch_embedding(family_of(model).vision_tower(model))
    recipe = Recipe(
        stage="sft",
        model=ModelConfig(path="unused", dtype=cast(Any, str(DTYPE)[6:])),
        data=DataConfig(path="unused"),
        optim=OptimConfig(lr=1e-12, schedule="constant"),
        train=TrainConfig(output_dir="unused", steps=1 << 30, batch_size=1),
        engine=EngineConfig(zero_stage=0),
    )
    throughput = Throughput(model_flops(model), None, world_size)
    collator = Collator(cast(Any, TOKENIZER).pad_token_id, TOKENS.visual, model.config, DTYPE)
    engine = Engine(model, recipe, num_steps=1)
    return Run(
        recipe,
        engine,
        feed=cast(Any, OneSample()),
        data=cast(Any, None),
        data_counts={},
        collator=collator,
        tracker=cast(Any, None),
        tokenizer=TOKENIZER,
        image_processor=None,
        tokens=TOKENS,
        eos_ids=(TOKENS.turn_end,),
        head=HeadLimits.of(recipe, device),
        throughput=throughput,
        first_step=0,
    )


@functools.cache
def batch(length: int) -> Batch:
    """One row: half of it image, the response the rest but for a few tokens."""
    return the_run().collator.pad([_whole(length)])


@functools.cache
def responses(length: int) -> ResponseBatch:
    """The same row as a batch of one response."""
    whole = [_whole(length)]
    (forward,) = plan_forwards(whole, rows=1, share=False)
    return lay_out(the_run().collator, whole, forward)


def _whole(length: int) -> Sample:
    made = {name: tensor.cpu() for name, tensor in sample(length).items()}
    ids = made["input_ids"][0]
    assistant = TOKENIZER.encode("<|im_start|>assistant\n")
    starts = ids.unfold(0, len(assistant), 1)
    begin = int((starts == torch.tensor(assistant)).all(1).nonzero()[-1]) + len(assistant)
    row = Row("sample", [], [], None)
    grid = made["image_grid_thw"]
    return Sample(row, ids[:begin], ids[begin:], made["pixel_values"], grid)


def choose(run: Run, mode: str, attention: str, batch: Batch) -> None:
    """Makes the next steps those of a variant."""
    model = run.engine.module
    detach(model)
    model.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
    if attention == "avar":
        attach(model, TOKENIZER)
    sft.record_attention = recorder_of(attention)
    agto = AgtoConfig(enabled=mode == "sft_agto")
    run.recipe = dataclasses.replace(run.recipe, agto=agto)
    cast(Any, run.feed).batch = batch


def recorder_of(attention: str) -> Any:
    """What records the masses of a text tower with this attention."""
    return {"avar": record_attention, "eager": _from_matrices, "sdpa": _nothing}[attention]


@contextlib.contextmanager
def _from_matrices(model: nn.Module, layers: Any = None) -> Iterator[Recording]:
    """What AVAR's released code does: every layer's L x L attention as an output of the model."""
    recording, body = Recording(), family_of(model).body(model)

    def ask(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, kwargs | {"output_attentions": True}

    def keep(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        types = key_types(kwargs["input_ids"], kwargs["attention_mask"], tokens=TOKENS)
        kinds = one_hot(types.clamp(min=0).long(), 3)[:, None]
        for layer, weights in enumerate(output.attentions):
            recording.mass[layer] = (weights @ kinds.to(weights.dtype)).transpose(1, 2).float()

    hooks = (
        body.register_forward_pre_hook(ask, with_kwargs=True),
        body.register_forward_hook(keep, with_kwargs=True),
    )
    try:
        yield recording
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _nothing(model: nn.Module, layers: Any = None) -> Iterator[Recording]:
    """torch's fused attention returns no mass; the log's VAS gets ones of one head instead."""
    recording = Recording()

    def fill(module: nn.Module, args: tuple, kwargs: dict) -> None:
        ids = kwargs["input_ids"]
        recording.mass[0] = torch.ones(*ids.shape, 1, 3, device=ids.device)

    body = family_of(model).body(model)
    hook = body.register_forward_pre_hook(fill, with_kwargs=True)
    try:
        yield recording
    finally:
        hook.remove()
