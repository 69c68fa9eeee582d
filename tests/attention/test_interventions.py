"""Interventions against a written-out attention, in each reading of the paper's formula."""

import pytest
import torch
from avar_kernels import KeyType
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from avar_fast.attention import (
    INTERVENTION_FORMS,
    SpecialTokens,
    attach,
    intervene,
    key_types,
    query_mask,
    record_attention,
)

from .tiny_models import TOKENIZER, batch, models, text_models, text_rows

TOKENS = SpecialTokens.from_processor(TOKENIZER)
SCALE, BIAS = torch.tensor([1.0, 1.6, 0.4]), torch.tensor([0.0, 0.3, -0.2])
CHANGE = {"visual_scale": 1.6, "system_scale": 0.4, "visual_bias": 0.3, "system_bias": -0.2}


class WrittenOut:
    """Eager attention with the change of a form, for the queries of a role and some layers."""

    def __init__(self, inputs, form="logits", role="all", layers=range(4), heads=range(4)):
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        self.types = key_types(ids, mask, tokens=TOKENS).clamp(min=0).long()
        self.queries = query_mask(ids, mask, role=role, tokens=TOKENS)[:, None, :, None]
        self.form, self.layers, self.weights = form, layers, {}
        self.heads = torch.isin(torch.arange(4), torch.tensor([*heads]))[None, :, None, None]

    def __call__(self, module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        z = (query @ key.transpose(-1, -2)).double() * scaling
        mask = 0.0 if attention_mask is None else attention_mask.double()
        weights = torch.softmax(z + mask, dim=-1)
        if module.is_causal and module.layer_idx in self.layers:
            s, b = (table.double()[self.types][:, None, None] for table in (SCALE, BIAS))
            if self.form == "logits":
                changed = torch.softmax(s * z + b + mask, dim=-1)
            else:
                changed = s * torch.softmax(z + b + mask, dim=-1)
                if self.form == "weights":
                    changed = changed / changed.sum(-1, keepdim=True)
            weights = torch.where(self.queries & self.heads, changed, weights)
            self.weights[module.layer_idx] = weights
        out = (weights @ value.double()).to(value.dtype)
        return out.transpose(1, 2).contiguous(), weights

    def mass(self, layer):
        """(B, L, H, 3)"""
        one_hot = torch.nn.functional.one_hot(self.types, 3)[:, None].double()
        return (self.weights[layer] @ one_hot).transpose(1, 2)


def reference(slow, inputs, *args, **options):
    """Logits of the written-out attention, and itself."""
    attention = WrittenOut(inputs, *args, **options)
    AttentionInterface.register("written_out", attention)
    AttentionMaskInterface.register("written_out", eager_mask)
    slow.set_attn_implementation({"text_config": "written_out", "vision_config": "eager"})
    return slow(**inputs).logits, attention


@pytest.mark.parametrize("form", INTERVENTION_FORMS)
@pytest.mark.parametrize("role", ["all", "response", "user"])
def test_logits_and_masses_of_every_form(form, role):
    fast, slow = models()
    inputs = batch("left")
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        with intervene(fast, **CHANGE, form=form, queries=role), record_attention(fast) as rec:
            got = fast(**inputs).logits
        want, written = reference(slow, inputs, form, role)
        plain = fast(**inputs).logits
    assert torch.allclose(got[real], want[real], atol=3e-5)
    assert not torch.allclose(got[real], plain[real], atol=1e-2)
    for layer, mass in rec.mass.items():
        assert torch.allclose(mass[real], written.mass(layer)[real].float(), atol=2e-6)
    sums = rec.mass[1][real].sum(-1)
    if form == "weights_unnormalized":
        assert (sums - 1).abs().max() > 0.1
    else:
        assert torch.allclose(sums, torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("form", INTERVENTION_FORMS)
def test_single_layers_and_heads_of_every_form(form):
    fast, slow = models()
    inputs = batch("right")
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), intervene(fast, **CHANGE, form=form, layers=[1, 2], heads=[0, 3]):
        got = fast(**inputs).logits
    with torch.no_grad():
        want, _ = reference(slow, inputs, form, layers=(1, 2), heads=(0, 3))
    assert torch.allclose(got[real], want[real], atol=3e-5)


@pytest.mark.parametrize("form", INTERVENTION_FORMS)
def test_the_gradient_of_every_form(form):
    fast, slow = models()
    inputs = batch("right")
    real = inputs["attention_mask"].bool()
    with intervene(fast, **CHANGE, form=form, queries="response"):
        fast(**inputs).logits[real].square().mean().backward()
    logits, _ = reference(slow, inputs, form, "response")
    logits[real].square().mean().backward()
    for (name, ours), theirs in zip(fast.named_parameters(), slow.parameters(), strict=True):
        if ours.grad is not None:
            scale = theirs.grad.abs().max()
            assert (ours.grad - theirs.grad).abs().max() <= 1e-3 * scale + 1e-7, name


def test_forms_are_what_their_formulas_say():
    """The masses of the first layer, changed by hand."""
    fast, _ = models()
    inputs = batch("right")
    with torch.no_grad(), record_attention(fast, layers=[0]) as rec:
        fast(**inputs)
    plain = rec.mass[0][0, -1].double()
    factors = torch.tensor([1.0, 1.6, 0.4]).double()
    wanted = {"weights_unnormalized": plain * factors}
    wanted["weights"] = plain * factors / (plain * factors).sum(-1, keepdim=True)
    for form, want in wanted.items():
        change = intervene(fast, visual_scale=1.6, system_scale=0.4, form=form)
        with torch.no_grad(), change, record_attention(fast, layers=[0]) as rec:
            fast(**inputs)
        assert torch.allclose(rec.mass[0][0, -1].double(), want, atol=1e-6), form


@pytest.mark.parametrize("form", INTERVENTION_FORMS)
@pytest.mark.parametrize("role", ["all", "response"])
def test_tokens_decoded_with_a_cache_are_those_of_whole_forwards(form, role):
    fast, _ = models()
    inputs = batch("left")
    pad = TOKENIZER.pad_token_id
    options = dict(max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=pad)
    with torch.no_grad(), intervene(fast, **CHANGE, form=form, queries=role):
        out = fast.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)
        new = out.sequences.shape[1] - inputs["input_ids"].shape[1]
        grown = dict(inputs, input_ids=out.sequences)
        for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
            extra = torch.full((2, new), value, dtype=inputs[name].dtype)
            grown[name] = torch.cat([inputs[name], extra], dim=1)
        whole = fast(**grown).logits[:, -new - 1 : -1]
    assert torch.allclose(torch.stack(out.logits, dim=1), whole, atol=1e-4)


