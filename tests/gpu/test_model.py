"""A small Qwen2.5-VL on the device, against the same model on the CPU in float32."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from avar_fast.attention import (
    SpecialTokens,
    intervene,
    key_types,
    query_mask,
    record_attention,
)
from avar_fast.objectives import agto_loss

from ..models import families
from .conversations import conversation
from .device import DEVICE, GPU_TIER

pytestmark = GPU_TIER
TOKENS = SpecialTokens.from_processor(families.TOKENIZER)


@pytest.fixture(scope="module", autouse=True)
def exact_convolutions():
    """torch lets convolutions on a GPU use TF32; the patch embedding is one."""
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    yield
    convolutions.fp32_precision = before


@pytest.fixture(scope="module")
def on_device():
    return families.models("qwen2_5_vl")[0].to(DEVICE)


@pytest.fixture(scope="module")
def on_cpu():
    return families.models("qwen2_5_vl")[0]


def training_step(model, device):
    """(loss, masses, gradient of every weight) of SFT with AGTO."""
    row = conversation(device)
    with record_attention(model) as recording:
        logits = model(**row, use_cache=False).logits
    types = key_types(row["input_ids"], row["attention_mask"], tokens=TOKENS)
    queries = query_mask(row["input_ids"], role="user", tokens=TOKENS)
    loss = cross_entropy(logits[0, :-1].float(), row["input_ids"][0, 1:])
    loss = loss + agto_loss(recording.mass, queries, types)[0]
    model.zero_grad()
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss, dict(recording.mass), grads


def test_a_training_step_equals_the_one_on_the_cpu(on_device, on_cpu):
    """float32 throughout; a sum of a few hundred terms in another order moves by 1e-5 of its
    largest entry at most."""
    loss, mass, grads = training_step(on_device, DEVICE)
    want_loss, want_mass, want_grads = training_step(on_cpu, "cpu")
    assert loss.item() == pytest.approx(want_loss.item(), rel=1e-4)
    for layer, expected in want_mass.items():
        assert torch.allclose(mass[layer].cpu(), expected, atol=1e-4)
    assert grads.keys() == want_grads.keys()
    for name, expected in want_grads.items():
        tolerance = 1e-3 * expected.abs().max().item() + 1e-7
        assert (grads[name].cpu() - expected).abs().max().item() <= tolerance, name


def test_generation_with_a_cache_equals_generation_without(on_device):
    row = conversation(DEVICE, response="")
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.no_grad():
        cached = on_device.generate(**row, **options)
        uncached = on_device.generate(**row, **options, use_cache=False)
    assert torch.equal(cached, uncached)


def test_an_intervention_raises_the_visual_mass(on_device):
    row = conversation(DEVICE)
    with torch.no_grad():
        with record_attention(on_device) as before:
            on_device(**row, use_cache=False)
        with intervene(on_device, visual_bias=2.0), record_attention(on_device) as after:
            on_device(**row, use_cache=False)
    for layer, mass in before.mass.items():
        assert (after.mass[layer][..., 1] >= mass[..., 1]).all()
    assert after.mass[0][:, -1, :, 1].mean() > before.mass[0][:, -1, :, 1].mean()
