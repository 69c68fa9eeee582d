"""Every family: logits, masses and AGTO's gradient against eager attention with all matrices,
generation, and checkpoints as transformers writes them. tests/data/test_packing.py packs them."""

import pytest
import torch
from avar_kernels import visual_attn_varlen_func
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from avar_fast.attention import (
    VISION_ATTN_NAME,
    SpecialTokens,
    attach,
    detach,
    intervene,
    key_types,
    query_mask,
    record_attention,
)
from avar_fast.loading import load
from avar_fast.models import family_at, family_of
from avar_fast.objectives import agto_loss
from tests.attention.tiny_models import batch, eager_mass
from tests.data.samples import collator, samples

from .families import FAMILIES, TOKENIZER, greedy, layer_types, models

TOKENS = SpecialTokens.from_processor(TOKENIZER)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request):
    return (request.param, *models(request.param))


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_and_masses_match_eager(pair, side):
    _, fast, slow = pair
    inputs = batch(side)
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), record_attention(fast) as rec:
        got = fast(**inputs).logits
    with torch.no_grad():
        want = slow(**inputs, output_attentions=True)
    assert torch.allclose(got[real], want.logits[real], atol=1e-4)
    types = key_types(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)
    masses = eager_mass(want.attentions, types)
    layers = [i for i, kind in enumerate(layer_types(slow)) if kind == "full_attention"]
    assert list(rec.mass) == layers
    for layer, mass in zip(layers, masses, strict=True):
        assert torch.allclose(rec.mass[layer][real], mass[real], atol=1e-5)
        assert mass[real].std() > 0.02  # the comparison is not one of constants


def test_collated_rows_have_the_logits_of_rows_alone(pair):
    """Rows with images and without, padded, with positions and vision arguments made from the
    configuration; against eager attention on one row at a time, which makes its own."""
    _, fast, slow = pair
    rows = samples()
    batch = collator(fast, TOKENS).pad(rows)
    assert "image_cu_seqlens" in batch.inputs
    with torch.no_grad():
        got = fast(**batch.inputs, use_cache=False).logits
        for row, logits in zip(rows, got, strict=True):
            ids = torch.cat([row.prompt_ids, row.target_ids])[None]
            alone = {"input_ids": ids, "mm_token_type_ids": (ids == TOKENS.visual[0]).int()}
            if row.pixel_values is not None:
                alone |= {"pixel_values": row.pixel_values, "image_grid_thw": row.image_grid_thw}
            want = slow(**alone, use_cache=False).logits[0]
            assert torch.allclose(logits[: ids.shape[1]], want, atol=1e-4)


def test_gradients_of_agto_match_eager(pair):
    _, fast, slow = pair
    inputs = batch("right")
    types = key_types(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)
    queries = query_mask(inputs["input_ids"], inputs["attention_mask"], tokens=TOKENS)
    with record_attention(fast) as rec:
        fast(**inputs, use_cache=False)
    loss = agto_loss(rec.mass, queries, types, alpha=1.0, beta=0.5)[0]
    attentions = slow(**inputs, output_attentions=True, use_cache=False).attentions
    # The definition, sample by sample on whole matrices.
    want = 0.0
    for b in range(len(types)):
        for attention in attentions:
            first = (types[b] == 1).nonzero()[0, 0]
            seeing = queries[b] & (torch.arange(len(queries[b])) >= first)
            rows = attention[b][:, seeing].mean(1)  # (H, L)
            image, system = rows[:, types[b] == 1].mean(1), rows[:, types[b] == 2].mean(1)
            want = want - (image + 1e-6).log().mean() + 0.5 * (system + 1e-6).log().mean()
    want = want / len(attentions) / len(types)
    assert loss.item() == pytest.approx(want.item(), rel=1e-4)
    for model, value in ((fast, loss), (slow, want)):
        model.zero_grad()
        value.backward()
    compared = 0
    for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
        if b.grad is None:
            assert a.grad is None or not a.grad.any(), name
            continue
        scale = b.grad.abs().max().clamp(min=1e-3)
        assert (a.grad - b.grad).abs().max() < 2e-3 * scale, name
        compared += bool(b.grad.any())
    assert compared > 20


