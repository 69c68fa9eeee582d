"""Responses behind one copy of their prompt compute what they compute in rows of their own."""

import dataclasses

import pytest
import torch

from avar_fast.attention import SpecialTokens, detach, key_types, record_attention
from avar_fast.attention.turns import SharedOrder
from avar_fast.data import lay_out, plan_forwards
from avar_fast.models.checkpointing import checkpoint_layers
from avar_fast.objectives import POLICY_LOSSES, policy_loss
from avar_fast.train.forward import HeadLimits, response_log_probs
from avar_fast.train.grpo.scoring import response_masses
from avar_fast.train.throughput import work_of_responses
from tests.data.samples import TOKENIZER, collator, samples
from tests.models.families import WITHOUT_RECURRENT, in_float64, models

TOKENS = SpecialTokens.from_processor(TOKENIZER)
HEAD = HeadLimits(1 << 14)
TURNS = TOKENIZER.encode("1<|im_end|>\n<|im_start|>system\n2 + 1<|im_end|>\n3")
OPEN = TOKENIZER.encode("2<|im_start|>system\n1")  # behind it, another response begins
HEADER = TOKENIZER.encode("1<|im_start|>")
REPLIES = ((30, 31, 32), (), TURNS, OPEN, HEADER, TOKENIZER.encode("system\n5"))


def groups(shapes=(0, 1, 2)):
    """Prompts with an image, with none and with two, each with all replies."""
    prompts = samples()
    return [
        dataclasses.replace(prompts[i], target_ids=torch.tensor(reply, dtype=torch.int64))
        for i in shapes
        for reply in REPLIES
    ]


@pytest.fixture(scope="module", params=WITHOUT_RECURRENT)
def model(request):
    return in_float64(models(request.param)[0]).train()


def computed(model, samples, dtype=torch.float64, **plan):
    """Log-probabilities, entropies and masses of every response, one after the other, and the
    gradients of a loss of them all."""
    model.zero_grad()
    values, masses = [], []
    weights = torch.linspace(-1, 1, sum(len(s.target_ids) for s in samples), dtype=dtype)
    done = 0
    for forward in plan_forwards(samples, **plan):
        responses = lay_out(collator(model, TOKENS), samples, forward)
        inputs = responses.batch.inputs
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        with record_attention(model) as recording:
            scores = response_log_probs(
                model, responses, HEAD, 0.8, TOKENS.visual, with_entropy=True
            )
        mass = response_masses(responses, recording)
        own = torch.stack([scores.log_probs[responses.mask], scores.entropies[responses.mask]])
        heads = mass[responses.mask]
        (
            weights[done : done + own.shape[1]] * (own[0] + 0.1 * own[1] + heads[:, :, 1].sum(1))
        ).sum().backward()
        done += own.shape[1]
        values.append(own.detach())
        masses.append(heads.detach())
    assert done == len(weights)
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return torch.cat(values, 1), torch.cat(masses), found


PLANS = {
    "one row": {"tokens": 10_000, "share": True},
    "a row per group": {"tokens": 120, "share": True},
    "split groups": {"tokens": 75, "share": True},
    "packed copies": {"tokens": 150, "share": False},
}


def test_shared_equals_separate(model):
    rows = groups()
    want = computed(model, rows, rows=1, share=False)
    for name, plan in PLANS.items():
        got = computed(model, rows, **plan)
        assert torch.allclose(got[0], want[0], atol=1e-10), name
        assert torch.allclose(got[1], want[1].to(got[1].dtype), atol=1e-6), name
        assert got[2].keys() == want[2].keys()
        for parameter, gradient in want[2].items():
            scale = gradient.abs().max().clamp(min=1e-3)
            assert (got[2][parameter] - gradient).abs().max() < 1e-6 * scale, (name, parameter)


def test_the_fused_kernel_and_replayed_layers_agree_too():
    model = models("qwen2_5_vl")[0].train()
    rows = groups()
    want = computed(model, rows, torch.float32, rows=1, share=False)
    checkpoint_layers(model)
    got = computed(model, rows, torch.float32, tokens=200, share=True)
    assert torch.allclose(got[0], want[0], atol=2e-4)
    assert torch.allclose(got[1], want[1], atol=1e-5)
    for name, gradient in want[2].items():
        scale = gradient.abs().max().clamp(min=1e-2)
        assert (got[2][name] - gradient).abs().max() < 2e-3 * scale, name


@pytest.mark.parametrize("form", POLICY_LOSSES)
def test_losses_of_shared_rows(form):
    model = models("qwen2_5_vl")[0].double()
    rows = groups()
    losses = []
    for plan in ({"rows": 99, "share": False}, {"tokens": 10_000, "share": True}):
        (forward,) = plan_forwards(rows, **plan)
        responses = lay_out(collator(model, TOKENS), rows, forward)
        responses.batch.inputs["pixel_values"] = responses.batch.inputs["pixel_values"].double()
        with torch.no_grad():
            found = response_log_probs(model, responses, HEAD, 1.0, TOKENS.visual).log_probs
        advantages = torch.linspace(-1, 1, len(rows))
        old = found - 0.3 * torch.sin(torch.arange(found.numel())).view_as(found)
        trained = torch.arange(len(rows)) % 5 != 0
        mask = responses.mask & trained[:, None]
        losses.append(policy_loss(found, old, advantages, mask, form, max_tokens=64)[0])
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-9)


