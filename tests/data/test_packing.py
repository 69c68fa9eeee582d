"""Samples in one row compute what they compute alone: logits, losses, masses and gradients."""

import dataclasses

import pytest
import torch

from avar_fast.attention import SpecialTokens, record_attention
from avar_fast.data import IGNORE, NO_SAMPLE
from avar_fast.data.rows import parse_row
from avar_fast.models.checkpointing import checkpoint_layers
from avar_fast.objectives import agto_loss
from avar_fast.train.forward import HeadLimits, label_nll
from avar_fast.train.spans import spans_of
from avar_fast.vas import FORMS, visual_attention_score
from tests.models.families import WITHOUT_RECURRENT, models

from .samples import SHAPES, TOKENIZER, collator, encoder, samples

TOKENS = SpecialTokens.from_processor(TOKENIZER)
HEAD = HeadLimits(1 << 14)  # several slices of the vocabulary


@pytest.fixture(scope="module", params=WITHOUT_RECURRENT)
def pair(request):
    """The same weights with "avar" and with eager attention."""
    return models(request.param)


@pytest.fixture(scope="module")
def model(pair):
    return pair[0].train()


@pytest.fixture(scope="module")
def alone():
    return samples()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def objective(model, batch, num_targets, num_guided, packed):
    """The step's loss of stage sft, from its parts."""
    span = spans_of(batch, "user", TOKENS)
    with record_attention(model) as recording:
        nll = label_nll(model, batch, HEAD)
    extra, parts = agto_loss(
        recording.mass,
        span.queries,
        span.types,
        num_samples=num_guided,
        sample_ids=batch.sample_ids if packed else None,
    )
    return nll / num_targets + extra, parts, recording.mass, span


def test_packed_equals_separate(model, alone):
    collate = collator(model, TOKENS)
    num_targets, num_guided = sum(len(s.target_ids) for s in alone), 3.0
    packed = collate.pack(alone)
    loss, parts, mass, span = objective(model, packed, num_targets, num_guided, True)
    got = gradients(model, loss)
    assert span.guided.tolist() == [True, False, True, True, False]
    assert (int(parts.num_samples), int(parts.num_skipped)) == (3, 2)

    # One sample at a time, unpadded, through transformers' own positions.
    total, enhance, scores = 0.0, 0.0, []
    for i, sample in enumerate(alone):
        batch = collate.pad([sample])
        one, piece, own_mass, own_span = objective(model, batch, num_targets, num_guided, False)
        total, enhance = total + one, enhance + piece.enhance * piece.num_samples
        length = len(sample.prompt_ids) + len(sample.target_ids)
        mine = packed.sample_ids[0] == i
        for layer in own_mass:
            own = own_mass[layer][0, :length]
            assert torch.allclose(mass[layer][0, mine], own, atol=1e-5), (i, layer)
        if own_span.scored.any():
            for form in FORMS:
                args = (own_span.scored, 1e-6, form, own_span.types)
                scores.append(
                    (form, visual_attention_score(own_mass, *args), own_span.scored.sum())
                )
    want = gradients(model, total)
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert (parts.enhance * parts.num_samples).item() == pytest.approx(enhance.item(), rel=1e-5)
    assert set(got) == set(want)
    for name, gradient in want.items():
        scale = gradient.abs().max().clamp(min=1e-4)
        assert (got[name] - gradient).abs().max() < 1e-3 * scale, name
    for form in FORMS:
        own = [(value, count) for name, value, count in scores if name == form]
        mean = sum(value * count for value, count in own) / sum(count for _, count in own)
        score = visual_attention_score(mass, span.scored, 1e-6, form, span.types, packed.sample_ids)
        assert score.item() == pytest.approx(mean.item(), rel=1e-4), form


@pytest.mark.parametrize("train_turns", ["all", "last"])
def test_turns_are_labeled_packed_as_padded_and_are_the_queries_of_the_response(
    model, alone, train_turns
):
    turns = [{"role": role, "content": role} for role in ("user", "assistant")] * 3
    row = parse_row({"messages": turns}, "talk", None)
    talk = encoder(train_turns=train_turns)(row)
    together = [alone[0], talk, alone[1]]
    packed, padded = collator(model, TOKENS).pack(together), collator(model, TOKENS).pad(together)
    trained = 3 if train_turns == "all" else 1
    for batch in (packed, padded):
        for i, sample in enumerate(together):
            assert torch.equal(batch.labels[batch.sample_ids == i], sample.labels)
        ends = (batch.labels == TOKENS.turn_end) & (batch.sample_ids == 1)
        assert int(ends.sum()) == trained
        with_image = [i for i, s in enumerate(together) if s.pixel_values is not None]
        seeing = (batch.labels != IGNORE) & torch.isin(batch.sample_ids, torch.tensor(with_image))
        assert with_image == [0]
        assert torch.equal(spans_of(batch, "response", TOKENS).queries, seeing)
    behind = packed.labels[0, 1:] != IGNORE
    assert torch.equal(packed.label_positions, behind.nonzero()[:, 0])


def logits_of(model, batch, sample, **change):
    """Logits of one sample inside a batch."""
    with torch.no_grad():
        logits = model(**batch.inputs | change, use_cache=False).logits
    return logits[batch.sample_ids == sample]


def test_packed_logits_equal_those_of_eager_attention_on_one_sample(pair, model, alone):
    eager = pair[1]
    collate = collator(model, TOKENS)
    batch = collate.pack(alone)
    for i, sample in enumerate(alone):
        want = logits_of(eager, collate.pad([sample]), 0)
        assert torch.allclose(logits_of(model, batch, i), want, atol=5e-5)


