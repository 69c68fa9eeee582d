"""AgtoMixin in transformers' Trainer against our objectives on the whole batch."""

import copy

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.attention import (
    attach,
    detach,
    key_types,
    query_mask,
    record_attention,
    sees_image,
)
from avar_fast.data import IGNORE, collate
from avar_fast.objectives import agto_loss
from avar_fast.train.forward import HeadLimits, label_nll

from ..train.runs import on_ranks
from .clients import TOKENIZER, difference, gradients, tiny_model
from .steps import TOKENS, inputs_of, samples_of, trainer_of

LIMITS = HeadLimits(1 << 30)


@pytest.fixture(scope="module")
def samples(rows_file):
    return samples_of(rows_file, 7)


def whole_batch(model, samples, *, alpha=0.15, beta=0.15, role="user", keys=KeyType.VISUAL):
    """(LM loss, AGTO, gradients of their sum) of one forward over all samples."""
    model = copy.deepcopy(model).train()
    batch = collate(samples, TOKENIZER.pad_token_id, TOKENS.visual)
    with record_attention(model) as recording:
        nll = label_nll(getattr(model, "get_base_model", lambda: model)(), batch, LIMITS)
    lm = nll / (batch.labels != IGNORE).sum()
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    queries = query_mask(ids, mask, role=role, tokens=TOKENS)
    types = key_types(ids, mask, tokens=TOKENS)
    queries &= sees_image(types)
    extra, parts = agto_loss(recording.mass, queries, types, alpha, beta, visual=keys)
    assert int(parts.num_samples) == len(samples) - 2
    (lm + extra).backward()
    return lm.item(), extra.item(), gradients(model)


def train(model, samples, folder, accumulation, **options):
    """(logs of the step, its gradients) of a Trainer that takes one step."""
    trainer, kept = trainer_of(copy.deepcopy(model), samples, folder, accumulation, **options)
    trainer.train()
    assert len(kept.steps) == 1
    return trainer.state.log_history[0], kept.steps[0]


def with_adapters(model):
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    targets = r".*language_model.*(q_proj|k_proj|v_proj|o_proj)"
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("adapters", [False, True], ids=["full", "peft"])
def test_a_step_is_that_of_the_whole_batch(
    samples, tmp_path, accumulation, checkpointing, adapters
):
    model = with_adapters(tiny_model()) if adapters else tiny_model()
    lm, extra, want = whole_batch(model, samples)
    options = {"gradient_checkpointing": checkpointing}
    logs, got = train(model, samples, tmp_path, accumulation, **options)
    assert difference(got, want) < 1e-5
    assert logs["loss"] == pytest.approx(lm + extra, rel=1e-5)
    share = 0.15 * (logs["agto_enhance"] + logs["agto_suppress"])
    assert share == pytest.approx(extra, rel=1e-5)
    assert logs["agto_skipped"] == 2


def test_agto_is_that_of_the_whole_batch_where_the_lm_loss_is_a_mean_of_means(samples, tmp_path):
    """The difference between weights of AGTO is then AGTO's gradient alone."""
    model = tiny_model()
    options = {"mean_of_means": True}
    _, low = train(model, samples, tmp_path, 4, agto={"alpha": 0.1}, **options)
    _, high = train(model, samples, tmp_path, 4, agto={"alpha": 0.6}, **options)
    got = {name: high[name] - low[name] for name in low}
    _, _, base = whole_batch(model, samples, alpha=0.1)
    _, _, more = whole_batch(model, samples, alpha=0.6)
    assert difference(got, {name: more[name] - base[name] for name in base}) < 1e-4
    plain, _ = train(model, samples, tmp_path, 4, agto={"enabled": False}, **options)
    lm, _, _ = whole_batch(model, samples)
    assert plain["loss"] != pytest.approx(lm, rel=1e-4)  # so the two means do differ


def test_settings_are_those_of_a_recipe(samples, tmp_path):
    agto = {"alpha": 0.3, "beta": 0.2, "queries": "response", "layers": (1,)}
    model = tiny_model()
    logs, got = train(model, samples, tmp_path, 2, agto=agto)
    batch = inputs_of(samples)
    with record_attention(model, [1]) as recording:
        model(**{k: v for k, v in batch.items() if k != "labels"})
    want, _ = agto_loss(recording.mass, batch["labels"] != IGNORE, recording.key_types, 0.3, 0.2)
    share = 0.3 * logs["agto_enhance"] + 0.2 * logs["agto_suppress"]
    assert share == pytest.approx(want.item(), rel=1e-5)
    assert got


