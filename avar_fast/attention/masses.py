"""Checks recorded masses and their masks, and converts masses to a list of layers."""

from collections.abc import Mapping, Sequence

from avar_kernels import KeyType
from torch import Tensor

MassByLayer = Mapping[int, Tensor] | Sequence[Tensor] | Tensor


def as_layers(mass: MassByLayer) -> list[Tensor]:
    """Converts masses to a list of layers, (B, L, H, C) each. Those of a mapping are in ascending
    order of its keys, which may have gaps: the position in the list does not name a layer.

    Args:
        mass: {layer: (B, L, H, C)}, a sequence of (B, L, H, C), one (B, L, H, C), or a stack
            (N, B, L, H, C).

    Raises:
        ValueError: there is no layer, or a tensor is not (B, L, H, C >= 3).
    """
    if isinstance(mass, Tensor):
        layers = [mass] if mass.dim() == 4 else list(mass)
    elif isinstance(mass, Mapping):
        layers = [mass[index] for index in sorted(mass)]
    else:
        layers = list(mass)
    if not layers:
        raise ValueError(
            "mass must hold at least one layer; got none. Record with record_attention(model)."
        )
    for layer in layers:
        if layer.dim() != 4 or layer.shape[-1] <= KeyType.SYSTEM or layer.shape != layers[0].shape:
            raise ValueError(
                "mass must be (B, L, H, C >= 3) in every layer, columns TEXT, VISUAL, SYSTEM, ...;"
                f" got {[tuple(x.shape) for x in layers]}. Use Recording.mass as it is."
            )
    return layers


def check_types(layers: list[Tensor], **types: int) -> None:
    """Raises ValueError unless the masses have a column for each of these key types."""
    require_types(layers[0].shape[-1], **types)


def require_types(num_types: int, **types: int) -> None:
    """Raises ValueError unless there are these key types."""
    for name, key_type in types.items():
        if not 0 <= key_type < num_types:
            raise ValueError(
                f"{name} must be a key type of the masses, 0 to {num_types - 1}; got {key_type}."
                " More types come from attach(num_types=, classify=)."
            )


def check_mask(name: str, mask: Tensor, layers: list[Tensor]) -> Tensor:
    """Converts a (B, L) mask to bool on the device of the masses; raises ValueError if its shape
    differs from theirs."""
    rows = layers[0].shape[:2]
    if mask.shape != rows:
        raise ValueError(
            f"{name} must be of shape {tuple(rows)}, as the masses' (B, L); got"
            f" {tuple(mask.shape)}."
        )
    return mask.to(layers[0].device).bool()


def check_ids(sample_ids: Tensor, layers: list[Tensor], key_types: Tensor) -> Tensor:
    """Moves the (B, L) sample ids of packed rows to the device of the masses; raises ValueError if
    they do not fit the masses or the key types."""
    rows = layers[0].shape[:2]
    if sample_ids.shape != rows or key_types.shape != rows or sample_ids.is_floating_point():
        raise ValueError(
            f"sample_ids must be integers of shape {tuple(rows)}, as the masses' (B, L) and"
            f" key_types; got {sample_ids.dtype} {tuple(sample_ids.shape)} and key_types"
            f" {tuple(key_types.shape)}. Packed samples have as many keys as queries."
        )
    return sample_ids.to(layers[0].device)
