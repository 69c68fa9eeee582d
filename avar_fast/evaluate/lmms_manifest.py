"""What lmms-eval finds by the entry point group ``lmms_eval.models``: the model ``avar``."""

from typing import Any


def manifest() -> Any:
    """The manifest of the model, for lmms-eval's registry."""
    from lmms_eval.models.registry_v2 import (  # pyright: ignore[reportMissingImports]
        ModelManifest,
    )

    return ModelManifest(model_id="avar", chat_class_path="avar_fast.evaluate.lmms.Avar")
