"""Derives key types and query masks from token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor

from .turns import PlainOrder, TokenOrder

PLAIN = PlainOrder()
ROLES = ("user", "prompt", "response", "all")


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of a model's special tokens: those of turns, and those of images."""

    turn_start: int
    """Id of ``<|im_start|>``."""
    turn_end: int
    """Id of ``<|im_end|>``."""
    newline: tuple[int, ...]
    """Ids of the newline after ``<|im_end|>``."""
    system: tuple[int, ...]
    """Ids of the word "system" at the start of a system turn."""
    user: tuple[int, ...]
    """Ids of the word "user"."""
    assistant: tuple[int, ...]
    """Ids of the word "assistant"."""
    visual: tuple[int, ...]
    """Ids of the tokens that stand for visual features, one feature each: ``<|image_pad|>`` and
    ``<|video_pad|>``."""

    @classmethod
    def from_processor(
        cls, processor: Any, visual: Sequence[str] = ("<|image_pad|>", "<|video_pad|>")
    ) -> "SpecialTokens":
        """Reads the ids from a processor or a tokenizer.

        Args:
            processor: the processor or tokenizer. Its chat format must be Qwen's, with
                ``<|im_start|>`` and ``<|im_end|>``, as that of many models; for another, give all
                ids to ``SpecialTokens``.
            visual: the tokens that stand for visual features, such as ``("<IMG_CONTEXT>",)``.

        Raises:
            TypeError: the first argument is neither a processor nor a tokenizer.
            ValueError: the tokenizer lacks a token of the chat format.
        """
        tokenizer = getattr(processor, "tokenizer", processor)
        if not hasattr(tokenizer, "convert_tokens_to_ids"):
            raise TypeError(
                f"processor must be a processor or a tokenizer; got {type(processor).__name__}."
                " Use AutoProcessor.from_pretrained or AutoTokenizer.from_pretrained."
            )

        def single(token: str) -> int:
            token_id = tokenizer.convert_tokens_to_ids(token)
            if token_id is None or token_id == tokenizer.unk_token_id:
                raise ValueError(
                    f"processor must know the token {token}, as Qwen-VL tokenizers do; "
                    f"{type(tokenizer).__name__} does not. Pass the processor saved with the"
                    " model. For another chat format, give the ids to SpecialTokens(...)."
                )
            return token_id

        def word(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, add_special_tokens=False))

        return cls(
            turn_start=single("<|im_start|>"),
            turn_end=single("<|im_end|>"),
            newline=word("\n"),
            system=word("system"),
            user=word("user"),
            assistant=word("assistant"),
            visual=tuple(map(single, visual)),
        )


def key_types(
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    tokens: SpecialTokens,
    order: TokenOrder = PLAIN,
) -> Tensor:
    """The type of every key.

    VISUAL are all image and video pads. SYSTEM are all tokens of the system turn, from its header
    to the newline after ``<|im_end|>``; a prompt without a system turn has none. PAD are keys whose
    attention mask is zero. All others are TEXT.

    Args:
        input_ids: (B, L) integers.
        attention_mask: (B, L), zero where padded, or None for no padding.
        tokens: from ``SpecialTokens.from_processor``.
        order: the order of the tokens in a row. With shared prompts, the turn that a prompt leaves
            open goes on in each of its responses.

    Returns:
        (B, L) int32, values of ``avar_kernels.KeyType``.
    """
    _check_ids(input_ids, attention_mask)
    types = torch.full_like(input_ids, KeyType.TEXT, dtype=torch.int32)
    system = _in_turn_of(input_ids, tokens.system, tokens, order=order)
    types = types.masked_fill(system, KeyType.SYSTEM)
    types = types.masked_fill(is_visual(input_ids, tokens), KeyType.VISUAL)
    if attention_mask is not None:
        types = types.masked_fill(attention_mask == 0, KeyType.PAD)
    return types


def query_mask(
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    role: str = "user",
    tokens: SpecialTokens,
    order: TokenOrder = PLAIN,
) -> Tensor:
    """The tokens that count as queries.

    Args:
        input_ids: (B, L) integers.
        attention_mask: (B, L), zero where padded, or None for no padding.
        role: "user" for user turns without image tokens; "prompt" for user turns with them;
            "response" for assistant turns with ``<|im_end|>`` but without the header; "all" for
            every token that is not padding.
        tokens: from ``SpecialTokens.from_processor``.
        order: as in ``key_types``.

    Returns:
        (B, L) bool.

    Raises:
        ValueError: the role is unknown, or the shapes do not fit.
    """
    _check_ids(input_ids, attention_mask)
    if role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(ROLES)}; got {role!r}.")
    if role == "all":
        mask = torch.ones_like(input_ids, dtype=torch.bool)
    elif role == "response":
        header = _header_mask(input_ids, tokens.assistant, tokens, order)
        mask = _in_turn_of(input_ids, tokens.assistant, tokens, False, order) & ~header
    else:
        mask = _in_turn_of(input_ids, tokens.user, tokens, order=order)
        if role == "user":
            mask = mask & ~is_visual(input_ids, tokens)
    return mask if attention_mask is None else mask & (attention_mask != 0)


