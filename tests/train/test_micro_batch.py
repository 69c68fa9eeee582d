"""Completions on their way to the loss: bad ones, weights of another engine, the reference of
adapters."""

import dataclasses
import sys
from types import SimpleNamespace

import pytest
import torch

from avar_fast.attention import SpecialTokens
from avar_fast.config import GrpoConfig, TrackingConfig
from avar_fast.data import RowError, prompt_inputs
from avar_fast.rollout import Sampling, generate
from avar_fast.train.forward import HeadLimits, response_log_probs
from avar_fast.train.grpo.advantage import set_advantages
from avar_fast.train.grpo.collect import _tally_gaps
from avar_fast.train.grpo.completion import Completion, forwards_of, micro_batch, responses_of
from avar_fast.train.grpo.reference import Reference
from avar_fast.train.grpo.reward import CompletionRewards
from avar_fast.train.grpo.sample import require_text
from avar_fast.train.grpo.scoring import (
    has_dropout,
    needs_scoring,
    opens_system_turn,
    recorded_layers,
    score,
    score_masses,
)
from avar_fast.train.grpo.tally import Tally
from avar_fast.train.parameters import add_adapters
from tests.data.samples import TOKENIZER, collator, samples
from tests.models.families import models

TOKENS = SpecialTokens.from_processor(TOKENIZER)