def hint(ids, types):
    """The digits of the text become type 3, the first image token of a row type 4."""
    digits = torch.tensor(TOKENIZER.convert_tokens_to_ids(list("0123456789")))
    types = torch.where(torch.isin(ids, digits), 3, types)
    first = (types == KeyType.VISUAL) & ((types == KeyType.VISUAL).cumsum(1) == 1)
    return torch.where(first, 4, types)


def test_types_of_ones_own_are_recorded_and_changed():
    fast, slow = models()
    attach(fast, TOKENIZER, num_types=5, classify=hint)
    inputs = batch("left")
    real = inputs["attention_mask"].bool()
    slow.set_attn_implementation("eager")
    with torch.no_grad():
        with record_attention(fast) as rec:
            fast(**inputs)
        attentions = slow(**inputs, output_attentions=True).attentions
        plain_types = key_types(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)
        types = torch.where(plain_types < 0, -1, hint(inputs["input_ids"], plain_types))
        assert torch.equal(rec.key_types.long(), types.long())
        assert (types == 3).any(dim=1).all()
        assert (types == 4).sum() == 2
        one_hot = torch.nn.functional.one_hot(types.clamp(min=0).long(), 5).float()
        one_hot = one_hot * (types >= 0)[..., None]
        for layer, weights in enumerate(attentions):
            want = (weights @ one_hot[:, None]).transpose(1, 2)
            assert torch.allclose(rec.mass[layer][real], want[real], atol=2e-6)
        change = {"scales": {3: 0.5}, "biases": {4: 1.0}}
        with intervene(fast, **change, form="weights"), record_attention(fast, layers=[0]) as rec:
            fast(**inputs)
    factors = torch.tensor([1.0, 1.0, 1.0, 0.5, float(torch.tensor(1.0).exp())])
    want = (attentions[0] @ one_hot[:, None]).transpose(1, 2) * factors
    want = want / want.sum(-1, keepdim=True)
    assert torch.allclose(rec.mass[0][real], want[real], atol=2e-6)


