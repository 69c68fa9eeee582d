"""Liger's patches take on the installed transformers; checked in a process of its own, they are
global."""

import importlib
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from avar_fast.models import NAMES, qwen3_5, qwen3_5_moe, qwen3_vl_moe
from avar_fast.models.liger_proof import install

pytest.importorskip("liger_kernel", reason="liger-kernel is published for Linux only")
try:
    importlib.import_module("liger_kernel.transformers.model.qwen2_5_vl")
except ImportError as error:  # Liger 0.8 beside transformers 5.23 and newer
    FITS, WHY = False, str(error)
else:
    FITS, WHY = True, ""
fits = pytest.mark.skipif(not FITS, reason=WHY)

PATCH = """
from avar_fast.models import qwen2_5_vl as family
from avar_fast.lab.model import build_model
from avar_fast.lab.tokenizer import build_tokenizer
before = build_model(build_tokenizer(), 0)
family.apply_liger()
family.check_liger(build_model(build_tokenizer(), 0))
try:
    family.check_liger(before)
except RuntimeError as error:
    print(error)
"""

OTHERS = """
from avar_fast.models import qwen2_vl, qwen3_vl
from tests.models.families import models
before = {f: models(f.MODEL_TYPE, check=False)[0] for f in (qwen2_vl, qwen3_vl)}
for family, old in before.items():
    family.apply_liger()
    family.check_liger(models(family.MODEL_TYPE, check=False)[0])
    try:
        family.check_liger(old)
    except RuntimeError as error:
        print(error)
"""

RENAMED = """
from avar_fast.models import qwen2_5_vl as family
import liger_kernel.transformers as liger
liger.apply_liger_kernel_to_qwen2_5_vl = lambda **k: None
try:
    family.apply_liger()
except RuntimeError as error:
    print(error)
"""


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@fits
def test_patched_models_pass_the_check_and_older_ones_do_not():
    assert (
        "text layer 0 does not use Liger's RMSNorm and SwiGLU; the model was built before"
        in run(PATCH)
    )


@fits
def test_a_patch_that_does_nothing_is_an_error_naming_versions():
    message = run(RENAMED)
    assert "did not replace Qwen2_5_VLRMSNorm, Qwen2MLP" in message
    assert "of transformers 5." in message
    assert "model.liger=false" in message


@fits
def test_the_other_families_patches_take_too():
    assert run(OTHERS).count("does not use Liger's") == 2


SAME = """
import torch
from avar_fast.models import qwen2_5_vl, qwen2_vl, qwen3_vl
from avar_fast.models.liger_proof import replace_rotary
from liger_kernel.transformers import LigerSwiGLUMLP
from tests.models.families import models

def outcome(function, *leaves):
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    outputs = function(*leaves)
    sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in outputs).backward()
    return [*outputs, *(x.grad for x in leaves)]

def compare(got, want):
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()

torch.manual_seed(0)
q, k = torch.randn(2, 4, 19, 32), torch.randn(2, 2, 19, 32)
angles = torch.randn(2, 19, 16).repeat(1, 1, 2)
for family in (qwen2_vl, qwen2_5_vl, qwen3_vl):
    tower = family.text_tower(models(family.MODEL_TYPE, check=False)[0])
    plain = family.modeling.apply_rotary_pos_emb
    rotary = replace_rotary(family.modeling)["apply_rotary_pos_emb"]
    cos, sin = angles.cos(), angles.sin()
    compare(*(outcome(lambda q, k: f(q, k, cos, sin), q, k) for f in (rotary, plain)))
    LigerSwiGLUMLP(tower.config).load_state_dict(tower.layers[0].mlp.state_dict())  # strict
    print(family.MODEL_TYPE, "agrees")
"""


@fits
def test_liger_computes_what_the_plain_modules_do():
    """The rotary embedding of every family, forward and backward, in Triton's interpreter, which
    does not run Liger's RMSNorm and SwiGLU; of the latter, that it takes the same weights."""
    pytest.importorskip("transformers", minversion="5.17", reason="one rotary function for all")
    assert run(SAME, TRITON_INTERPRET="1").count("agrees") == 3


def test_the_plain_modules_run_where_liger_does_not_fit():
    def missing():
        raise ImportError("cannot import name 'LigerQwen2VLOutput'")

    family = SimpleNamespace(MODEL_TYPE="qwen2_vl", apply_liger=missing)
    assert re.fullmatch(
        r"Liger [\d.]+ does not import beside transformers [\d.]+: cannot import name .*",
        install(family),
    )
    for family in (qwen3_vl_moe, qwen3_5, qwen3_5_moe):
        assert install(family) == f"Liger has no kernels for {NAMES[family.MODEL_TYPE]}"