def turn_content(input_ids: Tensor, *, tokens: SpecialTokens) -> Tensor:
    """(B, L) bool: the text of user and assistant turns, without headers, end-of-turn tokens and
    image tokens."""
    _check_ids(input_ids, None)
    content = torch.zeros_like(input_ids, dtype=torch.bool)
    for word in (tokens.user, tokens.assistant):
        inside = _in_turn_of(input_ids, word, tokens, closing=False)
        content |= inside & ~_header_mask(input_ids, word, tokens)
    return content & (input_ids != tokens.turn_end) & ~is_visual(input_ids, tokens)


def sees_image(
    types: Tensor, sample_ids: Tensor | None = None, visual: int = KeyType.VISUAL
) -> Tensor:
    """(B, L) bool: positions at or after the first image token of their sample.

    Earlier queries cannot attend to the image; their log ratio would always be log(eps).

    Args:
        types: (B, L) key types.
        sample_ids: (B, L) integers that change where the next sample of a packed row begins; None
            if every row is one sample.
        visual: the key type of image tokens.
    """
    is_visual = types == visual
    seen = is_visual.cumsum(dim=1)
    if sample_ids is None:
        return seen > 0
    begins = torch.ones_like(is_visual)
    begins[:, 1:] = sample_ids[:, 1:] != sample_ids[:, :-1]
    # Number of image tokens before the sample's first token; it never decreases along a row.
    before = torch.where(begins, seen - is_visual.long(), 0).cummax(dim=1).values
    return seen > before


def _check_ids(input_ids: Tensor, attention_mask: Tensor | None) -> None:
    if not isinstance(input_ids, Tensor) or input_ids.dim() != 2 or input_ids.is_floating_point():
        got = (
            (tuple(input_ids.shape), input_ids.dtype)
            if isinstance(input_ids, Tensor)
            else type(input_ids)
        )
        raise ValueError(
            f"input_ids must be integers of shape (B, L); got {got}. Use input_ids[None] for one"
            " row."
        )
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask must be of shape {tuple(input_ids.shape)}, as input_ids; got "
            f"{tuple(attention_mask.shape)}. Pass the 2-D padding mask."
        )


def is_visual(input_ids: Tensor, tokens: SpecialTokens) -> Tensor:
    found = torch.zeros_like(input_ids, dtype=torch.bool)
    for token in tokens.visual:
        found = found | (input_ids == token)
    return found


def _starts_turn_of(
    input_ids: Tensor, word: tuple[int, ...], tokens: SpecialTokens, order: TokenOrder = PLAIN
) -> Tensor:
    """(B, L) bool: the ``<|im_start|>`` of every turn that begins with this word."""
    starts = input_ids == tokens.turn_start
    for offset, token in enumerate(word, start=1):
        starts = starts & order.later(input_ids == token, offset)
    return starts


def _header_mask(
    input_ids: Tensor, word: tuple[int, ...], tokens: SpecialTokens, order: TokenOrder = PLAIN
) -> Tensor:
    starts = _starts_turn_of(input_ids, word, tokens, order)
    header = starts.clone()
    for offset in range(1, 1 + len(word) + len(tokens.newline)):
        header |= order.earlier(starts, offset)
    return header


def _in_turn_of(
    input_ids: Tensor,
    word: tuple[int, ...],
    tokens: SpecialTokens,
    closing: bool = True,
    order: TokenOrder = PLAIN,
) -> Tensor:
    """(B, L) bool: tokens of turns that begin with this word, up to ``<|im_end|>`` and, if
    ``closing``, the newline after it."""
    last_start = order.latest(input_ids == tokens.turn_start)
    role_starts = _starts_turn_of(input_ids, word, tokens, order)
    of_role = order.at(role_starts, last_start) & (last_start >= 0)

    end = input_ids == tokens.turn_end
    open_turn = order.latest(end) < last_start
    inside = of_role & (open_turn | end)
    if closing:
        turn_end = inside & end
        for offset, token in enumerate(tokens.newline, start=1):
            inside = inside | (order.earlier(turn_end, offset) & (input_ids == token))
    return inside
