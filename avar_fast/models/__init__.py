"""Model families, one file each. Only these files touch a model's internals."""

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
        TypeError: the model's family is not supported.
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
        ValueError: the type is not supported; ``where`` names its place in the message.
    """
    for family in families():
        if model_type == family.MODEL_TYPE:
            return family
    known = ", ".join(f.MODEL_TYPE for f in families())
    raise ValueError(f"{where} must hold a model of type {known}; it holds {model_type!r}.")


def family_at(path: str) -> tuple[ModuleType, Any]:
    """The family and the configuration of the model in a folder or under a hub name.

    Raises:
        ValueError: the model type is not supported.
        OSError: transformers cannot load the path.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        path if (Path(path) / "config.json").is_file() else whole_model_at(path)
    )
    return family_named(config.model_type, f"model.path {path}"), config


def holds_adapters(path: str) -> bool:
    """Whether a path is a folder of adapters, as saved by a run with lora.enabled."""
    return (Path(path) / "adapter_config.json").is_file()


def whole_model_at(path: str) -> str:
    """The folder or hub name of the base model if the path holds adapters, else the path itself."""
    if not holds_adapters(path):
        return path
    return json.loads((Path(path) / "adapter_config.json").read_text())["base_model_name_or_path"]
