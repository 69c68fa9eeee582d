"""Masked heads against an eager model that masks by other means."""

import copy
from contextlib import nullcontext

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from avar_fast.attention import intervene, record_attention
from avar_fast.bootstrap import Bootstrap
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.lab.tokenizer import DEFAULT_SYSTEM
from avar_fast.studies import heads
from avar_fast.studies.heads import VISUAL_OFF, descending, rank_heads, zeroed_head
from avar_fast.studies.masses import QUANTITIES, MassSettings, collect

from ..attention.tiny_models import TOKENIZER, batch, models
from ..models.families import FAMILIES, layer_types
from ..models.families import models as family_models
from .model_and_rows import WITH_GAPS, edited, loaded_pair, ragged_rows

LAYER, HEAD = 1, 2
IMAGE_PAD = TOKENIZER.convert_tokens_to_ids("<|image_pad|>")
FAST = Bootstrap(resamples=50)


def masked_eager(is_visual, masked_layer):
    """Eager attention in which one head of one layer finds no visual key."""

    def attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        scores = query @ key.transpose(2, 3) * scaling
        if attention_mask is not None:
            scores = scores + attention_mask[..., : key.shape[2]]
        if getattr(module, "layer_idx", None) == masked_layer:
            scores[:, HEAD].masked_fill_(is_visual[:, None], float("-inf"))
        return (scores.softmax(dim=-1) @ value).transpose(1, 2), None

    AttentionInterface.register("masked_for_test", attention)
    AttentionMaskInterface.register("masked_for_test", eager_mask)
    return {"text_config": "masked_for_test"}


def answer_log_probs(model, inputs, labels):
    """(rows,) from whole logits."""
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[:, :-1].double()
    said = labels[:, 1:]
    chosen = logits.log_softmax(-1).gather(2, said.clamp(min=0)[..., None])[..., 0]
    return chosen.masked_fill(said < 0, 0.0).sum(dim=1)


@pytest.mark.parametrize(("family", "layer", "row"), [(None, 1, 1), (WITH_GAPS, 3, 1)])
def test_losses_are_those_of_an_eager_model_without_the_head(tmp_path, family, layer, row):
    """``row`` is the layer's place in the tables."""
    loaded, slow = loaded_pair(family)
    rows = ragged_rows(tmp_path)
    encoder = Encoder(TOKENIZER, loaded.image_processor, DEFAULT_SYSTEM, 1 << 20)
    everything = collate([encoder(row) for row in rows], TOKENIZER.pad_token_id, (IMAGE_PAD,))
    inputs, labels = everything.inputs, everything.labels
    tokens = (labels != -100).sum()
    plain = answer_log_probs(slow, inputs, labels)

    deaf = copy.deepcopy(slow)
    weight = deaf.model.language_model.layers[layer].self_attn.o_proj.weight
    dim = weight.shape[1] // 4
    with torch.no_grad():
        weight[:, HEAD * dim : (HEAD + 1) * dim] = 0.0
    want = {"output": (plain - answer_log_probs(deaf, inputs, labels)).sum() / tokens}
    blind = copy.deepcopy(slow)
    blind.set_attn_implementation(masked_eager(inputs["input_ids"] == IMAGE_PAD, layer))
    want["visual"] = (plain - answer_log_probs(blind, inputs, labels)).sum() / tokens

    got = rank_heads(loaded, rows, MassSettings(batch_size=4), bootstrap=FAST)
    assert got.layers[row] == layer
    assert got.log_prob.value == pytest.approx((plain.sum() / tokens).item(), rel=1e-5)
    for mask, value in want.items():
        assert abs(value) > 1e-3  # nothing to see otherwise
        drop = got.drops[mask]
        assert drop.value[row, HEAD] == pytest.approx(value.item(), rel=2e-3)
        assert (drop.low <= drop.value).all()
        assert (drop.value <= drop.high).all()
    again = answer_log_probs(loaded.model, inputs, labels)
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-4)  # all hooks are gone


