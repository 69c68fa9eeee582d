"""The loss through the sliced head against transformers' own logits, on whole models."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from avar_fast.attention import SpecialTokens
from avar_fast.data import IGNORE, lay_out, plan_forwards
from avar_fast.models.checkpointing import checkpoint_layers
from avar_fast.models.head import replaced_head
from avar_fast.train.forward import HeadLimits, label_nll, response_log_probs
from tests.data.samples import TOKENIZER, collator, samples
from tests.models.families import WITHOUT_RECURRENT, in_float64, models

TOKENS = SpecialTokens.from_processor(TOKENIZER)
SLICES, WHOLE = HeadLimits(1 << 13), HeadLimits(1 << 30)


@pytest.fixture(scope="module", params=WITHOUT_RECURRENT)
def model(request):
    model = in_float64(models(request.param)[0]).train()
    if request.param == "qwen2_vl":  # two of the families with tied embeddings, one without
        assert model.lm_head.weight is not model.model.language_model.embed_tokens.weight
    return model


@pytest.fixture(params=["pad", "pack"])
def batch(request, model):
    collate = collator(model, TOKENS)
    made = getattr(collate, request.param)(samples())
    made.inputs["pixel_values"] = made.inputs["pixel_values"].double()
    return made


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def same(got, want):
    assert got.keys() == want.keys()
    return all(torch.allclose(got[name], want[name], rtol=1e-8, atol=1e-11) for name in want)


@pytest.mark.parametrize("limits", [SLICES, WHOLE], ids=["slices", "whole"])
def test_loss_and_gradients_are_those_of_all_logits(model, batch, limits):
    logits = model(**batch.inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
    labels = batch.labels[:, 1:].flatten()
    want = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    expected = gradients(model, want)
    loss = label_nll(model, batch, limits)
    assert torch.allclose(loss, want, rtol=1e-12)
    assert same(gradients(model, loss), expected)

    checkpoint_layers(model)
    assert same(gradients(model, label_nll(model, batch, limits)), expected)
    off = getattr(model, "activation_checkpointing_disable", None)
    (off or model.gradient_checkpointing_disable)()


@pytest.mark.parametrize("tokens", [None, 400], ids=["pad", "pack"])
def test_every_response_token_has_its_place(model, tokens):
    rows = samples()
    (forward,) = plan_forwards(rows, rows=len(rows), tokens=tokens, share=False)
    responses = lay_out(collator(model, TOKENS), rows, forward)
    inputs = responses.batch.inputs
    inputs["pixel_values"] = inputs["pixel_values"].double()
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
        scores = response_log_probs(model, responses, SLICES, 0.7, TOKENS.visual, with_entropy=True)
    logits[..., list(TOKENS.visual)] = -1e300
    log_probs = (logits / 0.7).log_softmax(-1)
    for i, sample in enumerate(rows):
        length = len(sample.target_ids)
        own = log_probs[responses.batch.sample_ids == i][len(sample.prompt_ids) - 1 : -1]
        chosen = own.gather(-1, sample.target_ids[:, None])[:, 0]
        entropy = -(own.exp() * own).sum(-1)
        assert torch.allclose(scores.log_probs[i, :length], chosen, atol=1e-12)
        assert torch.allclose(scores.entropies[i, :length], entropy, atol=1e-12)
        assert not scores.log_probs[i, length:].any()
        assert not scores.entropies[i, length:].any()


def test_tied_and_frozen_heads(model, batch):
    tied = copy.deepcopy(model)
    tied.lm_head.weight = tied.model.language_model.embed_tokens.weight
    logits = tied(**batch.inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
    labels = batch.labels[:, 1:].flatten()
    want = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    assert same(gradients(tied, label_nll(tied, batch, SLICES)), gradients(tied, want))

    frozen = copy.deepcopy(model)
    frozen.lm_head.requires_grad_(False)
    got = gradients(frozen, label_nll(frozen, batch, SLICES))
    assert "lm_head.weight" not in got
    expected = gradients(model, label_nll(model, batch, SLICES))
    del expected["lm_head.weight"]
    assert same(got, expected)


def test_a_forward_that_leaves_out_the_head_is_an_error(model, batch):
    with (
        pytest.raises(RuntimeError, match="called its lm_head 0 times instead of once"),
        replaced_head(model, lambda hidden, weight: hidden),
    ):
        model.model(**batch.inputs, use_cache=False)
    with torch.no_grad():  # and the head is itself again
        assert model(**batch.inputs, use_cache=False).logits.shape[-1] == len(TOKENIZER)
