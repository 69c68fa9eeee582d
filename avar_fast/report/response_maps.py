"""Where a model looks while it writes each token of its answer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..attention import record_attention, record_maps
from ..data import Encoder, Row, Sample, prompt_inputs
from ..data.images import open_image
from ..loading import Loaded
from ..rollout import Sampling, generate, without_end


@dataclass(frozen=True)
class ResponseMaps:
    """One row, a model's answer of T tokens, and what each token looked at as it was written.

    Every value is a mean over the chosen layers and their heads.
    """

    images: list[Image.Image]
    maps: list[Tensor]
    """Per image (T, rows, columns) float32: attention weight of each visual token."""
    masses: Tensor
    """(T, 3) float32: attention mass of text, image and system keys."""
    token_ids: list[int]
    """The tokens."""
    pieces: list[str]
    """The text of each token; empty for part of a character, whose text the last part has."""
    num_kept: int
    """Tokens without the one that ended the answer."""
    question: str
    opened: str
    """What the chat template wrote before the first token."""
    answer: str | None
    """The row's own answer."""

    @property
    def num_image_tokens(self) -> int:
        """Models that see an image in other numbers of tokens do not compare in its mass."""
        return sum(one[0].numel() for one in self.maps)

    @property
    def response(self) -> str:
        return self.opened + "".join(self.pieces[: self.num_kept])


@torch.no_grad()
def response_maps(
    loaded: Loaded,
    row: Row,
    system_prompt: str | None,
    max_new_tokens: int,
    layers: list[int] | None = None,
) -> ResponseMaps:
    """Answers a row greedily, then reads the whole text once.

    A token is written by the position before it, so that position's attention is the token's.

    Args:
        loaded: model with attention attached, on its device.
        row: a row with at least one image.
        system_prompt: system turn of a row without one; None adds none.
        max_new_tokens: largest number of tokens in the answer.
        layers: text layers to average over, by their index in the model; None for all that have
            attention.

    Raises:
        RowError: the row cannot be read.
        ValueError: the row has no image, or the model does not have the layers.
    """
    if not row.images:
        raise ValueError(f"{row.where} must have an image to look at; it has none.")
    model, tokenizer = loaded.model, loaded.tokenizer
    encoder = Encoder(tokenizer, loaded.image_processor, system_prompt, max_length=1 << 20)
    sample = encoder(row)
    device = next(model.parameters()).device

    def inputs_of(samples: list[Sample]) -> dict[str, Tensor]:
        return prompt_inputs(samples, tokenizer.pad_token_id, encoder.tokens.visual, device)

    sampling = Sampling(
        num_samples=1,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        eos_ids=loaded.eos_ids,
        pad_id=tokenizer.pad_token_id,
        banned_ids=encoder.tokens.visual,
    )
    rollouts = generate(model, [sample], inputs_of, sampling)
    written = rollouts.completion_ids[0][rollouts.completion_mask[0]]
    inputs = _followed_by(inputs_of([sample]), written)
    length, start = inputs["input_ids"].shape[1], inputs["input_ids"].shape[1] - len(written)
    writing = torch.zeros(1, length, dtype=torch.bool, device=device)
    writing[:, start - 1 : length - 1] = True
    with (
        record_attention(model, layers) as recording,
        record_maps(model, writing, layers=layers) as maps,
    ):
        model(**inputs, use_cache=False, logits_to_keep=1)
    weights = torch.stack([rows[0] for rows in maps.weights.values()]).mean(dim=0)
    masses = torch.stack([mass[0, writing[0]].mean(dim=1) for mass in recording.mass.values()])
    turn = row.messages[-1]["content"]
    assert sample.image_grid_thw is not None
    sides = (sample.image_grid_thw[:, 1:] // loaded.image_processor.merge_size).tolist()
    parts = weights.cpu().split([height * width for height, width in sides], dim=1)
    return ResponseMaps(
        images=[open_image(image, row.where) for image in row.images],
        maps=[part.unflatten(1, side) for part, side in zip(parts, sides, strict=True)],
        masses=masses.mean(dim=0).cpu(),
        token_ids=written.tolist(),
        pieces=_pieces(written.tolist(), tokenizer.decode),
        num_kept=len(without_end(written, loaded.eos_ids)),
        question=" ".join(part["text"].strip() for part in turn if part.get("text")),
        opened=sample.opened,
        answer=None if row.answer is None else str(row.answer),
    )


def _followed_by(inputs: dict[str, Tensor], written: Tensor) -> dict[str, Tensor]:
    """The inputs of the prompt with the answer behind it."""
    whole = dict(inputs, input_ids=torch.cat([inputs["input_ids"], written[None]], dim=1))
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        extra = torch.full_like(written[None], value).to(inputs[name])
        whole[name] = torch.cat([inputs[name], extra], dim=1)
    return whole


def _pieces(ids: list[int], decode: Callable[[list[int]], str]) -> list[str]:
    """The text that each token adds. A character of several tokens belongs to the last of them."""
    pieces, before = [], ""
    for number in range(1, len(ids) + 1):
        text = decode(ids[:number])
        if text.endswith("\ufffd"):  # a character that is not complete yet
            pieces.append("")
            continue
        pieces.append(text[len(before) :])
        before = text
    if pieces:
        pieces[-1] += decode(ids)[len(before) :]  # a character that was never completed
    return pieces
