"""The Python blocks of the pages run, from top to bottom, on the lab's model."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

from avar_fast.lab.model import save_base

from .attention.tiny_models import TOKENIZER, batch

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
PAGES = ("README.md", "docs/kernels.md", "docs/studies.md")


@pytest.mark.parametrize("name", PAGES)
def test_blocks_run(name, tmp_path):
    base = str(save_base(tmp_path / "base", seed=0))
    model_of_a_page = (
        "from transformers import Qwen2_5_VLForConditionalGeneration\n"
        f"model = Qwen2_5_VLForConditionalGeneration.from_pretrained({base!r},"
        ' attn_implementation={"text_config": "avar", "vision_config": "sdpa"})\n'
        "import avar_fast.attention as aa\naa.attach(model, processor)\n"
    )
    names = {"inputs": batch("left"), "processor": TOKENIZER}
    found = BLOCK.findall((ROOT / name).read_text())
    assert found
    if name == "docs/studies.md":  # which says that the model is that of kernels.md
        found = [model_of_a_page, *found]
    for block in found:
        block = block.replace("Qwen/Qwen2.5-VL-7B-Instruct", base)
        block = block.replace("<IMG_CONTEXT>", "<|image_pad|>")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, name, "exec"), names)
    if "score" in names:
        assert torch.isfinite(names["score"])
