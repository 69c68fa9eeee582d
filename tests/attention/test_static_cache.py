"""Preallocated caches, which hand the layers more keys than they hold, against stock sdpa."""

import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from avar_fast.attention import attach, detach, record_attention
from avar_fast.attention.padding import existing_keys, padding_mask

from .caches import cache_in, given
from .tiny_models import TOKENIZER, batch, models, text_models, text_rows

CHUNKS = (9, 6, 1, 4)


def stock_and_ours(attached):
    fast, slow = models()
    slow.set_attn_implementation("sdpa")
    if not attached:
        detach(fast)
    return fast, slow


@torch.no_grad()
def in_chunks(model, cache, ids, mask=None, positions=None):
    """Logits of a prompt that is fed piece by piece."""
    logits, at = [], 0
    for size in CHUNKS:
        inputs = {"input_ids": ids[:, at : at + size]}
        if mask is not None:
            inputs["attention_mask"] = mask[:, : at + size]
        if positions is not None:
            inputs["position_ids"] = positions[:, at : at + size]
        logits.append(model(**inputs, **given(model, cache)).logits)
        at += size
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_slots_that_were_never_written_are_no_keys(attached, masked, rows):
    """Without a mask they were: zero keys took their share of every softmax, and the causal
    diagonal was as far off as there were slots left."""
    fast, slow = stock_and_ours(attached)
    ids = batch()["input_ids"][:1, :20].expand(rows, -1)
    mask = torch.ones_like(ids) if masked else None
    caches = [StaticCache(config=m.config.text_config, max_cache_len=64) for m in (fast, slow)]
    got, want = (in_chunks(m, c, ids, mask) for m, c in zip((fast, slow), caches, strict=True))
    assert torch.allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("static", [False, True])
def test_left_padding_in_chunks(static):
    fast, slow = text_models()
    ids, mask = text_rows(padded=5)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    both = []
    for model in (fast, slow):
        cache = StaticCache(model.config, max_cache_len=33) if static else DynamicCache()
        both.append(in_chunks(model, cache, ids, mask, positions))
    real = mask.bool()
    assert torch.allclose(both[0][real], both[1][real], atol=2e-5)


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("beams", [1, 3])
def test_generate_with_a_static_cache_matches_stock(attached, beams):
    """Plain use failed in every such call: the mask is narrower than the cache."""
    fast, slow = stock_and_ours(attached)
    options = dict(
        max_new_tokens=8,
        num_beams=beams,
        do_sample=False,
        cache_implementation="static",
        return_dict_in_generate=True,
        output_logits=True,
        eos_token_id=None,
        pad_token_id=TOKENIZER.pad_token_id,
    )
    inputs = batch("left")
    got, want = (model.generate(**inputs, **options) for model in (fast, slow))
    assert torch.equal(got.sequences, want.sequences)
    for a, b in zip(got.logits, want.logits, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static"},
        {"cache_implementation": "static", "prefill_chunk_size": 7},
        {"prefill_chunk_size": 7},
        {"num_beams": 3},
    ],
)
def test_generate_of_a_language_model_matches_stock(options):
    fast, slow = text_models()
    ids, mask = text_rows(padded=5)
    options = options | dict(max_new_tokens=6, do_sample=False)
    got, want = (m.generate(ids, attention_mask=mask, **options) for m in (fast, slow))
    assert torch.equal(got, want)


def test_assisted_generation_matches_stock():
    fast, slow = text_models()
    ids, mask = text_rows(rows=1)
    options = dict(max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=3)
    got, want = (m.generate(ids, attention_mask=mask, **options) for m in (fast, slow))
    assert torch.equal(got, want)


def test_recording_with_a_static_cache_is_recording_without():
    fast, _ = stock_and_ours(True)
    inputs = batch("left")
    options = dict(
        max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=TOKENIZER.pad_token_id
    )
    with record_attention(fast) as rec:
        fast.generate(**inputs, **options)
        grown = dict(rec.mass)
        fast.generate(**inputs, **options, cache_implementation="static")
    for layer, mass in grown.items():
        assert torch.allclose(rec.mass[layer], mass, atol=1e-5)


class Longer(DynamicLayer):
    """A cache that hands over one key more than it counts."""

    def get_seq_length(self):
        return max(0, super().get_seq_length() - 1)


def test_only_a_preallocated_cache_is_cut():
    """Keys beyond the known tokens were cut from whatever cache came, wherever they belonged."""
    fast, _ = models()
    ids = batch()["input_ids"][:1, :20]
    cache = DynamicCache()
    cache.layers = [Longer() for _ in range(4)]
    fast(input_ids=ids[:, :10], **given(fast, cache))
    with pytest.raises(ValueError, match="layer 0 11 keys of 10 tokens.*preallocated"):
        fast(input_ids=ids[:, 10:11], **given(fast, cache))
    detach(fast)
    with pytest.raises(ValueError, match="attention_mask must be the 2-D padding mask over 20"):
        existing_keys(torch.ones(1, 12, dtype=torch.bool), 20)
    with pytest.raises(ValueError, match="attention_mask must be the 2-D padding mask over 12"):
        fast(input_ids=ids[:, :12], attention_mask=torch.ones(1, 20), use_cache=False)


def test_a_mask_that_forgets_cached_tokens_is_refused():
    fast, _ = text_models()
    ids, mask = text_rows(rows=1)
    cache = cache_in(fast(input_ids=ids[:, :10], use_cache=True))
    with pytest.raises(ValueError, match="over all 15 tokens, the cached ones included.*5"):
        fast(input_ids=ids[:, 10:15], attention_mask=mask[:, :5], **given(fast, cache))


def test_masks_beyond_causal_are_refused():
    sizes = dict(batch_size=1, q_length=8, kv_length=8)
    assert padding_mask(**sizes, local_size=8) is None
    with pytest.raises(NotImplementedError, match="chunked attention.*8 tokens.*see 4"):
        padding_mask(**sizes, local_size=4)
    with pytest.raises(NotImplementedError, match="or_mask_function"):
        padding_mask(**sizes, use_vmap=True)


@pytest.mark.parametrize("name", ["softcap", "s_aux"])
def test_logits_of_another_softmax_are_refused(name):
    """They were ignored: a model with a cap or sinks gave other logits with no word."""
    from avar_fast.attention.call import avar_attention

    x = torch.zeros(1, 2, 3, 8)
    with pytest.raises(NotImplementedError, match=name):
        avar_attention(torch.nn.Identity(), x, x, x, None, **{name: 30.0})


def test_the_padding_mask_comes_through_under_the_vision_name_too():
    """Without a mask function of that name transformers dropped it silently."""
    fast, slow = text_models()
    fast.config._attn_implementation = "avar_flash"
    ids, mask = text_rows(padded=5)
    real = mask.bool()
    with torch.no_grad():
        got, want = (m(input_ids=ids, attention_mask=mask).logits for m in (fast, slow))
    assert torch.allclose(got[real], want[real], atol=2e-5)


def test_attaching_after_plain_use():
    fast, slow = stock_and_ours(False)
    inputs = batch("left")
    attach(fast, TOKENIZER)
    options = dict(max_new_tokens=4, do_sample=False, pad_token_id=TOKENIZER.pad_token_id)
    got, want = (m.generate(**inputs, **options) for m in (fast, slow))
    assert torch.equal(got, want)
