"""Installs Liger's kernels and checks that they are in use. Liger replaces names in a module, and
some releases replace names that transformers no longer reads."""

from importlib.metadata import version
from types import ModuleType
from typing import Any

from torch import nn

from . import NAMES


def install(family: ModuleType) -> str | None:
    """Replaces modules of a family by Liger's kernels, in models that are built afterwards.

    Returns:
        None, or the reason why the plain modules run: Liger has no kernels for the family, or does
        not import beside the installed transformers.

    Raises:
        RuntimeError: a replacement has no effect; the message gives its name and the versions.
    """
    if family.apply_liger is None:
        return f"Liger has no kernels for {NAMES[family.MODEL_TYPE]}"
    try:
        family.apply_liger()
    except ImportError as error:
        return (
            f"Liger {version('liger-kernel')} does not import beside transformers"
            f" {version('transformers')}: {error}"
        )
    return None


def replace_rotary(modeling: Any) -> dict[str, Any]:
    """Replaces the rotary embedding of a family's text tower by Liger's; returns {name: function}.

    Liger 0.8 patches the multimodal function, which transformers has up to 5.16. From 5.17 on there
    is only the plain function, and Liger's own switch has no effect.
    """
    from liger_kernel.transformers import liger_rotary_pos_emb
    from liger_kernel.transformers.qwen2vl_mrope import liger_multimodal_rotary_pos_emb

    name, rotary = "apply_rotary_pos_emb", liger_rotary_pos_emb
    if hasattr(modeling, "apply_multimodal_rotary_pos_emb"):
        name, rotary = "apply_multimodal_rotary_pos_emb", liger_multimodal_rotary_pos_emb
    setattr(modeling, name, rotary)
    return {name: rotary}


def require(attention: Any, wanted: dict[str, Any]) -> None:
    """Raises RuntimeError unless the module of an attention class has these names bound to these
    objects."""
    names = attention.forward.__globals__
    missing = [name for name, kernel in wanted.items() if names.get(name) is not kernel]
    if missing:
        raise RuntimeError(
            f"Liger {version('liger-kernel')} did not replace {', '.join(missing)} of transformers"
            f" {version('transformers')}. Install versions in avar-fast's ranges, or set"
            " model.liger=false."
        )


def check_layers(tower: Any, norm: type[nn.Module], mlp: type[nn.Module]) -> None:
    """Raises RuntimeError unless every layer of a text tower has norms and MLP of these classes."""
    for index, layer in enumerate(tower.layers):
        norms = (layer.input_layernorm, layer.post_attention_layernorm)
        if not isinstance(layer.mlp, mlp) or not all(isinstance(n, norm) for n in norms):
            raise RuntimeError(
                f"text layer {index} does not use Liger's RMSNorm and SwiGLU; the model was built"
                " before the patch. Call apply_liger first, or set model.liger=false."
            )
