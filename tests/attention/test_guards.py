"""What other trainers hand to an attached model: wrapped models, ids from outside, modalities that
do not fit, image tokens that were sampled; and what a recording tells."""

import copy

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.attention import (
    SpecialTokens,
    attach,
    detach,
    given_ids,
    key_types,
    query_mask,
    record_attention,
)
from avar_fast.objectives import visual_reward

from .caches import cache_in, given
from .tiny_models import TOKENIZER, batch, models

TOKENS = SpecialTokens.from_processor(TOKENIZER)
IMAGE, VIDEO = TOKENS.visual


@pytest.fixture(scope="module")
def fast():
    return models()[0]


@torch.no_grad()
def test_a_recording_tells_its_tokens_types_and_queries(fast):
    inputs = batch("left")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with record_attention(fast) as rec:
        with pytest.raises(RuntimeError, match="none has run"):
            rec.queries()
        cache = cache_in(fast(**inputs, use_cache=True))
        assert torch.equal(rec.token_ids, ids)
        assert torch.equal(rec.key_types, key_types(ids, mask, tokens=TOKENS))
        for role in ("user", "prompt", "response", "all"):
            assert torch.equal(rec.queries(role), query_mask(ids, mask, role=role, tokens=TOKENS))
        step = torch.full((2, 1), 30)
        longer = torch.cat([mask, torch.ones_like(step)], dim=1)
        positions = torch.full((3, 2, 1), 90)
        fast(input_ids=step, attention_mask=longer, position_ids=positions, **given(fast, cache))
        assert torch.equal(rec.token_ids, torch.cat([ids, step], dim=1))
        assert rec.queries("all").tolist() == [[True], [True]]
        with pytest.raises(ValueError, match="role must be one of"):
            rec.queries("system")


@torch.no_grad()
def test_every_forward_can_be_kept(fast):
    inputs = batch("left")
    seen = []
    with record_attention(fast, [1], keep="all") as rec:
        fast.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None)
    with record_attention(fast, [1], keep=seen.append) as last:
        fast.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert [f.mass[1].shape[1] for f in rec.forwards] == [inputs["input_ids"].shape[1], 1, 1, 1]
    assert len(seen) == 4
    assert last.forwards == []
    for a, b in zip(rec.forwards, seen, strict=True):
        assert torch.equal(a.mass[1], b.mass[1])
        assert torch.equal(a.token_ids, b.token_ids)
    assert rec.mass[1] is rec.forwards[-1].mass[1]
    with pytest.raises(ValueError, match='keep must be "last", "all" or a function'):
        record_attention(fast, keep="first").__enter__()


def test_ids_can_be_given_beside_embeddings(fast):
    """As ms-swift calls a model: the features are in the embeddings already."""
    inputs = batch("right")
    tower = fast.model.language_model
    seen = {}

    def keep(module, args, kwargs):
        seen.update(kwargs)

    hook = tower.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad(), record_attention(fast) as rec:
        want = fast(**inputs, use_cache=False).logits
    hook.remove()
    masses, types = rec.mass, rec.key_types
    embedded = {
        "inputs_embeds": seen["inputs_embeds"],
        "position_ids": seen["position_ids"],
        "attention_mask": inputs["attention_mask"],
        "use_cache": False,
    }
    with torch.no_grad(), given_ids(fast, inputs["input_ids"]), record_attention(fast) as rec:
        got = fast(**embedded).logits
    assert torch.equal(got, want)
    assert torch.equal(rec.key_types, types)
    assert all(torch.equal(rec.mass[layer], mass) for layer, mass in masses.items())
    with pytest.raises(ValueError, match=r"needs input_ids.*given_ids\("):
        fast(**embedded)
    with (
        given_ids(fast, inputs["input_ids"][:, :5]),
        pytest.raises(ValueError, match=r"given_ids must have the \(B, L\)"),
    ):
        fast(**embedded)