def test_rankings_and_their_agreement(tmp_path):
    loaded, _ = loaded_pair()
    rows = ragged_rows(tmp_path)
    got = rank_heads(loaded, rows, MassSettings(), masks=("output",), bootstrap=FAST)
    read = collect(loaded, rows, MassSettings())
    visual = read.by_head[..., QUANTITIES.index("visual")].sum(0) / read.counts.sum()
    torch.testing.assert_close(torch.tensor(got.visual_mass.value), visual)
    order = got.order(got.visual_mass)
    assert order == descending(got.visual_mass.value), "every layer attends: rows are layers"
    values = [visual[head].item() for head in order]
    assert values == sorted(values, reverse=True)
    assert len(set(order)) == 16

    places = torch.tensor(
        [
            [o.index((i // 4, i % 4)) for i in range(16)]
            for o in (order, descending(got.drops["output"].value))
        ]
    ).double()
    assert got.agreement["output"].value == pytest.approx(torch.corrcoef(places)[0, 1].item())
    assert set(got.drops) == {"output"}


def test_intervening_on_one_head_leaves_the_others_as_they_are():
    """Without its visual keys, a head's mass on the rest is what it was, renormalized."""
    model, _ = models()
    inputs = batch()

    def masses():
        with torch.no_grad(), record_attention(model) as recording:
            model(**inputs)
        return recording.mass

    before = masses()
    with intervene(model, visual_bias=VISUAL_OFF, layers=[LAYER], heads=[HEAD]):
        during = masses()
    assert torch.equal(during[0], before[0])
    others = [head for head in range(4) if head != HEAD]
    assert torch.equal(during[LAYER][:, :, others], before[LAYER][:, :, others])
    text, visual, system = before[LAYER][:, :, HEAD].double().unbind(-1)
    rest = (text + system).clamp(min=1e-12)
    real = inputs["attention_mask"].bool()
    want = torch.stack([text / rest, torch.zeros_like(visual), system / rest], dim=-1)
    torch.testing.assert_close(during[LAYER][:, :, HEAD].double()[real], want[real])
    assert not torch.allclose(during[LAYER + 1], before[LAYER + 1])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_head_is_zeroed_in_every_family(name):
    fast, slow = family_models(name)
    inputs = batch()
    layer = max(i for i, kind in enumerate(layer_types(slow)) if kind == "full_attention")
    weight = slow.model.language_model.layers[layer].self_attn.o_proj.weight
    dim = weight.shape[1] // 4
    with torch.no_grad():
        plain = fast(**inputs).logits
        weight[:, HEAD * dim : (HEAD + 1) * dim] = 0.0
        want = slow(**inputs).logits
        with zeroed_head(fast, layer, HEAD):
            got = fast(**inputs).logits
        again = fast(**inputs).logits
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(got[real], want[real], rtol=1e-3, atol=1e-4)
    assert (got - plain)[real].abs().max() > 1e-2
    assert torch.equal(again, plain)


@pytest.mark.parametrize("heads", [[], [4], [-1]])
def test_heads_that_do_not_exist_are_refused(heads):
    model, _ = models()
    with (
        pytest.raises(ValueError, match=r"heads must be a non-empty subset of 0\.\.3"),
        intervene(model, heads=heads),
    ):
        pass


def test_rows_without_an_answer_are_refused_before_any_head_is_masked(tmp_path, monkeypatch):
    ragged_rows(tmp_path)
    edited(tmp_path / "test.jsonl", lambda i, row: i == 2 and row.pop("answer"))
    loaded, rows = loaded_pair()[0], load_rows(str(tmp_path / "test.jsonl"))
    masked = []
    monkeypatch.setattr(heads, "_masked", lambda *which: masked.append(which) or nullcontext())
    with pytest.raises(ValueError, match="row 3: answer must be given for the effect of masking"):
        rank_heads(loaded, rows, MassSettings(batch_size=1))
    assert masked == [], "rows were masked for hours before the one without an answer was met"
