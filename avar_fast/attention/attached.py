"""Finds the attachment of a model, splits its sequences among ranks, and removes it."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from .attachment import Attachment
from .call import SequenceSplit


def detach(model: nn.Module) -> None:
    """Undoes ``attach`` for a model, its copy, or the model inside a wrapper. It does nothing for a
    model that is not attached."""
    for hooks, flags, key in [entry[:3] for entry in _hooks_in(model)]:
        del hooks[key]
        flags.pop(key, None)


def split_sequence(model: nn.Module, sequence: SequenceSplit | None) -> None:
    """Splits the tokens of all later forwards among the ranks of a group.

    All ranks pass the same whole inputs. The vision tower runs on all of them; the text tower runs
    on this rank's part of the tokens. Hidden states and logits are those of the part. Recorded
    masses are those of all tokens and this rank's heads.

    Args:
        model: an attached model.
        sequence: the split; None undoes it.

    Raises:
        ValueError: the number of attention heads is not a multiple of the ranks that share a row,
            or the model has recurrent layers.
    """
    attachment = attachment_of(model)
    if sequence is not None and attachment.is_recurrent:
        raise ValueError(
            "engine.sequence_parallel must be 1 for a model with recurrent layers, which read the"
            f" tokens of a row in order; got {sequence.size}."
        )
    heads = attachment.num_heads
    if sequence is not None and heads % sequence.size:
        raise ValueError(
            f"engine.sequence_parallel must divide the text tower's {heads} attention heads; got"
            f" {sequence.size}."
        )
    attachment.sequence = sequence


def attachment_of(model: nn.Module) -> Attachment:
    """The attachment of a model or of the model inside a wrapper (DeepSpeed engine, PEFT).

    Raises:
        ValueError: there is no attachment, or there are several.
    """
    entries = _hooks_in(model)
    attachments = [hook.__self__ for *_, hook in entries if hook.__func__ is Attachment.enter]
    if len(attachments) == 1:
        return attachments[0]
    if attachments:
        raise ValueError(
            f"model must hold one attached model; this {type(model).__name__} holds"
            f" {len(attachments)}. Pass one of them."
        )
    raise ValueError(
        "model must be attached first; it is not. Call avar_fast.attention.attach(model,"
        " processor)."
    )


def _hooks_in(model: nn.Module) -> Iterator[tuple[dict, dict, int, Any]]:
    """Yields every hook of an attachment in a model: (dictionary of hooks, dictionary of their
    flags, key, hook)."""
    for module in model.modules():
        for hooks, flags in (
            (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
            (module._forward_hooks, module._forward_hooks_with_kwargs),
        ):
            for key, hook in hooks.items():
                if isinstance(getattr(hook, "__self__", None), Attachment):
                    yield hooks, flags, key, hook