def test_plans_keep_groups_whole_where_they_fit_and_no_row_is_too_long():
    rows = groups((0, 1, 2, 3))
    size = len(REPLIES)
    for capacity in (75, 120, 200, 10_000):
        forwards = plan_forwards(rows, tokens=capacity, share=True)
        assert [i for f in forwards for i in f.responses] == list(range(len(rows)))
        stretches = [s for f in forwards for s in f.stretches]
        for group in range(0, len(rows), size):
            parts = [s for s in stretches if group <= s.start < group + size]
            prompt = len(rows[group].prompt_ids)
            whole = prompt + sum(len(r.target_ids) for r in rows[group : group + size])
            assert (len(parts) == 1) == (whole <= capacity)
        for forward in forwards:
            responses = lay_out(collator(models("qwen2_vl")[0], TOKENS), rows, forward)
            assert work_of_responses(responses).tokens <= capacity
    assert len(plan_forwards(rows, tokens=10_000, share=True)) == 1


def test_a_row_holds_each_prompt_and_image_once_and_positions_go_on(model):
    rows = groups()
    (forward,) = plan_forwards(rows, tokens=10_000, share=True)
    responses = lay_out(collator(model, TOKENS), rows, forward)
    inputs, count = responses.batch.inputs, len(REPLIES)
    assert inputs["image_grid_thw"].shape[0] == 1 + 0 + 2
    replies = [-1] + [0] * count + [-1] + [count + 1] * count + [-1] + [2 * count + 2] * count
    assert inputs["prefix_index"].tolist() == replies
    assert inputs["prefix_index"].dtype == torch.int32
    work = work_of_responses(responses)
    lengths = [len(r.target_ids) for r in rows]
    prompts = [len(rows[i].prompt_ids) for i in range(0, len(rows), count)]
    assert work.tokens == sum(lengths) + sum(prompts)
    assert work.labels == sum(lengths)
    pairs = sum(p * (p + 1) / 2 for p in prompts)
    pairs += sum(n * (n + 1) / 2 + n * prompts[i // count] for i, n in enumerate(lengths))
    assert work.pairs == pairs
    for i, row in enumerate(rows):
        whole = torch.cat([row.prompt_ids, row.target_ids])
        modalities = (whole[None] == TOKENS.visual[0]).int()
        rotary = model.model.get_rope_index(whole[None], modalities, row.image_grid_thw)[0]
        own = responses.places[responses.cells // responses.mask.shape[1] == i]
        got = inputs["position_ids"][1:, 0, own]
        assert torch.equal(got, rotary[:, 0, len(row.prompt_ids) :])
        assert torch.equal(inputs["input_ids"][0, own], row.target_ids)


def test_a_text_only_row_has_the_blank_image_as_a_sequence_of_its_own(model):
    rows = groups((1, 4))
    (forward,) = plan_forwards(rows, tokens=10_000, share=True)
    responses = lay_out(collator(model, TOKENS), rows, forward)
    assert responses.batch.inputs["prefix_index"][-1] == -1
    prompts = len(rows[0].prompt_ids) + len(rows[-1].prompt_ids)
    lengths = sum(len(r.target_ids) for r in rows)
    assert work_of_responses(responses).tokens == prompts + lengths
    assert responses.batch.inputs["input_ids"].shape[1] == prompts + lengths + 1
    want = computed(model, rows, rows=1, share=False)
    got = computed(model, rows, tokens=10_000, share=True)
    assert torch.allclose(got[0], want[0], atol=1e-10)
    assert got[2].keys() == want[2].keys()


def test_key_types_are_those_of_rows_of_their_own():
    prompts = [
        TOKENIZER.encode(text)
        for text in (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1<|im_end|>\n",
            "<|im_start|>system\nBe",  # open: its responses go on with the system turn
            "<|im_start|>system\nBe<|im_end|>",  # a newline in a response closes it
            "",
        )
    ]
    replies = [*REPLIES, TOKENIZER.encode("\n1"), TOKENIZER.encode("<|im_end|>\n1")]
    for users_first in (False, True):
        sequences, prefixes = [], []
        for prompt in prompts:
            at = len(sequences) + (len(replies) if users_first else 0)
            block = [(list(reply), at) for reply in replies]
            block.insert(len(block) if users_first else 0, (prompt, -1))
            sequences += [ids for ids, _ in block]
            prefixes += [prefix for _, prefix in block]
        flat = torch.tensor([i for ids in sequences for i in ids])[None]
        lengths = torch.tensor([len(ids) for ids in sequences])
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
        order = SharedOrder(offsets, torch.tensor(prefixes, dtype=torch.int32), flat.shape[1])
        got = key_types(flat, tokens=TOKENS, order=order)[0].split(lengths.tolist())
        for ids, prefix, types in zip(sequences, prefixes, got, strict=True):
            before = sequences[prefix] if prefix >= 0 else []
            whole = torch.tensor([[*before, *ids]], dtype=torch.int64)
            want = key_types(whole, tokens=TOKENS)[0, len(before) :] if len(ids) else types
            assert torch.equal(types, want), (before, ids)


def test_a_model_without_attachment_sees_prefixes_or_says_what_is_missing():
    model = models("qwen2_5_vl")[0].eval()
    rows = groups()
    (forward,) = plan_forwards(rows, tokens=10_000, share=True)
    responses = lay_out(collator(model, TOKENS), rows, forward)
    with torch.no_grad():
        want = response_log_probs(model, responses, HEAD).log_probs
        detach(model)
        got = response_log_probs(model, responses, HEAD).log_probs
        assert torch.allclose(got, want, atol=1e-5)
        inputs = dict(responses.batch.inputs)
        del inputs["cu_seq_lens_q"]
        with pytest.raises(ValueError, match="without cu_seq_lens_q"):
            model(**inputs, use_cache=False)
        model.set_attn_implementation({"text_config": "sdpa", "vision_config": "sdpa"})
        with pytest.raises(ValueError, match=r"shared prompts need .*avar"):
            response_log_probs(model, responses, HEAD)
