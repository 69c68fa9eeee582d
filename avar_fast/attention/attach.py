"""Attaches a model: each of its forwards then derives the key types from input_ids."""

from typing import Any

from torch import nn

from ..models.decoders import decoder_of, unwrapped
from .attached import detach
from .attachment import Attachment
from .key_typing import MIN_TYPES, Classify, KeyTyping
from .self_check import check_attached, has_weights
from .tokens import SpecialTokens

ATTN_NAME = "avar"


def attach(
    model: nn.Module,
    processor: Any,
    *,
    tokens: SpecialTokens | None = None,
    num_types: int = MIN_TYPES,
    classify: Classify | None = None,
    check: bool = True,
) -> None:
    """Attaches a model: every forward then derives key types from its input_ids.

    Args:
        model: a transformers model whose text tower uses attn_implementation "avar"; it may be
            wrapped (PEFT, DistributedDataParallel, accelerate).
        processor: the model's processor or tokenizer, for the ids of its special tokens; it may be
            None if ``tokens`` is given.
        tokens: the ids of the special tokens, for a model that is not of a supported family. Its
            text layers must call their attention through transformers' interface, with image
            features at tokens of their own in input_ids.
        num_types: number of key types C, 3 to 16, of which TEXT, VISUAL and SYSTEM are the first.
        classify: ``classify(input_ids, types)`` gives keys types of your own, such as regions of an
            image or hints in the text: (B, L) ids and (B, L) int32 types -> (B, L) integers below
            ``num_types``. It gets copies, which it may change. It should depend on the tokens of
            each row alone: while tokens are generated, rows are repeated, leave and join, lose
            padding, and grow by a token, so a key's type should not depend on later tokens either.
            An image token without a feature has id -1. A packed row comes as it is. What it says of
            padding is ignored. A model that is stored whole (torch.save) stores it too.
        check: read a dozen tokens whole and then with a cache, and compare. Models without their
            weights (on the meta device, or sharded) are not checked.

    Raises:
        TypeError: the model's family is not supported, and ``tokens`` is not given; ``num_types``
            is no int; or ``classify`` is no function.
        ValueError: the text tower uses another attention, the tokenizer lacks Qwen-VL's tokens, or
            ``num_types`` is out of range or without ``classify``. Forwards raise if ``classify``
            returns another shape or dtype, a tensor on another device, or a type out of range.
        RuntimeError: with a cache the model attends otherwise, so that its numbers would be wrong,
            or its logits are not finite.
    """
    model = unwrapped(model)
    decoder = decoder_of(model, any_model=tokens is not None)
    name = decoder.attention_name
    if name != ATTN_NAME:
        raise ValueError(
            f'model must use attn_implementation "avar" in its text tower; got {name!r}. Load it'
            ' with attn_implementation={"text_config": "avar", "vision_config": "sdpa"}.'
        )
    tokens = tokens or SpecialTokens.from_processor(processor)
    typing = KeyTyping(tokens, num_types, classify)
    detach(model)
    attachment = Attachment(decoder, KeyTyping(tokens))
    if check and has_weights(model):
        try:
            check_attached(model, tokens)
        except Exception:
            detach(model)
            raise
    attachment.typing = typing  # after the check, whose row a function of the user's need not know
