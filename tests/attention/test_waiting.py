"""No forward of an attached model waits for the device on account of attention, and a decoding step
sorts nothing."""

import contextlib
import sys

import pytest
import torch

from avar_fast.attention import intervene, packing, record_attention, visual_ids
from tests.attention.caches import cache_in, given
from tests.attention.tiny_models import batch, models
from tests.device_waits import DeviceWaits


@pytest.fixture(scope="module")
def model():
    return models()[0]


def cached(model, inputs):
    """Arguments of the decoding step after a forward over ``inputs``."""
    cache = cache_in(model(**inputs, use_cache=True))
    mask = inputs["attention_mask"]
    return {
        "input_ids": torch.full((len(mask), 1), 30),
        "attention_mask": torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1),
        "position_ids": torch.full((3, len(mask), 1), 200),
        **given(model, cache),
    }


CONTEXTS = {
    "plain": lambda model: contextlib.nullcontext(),
    "record": record_attention,
    "intervene": lambda model: intervene(model, visual_scale=1.3, system_bias=-0.5),
    "one head": lambda model: intervene(model, visual_scale=1.3, heads=[1]),
}


@pytest.mark.parametrize("name", CONTEXTS)
@torch.no_grad()
def test_a_forward_does_not_wait(model, monkeypatch, name):
    # What a GPU does with positions that restart: a device-side assertion.
    for module in (packing, visual_ids):
        monkeypatch.setattr(module, "refuse", lambda wrong, message: torch._assert_async(~wrong))
    for side in ("left", "right"):
        inputs = batch(side)
        with CONTEXTS[name](model):
            model(**inputs)  # an intervention copies its tables to the device once
            step = cached(model, inputs)
            with DeviceWaits() as waits:
                model(**inputs)
                model(**step)
        assert waits.lines == []


@torch.no_grad()
def test_tables_of_an_intervention_are_made_once(model):
    inputs = batch()
    seen = []

    def spy(module, args, kwargs):
        seen.append(kwargs["avar_call"].change.tables)

    hook = model.model.language_model.layers[0].register_forward_pre_hook(spy, with_kwargs=True)
    try:
        for scale in (1.3, 0.7):
            with intervene(model, visual_scale=scale):
                model(**inputs)
                model(**inputs)
    finally:
        hook.remove()
    assert [tables.type_scale.tolist()[1] for tables in seen] == pytest.approx([1.3, 1.3, 0.7, 0.7])
    for first, second in (seen[:2], seen[2:]):
        assert all(a is b for a, b in zip(first, second, strict=True))


@torch.no_grad()
def test_only_a_decoding_step_on_a_long_cache_has_a_plan_without_sorting(model, monkeypatch):
    asked = []
    attachment = sys.modules["avar_fast.attention.attachment"]
    plan = attachment.plan_keys

    def spy(types, **options):
        asked.append(options.get("sort", True))
        return plan(types, **options)

    monkeypatch.setattr(attachment, "plan_keys", spy)
    inputs = batch("left")
    model(**cached(model, inputs))
    assert asked == [True, True]  # few keys: no layer splits them
    long = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    text = torch.full_like(long["input_ids"][:, :1], 30).expand(-1, 1100)
    asked.clear()
    model(**cached(model, {"input_ids": text, "attention_mask": torch.ones_like(text)}))
    assert asked == [True, False]


def test_an_intervention_serves_inference_and_training_alike():
    """Its tables, made in inference mode, could once not be used by a forward with gradients."""
    model, _ = models()
    inputs = batch()
    with intervene(model, visual_bias=1.0):
        with torch.inference_mode():
            model(**inputs, use_cache=False)
        model(**inputs, use_cache=False).logits.sum().backward()


def test_layers_that_are_not_causal_get_the_real_padding_mask():
    """They once got a stand-in of shape (1, 1, 1, 1)."""
    fast, slow = models()
    inputs = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    got, want = (m(**inputs, use_cache=False, is_causal=False).logits for m in (fast, slow))
    exists = inputs["attention_mask"].bool()
    assert torch.allclose(got[exists], want[exists], atol=1e-4)