def a_run(model, dropout=0.0, **options):
    """What the stage reads of a run, without an engine."""
    lora = SimpleNamespace(
        enabled=True, rank=2, alpha=4.0, dropout=dropout, targets=("q_proj", "v_proj")
    )
    recipe = SimpleNamespace(
        grpo=GrpoConfig(**options), tracking=TrackingConfig(), lora=lora,
        model=SimpleNamespace(path="", dtype="float32"),
        train=SimpleNamespace(micro_batch_size=99), micro_batch_capacity=9999,
        rollout=SimpleNamespace(engine="model"),
    )  # fmt: skip
    return SimpleNamespace(
        recipe=recipe, tokens=TOKENS, head=HeadLimits(1 << 20), collator=collator(model, TOKENS),
        engine=SimpleNamespace(
            module=model, device=torch.device("cpu"), most_over_ranks=lambda count: count
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return models("qwen2_5_vl")[0]


def completions():
    """One of no tokens at all among them."""
    made = []
    for i, sample in enumerate(samples()):
        ids = torch.arange(30, 30 + (3, 0, 1, 5)[i % 4])
        sample = dataclasses.replace(sample, target_ids=ids)
        done = Completion(sample, truncated=i == 0, advantage=float(i), informative=i != 1)
        done.old_log_probs = -torch.rand(len(ids))
        done.sampling_log_probs = done.old_log_probs + torch.randn(len(ids))
        made.append(done)
    return made


def whole_batch(run, completions):
    (forward,) = forwards_of(run, completions)
    return micro_batch(run, completions, forward)


def test_rows_find_their_tokens_again_and_weights_are_those_of_the_recipe(model):
    run = a_run(model, importance_level="token", importance_mode="truncate", importance_cap=1.5)
    some = completions()
    got = whole_batch(run, some)
    rows = got.responses.split(got.old_log_probs)
    for row, completion in zip(rows, some, strict=True):
        assert torch.equal(row, completion.old_log_probs)
    assert got.weights is not None
    for i, row in enumerate(got.responses.split(got.weights)):
        want = torch.exp(some[i].old_log_probs - some[i].sampling_log_probs).clamp(max=1.5)
        assert torch.allclose(row, want)
    assert got.advantages.tolist() == [float(i) for i in range(len(some))]
    assert got.counted.all()
    assert got.trained.tolist() == [i != 1 for i in range(len(some))]
    left_out = whole_batch(a_run(model, mask_truncated=True), some)
    assert left_out.trained.tolist() == [i > 1 for i in range(len(some))]


def test_a_rank_that_sampled_no_token_logs_what_the_others_log():
    """Ranks sum their logs by position: one name less on one of them would shift all others."""
    some, tally = completions(), Tally()
    _tally_gaps([c for c in some if not len(c.sample.target_ids)], tally)
    assert tally.sums == {"log_prob_gap": [0.0, 0.0]}
    _tally_gaps(some, tally)
    gaps = [(c.old_log_probs - c.sampling_log_probs).abs().sum().item() for c in some]
    tokens = sum(len(c.sample.target_ids) for c in some)
    assert tally.sums["log_prob_gap"] == pytest.approx([sum(gaps), tokens])
    for completion in some:
        completion.sampling_log_probs = None
    tally = Tally()
    _tally_gaps(some, tally)
    assert tally.sums == {}, "the model itself sampled"


def test_a_completion_of_image_tokens_is_refused_and_named():
    sample = samples()[0]
    require_text(sample, TOKENS.visual)
    pads = dataclasses.replace(sample, target_ids=torch.tensor([TOKENS.visual[0]] * 3))
    with pytest.raises(RowError, match=r"a completion must hold no .*; 3 of its 3 tokens"):
        require_text(pads, TOKENS.visual)


def test_without_its_adapters_a_model_is_the_base_it_was(model):
    run = a_run(model)
    some = completions()
    (forward,) = forwards_of(run, some)
    batch, banned = responses_of(run, some, forward), TOKENS.visual
    with torch.no_grad():
        want = response_log_probs(model, batch, run.head, 1.0, banned).log_probs
    add_adapters(model, run.recipe)
    trained = [p for name, p in model.named_parameters() if ".lora_" in name]
    for parameter in trained:
        torch.nn.init.normal_(parameter, std=0.3)
    reference = Reference(run)
    assert reference.copy is None
    got = reference.log_probs(batch)
    assert torch.equal(got, want)
    with torch.no_grad():
        now = response_log_probs(model, batch, run.head, 1.0, banned).log_probs
    assert not torch.allclose(now, want, atol=1e-3)
    assert all(p.requires_grad for p in trained), "the adapters would not be trained any more"


def test_what_was_sampled_without_dropout_is_scored_without_it():
    """The old log-probabilities, and the masses of VARS, were those of one draw of dropout."""
    model = models("qwen2_5_vl")[0]
    run = a_run(model, dropout=0.5, rewards={"exact": 1.0})
    add_adapters(model, run.recipe)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    some = completions()
    (forward,) = forwards_of(run, some)
    batch = responses_of(run, some, forward)
    with torch.no_grad():
        want = response_log_probs(model.eval(), batch, run.head, 1.0, TOKENS.visual).log_probs
    model.train()
    score(run, some, None)
    for row, completion in zip(batch.split(want), some, strict=True):
        assert torch.equal(row, completion.old_log_probs)
    assert model.training


def test_scoring_is_left_out_only_where_the_update_computes_the_same():
    model = models("qwen2_5_vl")[0]
    assert not has_dropout(model)
    assert not needs_scoring(a_run(model))
    for options in ({"scoring": "always"}, {"kl_coef": 0.1}, {"updates_per_rollout": 2}):
        assert needs_scoring(a_run(model, **options)), options
    with_vllm = a_run(model)
    with_vllm.recipe.rollout.engine = "vllm"
    assert needs_scoring(with_vllm)
    dropping = a_run(model, dropout=0.5)
    add_adapters(model, dropping.recipe)
    assert needs_scoring(dropping)
    plain = models("qwen2_5_vl", attention_dropout=0.1)[0]
    assert needs_scoring(a_run(plain))


def test_masses_of_a_completion_with_a_system_turn_are_those_of_a_whole_forward(monkeypatch):
    """While ``<|im_start|>`` is sampled, the word behind it is not known yet."""
    model = models("qwen2_5_vl")[0]
    run = a_run(model, visual_layers=(2, 0, 2))
    layers = recorded_layers(run)
    assert layers == (0, 2)
    for text, opens in (("1<|im_start|>user\n2", False), ("1<|im_start|>system\n2", True)):
        ids = TOKENIZER.encode(text)
        prompts, drawing = samples()[:2], Sampling(
            num_samples=1, max_new_tokens=len(ids), temperature=0.0, eos_ids=(),
            pad_id=TOKENIZER.pad_token_id, banned_ids=TOKENS.visual, mass_layers=layers,
        )  # fmt: skip
        draws = iter(torch.tensor(ids)[:, None].expand(-1, len(prompts)))
        module = sys.modules["avar_fast.rollout.generate"]
        monkeypatch.setattr(module, "_draw", lambda *unused, draws=draws: next(draws))
        rollouts = generate(
            model,
            prompts,
            lambda chosen: prompt_inputs(
                chosen, TOKENIZER.pad_token_id, TOKENS.visual, run.engine.device
            ),
            drawing,
        )
        assert rollouts.completion_ids.tolist() == [ids, ids]
        made = [
            Completion(dataclasses.replace(p, target_ids=torch.tensor(ids)), False, masses=masses)
            for p, masses in zip(prompts, rollouts.masses, strict=True)
        ]
        assert opens_system_turn(run, made) == opens
        sampled = [completion.masses for completion in made]
        score_masses(run, made)
        for completion, masses in zip(made, sampled, strict=True):
            assert completion.old_log_probs is None
            off = (completion.masses - masses).abs().amax(dim=(1, 2)) > 1e-4
            assert off.nonzero().flatten().tolist() == ([ids.index(TOKENS.turn_start)] * opens)
    empty = dataclasses.replace(samples()[0], target_ids=torch.tensor([], dtype=torch.int64))
    assert not opens_system_turn(run, [Completion(empty, truncated=False)])


def test_advantages_of_tokens_are_added_in_their_places(model):
    some = completions()
    some[3].token_advantages = torch.arange(5.0)
    got = whole_batch(a_run(model), some)
    assert got.advantages.shape == got.responses.mask.shape
    assert got.advantages[3].tolist() == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert (got.advantages[2] == 2.0).all()


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo"])
def test_rewards_of_completions_and_of_tokens_add_up(model, loss):
    """By the formula of docs/train-grpo.md, with mixed returns of one function."""
    run = a_run(model, group_size=4, rewards={"exact": 1.0, "my:f": 0.5}, loss=loss)
    some = completions()[:4]  # of 3, 0, 1 and 5 tokens
    nan = float("nan")
    values = [[1.0, 2.0, 4.0], [], None, [0.0] * 5]
    rewards = CompletionRewards(
        [""] * 4,
        {
            "exact": torch.tensor([1.0, 0.0, 0.0, 1.0]),
            "my:f": torch.tensor([7 / 3, 0.0, 6.0, 0.0]),  # a number for the third
        },
        {"my:f": [None if v is None else torch.tensor(v) for v in values]},
        torch.tensor([True, False, False, True]),
        0,
    )
    tally = Tally()
    shown, advantages = set_advantages(run, some, rewards, tally)
    totals = torch.tensor([1.0, 0.0, 3.0, 1.0])
    whole = totals - totals.mean()
    every = torch.tensor([v for own in values if own for v in own])
    if loss == "grpo":
        whole = whole / (totals.std() + 1e-6)
    for i, own in enumerate(values):
        assert some[i].advantage == pytest.approx(whole[i].item(), abs=1e-6)
        if own is None:
            assert some[i].token_advantages is None
            continue
        want = torch.tensor(own) - every.mean()
        want = 0.5 * (want / (every.std() + 1e-6) if loss == "grpo" else want)
        assert torch.allclose(some[i].token_advantages, want, atol=1e-6)
        mean = want.mean().item() if own else 0.0
        assert advantages[i].item() == pytest.approx(whole[i].item() + mean, abs=1e-6)
    assert shown.tolist() == pytest.approx([1 + 7 / 6, 0.0, 3.0, 1.0])
    assert tally.sums["reward_f"][1] == 4
    equal = dataclasses.replace(
        rewards, values={k: torch.full((4,), nan) for k in rewards.values}, by_token={}
    )
    set_advantages(run, some, equal, Tally())
    assert not any(completion.informative for completion in some)
    assert all(completion.token_advantages is None for completion in some)
    set_advantages(run, some, dataclasses.replace(equal, by_token=rewards.by_token), Tally())
    assert all(completion.informative for completion in some), "the tokens' values differ"
