"""Shortening an overlong sample: text only, images and the frame of turns stay whole."""

import torch
from torch import Tensor


def cut(may_go: Tensor, num_target: int, limit: int) -> tuple[Tensor, int] | None:
    """What stays of a prompt and its target with at most ``limit`` tokens together.

    Stretches of text lose their ends, the longest first: all that are cut keep the same number of
    tokens. The target is one of these stretches, its end-of-turn token included, so that a cut
    answer does not teach where to stop.

    Args:
        may_go: (P,) bool, true for the prompt's text; each run of it is a stretch.
        num_target: tokens of the target.
        limit: most tokens.

    Returns:
        (keeps, num_target): (P,) bool of the prompt and the tokens that are left of the target; or
        None if what must stay does not fit.
    """
    begins = may_go & ~torch.nn.functional.pad(may_go, (1, 0))[:-1]
    run = begins.cumsum(0) - 1
    lengths = torch.bincount(run[may_go], minlength=int(begins.sum())).tolist()
    if num_target:
        lengths.append(num_target)
    room = limit - int((~may_go).sum())
    kept = _share(lengths, room)
    if kept is None:
        return None
    if num_target:
        num_target = kept.pop()
    keeps = ~may_go
    if kept:
        of_run = run.clamp(min=0)  # before the first stretch there is none, and nothing may go
        within = torch.arange(len(may_go)) - begins.nonzero()[:, 0][of_run]
        keeps |= within < torch.tensor(kept)[of_run]
    return keeps, num_target


def _share(lengths: list[int], room: int) -> list[int] | None:
    """Tokens each stretch keeps: all of them, or an equal share of the room; None below one."""
    kept = [0] * len(lengths)
    waiting = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for done, i in enumerate(waiting):
        left = len(waiting) - done
        kept[i] = min(lengths[i], room // left)
        room -= kept[i]
    return kept if kept and min(kept) > 0 else None
