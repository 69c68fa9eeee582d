"""The FLOP formula against torch's own count of the products that run, on a tiny model of each
family."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen3_5 import modeling_qwen3_5 as modeling

from avar_fast.attention import SpecialTokens
from avar_fast.models import family_of
from avar_fast.models.flops import Work, model_flops
from avar_fast.train.throughput import work_of
from tests.data.samples import TOKENIZER, collator, samples

from .families import FAMILIES, models

TOKENS = SpecialTokens.from_processor(TOKENIZER)
SHAPES = [((112, 84), (28, 56)), ((56, 56),)]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    slow = models(request.param)[1].train()  # eager: every product is one that torch counts
    if request.param.endswith("_moe"):
        slow.set_experts_implementation("eager")
    return slow


@pytest.fixture
def counted(model):
    """One unpadded row, and its work as eager attention does it: all L^2 pairs, all logits."""
    batch = collator(model, TOKENS).pad(samples(SHAPES[:1]))
    work, length = work_of(batch), batch.labels.shape[1]
    assert work.tokens == length
    assert work.pairs == length * (length + 1) / 2
    assert work.patches == 8 * 6 + 2 * 4
    assert work.merged_tokens == 12 + 2
    assert work.vision_pairs == 48**2 + 8**2
    return batch, work._replace(pairs=length**2, labels=length)


def parts(model, run, tokens):
    """FLOPs of each part, and of everything. Those of recurrent layers are as by definition: the
    chunked form that runs takes more products."""
    family = family_of(model)
    with FlopCounterMode(display=False) as counter:
        run()
    of = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    names = {module: name for name, module in model.named_modules()}

    def count(*modules):
        found = (f"{type(model).__name__}.{names[m]}" for m in modules)
        return sum(of[name] for name in found)

    tower = family.vision_tower(model)
    rules = family.recurrent_layers(model).values()
    surplus = sum(as_run(rule, tokens) - by_definition(rule) * tokens for rule in rules)
    return {
        "text": count(*family.text_tower(model).layers) - surplus,
        "head": count(family.lm_head(model)),
        "patches": count(tower.patch_embed.proj, *tower.blocks),
        "projectors": count(*family.projectors(model)),
    }, counter.get_total_flops() - surplus


def as_run(rule, tokens):
    """FLOPs of the delta rule and the convolution of a recurrent layer in transformers."""
    length, trains = int(tokens), torch.is_grad_enabled()
    heads = {"k": (rule.num_v_heads, rule.head_k_dim), "v": (rule.num_v_heads, rule.head_v_dim)}
    q, k, v = (torch.randn(1, length, *heads[x], requires_grad=trains) for x in "kkv")
    g, beta = (torch.rand(1, length, rule.num_v_heads, requires_grad=trains) for _ in range(2))
    mixed = torch.randn(1, rule.conv_dim, length, requires_grad=trains)
    with FlopCounterMode(display=False) as counter:
        rows, _ = modeling.torch_chunk_gated_delta_rule(q, k, v, g=-g, beta=beta)
        convolved = torch.nn.functional.conv1d(
            mixed, rule.conv1d.weight, padding=rule.conv_kernel_size - 1, groups=rule.conv_dim
        )
        if trains:
            (rows.sum() + convolved.sum()).backward()
    return counter.get_total_flops()


def by_definition(rule):
    """FLOPs of a token in a recurrent layer, without its linear layers: a head's state is read for
    the key, changed by an outer product, and read for the query; each channel is convolved."""
    state = rule.num_v_heads * rule.head_k_dim * rule.head_v_dim
    convolution = 2 * rule.conv_dim * rule.conv_kernel_size
    if not torch.is_grad_enabled():
        return 3 * 2 * state + convolution
    return 3 * 3 * 2 * state + convolution * (3 if rule.conv1d.weight.requires_grad else 2)


def predicted(rates, work):
    only = lambda **kept: rates.flops(Work(*[0.0] * 7)._replace(**kept))  # noqa: E731
    return {
        "text": only(tokens=work.tokens, pairs=work.pairs),
        "head": only(labels=work.labels),
        "patches": only(
            patches=work.patches, vision_pairs=work.vision_pairs, window_pairs=work.window_pairs
        ),
        "projectors": only(merged_tokens=work.merged_tokens),
    }


def test_forward(model, counted):
    batch, work = counted
    with torch.no_grad():
        got, total = parts(model, lambda: model(**batch.inputs, use_cache=False), work.tokens)
    rates = model_flops(model).forward
    assert got == predicted(rates, work)
    assert rates.flops(work) == pytest.approx(total, rel=1e-3)  # rotary positions are products too


def test_windows_are_counted_as_the_blocks_that_have_them_see_them(model, counted):
    _, work = counted
    rates = model_flops(model).forward
    if model.config.model_type == "qwen2_5_vl":  # windows of 2 x 2 visual tokens
        assert work.window_pairs == 2 * 16**2 + 2 * 8**2 + 8**2
        assert rates.window_pair == rates.vision_pair > 0
    else:
        assert work.window_pairs == rates.window_pair == 0


def test_training_step(model, counted):
    batch, work = counted

    def run():
        model(**batch.inputs, use_cache=False).logits.sum().backward()

    rates = model_flops(model).training
    _, total = parts(model, run, work.tokens)
    assert rates.flops(work) == pytest.approx(total, rel=2e-3)


def test_training_step_with_frozen_parts(model, counted):
    batch, work = counted

    def run():
        model(**batch.inputs, use_cache=False).logits.sum().backward()

    family = family_of(model)
    try:
        family.vision_tower(model).requires_grad_(False)
        frozen_vision = model_flops(model).training
        assert frozen_vision.flops(work) == pytest.approx(
            parts(model, run, work.tokens)[1], rel=2e-3
        )
        for projector in family.projectors(model):
            projector.requires_grad_(True)
        assert model_flops(model).training.merged_token > frozen_vision.merged_token
        family.text_tower(model).layers.requires_grad_(False)
        family.vision_tower(model).requires_grad_(True)
        frozen_text = model_flops(model).training
        assert frozen_text.flops(work) == pytest.approx(parts(model, run, work.tokens)[1], rel=2e-3)
    finally:
        model.requires_grad_(True)


def test_packing_and_padding_are_the_same_work(model):
    made = samples(SHAPES)
    collate = collator(model, TOKENS)
    assert work_of(collate.pack(made)) == work_of(collate.pad(made))
