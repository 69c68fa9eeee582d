"""Shortens an overlong sample: cuts its text and keeps images and turn markers."""

import torch
from torch import Tensor


def cut(is_text: Tensor, num_target: int, limit: int) -> tuple[Tensor, int] | None:
    """Cuts a prompt and its target to ``limit`` tokens together.

    Passages of text lose their ends, the longest passages first, so that all cut passages keep the
    same number of tokens. The target with its end-of-turn token is one of the passages: a cut
    answer has no end-of-turn token, so the model does not learn to stop there.

    Args:
        is_text: (P,) bool, true for the prompt's text; each contiguous run is a passage.
        num_target: tokens of the target.
        limit: most tokens of prompt and target together.

    Returns:
        (P,) bool, true for the prompt's tokens to keep, and the number of target tokens to keep;
        None if the tokens that must stay do not fit.
    """
    begins = is_text & ~torch.nn.functional.pad(is_text, (1, 0))[:-1]
    passage = begins.cumsum(0) - 1
    lengths = torch.bincount(passage[is_text], minlength=int(begins.sum())).tolist()
    if num_target:
        lengths.append(num_target)
    room = limit - int((~is_text).sum())
    kept = _share(lengths, room)
    if kept is None:
        return None
    if num_target:
        num_target = kept.pop()
    keeps = ~is_text
    if kept:
        passage = passage.clamp(min=0)  # -1 before the first passage, where all tokens are kept
        place = torch.arange(len(is_text)) - begins.nonzero()[:, 0][passage]
        keeps |= place < torch.tensor(kept)[passage]
    return keeps, num_target


def _share(lengths: list[int], room: int) -> list[int] | None:
    """The number of tokens that each passage keeps: all, or an equal share of the room; None if a
    share is below one token."""
    kept = [0] * len(lengths)
    shortest_first = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for done, i in enumerate(shortest_first):
        num_left = len(shortest_first) - done
        kept[i] = min(lengths[i], room // num_left)
        room -= kept[i]
    return kept if kept and min(kept) > 0 else None
