"""The plug-in on a tiny random Qwen2.5-VL against transformers' eager attention with all
matrices."""

import contextlib
import copy

import pytest
import torch

from avar_fast.attention import (
    SpecialTokens,
    attach,
    detach,
    intervene,
    key_types,
    record_attention,
)
from avar_fast.models.checkpointing import checkpoint_layers

from .caches import cache_in, given
from .tiny_models import TOKENIZER, batch, eager_mass, models

TOKENS = SpecialTokens.from_processor(TOKENIZER)


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_and_recorded_mass_match_eager(side):
    fast, slow = models()
    inputs = batch(side)
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), record_attention(fast) as rec:
        got = fast(**inputs).logits
    with torch.no_grad():
        want = slow(**inputs, output_attentions=True)
    assert torch.allclose(got[real], want.logits[real], atol=2e-5)
    types = key_types(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)
    assert set(rec.mass) == {0, 1, 2, 3}
    for layer, mass in enumerate(eager_mass(want.attentions, types)):
        assert rec.mass[layer].dtype == torch.float32
        assert torch.allclose(rec.mass[layer][real], mass[real], atol=1e-6)
        assert mass[real].std() > 0.05  # the comparison is not one of constants


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_through_mass_and_logits_match_eager(checkpointing):
    fast, slow = models()
    inputs = batch("left")
    real = inputs["attention_mask"].bool()
    types = key_types(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)
    if checkpointing:
        checkpoint_layers(fast)
    fast.train()
    slow.train()

    def loss(logits, masses):
        return logits[real].logsumexp(-1).mean() + sum(
            (m[real][..., 1] + 1e-2).log().mean() for m in masses
        )

    with record_attention(fast) as rec:
        logits = fast(**inputs, use_cache=False).logits
    with record_attention(fast):  # a forward in between must not disturb the replay of the first
        fast(**batch("right", images=(2, 1)), use_cache=False)
    loss(logits, rec.mass.values()).backward()
    out = slow(**inputs, output_attentions=True, use_cache=False)
    loss(out.logits, eager_mass(out.attentions, types)).backward()
    for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
        if b.grad is None:
            assert a.grad is None, name
            continue
        scale = b.grad.abs().max().clamp(min=1e-3)
        assert (a.grad - b.grad).abs().max() < 1e-3 * scale, name


def test_reentrant_checkpointing_is_refused():
    fast, _ = models()
    fast.train()
    checkpoint_layers(fast, use_reentrant=True)
    fast.enable_input_require_grads()
    with (
        pytest.raises(RuntimeError, match="reentrant.*use_reentrant.*False"),
        record_attention(fast),
    ):
        fast(**batch(), use_cache=False)


