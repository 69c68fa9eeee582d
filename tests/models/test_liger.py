"""Liger's patches take on the installed transformers; checked in a process of its own, they are
global."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("liger_kernel", reason="liger-kernel is published for Linux only")

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


def test_patched_models_pass_the_check_and_older_ones_do_not():
    assert (
        "text layer 0 does not use Liger's RMSNorm and SwiGLU; the model was built before"
        in run(PATCH)
    )


def test_a_patch_that_does_nothing_is_an_error_naming_versions():
    message = run(RENAMED)
    assert "did not replace Qwen2_5_VLRMSNorm, Qwen2MLP" in message
    assert "of transformers 5." in message
    assert "model.liger=false" in message


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


def test_liger_computes_what_the_plain_modules_do():
    """The rotary embedding of every family, forward and backward, in Triton's interpreter, which
    does not run Liger's RMSNorm and SwiGLU; of the latter, that it takes the same weights."""
    pytest.importorskip("transformers", minversion="5.17", reason="one rotary function for all")
    assert run(SAME, TRITON_INTERPRET="1").count("agrees") == 3
