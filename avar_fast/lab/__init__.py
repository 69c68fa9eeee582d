"""The lab: a miniature world in which the whole system runs in minutes on two CPU cores.

Images are composed from real handwritten digits, one digit to one visual token; questions ask for
the sum of a row or a column; the model is a Qwen2.5-VL of about one million parameters with a
tokenizer of its own. Rows have the schema of real data sets, so the lab is data and a model for the
ordinary trainer, not a second program.

    python -m avar_fast.lab data  --out DIR --rows 2000 --split train --seed 0
    python -m avar_fast.lab model --out DIR --seed 0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import build_image_processor, build_model, save_base
    from .tokenizer import build_tokenizer
    from .world import DEFAULT_SYSTEM, Scene, WorldConfig, make_scene, to_row, write_rows

__all__ = [
    "DEFAULT_SYSTEM",
    "Scene",
    "WorldConfig",
    "build_image_processor",
    "build_model",
    "build_tokenizer",
    "make_scene",
    "save_base",
    "to_row",
    "write_rows",
]

_HOME = {
    "DEFAULT_SYSTEM": ".world",
    "Scene": ".world",
    "WorldConfig": ".world",
    "build_image_processor": ".model",
    "build_model": ".model",
    "build_tokenizer": ".tokenizer",
    "make_scene": ".world",
    "save_base": ".model",
    "to_row": ".world",
    "write_rows": ".world",
}


def __getattr__(name: str) -> object:
    """Import on first use: `import avar_fast.lab` pulls in neither transformers nor
    scikit-learn."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