class BiasedEager:
    """Eager attention with the intervention written into its logits: scale, then bias, then
    mask."""

    def __init__(self, scale, bias, layers):
        self.scale, self.bias, self.layers = scale, bias, layers
        self.ids = None

    def __call__(self, module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        logits = query @ key.transpose(-1, -2) * scaling
        if module.is_causal and module.layer_idx in self.layers:
            types = torch.zeros(key.shape[0], key.shape[2], dtype=torch.long)
            prompt = key_types(self.ids, tokens=TOKENS).long()
            types[:, : prompt.shape[1]] = prompt
            logits = logits * self.scale[types][:, None, None] + self.bias[types][:, None, None]
        if attention_mask is not None:
            logits = logits + attention_mask
        weights = torch.softmax(logits, dim=-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights


@pytest.mark.parametrize("layers", [None, [1, 2]])
def test_interventions_under_generate_match_eager_with_the_bias_in_its_logits(layers):
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    fast, slow = models()
    inputs = batch("left")
    scale, bias = torch.tensor([1.0, 1.4, 0.5]), torch.tensor([0.0, 0.7, -0.6])
    biased = BiasedEager(scale, bias, range(4) if layers is None else layers)
    biased.ids = inputs["input_ids"]
    AttentionInterface.register("biased_eager", biased)
    AttentionMaskInterface.register("biased_eager", eager_mask)
    slow.set_attn_implementation({"text_config": "biased_eager", "vision_config": "eager"})
    options = dict(
        max_new_tokens=12,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        eos_token_id=None,
        pad_token_id=TOKENIZER.pad_token_id,
    )
    with intervene(fast, 1.4, 0.5, visual_bias=0.7, system_bias=-0.6, layers=layers):
        got = fast.generate(**inputs, **options)
    want = slow.generate(**inputs, **options)
    plain = fast.generate(**inputs, **options)
    assert torch.equal(got.sequences, want.sequences)
    for a, b in zip(got.logits, want.logits, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert not torch.allclose(got.logits[0], plain.logits[0], atol=1e-3)


def test_recording_under_generate_grows_with_the_cache():
    fast, slow = models()
    inputs = batch("left")
    with record_attention(fast, layers=[0, 3]) as rec:
        sequences = fast.generate(
            **inputs,
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=TOKENIZER.pad_token_id,
        )
    assert set(rec.mass) == {0, 3}
    assert rec.mass[0].shape == (2, 1, 4, 3)
    new = sequences.shape[1] - inputs["input_ids"].shape[1]
    full = dict(inputs, input_ids=sequences[:, :-1])
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        extra = torch.full((2, new - 1), value, dtype=inputs[name].dtype)
        full[name] = torch.cat([inputs[name], extra], dim=1)
    with torch.no_grad():
        attentions = slow(**full, output_attentions=True).attentions
    types = key_types(full["input_ids"], full["attention_mask"], tokens=TOKENS)
    want = eager_mass(attentions, types)
    for layer in (0, 3):
        assert torch.allclose(rec.mass[layer][:, 0], want[layer][:, -1], atol=1e-5)


def test_unattached_model_is_plain_attention_that_respects_padding():
    fast, slow = models()
    detach(fast)
    inputs = batch("left")
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        assert torch.allclose(fast(**inputs).logits[real], slow(**inputs).logits[real], atol=2e-5)


def test_attach_and_recording_errors_name_the_remedy():
    fast, slow = models()
    with pytest.raises(ValueError, match='attn_implementation "avar".*eager'):
        attach(slow, TOKENIZER)
    with pytest.raises(ValueError, match="attached first"), record_attention(slow):
        pass
    with (
        pytest.raises(ValueError, match=r"layers must be.*0\.\.3.*\[9\]"),
        record_attention(fast, [9]),
    ):
        pass
    with (
        pytest.raises(RuntimeError, match="already active"),
        record_attention(fast),
        record_attention(fast),
    ):
        pass
    with pytest.raises(TypeError, match="supported family.*Linear"):
        attach(torch.nn.Linear(2, 2), TOKENIZER)
    with pytest.raises(TypeError, match="processor must be a processor or a tokenizer; got None"):
        attach(fast, None)
    with pytest.raises(ValueError, match="needs input_ids"):
        fast(inputs_embeds=torch.zeros(1, 3, 128))


def test_a_cache_of_unknown_tokens_is_refused():
    fast, slow = models()
    inputs = batch("left")
    cache = cache_in(slow(**inputs, use_cache=True))
    with pytest.raises(ValueError, match="whose tokens are unknown"):
        fast(input_ids=inputs["input_ids"][:, -1:], **given(fast, cache))


@pytest.mark.parametrize("attached", [True, False])
def test_packed_offsets_separate_samples(attached):
    fast, _ = models()
    if not attached:
        detach(fast)
    ids = batch()["input_ids"][:1, :20]
    row = torch.cat([torch.arange(8), torch.arange(12)])
    offsets = torch.tensor([0, 8, 20], dtype=torch.int32)
    recording = record_attention(fast) if attached else contextlib.nullcontext()
    with torch.no_grad(), recording as rec:
        packed = fast(
            input_ids=ids,
            position_ids=row.expand(4, 1, -1),
            use_cache=False,
            cu_seq_lens_q=offsets,
            cu_seq_lens_k=offsets,
            max_length_q=12,
            max_length_k=12,
        ).logits
        assert rec is None or rec.mass[0].shape == (1, 20, 4, 3)
        first = fast(input_ids=ids[:, :8], position_ids=row[:8].expand(4, 1, -1)).logits
        second = fast(input_ids=ids[:, 8:], position_ids=row[8:].expand(4, 1, -1)).logits
    assert torch.allclose(packed, torch.cat([first, second], dim=1), atol=2e-5)


def test_packing_needs_one_row_and_all_four_arguments():
    fast, _ = models()
    ids = batch()["input_ids"][:, :20]
    offsets = torch.tensor([0, 8, 20], dtype=torch.int32)
    packing = {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets, "max_length_q": 12}
    with pytest.raises(ValueError, match="one row.*got 1 rows without max_length_k"):
        fast(input_ids=ids[:1], use_cache=False, **packing)
    with pytest.raises(ValueError, match="one row.*got 2 rows"):
        fast(input_ids=ids, use_cache=False, max_length_k=12, **packing)


def test_the_model_below_the_lm_head_records_and_is_changed_too():
    """Hooks on the outer forward alone left model.model(...) silently unrecorded."""
    fast, _ = models()
    inputs = batch("left")
    with torch.no_grad():
        with record_attention(fast) as whole:
            plain = fast(**inputs).logits
        with record_attention(fast) as inner:
            fast.model(**inputs)
        with intervene(fast, visual_bias=3.0):
            changed = fast.lm_head(fast.model(**inputs).last_hidden_state)
            want = fast(**inputs).logits
    assert set(whole.mass) == set(inner.mass) == {0, 1, 2, 3}
    assert all(torch.equal(whole.mass[i], inner.mass[i]) for i in whole.mass)
    assert torch.allclose(changed, want, atol=1e-5)
    assert not torch.allclose(changed, plain, atol=1e-3)


@pytest.mark.parametrize("context", [record_attention, intervene])
def test_the_text_tower_alone_is_refused_where_it_would_do_nothing(context):
    fast, _ = models()
    embeds = torch.zeros(1, 3, fast.config.text_config.hidden_size)
    fast.model.language_model(inputs_embeds=embeds)
    with context(fast), pytest.raises(RuntimeError, match="text tower was called alone"):
        fast.model.language_model(inputs_embeds=embeds)


@pytest.mark.parametrize("return_dict", [True, False])
def test_a_copied_cache_goes_on_like_the_original(return_dict):
    """A prefix computed once and copied for several continuations is a common use of the cache."""
    fast, _ = models()
    inputs = batch("left")
    prefix = {**inputs, **{n: inputs[n][:, :-2] for n in ("input_ids", "attention_mask")}}
    prefix["mm_token_type_ids"] = inputs["mm_token_type_ids"][:, :-2]
    rest = {"input_ids": inputs["input_ids"][:, -2:], "attention_mask": inputs["attention_mask"]}
    with torch.no_grad():
        with record_attention(fast) as whole:
            fast(**inputs)
        out = fast(**prefix, use_cache=True, return_dict=return_dict)
        cache = cache_in(out)
        behind = inputs["attention_mask"].cumsum(1)[:, -2:] - 1 + fast.model.rope_deltas
        rest["position_ids"] = behind.expand(3, -1, -1)
        for _ in range(2):
            with record_attention(fast) as rec:
                fast(**rest, **given(fast, copy.deepcopy(cache)))
            assert torch.allclose(rec.mass[3], whole.mass[3][:, -2:], atol=1e-5)