def test_modalities_that_do_not_fit_the_ids_are_refused(fast):
    """A collator padded the ids on the left and mm_token_type_ids on the right."""
    inputs = batch("left")
    shifted = inputs | {"mm_token_type_ids": batch("right")["mm_token_type_ids"]}
    assert not torch.equal(shifted["mm_token_type_ids"], inputs["mm_token_type_ids"])
    with pytest.raises(ValueError, match="mm_token_type_ids must be other than 0 exactly"):
        fast(**shifted)
    sampled = torch.full((2, 1), IMAGE)  # what generate passes for a token that was sampled
    with torch.no_grad():
        cache = cache_in(fast(**inputs, use_cache=True))
        positions = torch.full((3, 2, 1), 90)
        modalities = torch.zeros_like(sampled)
        fast(
            input_ids=sampled,
            position_ids=positions,
            mm_token_type_ids=modalities,
            attention_mask=torch.cat([inputs["attention_mask"], modalities + 1], dim=1),
            **given(fast, cache),
        )


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_sampled_image_tokens_are_no_visual_keys(fast, cached):
    """They stand for no feature. As visual keys they would raise the reward for nothing."""
    inputs = batch("right", images=(1, 1))
    inputs = {
        name: x[:1] if name not in ("pixel_values", "image_grid_thw") else x
        for name, x in inputs.items()
    }
    grid = inputs["image_grid_thw"][:1]
    inputs |= {"image_grid_thw": grid, "pixel_values": inputs["pixel_values"][: int(grid.prod())]}
    end = int(inputs["attention_mask"].sum())
    prompt = {
        name: x[:, :end] if x.shape[:1] == (1,) and name != "image_grid_thw" else x
        for name, x in inputs.items()
    }
    sampled = torch.tensor([[VIDEO] * 4])
    whole = torch.cat([prompt["input_ids"], sampled], dim=1)
    if cached:
        with record_attention(fast) as rec:
            cache = cache_in(fast(**prompt, use_cache=True))
            fast(
                input_ids=sampled,
                attention_mask=torch.ones_like(whole),
                position_ids=torch.arange(90, 94).expand(3, 1, -1),
                **given(fast, cache),
            )
    else:
        longer = {
            "input_ids": whole,
            "attention_mask": torch.ones_like(whole),
            "position_ids": torch.arange(whole.shape[1]).expand(3, 1, -1),
            "mm_token_type_ids": None,
        }
        with record_attention(fast) as rec:
            fast(**prompt | longer, use_cache=False)
    assert (rec.key_types[:, -4:] == KeyType.TEXT).all()
    assert (rec.key_types == KeyType.VISUAL).sum() == (prompt["input_ids"] == IMAGE).sum()
    response = torch.zeros_like(rec.queries("all"))
    response[:, -1] = True
    text = {layer: mass.clone() for layer, mass in rec.mass.items()}
    reward = visual_reward(text, response, torch.tensor([True]), "share", key_types=rec.key_types)
    assert 0 < reward.item() < 1


# PEFT 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_wrapped_models_are_attached_inside(fast):
    peft = pytest.importorskip("peft")
    plain = copy.deepcopy(fast)
    detach(plain)
    wrapped = peft.get_peft_model(plain, peft.LoraConfig(target_modules=["q_proj"], r=2))
    attach(wrapped, TOKENIZER)
    attach(wrapped, TOKENIZER)  # again
    inputs = batch("left")
    with torch.no_grad(), record_attention(wrapped) as rec:
        wrapped(**inputs)
    with torch.no_grad(), record_attention(fast) as want:
        fast(**inputs)
    for layer, mass in want.mass.items():
        torch.testing.assert_close(rec.mass[layer], mass, atol=1e-5, rtol=1e-4)

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    again = copy.deepcopy(fast)
    detach(again)
    attach(Wrapper(again), TOKENIZER)
    with torch.no_grad(), record_attention(again) as rec:
        again(**inputs)
    assert rec.mass
    wrapped_first = peft.get_peft_model(
        copy.deepcopy(fast), peft.LoraConfig(target_modules=["q_proj"], r=2)
    )
    with torch.no_grad(), record_attention(wrapped_first) as rec:  # attached before wrapping
        wrapped_first(**inputs)
    assert rec.mass
