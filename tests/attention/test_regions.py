"""The objectives of examples/regions.py against eager attention matrices."""

import importlib.util
from pathlib import Path

import pytest
import torch

from avar_fast.attention import SpecialTokens, attach, query_mask, record_attention

from .tiny_models import TOKENIZER, batch, models

EXAMPLE = Path(__file__).parents[2] / "examples" / "regions.py"


@pytest.fixture(scope="module")
def regions():
    spec = importlib.util.spec_from_file_location("regions", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_losses_and_rewards_of_boxes(regions):
    fast, slow = models()
    boxes = regions.InBoxes()
    attach(fast, TOKENIZER, num_types=4, classify=boxes)
    inputs = batch("right", images=(1, 1))
    boxes.grids = [(2, 2), (2, 2)]
    boxes.boxes = [(0.0, 0.0, 1.0, 0.5), (0.5, 0.5, 1.0, 1.0)]  # the upper row; the last cell
    inside = [[0, 1], [3]]
    labels = inputs["input_ids"].clone()
    lm_loss, loss = regions.loss_with_boxes(fast, inputs, labels)
    with torch.no_grad():
        assert torch.allclose(lm_loss, slow(**inputs, labels=labels).loss, atol=1e-5)
    rewards = regions.box_reward(fast, inputs, torch.tensor([True, True]))
    with torch.no_grad():
        attentions = torch.stack(slow(**inputs, output_attentions=True).attentions)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    tokens = SpecialTokens.from_processor(TOKENIZER)
    response = query_mask(ids, mask, role="response", tokens=tokens)
    terms, wanted = [], []
    for row, cells in enumerate(inside):
        at = torch.isin(ids[row], torch.tensor(tokens.visual)).nonzero()[:, 0][cells]
        weights = attentions[:, row][:, :, response[row]]  # (layers, H, T, L)
        on_box = weights[..., at].sum(-1)
        terms.append(-torch.log(on_box.mean(-1) / len(cells) + 1e-6).mean())
        system = 1 + (ids[row] == tokens.turn_end).nonzero()[0, 0] + 1  # with its newline
        on_system = weights[..., :system].sum(-1)
        share = on_box.sum(1) / (on_box.sum(1) + on_system.sum(1) + 1e-6)
        wanted.append(share.mean())
    assert torch.allclose(loss, 0.15 * torch.stack(terms).mean(), atol=1e-5)
    assert torch.allclose(rewards, torch.stack(wanted), atol=1e-5)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in fast.parameters())


def test_sinks_are_found_and_left_out(regions):
    fast, _ = models()
    inputs = batch("right", images=(1, 1))
    found = regions.find_sinks(fast, [inputs], times=1.0)
    assert 0 < len(found) < 4
    attach(fast, TOKENIZER, num_types=4, classify=regions.Sinks(found))
    with torch.no_grad(), record_attention(fast) as recording:
        fast(**inputs)
    counts = [(recording.key_types == kind).sum(1).tolist() for kind in (1, 3)]
    assert counts == [[4 - len(found)] * 2, [len(found)] * 2]
    prompts = {name: value[:, :30] for name, value in inputs.items() if value.dim() == 2}
    prompts |= {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
    with pytest.raises(ValueError, match="the rows must have responses"):
        regions.find_sinks(fast, [prompts])
