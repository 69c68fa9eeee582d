"""Completions whose decoding steps are replayed from CUDA graphs, against steps run one by one."""

import importlib

import pytest
import torch

from avar_fast.rollout import Sampling, decoding_graph, generate

from ..models import families
from .conversations import conversation
from .device import DEVICE, GPU_TIER, ON_GPU, needs_gpu

pytestmark = GPU_TIER


@pytest.fixture
def captures(monkeypatch):
    """The graphs that were captured; on a CPU, which has none, the fixed steps that began."""
    found = []
    kept = "_capture" if ON_GPU else "_forward"
    original = getattr(decoding_graph.DecodingGraph, kept)

    def counted(self):
        found.append(self)
        return original(self)

    monkeypatch.setattr(decoding_graph.DecodingGraph, kept, counted)
    if not ON_GPU:
        module = importlib.import_module("avar_fast.rollout.generate")
        monkeypatch.setattr(module, "_can_capture", lambda model: True)
    return found


def inputs_of(prompts):
    (index,) = prompts
    return conversation(DEVICE, 16 + 4 * index, response="")


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_replayed_steps_sample_what_single_steps_sample(family, captures, monkeypatch):
    """Rows end at different steps and leave, prompts join, and caches grow: every one of these
    needs another graph. float32; the masses of the same weights in another split of the keys."""
    monkeypatch.setattr(decoding_graph, "ROOM", 6)
    model = families.models(family)[0].to(DEVICE)
    banned = model.config.image_token_id, model.config.video_token_id
    sampling = Sampling(
        num_samples=4, max_new_tokens=24, temperature=1.0, eos_ids=tuple(range(0, 250, 9)),
        pad_id=families.TOKENIZER.pad_token_id, banned_ids=banned, mass_layers=(0, 1),
    )  # fmt: skip
    results = []
    for cuda_graphs in (False, True):
        torch.manual_seed(5)
        results.append(generate(model, range(3), inputs_of, sampling, 1, cuda_graphs=cuda_graphs))
        assert bool(captures) == cuda_graphs
    want, got = results
    assert len(set(want.completion_mask.sum(1).tolist())) > 2
    assert len(captures) > 3
    assert torch.equal(got.completion_ids, want.completion_ids)
    assert torch.allclose(got.masses, want.masses, atol=1e-4)
    assert want.masses[want.completion_mask].sum(-1).min() > 3.9  # of four heads


@needs_gpu
@pytest.mark.parametrize("family", ["qwen3_vl_moe", "qwen3_5"])
def test_families_that_take_no_graphs_decode_without(family, captures):
    model = families.models(family)[0].to(DEVICE)
    sampling = Sampling(
        num_samples=2, max_new_tokens=6, temperature=0.0, eos_ids=(), banned_ids=(),
        pad_id=families.TOKENIZER.pad_token_id,
    )  # fmt: skip
    rollouts = generate(model, range(1), inputs_of, sampling)
    assert rollouts.completion_mask.all()
    assert not captures