def test_samples_whose_image_tokens_are_of_another_type_do_not_count(samples, tmp_path):
    """The mean of AGTO is over the samples that have image tokens by ``attach(classify=)``."""

    def elsewhere(ids, types):
        odd = (ids * (types >= 0)).sum(1, keepdim=True) % 2 == 1
        return torch.where(odd & (types == KeyType.VISUAL), 3, types)

    model = tiny_model()
    attach(model, TOKENIZER, num_types=4, classify=elsewhere)
    batch = inputs_of(samples)
    with record_attention(model) as recording:
        model(**{k: v for k, v in batch.items() if k != "labels"})
    want, parts = agto_loss(recording.mass, recording.queries(), recording.key_types)
    assert 0 < int(parts.num_samples) < len(samples) - 2
    both, _ = train(model, samples, tmp_path, 2)
    lm, _, _ = whole_batch(tiny_model(), samples)
    assert both["loss"] - lm == pytest.approx(want.item(), rel=1e-3)


def test_types_of_ones_own_take_the_place_of_image_and_system_turn(samples, tmp_path):
    """The last image token of a row counts as the image, the text of the user as the system."""

    def last_and_text(ids, types):
        visual = types == KeyType.VISUAL
        last = visual & (visual.cumsum(1) == visual.sum(1, keepdim=True))
        return torch.where(last, 3, torch.where(types == KeyType.TEXT, 4, types))

    model = tiny_model()
    attach(model, TOKENIZER, num_types=5, classify=last_and_text)
    keys = {"visual": 3, "system": 4}
    batch = inputs_of(samples)
    with record_attention(model) as recording:
        model(**{k: v for k, v in batch.items() if k != "labels"})
    types = recording.key_types
    queries = query_mask(batch["input_ids"], batch["attention_mask"], role="user", tokens=TOKENS)
    want, parts = agto_loss(recording.mass, queries, types, **keys)
    assert int(parts.num_samples) == len(samples) - 2
    lm, image, _ = whole_batch(tiny_model(), samples)
    for accumulation in (1, 4):
        logs, _ = train(model, samples, tmp_path, accumulation, keys=keys)
        assert logs["loss"] - lm == pytest.approx(want.item(), rel=1e-3)
    assert image != pytest.approx(want.item(), rel=0.1)
    with pytest.raises(ValueError, match=r"visual must be a key type of the masses, 0 to 2; got 3"):
        trainer_of(tiny_model(), samples, tmp_path, 1, keys=keys)


def test_weights_follow_their_schedule(samples, tmp_path):
    """Alpha goes from 0.4 to 0 in two steps, so the second step has beta alone, which is 0."""
    agto = {"alpha": 0.4, "alpha_end": 0.0, "beta": 0.0}
    options = {"num_train_epochs": 2, "learning_rate": 0.0}
    trainer, kept = trainer_of(tiny_model(), samples, tmp_path, 1, agto=agto, **options)
    trainer.train()
    _, extra, want = whole_batch(tiny_model(), samples, alpha=0.4, beta=0.0)
    assert difference(kept.steps[0], want) < 1e-5
    first, second = (logs["loss"] for logs in trainer.state.log_history[:2])
    assert first - second == pytest.approx(extra, rel=1e-4)


def test_bfloat16_is_close(samples, tmp_path):
    model = tiny_model()
    _, _, want = whole_batch(model, samples)
    exact, _ = train(model, samples, tmp_path, 2)
    logs, got = train(model, samples, tmp_path, 2, bf16=True)
    assert difference(got, want) < 0.06
    for term in ("agto_enhance", "agto_suppress"):
        assert logs[term] == pytest.approx(exact[term], rel=2e-3)


def test_ranks_and_micro_batches_make_the_same_step(rows_file, tmp_path):
    """Two ranks of DDP with two micro-batches each."""
    _, _, want = whole_batch(tiny_model(), samples_of(rows_file, 8))
    on_ranks(["tests.integrations.ddp_worker", str(rows_file), str(tmp_path)], ranks=2)
    assert difference(torch.load(tmp_path / "gradients.pt"), want) < 1e-5


