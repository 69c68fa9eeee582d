"""One file per model family; nothing else in the package touches a model's internals."""

from types import ModuleType

from torch import nn


def families() -> tuple[ModuleType, ...]:
    """The supported families' modules."""
    from . import qwen2_5_vl

    return (qwen2_5_vl,)


def family_of(model: nn.Module) -> ModuleType:
    """The family module of a transformers model.

    Raises:
        TypeError: no supported family.
    """
    for family in families():
        if family.is_family(model):
            return family
    raise TypeError(
        f"model must be of a supported family (Qwen2.5-VL); got {type(model).__name__}. "
        "Load it with Qwen2_5_VLForConditionalGeneration.from_pretrained."
    )