def test_types_of_ones_own_while_tokens_are_generated():
    fast, _ = models()
    attach(fast, TOKENIZER, num_types=5, classify=hint)
    inputs = batch("left")
    options = dict(
        max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=TOKENIZER.pad_token_id
    )
    with record_attention(fast) as rec:
        out = fast.generate(**inputs, **options)
    types = key_types(out[:, :-1], tokens=TOKENS)
    padding = torch.nn.functional.pad(inputs["attention_mask"], (0, 3), value=1) == 0
    want = torch.where(padding, -1, hint(out[:, :-1], types))
    assert torch.equal(rec.key_types.long(), want.long())
    assert rec.mass[0].shape[-1] == 5


@pytest.mark.parametrize(
    ("classify", "error", "message"),
    [
        (lambda ids, types: types[:, 1:], ValueError, r"a type for each of the \(2, \d+\) tokens"),
        (lambda ids, types: types.float(), TypeError, "tensor of integers.*got torch.float32"),
        (lambda ids, types: types == 1, TypeError, "got torch.bool"),
        (lambda ids, types: None, TypeError, "got NoneType"),
        (lambda ids, types: types.to(torch.complex128), TypeError, "got torch.complex128"),
        (lambda ids, types: types + 2, ValueError, r"from 0 to 3 \(num_types - 1\) for every"),
        (lambda ids, types: types - 1, ValueError, "from 0 to 3"),
        (
            lambda ids, types: types.to("meta"),
            ValueError,
            "on the device of input_ids, cpu; got meta",
        ),
    ],
)
def test_what_a_function_of_types_may_not_return(classify, error, message):
    fast, _ = models()
    attach(fast, TOKENIZER, num_types=4, classify=classify, check=False)
    with torch.no_grad(), pytest.raises(error, match=message):
        fast(**batch())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64])
def test_a_function_of_types_may_return_any_integers(dtype):
    """An unsigned type cannot hold the -1 of padding."""
    fast, _ = models()
    inputs = batch("left")

    def counted(ids, types):
        return torch.where(types == KeyType.VISUAL, 3, types.clamp(min=0)).to(dtype)

    attach(fast, TOKENIZER, num_types=4, classify=counted)
    with torch.no_grad(), record_attention(fast) as rec:
        fast(**inputs)
    plain = key_types(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)
    assert torch.equal(rec.key_types, torch.where(plain == KeyType.VISUAL, 3, plain))


def test_a_function_of_types_that_writes_into_the_ids_changes_neither_model_nor_recording():
    def scribbling(ids, types):
        ids.fill_(1)
        return types

    fast, _ = models()
    inputs = batch("left")
    with torch.no_grad():
        want = fast(**inputs).logits
        attach(fast, TOKENIZER, classify=scribbling)
        with record_attention(fast) as rec:
            got = fast(**inputs).logits
    assert torch.equal(got, want)
    assert rec.queries("response").any()
    assert (rec.token_ids == inputs["input_ids"]).any(dim=1).all()

    language, _ = text_models()  # of no family: its forward gets the very ids
    ids, _ = text_rows()
    tokens = SpecialTokens(90, 91, (92,), (93,), (94,), (95,), (96,))
    with torch.no_grad():
        attach(language, None, tokens=tokens)
        want = language(input_ids=ids).logits
        attach(language, None, tokens=tokens, classify=scribbling)
        assert torch.equal(language(input_ids=ids).logits, want)


