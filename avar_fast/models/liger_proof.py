"""Proof that Liger's replacements took: it sets names of a module, some of which nobody reads."""

from importlib.metadata import version
from typing import Any

from torch import nn


def require(attention: Any, wanted: dict[str, Any]) -> None:
    """Raises RuntimeError unless the module that defines an attention class has these names bound
    to these objects; the message has names and versions."""
    names = attention.forward.__globals__
    missed = [name for name, kernel in wanted.items() if names.get(name) is not kernel]
    if missed:
        raise RuntimeError(
            f"Liger {version('liger-kernel')} did not replace {', '.join(missed)} of transformers"
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
