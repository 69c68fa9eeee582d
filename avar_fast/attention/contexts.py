"""Context managers for forwards of an attached model: record attention, change it."""

import contextlib
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Literal

from avar_kernels import KeyType
from torch import Tensor, nn

from .attached import attachment_of
from .attachment import Attachment
from .intervention import FORMS, LARGEST, Intervention
from .recording import Recorded, Recording
from .tokens import ROLES


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
        Recording of the latest forward, with ``mass`` = {layer: (B, L, H, C) float32},
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
    attachment.record_layers = subset("layers", layers, attachment.layers)
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
    *,
    form: str = "logits",
    queries: str = "all",
    scales: Mapping[int, float] | None = None,
    biases: Mapping[int, float] | None = None,
) -> Iterator[None]:
    """Changes the attention to visual and system keys in every forward inside, including those of
    generate.

    AVAR's training-free form is visual_scale = 1 + a_img, system_scale = 1 - a_sys (section 2 of
    the paper). With z the logits of a query, s and b the scale and bias of a key's type, and
    w = softmax(z + b), the attention weights become, by ``form``:

        "logits"                softmax(s z + b): a negative logit falls where s rises
        "weights"               s w / sum(s w): the same as adding log s to the logits
        "weights_unnormalized"  s w, which no longer sums to 1

    The paper does not say which it means. Its authors' slides add to the logits of visual keys:
    that is visual_bias. Recorded masses are those of the changed weights.

    While tokens are generated, a key's type is that known when it is read. If a completion opens a
    system turn, its first token is read before that is known. A CUDA graph that was captured
    outside knows nothing of the intervention: capture it inside.

    Args:
        model: an attached model.
        visual_scale, system_scale: factors; 1.0 changes nothing.
        visual_bias, system_bias: added to the logits; 0.0 changes nothing.
        layers: text layers to change, by their index in the model; by default all that have
            attention.
        heads: heads to change in those layers; all by default.
        form: "logits", "weights" or "weights_unnormalized".
        queries: whose attention is changed: "all", or the tokens of a role, as in ``query_mask``
            ("user", "prompt", "response"). With a role, the layers attend twice.
        scales, biases: {key type: value}, for types of ``attach(classify=)`` and for TEXT.

    Raises:
        TypeError: a key type is no integer.
        RuntimeError: an intervention is already active on this model.
        ValueError: the model does not have these layers, heads or key types, a key type is given
            twice, a value is not finite or beyond 1e30, a scale of weights is not positive or below
            1e-30, heads are given while the sequence is split, a name is unknown, or the model is
            not attached.
    """
    attachment = attachment_of(model)
    if attachment.intervention is not None:
        raise RuntimeError(
            "intervene is already active on this model; leave it before entering again."
        )
    for name, value, known in (("form", form, FORMS), ("queries", queries, ROLES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
    num_types = attachment.typing.num_types
    scale = _by_type("scale", 1.0, visual_scale, system_scale, scales, num_types)
    bias = _by_type("bias", 0.0, visual_bias, system_bias, biases, num_types)
    if form != "logits" and min(scale) < 1 / LARGEST:
        raise ValueError(
            f'every scale must be positive with form="{form}", at least {1 / LARGEST:g}, as it'
            f" multiplies attention weights; got {min(scale)}. To hide keys, use a bias of -1e4."
        )
    chosen = subset("layers", layers, attachment.layers)
    if heads is None:
        of_bias, of_scale = tuple(bias), tuple(scale)
    else:
        of_bias, of_scale = _of_heads(bias, scale, heads, attachment)
    attachment.intervention = Intervention(of_bias, of_scale, chosen, form, queries)
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


def _by_type(
    name: str,
    neutral: float,
    visual: float,
    system: float,
    others: Mapping[int, float] | None,
    num_types: int,
) -> list[float]:
    """The values of all key types."""
    named = {int(KeyType.VISUAL): visual, int(KeyType.SYSTEM): system}
    values = {key_type: value for key_type, value in named.items() if value != neutral}
    plural = f"{name}s" if name == "scale" else f"{name}es"
    for key_type, value in (others or {}).items():
        key_type = operator.index(key_type)
        if not 0 <= key_type < num_types:
            raise ValueError(
                f"{plural} must be of key types 0 to {num_types - 1}; got {key_type}. More types"
                " come from attach(num_types=, classify=)."
            )
        if key_type in values:
            word = "visual" if key_type == KeyType.VISUAL else "system"
            raise ValueError(f"{plural} gives type {key_type} again; leave out {word}_{name}.")
        values[key_type] = value
    table = [float(values.get(key_type, neutral)) for key_type in range(num_types)]
    if not all(abs(value) <= LARGEST for value in table):  # NaN is not either
        raise ValueError(
            f"every {name} must be finite, from -{LARGEST:g} to {LARGEST:g}; got {table}."
        )
    return table


def _of_heads(
    bias: list[float], scale: list[float], heads: Iterable[int], attachment: Attachment
) -> list[tuple[tuple[float, ...], ...]]:
    """The (H, C) tables of bias and of scale that change the given heads only."""
    if attachment.sequence is not None:
        raise ValueError(
            "intervene changes single heads of whole sequences only; this model's is split"
            " among ranks. Undo it with split_sequence(model, None)."
        )
    every = range(attachment.num_heads)
    chosen = subset("heads", heads, frozenset(every))
    return [
        tuple(tuple(values) if head in chosen else (neutral,) * len(values) for head in every)
        for values, neutral in ((bias, 0.0), (scale, 1.0))
    ]


def subset(name: str, chosen: Iterable[int] | None, every: frozenset[int]) -> frozenset[int]:
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
