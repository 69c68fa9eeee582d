"""Liger's patches take on the installed transformers; checked in a process of its own, they are
global."""

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
from tests.models.world import models
before = {f: models(f.MODEL_TYPE)[0] for f in (qwen2_vl, qwen3_vl)}
for family, old in before.items():
    family.apply_liger()
    family.check_liger(models(family.MODEL_TYPE)[0])
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


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


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
