"""Tokens per second, MFU and the peak it is a share of."""

import pytest
import torch

from avar_fast.config import load_recipe
from avar_fast.models.flops import ModelFlops, Rates
from avar_fast.train.throughput import PEAK_TFLOPS, Throughput, peak_tflops

ZERO = Rates(*[0.0] * 7)


def recipe(tmp_path, *overrides):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "{stage: sft, model: {path: x}, data: {path: y}, train: {output_dir: z, steps: 1}}"
    )
    return load_recipe(path, list(overrides))


def test_figures_of_a_step():
    speed = Throughput(ModelFlops(ZERO, ZERO), peak_tflops=100.0, world_size=4)
    got = speed.metrics(tokens=6000, flops=3e15, seconds=20.0)
    assert got == {"tokens_per_s": 300.0, "tflops_per_rank": 37.5, "mfu": 0.375}
    unknown = Throughput(ModelFlops(ZERO, ZERO), None, 1)
    assert unknown.metrics(1, 1e12, 1.0)["mfu"] is None


def test_the_peak_is_the_recipes_or_the_gpus(tmp_path, monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert peak_tflops(recipe(tmp_path), cpu) is None
    assert peak_tflops(recipe(tmp_path, "tracking.peak_tflops=0.5"), cpu) == 0.5
    for name, peak in (
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H20", 148.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", None),
        ("Some other device", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_tflops(recipe(tmp_path), gpu) == peak, name
        assert peak_tflops(recipe(tmp_path, "model.dtype=float32"), gpu) is None


def test_no_name_of_the_table_is_hidden_by_one_before_it():
    names = [name for name, _ in PEAK_TFLOPS]
    for i, name in enumerate(names):
        assert not any(before in name for before in names[:i]), name


def test_a_recipe_names_a_bad_peak(tmp_path):
    with pytest.raises(ValueError, match="tracking.peak_tflops must be positive"):
        recipe(tmp_path, "tracking.peak_tflops=0")
