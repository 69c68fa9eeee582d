"""Copies of an attached model: reference models and moving averages are made by deepcopy."""

import copy
import io

import pytest
import torch

from avar_fast.attention import attach, detach, intervene, record_attention, split_sequence

from .tiny_models import TOKENIZER, batch, models


def num_hooks(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


@torch.no_grad()
def masses(model, inputs):
    with record_attention(model) as rec:
        logits = model(**inputs).logits
    return logits, rec.mass


def test_a_copy_is_attached_by_itself():
    """Its hooks were those of the original, which nothing could remove: recording the copy was
    refused, and attaching it had every hook twice."""
    fast, _ = models()
    inputs = batch("left")
    twin = copy.deepcopy(fast)
    logits, mass = masses(fast, inputs)
    for _ in range(2):  # the second time after attaching the copy once more
        got, its = masses(twin, inputs)
        assert torch.equal(got, logits)
        assert all(torch.equal(its[layer], mass[layer]) for layer in mass)
        attach(twin, TOKENIZER)
        assert num_hooks(twin) == num_hooks(fast) == 3
    detach(twin)
    assert num_hooks(twin) == 0
    assert num_hooks(fast) == 3
    with pytest.raises(ValueError, match="attached first"), record_attention(twin):
        pass
    assert torch.equal(masses(fast, inputs)[0], logits)


def test_copies_record_and_are_changed_apart():
    fast, _ = models()
    inputs = batch("left")
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        plain = fast(**inputs).logits
        with record_attention(fast) as mine, record_attention(twin, [1]) as its:
            fast(**inputs)
            assert set(mine.mass) == {0, 1, 2, 3}
            assert its.mass == {}
            twin(**inputs)
            assert set(its.mass) == {1}
        with intervene(twin, visual_bias=3.0):
            assert torch.equal(fast(**inputs).logits, plain)
            assert not torch.allclose(twin(**inputs).logits, plain, atol=1e-3)
    detach(fast)
    assert set(masses(twin, inputs)[1]) == {0, 1, 2, 3}


def test_a_copy_made_inside_a_with_statement_is_at_rest():
    """It would record for ever into what was open, and be changed for ever."""
    fast, _ = models()
    inputs = batch("left")
    with torch.no_grad():
        plain = fast(**inputs).logits
        with record_attention(fast) as rec, intervene(fast, visual_bias=3.0):
            twin = copy.deepcopy(fast)
            assert torch.equal(twin(**inputs).logits, plain)
            assert rec.mass == {}
            assert not torch.allclose(fast(**inputs).logits, plain, atol=1e-3)
    assert set(masses(twin, inputs)[1]) == {0, 1, 2, 3}


def test_a_copy_of_a_copy_and_an_average():
    fast, _ = models()
    inputs = batch("left")
    logits, _ = masses(copy.deepcopy(copy.deepcopy(fast)), inputs)
    average = torch.optim.swa_utils.AveragedModel(fast)
    assert torch.equal(masses(average, inputs)[0], logits)
    detach(average)
    assert num_hooks(average) == 0
    assert num_hooks(fast) == 3


def test_the_model_below_the_lm_head_is_copied_alike():
    fast, _ = models()
    inputs = batch("left")
    body = copy.deepcopy(fast.model)
    with torch.no_grad(), record_attention(body) as rec:
        body(**inputs)
    want = masses(fast, inputs)[1]
    assert all(torch.equal(rec.mass[layer], want[layer]) for layer in want)
    tower = copy.deepcopy(fast.model.language_model)
    detach(tower)
    assert num_hooks(tower) == 0


def test_a_stored_model_comes_back_attached():
    fast, _ = models()
    inputs = batch("left")
    file = io.BytesIO()
    with record_attention(fast):
        torch.save(fast, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    logits, mass = masses(fast, inputs)
    got, its = masses(again, inputs)
    assert torch.equal(got, logits)
    assert all(torch.equal(its[layer], mass[layer]) for layer in mass)
    detach(again)
    assert num_hooks(again) == 0


class Ranks:
    """Stands for a group of processes, which can be neither copied nor stored."""

    size = 2

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot be copied")


def test_a_split_model_is_copied_with_its_ranks_and_not_stored():
    fast, _ = models()
    ranks = Ranks()
    split_sequence(fast, ranks)
    twin = copy.deepcopy(fast)
    split_sequence(twin, None)
    masses(twin, batch("left"))
    with pytest.raises(ValueError, match=r"split_sequence\(model, None\)"):
        torch.save(fast, io.BytesIO())


def test_two_attached_models_in_one_wrapper_are_not_taken_for_one():
    fast, _ = models()
    pair = torch.nn.ModuleList([fast, copy.deepcopy(fast)])
    with pytest.raises(ValueError, match="ModuleList holds 2"), record_attention(pair):
        pass