@pytest.mark.parametrize("at_padding", [1, 99, -7])
def test_a_function_of_types_cannot_change_padding_or_the_plain_types(at_padding):
    fast, _ = models()

    def everything(ids, types):
        padding = types < 0
        types[:] = 1
        types[padding] = at_padding
        return types

    attach(fast, TOKENIZER, classify=everything)
    inputs = batch("right")
    with torch.no_grad(), record_attention(fast) as rec:
        fast(**inputs)
    assert torch.equal(rec.key_types, inputs["attention_mask"].int() * 2 - 1)


def test_the_check_of_attach_does_not_ask_a_function_of_types():
    """Its row has no image, and is no row of the user's."""
    fast, _ = models()

    def never(ids, types):
        raise AssertionError

    attach(fast, TOKENIZER, num_types=4, classify=never)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_types": 17, "classify": hint}, "from 3 .* to 16; got 17"),
        ({"num_types": 2, "classify": hint}, "from 3 .* to 16; got 2"),
        ({"num_types": 4}, "num_types = 4 needs classify="),
    ],
)
def test_numbers_of_types_that_are_refused(options, message):
    fast, _ = models()
    with pytest.raises(ValueError, match=message):
        attach(fast, TOKENIZER, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_types": 4.0, "classify": hint}, "num_types must be an int; got 4.0"),
        ({"num_types": "4", "classify": hint}, "num_types must be an int; got '4'"),
        ({"num_types": 4, "classify": "hint"}, r"a function of \(input_ids, types\); got str"),
    ],
)
def test_what_is_no_number_or_no_function(options, message):
    fast, _ = models()
    with pytest.raises(TypeError, match=message):
        attach(fast, TOKENIZER, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "softmax"}, "form must be one of logits, weights, weights_unnormalized; got"),
        ({"queries": "system"}, "queries must be one of user, prompt, response, all; got 'system'"),
        ({"form": "weights", "system_scale": 0.0}, "every scale must be positive.*bias of -1e4"),
        ({"form": "weights_unnormalized", "visual_scale": -1.0}, "every scale must be positive"),
        ({"visual_bias": float("nan")}, "every bias must be finite"),
        ({"visual_scale": float("inf")}, "every scale must be finite"),
        ({"visual_scale": 1e39}, r"every scale must be finite, from -1e\+30 to 1e\+30"),
        ({"system_bias": -1e39}, r"every bias must be finite, from -1e\+30 to 1e\+30"),
        ({"form": "weights_unnormalized", "visual_scale": 1e-50}, "positive.*at least 1e-30"),
        ({"scales": {3: 2.0}}, r"scales must be of key types 0 to 2; got 3.*classify="),
        ({"biases": {-1: 2.0}}, "biases must be of key types 0 to 2; got -1"),
        ({"biases": {1: 2.0}, "visual_bias": 1.0}, "gives type 1 again; leave out visual_bias"),
    ],
)
def test_changes_that_are_refused(options, message):
    fast, _ = models()
    with pytest.raises(ValueError, match=message), intervene(fast, **options):
        pass
    with intervene(fast):  # and the model is as before
        pass


@pytest.mark.parametrize("form", INTERVENTION_FORMS)
@pytest.mark.parametrize("value", [1e-30, 1e30])
def test_the_largest_changes_are_finite(form, value):
    """Those of float32 beyond them gave NaN, or rows of zeros, without a word."""
    fast, _ = models()
    inputs = batch("right")
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), intervene(fast, value, form=form), record_attention(fast) as rec:
        logits = fast(**inputs).logits
    assert torch.isfinite(logits[real]).all()
    for mass in rec.mass.values():
        assert torch.isfinite(mass[real]).all()
        assert (mass[real].sum(-1) > 0).all()
