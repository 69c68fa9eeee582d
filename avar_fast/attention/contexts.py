"""Context managers for forwards of an attached model: record attention, change its logits."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal

from avar_kernels import KeyType
from torch import Tensor, nn

from .attachment import attachment_of
from .call import NUM_TYPES
from .effects import Intervention, Recorded, Recording


@contextlib.contextmanager
def record_attention(
    model: nn.Module,
    layers: Iterable[int] | None = None,
    *,
    keep: Literal["last", "all"] | Callable[[Recorded], None] = "last",
) -> Iterator[Recording]:
    """Records the attention mass per key type of every forward inside.

    Args:
        model: an attached model.
        layers: text layers to record, by their index in the model; by default all that have
            attention.
        keep: "last" keeps the latest forward only, "all" every forward in ``forwards``; a function
            is called with each forward when it ends.

    Yields:
        Recording of the latest forward, with ``mass`` = {layer: (B, L, H, 3) float32},
        differentiable; ``key_types`` = (B, Lk) int32; ``token_ids`` = (B, Lk) int64; and
        ``queries(role)``, (B, L) bool.

    Raises:
        RuntimeError: a recording is already active on this model.
        ValueError: the model does not have these layers, or is not attached, or ``keep`` is none of
            these.
    """
    if keep not in ("last", "all") and not callable(keep):
        raise ValueError(f'keep must be "last", "all" or a function; got {keep!r}.')
    attachment = attachment_of(model)
    if attachment.recording is not None:
        raise RuntimeError(
            "record_attention is already active on this model; leave it before entering again."
        )
    attachment.record_layers = _subset("layers", layers, attachment.layers)
    attachment.recording = Recording(keep=keep)
    try:
        yield attachment.recording
    finally:
        attachment.recording = None


@contextlib.contextmanager
def intervene(
    model: nn.Module,
    visual_scale: float = 1.0,
    system_scale: float = 1.0,
    visual_bias: float = 0.0,
    system_bias: float = 0.0,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
) -> Iterator[None]:
    """Changes the attention logits of visual and system keys in every forward inside, including
    those of generate.

    A logit z becomes ``scale * z + bias`` by the type of its key, for all queries. AVAR's
    training-free form is visual_scale = 1 + a_img, system_scale = 1 - a_sys (section 2 of the
    paper); the authors' slides instead add a bias to visual logits.

    While tokens are generated, a key's type is that known when it is read. If a completion opens a
    system turn, its first token is read before that is known.

    Args:
        model: an attached model.
        visual_scale, system_scale: factors of the logits; 1.0 changes nothing.
        visual_bias, system_bias: added to the logits; 0.0 changes nothing.
        layers: text layers to change, by their index in the model; by default all that have
            attention.
        heads: heads to change in those layers; all by default.

    Raises:
        RuntimeError: an intervention is already active on this model.
        ValueError: the model does not have these layers or heads, heads are given while the
            sequence is split, or the model is not attached.
    """
    attachment = attachment_of(model)
    if attachment.intervention is not None:
        raise RuntimeError(
            "intervene is already active on this model; leave it before entering again."
        )
    bias, scale = [0.0] * NUM_TYPES, [1.0] * NUM_TYPES
    bias[KeyType.VISUAL], bias[KeyType.SYSTEM] = float(visual_bias), float(system_bias)
    scale[KeyType.VISUAL], scale[KeyType.SYSTEM] = float(visual_scale), float(system_scale)
    chosen = _subset("layers", layers, attachment.layers)
    if heads is None:
        intervention = Intervention(tuple(bias), tuple(scale), chosen)
    else:
        if attachment.sequence is not None:
            raise ValueError(
                "intervene changes single heads of whole sequences only; this model's is split"
                " among ranks. Undo it with split_sequence(model, None)."
            )
        chosen_heads = _subset("heads", heads, frozenset(range(attachment.num_heads)))
        intervention = Intervention(
            _by_head(bias, 0.0, chosen_heads, attachment.num_heads),
            _by_head(scale, 1.0, chosen_heads, attachment.num_heads),
            chosen,
        )
    attachment.intervention = intervention
    try:
        yield
    finally:
        attachment.intervention = None


@contextlib.contextmanager
def given_ids(model: nn.Module, input_ids: Tensor) -> Iterator[None]:
    """Tells an attached model the tokens of forwards that get inputs_embeds in their place.

    Args:
        model: an attached model.
        input_ids: (B, L) ids of the new tokens. Image tokens stand for features in the embeddings.

    Raises:
        ValueError: the model is not attached. A forward raises if the shapes differ.
    """
    attachment = attachment_of(model)
    before, attachment.given_ids = attachment.given_ids, input_ids
    try:
        yield
    finally:
        attachment.given_ids = before


def _by_head(
    values: list[float], neutral: float, heads: frozenset[int], num_heads: int
) -> tuple[tuple[float, ...], ...]:
    """(H, 3): ``values`` in the rows of the given heads, ``neutral`` in all other rows."""
    unchanged = (neutral,) * len(values)
    return tuple(tuple(values) if head in heads else unchanged for head in range(num_heads))


def _subset(name: str, chosen: Iterable[int] | None, every: frozenset[int]) -> frozenset[int]:
    subset = every if chosen is None else frozenset(chosen)
    if not subset or not subset <= every:
        raise ValueError(
            f"{name} must be a non-empty subset of {in_words(every)}; got {sorted(subset)}."
        )
    return subset


def in_words(numbers: Collection[int]) -> str:
    """0..27, or 3, 7, 11 for numbers with gaps."""
    first, last = min(numbers), max(numbers)
    if last - first + 1 == len(numbers):
        return f"{first}..{last}"
    return ", ".join(map(str, sorted(numbers)))
