"""Batches of responses: each behind its own copy of the prompt, or several behind a shared one.

With shared prompts, a row is made of stretches [prompt, response 1, ..., response n]. Every
response attends to its prompt and to itself, at the positions that it has in a row [prompt,
response].
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .batch import Batch, Collator, PackedSequence
from .sample import IGNORE, Sample

Stretch = range
"""Indices of neighboring responses; with shared prompts, of one prompt."""


@dataclass(frozen=True)
class ResponseBatch:
    """A batch of N responses, with the places of their K tokens. T is the length of the longest
    response, at least 1."""

    batch: Batch
    """The inputs. With shared prompts it has no labels: the first token of a response does not
    come right after the token that predicts it."""
    positions: Tensor
    """(K,) int64: for each response token, the token that predicts it, as an index into the
    flattened rows. The last token of a shared prompt occurs once per response."""
    tokens: Tensor
    """(K,) int64: ids of the response tokens."""
    places: Tensor
    """(K,) int64: the response tokens themselves, as indices into the flattened rows."""
    cells: Tensor
    """(K,) int64: the response tokens as indices into the flattened (N, T)."""
    mask: Tensor
    """(N, T) bool, true at response tokens; padded on the right."""

    def to(self, device: torch.device | str) -> "ResponseBatch":
        """The batch on a device; the host does not wait for the copy."""
        tensors = (self.positions, self.tokens, self.places, self.cells, self.mask)
        moved = (x.to(device, non_blocking=True) for x in tensors)
        return ResponseBatch(self.batch.to(device), *moved)

    def by_response(self, values: Tensor) -> Tensor:
        """Puts (K, ...) values of the response tokens into (N, T, ...), 0 at padding."""
        rows = values.new_zeros(self.mask.numel(), *values.shape[1:])
        return rows.index_copy(0, self.cells, values).unflatten(0, self.mask.shape)

    def split(self, values: Tensor) -> list[Tensor]:
        """Splits (N, T) values into one tensor per response, without padding."""
        return [row[mask] for row, mask in zip(values, self.mask, strict=True)]


@dataclass(frozen=True)
class Forward:
    """The responses of one forward."""

    stretches: list[Stretch]
    """The row's stretches, end to end; padded rows are one stretch."""
    layout: str
    """"pad": one response per row. "pack": rows end to end. "share": rows with shared prompts."""

    @property
    def responses(self) -> range:
        """Indices of the responses."""
        return range(self.stretches[0].start, self.stretches[-1].stop)


def plan_forwards(
    samples: list[Sample], *, rows: int | None = None, tokens: int | None = None, share: bool
) -> list[Forward]:
    """Divides responses into forwards, in their order.

    Args:
        samples: prompts with responses. Neighbors with the same ``prompt_ids`` object are a group.
        rows: responses of a forward, in padded rows; used if ``tokens`` is None.
        tokens: most tokens of a forward, in one packed row. A prompt with its longest response must
            fit.
        share: whether a prompt occurs once per stretch.

    Returns:
        The forwards. A group that fits in a row is not split; a group that does not fit in any row
        is split, and each part has the prompt.
    """
    if share:
        assert tokens is not None
        return [Forward(stretches, "share") for stretches in _shared_rows(samples, tokens)]
    if tokens is not None:
        lengths = [len(s.prompt_ids) + len(s.target_ids) for s in samples]
        return [Forward([part], "pack") for part in _filled(range(len(samples)), lengths, tokens)]
    assert rows is not None
    starts = range(0, len(samples), rows)
    return [Forward([range(i, min(i + rows, len(samples)))], "pad") for i in starts]


def _shared_rows(samples: list[Sample], capacity: int) -> list[list[Stretch]]:
    rows: list[list[Stretch]] = []
    room = 0
    lengths = [len(s.target_ids) for s in samples]
    for group in _groups(samples):
        prompt = len(samples[group.start].prompt_ids)
        for part in _filled(group, lengths, capacity - prompt):
            size = prompt + sum(lengths[i] for i in part)
            if size > room or not rows:
                rows.append([])
                room = capacity
            rows[-1].append(part)
            room -= size
    return rows