@pytest.mark.parametrize("leak", ["keys", "positions", "pixels"])
def test_the_comparison_would_notice_a_leak(model, alone, leak):
    """The same comparison on a pack with one thing wrong must fail."""
    collate = collator(model, TOKENS)
    batch = collate.pack(alone)
    inputs = dict(batch.inputs)
    if leak == "keys":  # one sequence: the second sample sees the first
        length = int(inputs["cu_seq_lens_q"][-1])
        inputs["cu_seq_lens_q"] = inputs["cu_seq_lens_k"] = torch.tensor([0, length]).int()
        inputs["max_length_q"] = inputs["max_length_k"] = length
    elif leak == "positions":  # image tokens in reading order instead of on a grid
        inputs["position_ids"] = inputs["position_ids"][:1].expand(4, -1, -1)
    else:  # the patches of the sample's first image in another order
        grid = inputs["image_grid_thw"]
        sizes = grid.prod(1).tolist()
        pieces = list(inputs["pixel_values"].split(sizes))
        inputs["pixel_values"] = torch.cat([pieces[0], pieces[1].flip(0), *pieces[2:]])
    wrong = dataclasses.replace(batch, inputs=inputs)
    want = logits_of(model, collate.pad([alone[2]]), 0)
    assert not torch.allclose(logits_of(model, wrong, 2), want, atol=1e-3)
    assert torch.allclose(logits_of(model, batch, 2), want, atol=5e-5)


def test_nothing_of_one_sample_reaches_another(model, alone):
    """Other samples around it change no logit of a sample."""
    collate = collator(model, TOKENS)
    one = logits_of(model, collate.pack([alone[0], alone[2], alone[1]]), 1)
    other = logits_of(model, collate.pack([alone[3], alone[2], alone[0]]), 1)
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("layout", ["pack", "pad"])
def test_text_alone_uses_the_vision_tower_and_changes_nothing(model, alone, layout):
    texts = [alone[1], alone[4]]
    collate = collator(model, TOKENS)
    batch = getattr(collate, layout)(texts)
    assert batch.num_samples == 2
    assert int((batch.sample_ids == NO_SAMPLE).sum()) >= 1
    nll = label_nll(model, batch, HEAD)
    got = gradients(model, nll)
    assert int(batch.label_mask.sum()) == sum(len(s.target_ids) for s in texts)
    for name, parameter in model.named_parameters():
        if ".visual." in name:  # there, for ranks to add up, and nothing in it
            assert parameter.grad is not None, name
            assert not got[name].any(), name
    total = 0.0
    for sample in texts:
        ids = torch.cat([sample.prompt_ids, sample.target_ids])[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, len(sample.prompt_ids) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(-1, sample.target_ids[:, None])
        total = total + chosen.sum()
    assert -nll.item() == pytest.approx(total.item(), rel=1e-5)
    want = gradients(model, -total)
    for name, gradient in want.items():
        assert torch.allclose(got[name], gradient, atol=1e-4 * gradient.abs().max().item()), name


def test_replayed_layers_keep_the_samples_of_a_pack_apart(model, alone):
    collate = collator(model, TOKENS)
    batch, runs = collate.pack(alone), []
    for checkpointing in (False, True):
        if checkpointing:
            checkpoint_layers(model)
        loss = objective(model, batch, 40, 3.0, True)[0]
        runs.append(gradients(model, loss))
    off = getattr(model, "activation_checkpointing_disable", None)
    (off or model.gradient_checkpointing_disable)()
    assert runs[0].keys() == runs[1].keys()
    for name, gradient in runs[0].items():
        assert torch.allclose(gradient, runs[1][name], atol=1e-6), name


def test_a_pack_has_what_the_layers_would_otherwise_ask_the_device_for(model, alone):
    batch = collator(model, TOKENS).pack(alone)
    lengths = [len(s.prompt_ids) + len(s.target_ids) for s in alone]
    assert batch.inputs["cu_seq_lens_q"].diff().tolist() == lengths
    assert batch.inputs["max_length_q"] == max(lengths)
    assert isinstance(batch.inputs["max_length_q"], int)
    assert batch.inputs["position_ids"].shape == (4, 1, sum(lengths))
    labeled = batch.labels[0] != IGNORE
    assert torch.equal(batch.labels[0][labeled], torch.cat([s.target_ids for s in alone]))
    assert torch.equal(batch.label_positions + 1, labeled.nonzero()[:, 0])
    # transformers' own rule, on the whole model, gives the same rotary positions.
    rotary = [
        model.model.get_rope_index(
            torch.cat([s.prompt_ids, s.target_ids])[None],
            (torch.cat([s.prompt_ids, s.target_ids])[None] == TOKENS.visual[0]).int(),
            s.image_grid_thw,
        )[0]
        for s in alone
    ]
    assert torch.equal(batch.inputs["position_ids"][1:], torch.cat(rotary, dim=2))


def test_precomputed_vision_arguments_are_those_of_the_tower(model, alone):
    """Given or not, the vision tower computes the same; a wrong one would show."""
    collate = collator(model, TOKENS)
    batch = collate.pad([alone[0], alone[2]])
    given = {k: v for k, v in batch.inputs.items() if k.startswith("image_")}
    plain = {k: v for k, v in batch.inputs.items() if k not in given or k == "image_grid_thw"}
    assert {"image_cu_seqlens", "image_position_ids"} < set(given)
    with torch.no_grad():
        want = model(**plain, use_cache=False).logits
        assert torch.equal(model(**batch.inputs, use_cache=False).logits, want)
        broken = batch.inputs | {"image_position_ids": given["image_position_ids"].flip(0)}
        assert not torch.allclose(model(**broken, use_cache=False).logits, want, atol=1e-3)


def test_shapes_cover_what_they_are_for():
    assert {len(shape) for shape in SHAPES} == {0, 1, 2}