def test_the_vision_tower_attends_once_a_layer_and_as_eager_does(pair, monkeypatch):
    """Images of several sizes, whose windows are cut at their edges, in one call per layer."""
    _, fast, slow = pair
    calls = []

    def counted(*arguments, **options):
        calls.append(options["cu_seqlens_q"].diff().tolist())
        return visual_attn_varlen_func(*arguments, **options)

    monkeypatch.setattr("avar_fast.attention.call.visual_attn_varlen_func", counted)
    grid = torch.tensor([[1, 4, 6], [1, 2, 2], [1, 10, 8]])
    towers = [family_of(model).vision_tower(model) for model in (fast, slow)]
    vision = towers[0].config
    size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.randn(
        int(grid.prod(dim=1).sum()), size, generator=torch.Generator().manual_seed(0)
    )
    monkeypatch.setattr(vision, "_attn_implementation", VISION_ATTN_NAME)
    features, weights = [], []
    for tower in towers:
        output = tower(pixels, grid)
        features.append(output.last_hidden_state)
        tower.zero_grad()
        output.last_hidden_state.square().sum().backward()
        weights.append(tower.blocks[0].attn.qkv.weight.grad)
    assert len(calls) == len(towers[0].blocks)
    assert all(sum(lengths) == len(pixels) for lengths in calls)
    assert features[0].std() > 0.02
    assert torch.allclose(*features, atol=1e-5)
    assert torch.allclose(*weights, rtol=1e-3, atol=1e-5 * weights[1].abs().max().item())


def test_generation_with_a_cache_matches_eager_and_can_be_changed(pair):
    _, fast, slow = pair
    inputs = batch("left")
    got, want = greedy(fast, inputs, 6), greedy(slow, inputs, 6)
    assert torch.equal(got.sequences, want.sequences)
    for a, b in zip(got.logits, want.logits, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    with intervene(fast, visual_bias=2.0):
        changed = greedy(fast, inputs, 6)
    assert not torch.allclose(changed.logits[-1], got.logits[-1], atol=1e-3)


def test_checkpoints_are_those_of_transformers(pair, tmp_path):
    name, fast, slow = pair
    fast.save_pretrained(tmp_path / "fast")
    slow.save_pretrained(tmp_path / "slow")
    TOKENIZER.save_pretrained(tmp_path / "fast")
    ours, theirs = (load_file(tmp_path / k / "model.safetensors") for k in ("fast", "slow"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    family, config = family_at(str(tmp_path / "fast"))
    assert family is family_of(fast)
    assert family.MODEL_TYPE == config.model_type == name
    again, report = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "fast",
        output_loading_info=True,
        attn_implementation={"text_config": "avar", "vision_config": "sdpa"},
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    attach(again, TOKENIZER)
    inputs = batch("right")
    with torch.no_grad():
        assert torch.allclose(again.eval()(**inputs).logits, fast(**inputs).logits, atol=1e-6)


def test_a_folder_is_loaded_with_its_own_image_processor(pair, tmp_path):
    from avar_fast.lab.model import build_image_processor

    _, fast, _ = pair
    fast.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    build_image_processor().save_pretrained(tmp_path)
    loaded = load(str(tmp_path), torch.float32)
    assert family_of(loaded.model) is family_of(fast)
    assert family_of(loaded.model).text_attention_name(loaded.model) == "avar"
    tower = family_of(loaded.model).vision_tower(loaded.model)
    assert tower.config._attn_implementation == VISION_ATTN_NAME
    assert loaded.image_processor.merge_size == 2


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("attached", [False, True])
def test_static_cache_and_packed_positions_match_eager(name, attached):
    """Recurrent layers carry their state from one sample to the next under every attention."""
    fast, slow = models(name)
    if not attached:
        detach(fast)
    inputs = batch("left")
    options = dict(max_new_tokens=4, do_sample=False, pad_token_id=TOKENIZER.pad_token_id)
    options |= dict(cache_implementation="static", eos_token_id=None)
    got, want = (model.generate(**inputs, **options) for model in (fast, slow))
    assert torch.equal(got, want)

    ids = inputs["input_ids"][1:, -20:]
    counted = torch.cat([torch.arange(8), torch.arange(12)])[None]
    forms = [counted.expand(4, 1, -1)] + ([counted] if name == "qwen3_vl" else [])
    for positions in forms:
        refused = (
            name in FAMILIES[4:] or positions.dim() == 2
        )  # one of them by its recurrent layers
        if attached and refused:
            with pytest.raises(ValueError, match="packed samples"):
                fast(input_ids=ids, position_ids=positions, use_cache=False)
            continue
        with torch.no_grad():
            packed, stock = (
                m(input_ids=ids, position_ids=positions, use_cache=False).logits
                for m in (fast, slow)
            )
        assert torch.allclose(packed, stock, atol=2e-5)
