"""Packed rows that only their positions announce, against transformers' own attentions."""

import pytest
import torch

from avar_fast.attention import SpecialTokens, detach, query_mask, record_attention
from avar_fast.attention.call import avar_attention

from .caches import cache_in, given
from .tiny_models import TOKENIZER, batch, models, text_models, text_rows

LENGTHS = ((8, 12), (1, 1, 18), (5, 1, 6, 8))


def restarting(lengths):
    return torch.cat([torch.arange(n) for n in lengths])[None]


@torch.no_grad()
def one_by_one(model, ids, lengths):
    parts = ids.split(lengths, dim=1)
    return torch.cat([model(input_ids=part, use_cache=False).logits for part in parts], dim=1)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("first", [0, 3])
def test_a_language_model_keeps_samples_apart(lengths, use_cache, first):
    """They saw one another; transformers' flash attention separates them, and its other attentions
    do where no cache is made."""
    fast, slow = text_models()
    ids, _ = text_rows(rows=1)
    positions = restarting(lengths) + first
    with torch.no_grad():
        got = fast(input_ids=ids, position_ids=positions, use_cache=use_cache).logits
        want = slow(input_ids=ids, position_ids=positions, use_cache=False).logits
    assert torch.allclose(got, want, atol=2e-5)
    assert torch.allclose(got, one_by_one(slow, ids, lengths), atol=2e-5)


def test_rows_of_a_batch_are_packed_each_in_its_own_way():
    fast, slow = text_models()
    ids, _ = text_rows()
    positions = torch.cat([restarting((8, 12)), restarting((20,))])
    with torch.no_grad():
        got, want = (
            m(input_ids=ids, position_ids=positions, use_cache=False).logits for m in (fast, slow)
        )
    assert torch.allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("other", ["eager", "sdpa"])
def test_four_rows_of_positions_in_plain_use(other):
    fast, slow = models()
    detach(fast)
    slow.set_attn_implementation(other)
    ids = batch()["input_ids"][:1, :20]
    positions = restarting((8, 12)).expand(4, 1, -1)
    with torch.no_grad():
        got, want = (
            m(input_ids=ids, position_ids=positions, use_cache=False).logits for m in (fast, slow)
        )
    assert torch.allclose(got, want, atol=2e-5)
    assert torch.allclose(got, one_by_one(slow, ids, (8, 12)), atol=2e-5)


def test_gradients_of_packed_rows_match_stock():
    fast, slow = text_models()
    ids, _ = text_rows(rows=1)
    for model in (fast, slow):
        logits = model(input_ids=ids, position_ids=restarting((8, 12)), use_cache=False).logits
        logits.logsumexp(-1).mean().backward()
    for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
        assert a.grad is not None, name
        assert (a.grad - b.grad).abs().max() < 1e-4 * b.grad.abs().max().clamp(min=1e-3), name


@pytest.mark.parametrize("rows", [2, 1])
def test_an_attached_model_separates_samples_by_four_rows_of_positions(rows):
    """As verl and LLaMA-Factory pack them: the first row of positions counts tokens, and there is
    no mask. Logits, masses and gradients are those of each sample in a call of its own."""
    fast, _ = models()
    ids = batch()["input_ids"][:rows, :20]
    lengths = (8, 12)
    positions = restarting(lengths).expand(4, rows, -1)
    with record_attention(fast) as rec:
        logits = fast(input_ids=ids, position_ids=positions, use_cache=False).logits
        masses, types = dict(rec.mass), rec.key_types
        start = 0
        for length in lengths:
            part = slice(start, start + length)
            alone = fast(input_ids=ids[:, part], use_cache=False).logits
            torch.testing.assert_close(logits[:, part], alone, atol=1e-4, rtol=1e-4)
            # Types are those of the whole row: the second sample begins inside a turn here.
            for layer, mass in rec.mass.items():
                got = masses[layer][:, part]
                assert (got.sum(-1) - 1).abs().max() < 1e-5
                if torch.equal(types[:, part], rec.key_types):
                    torch.testing.assert_close(got, mass, atol=1e-5, rtol=1e-4)
            start += length
    masses[1][..., 2].sum().backward()
    assert fast.model.language_model.layers[1].self_attn.q_proj.weight.grad.any()


def test_four_rows_of_positions_with_padding_or_a_cache_are_refused():
    fast, _ = models()
    ids = batch()["input_ids"][:1, :20]
    positions = restarting((8, 12)).expand(4, 1, -1)
    mask = torch.ones_like(ids)
    mask[:, :2] = 0
    with pytest.raises(ValueError, match="packed samples.*cu_seq_lens_q"):
        fast(input_ids=ids, position_ids=positions, attention_mask=mask)


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_an_attached_model_refuses_other_forms(rows, lengths):
    """transformers would let the samples see each other, with no error."""
    fast, _ = models()
    ids = batch()["input_ids"][:1, :20]
    positions = restarting(lengths)
    if rows:
        positions = positions.expand(rows, 1, -1)
    with pytest.raises(ValueError, match="packed samples.*cu_seq_lens_q"):
        fast(input_ids=ids, position_ids=positions)


