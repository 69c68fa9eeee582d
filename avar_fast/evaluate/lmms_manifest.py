"""Registers the model ``avar`` with lmms-eval, through the entry point group
``lmms_eval.models``."""

from typing import Any


def manifest() -> Any:
    """Manifest of the model for lmms-eval's registry."""
    from lmms_eval.models.registry_v2 import (  # pyright: ignore[reportMissingImports]
        ModelManifest,
    )

    return ModelManifest(model_id="avar", chat_class_path="avar_fast.evaluate.lmms.Avar")
