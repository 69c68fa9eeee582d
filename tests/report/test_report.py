"""The report is one self-contained file whose table holds the numbers it was given."""

import re

import pytest
import torch

from avar_fast.data import load_rows
from avar_fast.lab.model import build_image_processor
from avar_fast.lab.world import DEFAULT_SYSTEM, WorldConfig, write_rows
from avar_fast.loading import Loaded
from avar_fast.report import write_report
from avar_fast.report.attention_maps import attention_map
from avar_fast.report.page import text_table

from ..attention.tiny_models import TOKENIZER, models
from ..models.families import models as family_models
from .entries import entry

pytest.importorskip("matplotlib")


def draw(folder, model):
    rows = load_rows(str(write_rows(folder / "rows", WorldConfig(), "test", 1, seed=0)))
    loaded = Loaded(model, TOKENIZER, build_image_processor(), (TOKENIZER.eos_token_id,))
    return attention_map(loaded, rows[0], DEFAULT_SYSTEM, 5)


@pytest.fixture
def picture(tmp_path):
    return draw(tmp_path, models()[0])


def test_attention_map_is_a_share_per_visual_token(picture):
    require_shares(picture)


def test_attention_map_of_a_model_with_recurrent_layers(tmp_path):
    require_shares(draw(tmp_path, family_models("qwen3_5")[0]))


def require_shares(picture):
    assert picture.heat.shape == (2, 2)
    assert (picture.heat > 0).all()
    assert picture.heat.sum() < 1
    assert torch.isfinite(picture.heat).all()


def test_report_and_table(tmp_path, picture):
    log = [{"step": i, "lm_loss": 1 / (i + 1), "vas_share": 0.5} for i in range(30)]
    entries = [
        entry("base & <start>", 0.5, 100.0, log, [picture]),
        entry("AGTO", 0.625, 50.0, log[:3], [picture]),
    ]
    write_report(tmp_path / "out" / "report.html", "A study", "Seed 0.", entries)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "base &amp; &lt;start&gt;" in page
    assert "0.625" in page
    assert page.count("data:image/png;base64,") == 2
    for share in picture.heat.flatten().tolist():
        assert page.count(f">{100 * share:.1f}%</text>") >= 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    lines = text_table(entries).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert "12.5" in lines[2]
    assert "2.25" in lines[2]
