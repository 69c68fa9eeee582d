"""Checks that a model that was just attached attends with a cache as it does without."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from ..models import NAMES
from .attached import attachment_of
from .caches import cache_argument
from .contexts import record_attention
from .tokens import SpecialTokens

TOLERANCE = 1e-3
HALF_TOLERANCE = 0.1
"""For float16 and bfloat16, whose errors grow through a hundred layers. A layer that misses cached
keys is wrong by the mass of the system turn, which is most of all mass."""
_REMEDY = (
    " Install transformers in avar-fast's range. If the model is meant to do that, attach it with"
    " check=False."
)


def has_weights(model: nn.Module) -> bool:
    """Whether all weights are in this process, neither on the meta device nor sharded."""
    return all(
        not (p.is_meta or p.numel() == 0 or hasattr(p, "ds_id") or hasattr(p, "device_mesh"))
        for p in model.parameters()
    )


@torch.no_grad()
def check_attached(model: Any, tokens: SpecialTokens) -> None:
    """Reads a dozen tokens whole, then again with the last one behind a cache, in the model's own
    dtype, and compares masses and logits of the last token.

    Raises:
        RuntimeError: logits are not finite, a layer does not call "avar", the model returns no
            cache, or the two differ.
    """
    weight = model.get_input_embeddings().weight
    words = [
        tokens.turn_start, *tokens.system, *tokens.newline, *tokens.user, tokens.turn_end,
        *tokens.newline, tokens.turn_start, *tokens.user, *tokens.newline, *tokens.assistant,
    ]  # fmt: skip
    ids = torch.tensor([words], device=weight.device)
    with _at_rest(model):
        whole, masses, _ = _last(model, ids, 0, use_cache=False)
        if not torch.isfinite(whole).all():
            raise RuntimeError(
                f"{type(model).__name__} must give finite logits for a dozen tokens; it gives NaN"
                f" or infinity. Its weights are damaged, or too large for {weight.dtype}: load"
                " another checkpoint or dtype. If they are loaded later, pass check=False."
            )
        _, _, cache = _last(model, ids[:, :-1], 0, use_cache=True)
        if cache is None:
            raise RuntimeError(
                f"{type(model).__name__} must return a cache for use_cache=True; it returned none."
                + _REMEDY
            )
        name, start = cache_argument(model), ids.shape[1] - 1
        cached, cached_masses, _ = _last(model, ids[:, -1:], start, **{name: cache})
    half = weight.dtype in (torch.float16, torch.bfloat16)
    limit = HALF_TOLERANCE if half else TOLERANCE
    off = max(float((masses[i] - cached_masses[i]).abs().mean(dim=0).max()) for i in masses)
    centered = whole - whole.mean()
    off_logits = float((whole - cached).norm() / centered.norm().clamp(min=1e-30))
    if not max(off, off_logits) <= limit:
        raise RuntimeError(
            f"with a cache, {type(model).__name__} must attend as without; its attention masses"
            f" differ by up to {off:.2g} and its logits by {off_logits:.2g} (limit {limit:g})."
            f" transformers {version('transformers')} may pass the cache in another way." + _REMEDY
        )


def _last(
    model: Any, ids: Tensor, start: int, **options: Any
) -> tuple[Tensor, dict[int, Tensor], Any]:
    """The logits and masses (H, 3) of the last token, and the cache that the model returns. The
    first token is at position ``start``."""
    if getattr(model.config, "model_type", None) in NAMES:  # else generate tells them the position
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        options["position_ids"] = positions.expand(3, 1, -1)
    with record_attention(model) as recording:
        out = model(input_ids=ids, **options)
    masses = {layer: mass[0, -1] for layer, mass in recording.mass.items()}
    missing = sorted(attachment_of(model).layers - set(masses))
    if missing:
        raise RuntimeError(
            f"every text layer with attention must call 'avar'; layers {missing} of"
            f" {type(model).__name__} did not." + _REMEDY
        )
    caches = [value for value in out.values() if isinstance(value, Cache)]
    return out.logits[0, -1].float(), masses, caches[0] if caches else None


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Without dropout, and without a trace in the model: Qwen-VL keeps offsets of positions."""
    training = [module for module in model.modules() if module.training]
    holders: list[Any] = [m for m in model.modules() if hasattr(m, "rope_deltas")]
    offsets = [module.rope_deltas for module in holders]
    for module in training:
        module.training = False
    for module in holders:
        module.rope_deltas = None
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for module, value in zip(holders, offsets, strict=True):
            module.rope_deltas = value