@pytest.mark.parametrize("kind", ["zero-2", "zero-3", "fsdp"])
def test_sharded_weights_make_the_same_step(rows_file, tmp_path, kind):
    """Weights minus weights after a step lose a rounding of the weights."""
    if kind != "fsdp":
        pytest.importorskip("deepspeed")
    _, _, want = whole_batch(tiny_model(), samples_of(rows_file, 8))
    on_ranks(["tests.integrations.sharded_worker", str(rows_file), str(tmp_path), kind], ranks=2)
    got = torch.load(tmp_path / "gradients.pt")
    assert difference({name: got[name] for name in want}, want) < 1e-5


def test_offsets_of_one_sample_change_nothing(samples, tmp_path):
    """Some collators pass them for a batch of one row."""
    model = tiny_model()
    _, want = train(model, samples[:1], tmp_path, 1)

    def with_offsets(chosen):
        batch = inputs_of(chosen)
        length = batch["input_ids"].shape[1]
        offsets = torch.tensor([0, length], dtype=torch.int32)
        del batch["attention_mask"]
        named = {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets}
        return batch | named | {"max_length_q": length, "max_length_k": length}

    trainer, kept = trainer_of(copy.deepcopy(model), samples[:1], tmp_path, 1)
    trainer.data_collator = with_offsets
    trainer.train()
    assert difference(kept.steps[0], want) < 1e-5


def test_the_loss_of_evaluation_is_the_lm_loss(samples, tmp_path):
    trainer, _ = trainer_of(tiny_model(), samples, tmp_path, 1)
    lm = trainer.model.eval()(**inputs_of(samples[:2])).loss
    assert trainer.evaluate()["eval_loss"] == pytest.approx(lm.item(), rel=1e-5)


def test_a_step_without_images_has_the_lm_loss_alone(samples, tmp_path):
    logs, got = train(tiny_model(), [samples[1], samples[4]], tmp_path, 2)
    assert logs["agto_skipped"] == 2
    assert logs["agto_enhance"] == 0
    assert all(torch.isfinite(grad).all() for grad in got.values())


def test_what_cannot_be_right_is_refused(samples, tmp_path):
    with pytest.raises(ValueError, match="agto must have keys of .*alpha.*; got gamma"):
        trainer_of(tiny_model(), samples, tmp_path, 1, agto={"gamma": 1})
    loose = tiny_model()
    detach(loose)
    with pytest.raises(ValueError, match="must be attached first"):
        trainer_of(loose, samples, tmp_path, 1)
    options = {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
    }
    with pytest.raises(ValueError, match="use_reentrant=False .* PEFT with ZeRO-3"):
        trainer_of(tiny_model(), samples, tmp_path, 1, **options)
    frozen = tiny_model()
    frozen.model.requires_grad_(False)
    frozen.lm_head.weight = torch.nn.Parameter(frozen.lm_head.weight.detach().clone())
    with pytest.raises(RuntimeError, match="must have a gradient"):
        trainer_of(frozen, samples, tmp_path, 1)[0].train()
    trainer, _ = trainer_of(tiny_model(), samples, tmp_path, 1)
    with pytest.raises(RuntimeError, match="must count the samples"):
        trainer.compute_loss(trainer.model.train(), inputs_of(samples[:1]))
    packed = inputs_of(samples[:1]) | {"cu_seq_lens_q": torch.tensor([0, 3, 9])}
    with pytest.raises(ValueError, match="one sample per row; got 2 packed samples in 1 row"):
        trainer.get_batch_samples(iter([packed]), 1, torch.device("cpu"))
    with pytest.raises(ValueError, match="needs input_ids in every micro-batch; got list"):
        trainer.get_batch_samples(iter([[{"prompt": "x"}]]), 1, torch.device("cpu"))


def test_the_placebo_is_that_of_the_whole_batch(samples, tmp_path):
    """Rows without an image count neither in the sum nor in the divisor."""
    model = tiny_model()
    lm, extra, want = whole_batch(model, samples, keys=KeyType.TEXT)
    logs, got = train(model, samples, tmp_path, 4, agto={"enhance_keys": "text"})
    assert difference(got, want) < 1e-5
    assert logs["loss"] == pytest.approx(lm + extra, rel=1e-5)
    assert logs["agto_skipped"] == 2