def _groups(samples: list[Sample]) -> list[range]:
    """Ranges of neighboring responses to one prompt."""
    starts = [
        i
        for i, sample in enumerate(samples)
        if i == 0 or sample.prompt_ids is not samples[i - 1].prompt_ids
    ]
    return [range(a, b) for a, b in pairwise([*starts, len(samples)])]


def _filled(indices: range, lengths: list[int], capacity: int) -> list[range]:
    """Splits a range into parts whose lengths sum up to at most the capacity."""
    parts, room = [], capacity
    start = indices.start
    for i in indices:
        if lengths[i] > room and i > start:
            parts.append(range(start, i))
            start, room = i, capacity
        room -= lengths[i]
    return [*parts, range(start, indices.stop)] if len(indices) else parts


def lay_out(collator: Collator, samples: list[Sample], forward: Forward) -> ResponseBatch:
    """Makes the batch of one forward.

    Args:
        collator: makes batches for the model.
        samples: all samples that the forward was planned for.
        forward: from ``plan_forwards``.
    """
    chosen = [samples[i] for i in forward.responses]
    if forward.layout == "share":
        return _shared(collator, [[samples[i] for i in part] for part in forward.stretches])
    if forward.layout == "pack":
        batch = collator.pack(chosen)
        lengths = torch.tensor([len(s.prompt_ids) + len(s.target_ids) for s in chosen])
        rows = (lengths.cumsum(0) - lengths).tolist()
    else:
        batch = collator.pad(chosen)
        rows = [i * batch.labels.shape[1] for i in range(len(chosen))]
    starts = [row + len(sample.prompt_ids) for row, sample in zip(rows, chosen, strict=True)]
    return _located(batch, chosen, [start - 1 for start in starts], starts)


def _shared(collator: Collator, stretches: list[list[Sample]]) -> ResponseBatch:
    sequences: list[PackedSequence] = []
    before, starts = [], []
    length = number = 0
    for responses in stretches:
        first = responses[0]
        prompt, prompt_length = len(sequences), len(first.prompt_ids)
        # Responses are text, so the positions of the shorter ones are the first of the longest.
        longest = max(responses, key=lambda sample: len(sample.target_ids))
        whole = torch.cat([longest.prompt_ids, longest.target_ids])
        positions = collator.positions(whole, first.image_grid_thw)
        at_prompt, at_responses = positions.split([prompt_length, len(longest.target_ids)], dim=1)
        labels = torch.full_like(whole, IGNORE)
        sequences.append(
            PackedSequence(first.prompt_ids, labels[:prompt_length], at_prompt, number)
        )
        length += prompt_length
        end = length - 1
        for sample in responses:
            size = len(sample.target_ids)
            sequences.append(
                PackedSequence(
                    sample.target_ids, labels[:size], at_responses[:, :size], number, prompt
                )
            )
            before.append(end)
            starts.append(length)
            length += size
            number += 1
    samples = [sample for responses in stretches for sample in responses]
    rows = tuple(sample.row.where for sample in samples)
    batch = collator.end_to_end(sequences, [responses[0] for responses in stretches], rows)
    return _located(batch, samples, before, starts)


def _located(
    batch: Batch, samples: list[Sample], before: list[int], starts: list[int]
) -> ResponseBatch:
    """A batch with the places of its responses.

    Args:
        batch: the batch.
        samples: its N samples.
        before: index of the last prompt token of each response in the flattened rows.
        starts: index of the first token of each response.
    """
    lengths = torch.tensor([len(sample.target_ids) for sample in samples])
    longest = max(int(lengths.max()), 1)
    mask = torch.arange(longest) < lengths[:, None]
    places = (torch.tensor(starts)[:, None] + torch.arange(longest))[mask]
    predicting = torch.tensor(starts)[:, None] + torch.arange(-1, longest - 1)
    predicting[:, 0] = torch.tensor(before)
    tokens = torch.cat([sample.target_ids for sample in samples])
    cells = mask.flatten().nonzero()[:, 0]
    return ResponseBatch(batch, predicting[mask], tokens, places, cells, mask)
