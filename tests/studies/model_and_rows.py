"""Tiny attached models, their eager twins, and a few rows of the lab."""

import json

from avar_fast.data import load_rows
from avar_fast.lab.model import build_image_processor
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.loading import Loaded

from ..attention.tiny_models import TOKENIZER, models
from ..models.families import models as family_models

WITH_GAPS = "qwen3_5"
"""A family whose layers are partly recurrent: of the five of its tiny model, 1 and 3 attend."""


def loaded_pair(family=None):
    """The lab's model or that of a family: attached, and with eager attention."""
    fast, slow = models() if family is None else family_models(family)
    return Loaded(fast, TOKENIZER, build_image_processor(), (TOKENIZER.eos_token_id,)), slow


def ragged_rows(folder, count=6, **config):
    """Grids of several sizes, so that prompts differ in length."""
    world = WorldConfig(rows=2, cols=3, smaller=True, **config)
    return load_rows(str(write_rows(folder, world, "test", count, seed=3)))


def edited(path, change):
    """Rewrites every row of a .jsonl file by ``change(number, row)``; returns its path."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows):
        change(number, row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
