"""Maps of single keys against eager attention matrices."""

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.attention import intervene, record_attention, record_maps

from .caches import cache_in, given
from .tiny_models import batch, models


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("role", ["response", "user"])
def test_weights_are_those_of_eager_attention(side, role):
    fast, slow = models()
    inputs = batch(side)
    with torch.no_grad():
        with record_maps(fast, role) as maps, record_attention(fast) as recording:
            fast(**inputs)
        attentions = slow(**inputs, output_attentions=True).attentions
    assert torch.equal(maps.queries, recording.queries(role))
    assert set(maps.weights) == {0, 1, 2, 3}
    for layer, rows in maps.weights.items():
        for row, weights in enumerate(rows):
            want = attentions[layer][row].mean(dim=0)[maps.queries[row]][:, maps.keys[row]]
            assert weights.shape == want.shape
            assert weights.shape[0] > 3
            assert torch.allclose(weights, want, atol=2e-6)
            mass = recording.mass[layer][row][maps.queries[row]][..., KeyType.VISUAL].mean(1)
            assert torch.allclose(weights.sum(1), mass, atol=2e-6)


def test_layers_and_key_types_can_be_chosen():
    fast, _ = models()
    with torch.no_grad(), record_maps(fast, "all", KeyType.SYSTEM, layers=[2]) as maps:
        fast(**batch())
    assert set(maps.weights) == {2}
    assert maps.weights[2][0].shape[1] == int(maps.keys[0].sum())


def test_queries_can_be_a_mask():
    fast, _ = models()
    inputs = batch("right")
    mask = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    mask[:, 40:43] = True
    with torch.no_grad():
        with record_maps(fast, "all", layers=[1]) as everyone:
            fast(**inputs)
        with record_maps(fast, mask, layers=[1]) as maps:
            fast(**inputs)
    assert torch.equal(maps.weights[1][0], everyone.weights[1][0][40:43])


def test_sums_are_masses_under_autocast():
    fast, _ = models()
    recorded = record_attention(fast)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    with torch.no_grad(), autocast, record_maps(fast) as maps, recorded as recording:
        fast(**batch("right"))
    for row in (0, 1):
        mass = recording.mass[3][row][maps.queries[row]][..., KeyType.VISUAL].mean(1)
        assert torch.allclose(maps.weights[3][row].sum(1), mass, atol=1e-5)


def test_what_is_refused():
    fast, _ = models()
    inputs = batch("left")
    for mask in (torch.ones(2, 3).bool(), torch.full(inputs["input_ids"].shape, 0.5)):
        with record_maps(fast, mask), pytest.raises(ValueError, match="must be bool of shape"):
            fast(**inputs)
    embeds = torch.zeros(1, 3, fast.config.text_config.hidden_size)
    with record_maps(fast), pytest.raises(RuntimeError, match="text tower was called alone"):
        fast.model.language_model(inputs_embeds=embeds)
    with torch.no_grad():
        cache = given(fast, cache_in(fast(**inputs, use_cache=True)))
        last = {"input_ids": inputs["input_ids"][:, -1:], **cache}
        last["position_ids"] = torch.zeros(3, 2, 1, dtype=torch.long)
        with record_maps(fast), pytest.raises(ValueError, match="reads whole rows.*got a cache"):
            fast(**last)
        with record_maps(fast), intervene(fast, 1.2), pytest.raises(ValueError, match="unchanged"):
            fast(**inputs)
    with record_maps(fast), pytest.raises(RuntimeError, match="already active"), record_maps(fast):
        pass
    for options, message in (
        ({"queries": "system"}, "queries must be one of"),
        ({"key_type": 3}, "key_type must be from 0 to 2; got 3"),
        ({"layers": [9]}, "layers must be a non-empty subset"),
    ):
        with pytest.raises(ValueError, match=message), record_maps(fast, **options):
            pass
