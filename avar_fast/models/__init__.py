"""One file per model family; nothing else in the package touches a model's internals."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


def families() -> tuple[ModuleType, ...]:
    """The supported families' modules."""
    from . import qwen2_5_vl, qwen2_vl, qwen3_vl

    return (qwen2_vl, qwen2_5_vl, qwen3_vl)


def family_of(model: nn.Module) -> ModuleType:
    """The family module of a transformers model.

    Raises:
        TypeError: no supported family.
    """
    for family in families():
        if family.is_family(model):
            return family
    raise TypeError(
        "model must be of a supported family (Qwen2-VL, Qwen2.5-VL, dense Qwen3-VL); got"
        f" {type(model).__name__}. Load it with AutoModelForImageTextToText.from_pretrained."
    )


def family_named(model_type: str, where: str) -> ModuleType:
    """The family of a configuration's ``model_type``.

    Raises:
        ValueError: not supported; ``where`` says what holds it.
    """
    for family in families():
        if model_type == family.MODEL_TYPE:
            return family
    known = ", ".join(f.MODEL_TYPE for f in families())
    raise ValueError(f"{where} must hold a model of type {known}; it holds {model_type!r}.")


def family_at(path: str) -> tuple[ModuleType, Any]:
    """The family and the configuration of the model in a folder or under a hub name.

    Raises:
        ValueError: a model type that is not supported.
        OSError: transformers' own, for a path that cannot be loaded.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        path if (Path(path) / "config.json").is_file() else whole_model_at(path)
    )
    return family_named(config.model_type, f"model.path {path}"), config


def holds_adapters(path: str) -> bool:
    """Whether a path is a folder of adapters, as a run with lora.enabled saves it."""
    return (Path(path) / "adapter_config.json").is_file()


def whole_model_at(path: str) -> str:
    """The folder or hub name of the model that the adapters at a path belong to; any other path
    itself."""
    if not holds_adapters(path):
        return path
    return json.loads((Path(path) / "adapter_config.json").read_text())["base_model_name_or_path"]
