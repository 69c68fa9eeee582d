"""Model families, one file each. Only these files touch a model's internals."""

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

NAMES = {
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL-MoE",
    "qwen3_5": "Qwen3.5",
    "qwen3_5_moe": "Qwen3.5-MoE",
}
"""The supported families by ``model_type``, which is also the name of the family's file."""


def family_of(model: nn.Module) -> ModuleType:
    """The family module of a transformers model.

    Raises:
        TypeError: the model's family is not supported.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type in NAMES:
        family = _family(model_type)
        if family.is_family(model):
            return family
    raise TypeError(
        f"model must be of a supported family ({', '.join(NAMES.values())}); got"
        f" {type(model).__name__}. Load it with AutoModelForImageTextToText.from_pretrained."
    )


def family_named(model_type: str, where: str) -> ModuleType:
    """The family of a configuration's ``model_type``.

    Raises:
        ValueError: the type is not supported; ``where`` names its place in the message.
    """
    if model_type in NAMES:
        return _family(model_type)
    raise ValueError(
        f"{where} must hold a model of type {', '.join(NAMES)}; it holds {model_type!r}."
    )


def _family(model_type: str) -> ModuleType:
    """Imports one family only: a release of transformers may lack the others."""
    return import_module(f".{model_type}", __package__)


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