def test_rotary_positions_of_images_are_no_packing():
    """Tokens of an image share their positions; only one that starts again is a restart."""
    fast, slow = models()
    inputs = batch("left")
    mask = inputs["attention_mask"]
    rotary, _ = fast.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=mask,
    )
    counted = (mask.cumsum(1) - 1).clamp(min=0)[None]
    for positions in (rotary, torch.cat([counted, rotary])):
        with torch.no_grad(), record_attention(fast):
            got = fast(**inputs, position_ids=positions).logits
            want = slow(**inputs, position_ids=positions).logits
        assert torch.allclose(got[mask.bool()], want[mask.bool()], atol=2e-5)


def test_positions_that_fall_behind_a_video_are_no_packing():
    """Qwen2.5-VL's temporal position runs ahead of what comes behind a long video."""
    from avar_fast.attention.packing import refuse_packing

    temporal = torch.tensor([0, 1, 2, 4, 6, 8, 4, 5])
    side = torch.tensor([0, 1, 2, 2, 2, 2, 4, 5])
    positions = torch.stack([temporal, side, side])[:, None]
    refuse_packing(positions, None, 8, may_fall=True)
    with pytest.raises(ValueError, match="restart"):
        refuse_packing(positions, None, 8)
    twice = torch.cat([positions, positions], dim=2)
    with pytest.raises(ValueError, match="restart"):
        refuse_packing(twice, None, 16, may_fall=True)


def test_what_cannot_be_told_apart_is_refused():
    fast, _ = text_models()
    ids, mask = text_rows(rows=1, padded=4)
    leaping = torch.tensor([[*range(8), *range(30, 42)]])
    with pytest.raises(ValueError, match="leap.*cu_seq_lens_q"):
        fast(input_ids=ids, position_ids=leaping, use_cache=False)
    with pytest.raises(ValueError, match="restart.*cu_seq_lens_q"):
        fast(input_ids=ids, position_ids=restarting((8, 12)), attention_mask=mask)
    cache = cache_in(fast(input_ids=ids[:, :4]))
    with pytest.raises(ValueError, match="restart.*cu_seq_lens_q"):
        fast(input_ids=ids[:, 4:], position_ids=restarting((8, 8)), **given(fast, cache))
    x = torch.zeros(1, 2, 20, 8)
    with pytest.raises(ValueError, match="restart.*cu_seq_lens_q"):
        avar_attention(
            torch.nn.Identity(), x, x, x, None, position_ids=restarting((8, 12)).expand(3, 1, -1)
        )
    offsets = torch.tensor([0, 20], dtype=torch.int32)
    lengths = {"max_length_q": 20, "max_length_k": 20}
    fast(  # the remedy
        input_ids=ids,
        position_ids=leaping,
        use_cache=False,
        cu_seq_lens_q=offsets,
        cu_seq_lens_k=offsets,
        **lengths,
    )


@pytest.mark.parametrize("attached", [False, True])
def test_packed_rows_with_images_and_the_same_name_in_both_towers(attached):
    """The text's offsets reach the vision tower, where they are nobody's: plain use ended in an
    error about offsets that leave the tokens."""
    fast, slow = models()
    fast.set_attn_implementation("avar")
    if not attached:
        detach(fast)
    inputs = batch("right")
    lengths = inputs["attention_mask"].sum(1).tolist()
    rotary, _ = fast.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    real = inputs["attention_mask"].bool()
    offsets = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32)
    packed = {
        "input_ids": inputs["input_ids"][real][None],
        "position_ids": torch.cat([restarting(lengths)[None], rotary[:, real][:, None]]),
        "pixel_values": inputs["pixel_values"],
        "image_grid_thw": inputs["image_grid_thw"],
        "use_cache": False,
        "cu_seq_lens_q": offsets,
        "cu_seq_lens_k": offsets,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }
    with torch.no_grad():
        got = fast(**packed).logits[0]
        want = slow(**inputs).logits[real]
    assert torch.allclose(got, want, atol=2e-5)


def test_queries_of_replies_that_share_a_prompt_are_those_of_separate_rows():
    """The second reply's turn was opened by the prompt, before the first reply ended it."""
    fast, _ = models()
    prompt, replies = (
        TOKENIZER.encode(text, add_special_tokens=False)
        for text in (
            "<|im_start|>system\nLook.<|im_end|>\n<|im_start|>user\nAdd<|im_end|>\n"
            "<|im_start|>assistant\n",
            "<answer>3</answer><|im_end|>\n",
        )
    )
    rows = [prompt, replies, replies[:4]]
    lengths = torch.tensor([0, *map(len, rows)])
    offsets = lengths.cumsum(0).int()
    positions = [range(len(prompt))] + [range(len(prompt), len(prompt) + len(r)) for r in rows[1:]]
    flat = torch.tensor([p for each in positions for p in each])
    ids = torch.tensor([token for row in rows for token in row])[None]
    longest = int(lengths.max())
    with torch.no_grad(), record_attention(fast) as recording:
        fast.model(
            input_ids=ids, position_ids=flat.expand(3, 1, -1), use_cache=False,
            cu_seq_lens_q=offsets, cu_seq_lens_k=offsets, max_length_q=longest,
            max_length_k=longest, prefix_index=torch.tensor([-1, 0, 0], dtype=torch.int32),
        )  # fmt: skip
    tokens = SpecialTokens.from_processor(TOKENIZER)
    for role in ("response", "user", "all"):
        whole = [
            query_mask(torch.tensor([prompt + row]), role=role, tokens=tokens)[0, len(prompt) :]
            for row in rows[1:]
        ]
        assert torch.equal(recording.queries(role)[0, len(prompt) :], torch.cat(whole)), role
