"""Rows to token ids and pixels, with the tokenizer's own chat template and the image processor."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from avar_kernels import KeyType
from jinja2 import TemplateError
from torch import Tensor

from ..attention import SpecialTokens, key_types, turn_content
from .cut import cut
from .images import image_size, open_image
from .problems import Problem, RowError, bad_row
from .rows import Row

Overlong = Literal["error", "drop", "cut"]
Stage = Literal["sft", "grpo"]


class OverlongError(RowError):
    """A row with more tokens than ``data.max_length``."""


@dataclass(frozen=True)
class Sample:
    """One encoded row, unpadded."""

    row: Row
    prompt_ids: Tensor
    """(P,) int64: system and user turns up to where the assistant begins, image pads expanded."""
    target_ids: Tensor
    """(T,) int64: the answer and its ``<|im_end|>``; empty without a target."""
    pixel_values: Tensor | None
    """(patches, channels) as the image processor makes them."""
    image_grid_thw: Tensor | None
    """(images, 3)"""

    @property
    def num_bytes(self) -> int:
        tensors = (self.prompt_ids, self.target_ids, self.pixel_values, self.image_grid_thw)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


@dataclass(frozen=True)
class Size:
    """Tokens of a row, known without its pixels."""

    prompt: int
    target: int
    num_cut: int
    """Tokens that were cut off."""

    @property
    def tokens(self) -> int:
        return self.prompt + self.target


class Encoder:
    """Turns rows into samples.

    Args:
        tokenizer: with Qwen-VL's special tokens and a chat template.
        image_processor: Qwen-VL's.
        system_prompt: system turn for rows without one; None adds none.
        max_length: most tokens in prompt and target together.
        overlong: what happens to a longer row: "error" and "drop" raise OverlongError (a caller
            that drops rows catches it), "cut" shortens its text.
        stage: "sft" needs a target in each row, "grpo" an answer; None needs neither.
        with_target: off, samples are prompts alone, whatever answers their rows have.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        system_prompt: str | None,
        max_length: int,
        overlong: Overlong = "error",
        stage: Stage | None = None,
        with_target: bool = True,
    ) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.system_prompt, self.max_length = system_prompt, max_length
        self.overlong, self.stage, self.with_target = overlong, stage, with_target
        self.tokens = SpecialTokens.from_processor(tokenizer)
        self.image_pad = self.tokens.visual[0]
        self._special = torch.tensor(tokenizer.all_special_ids)

    def __call__(self, row: Row) -> Sample:
        """Encodes one row.

        Raises:
            RowError: the row lacks what the stage needs, its text holds image or video pads of its
                own, the chat template drops its system turn, or an image cannot be read; the
                message names the row.
            OverlongError: more than max_length tokens (or, with "cut", images that leave no room).
        """
        prompt, target = self._text(row)
        pixels = grid = None
        features = torch.empty(0, dtype=torch.int64)
        if row.images:
            images = [open_image(x, row.where, f"image {i}") for i, x in enumerate(row.images)]
            try:
                processed = self.image_processor(images=images, return_tensors="pt")
            except ValueError as error:  # such as an aspect ratio it does not take
                raise _not_taken(row, error) from None
            pixels, grid = processed["pixel_values"], processed["image_grid_thw"]
            features = grid.prod(dim=1) // self.image_processor.merge_size**2
        prompt, target, _ = self._fit(self._expand_pads(prompt, features, row), target, row)
        return Sample(row, prompt, target, pixels, grid)

    def measure(self, row: Row, decode: bool = False) -> Size:
        """The tokens ``__call__`` gives, from the headers of the images.

        Args:
            row: the row.
            decode: read the images whole, so that a damaged one is found.

        Raises:
            As ``__call__``, but a damaged image only with ``decode``.
        """
        prompt, target = self._text(row)
        features = []
        for i, image in enumerate(row.images):
            opened = open_image(image, row.where, f"image {i}") if decode else None
            width, height = opened.size if opened else image_size(image, row.where, f"image {i}")
            try:
                patches = self.image_processor.get_number_of_image_patches(height, width)
            except ValueError as error:
                raise _not_taken(row, error) from None
            features.append(patches // self.image_processor.merge_size**2)
        expanded = self._expand_pads(prompt, torch.tensor(features, dtype=torch.int64), row)
        prompt, target, num_cut = self._fit(expanded, target, row)
        return Size(len(prompt), len(target), num_cut)

    def _text(self, row: Row) -> tuple[Tensor, Tensor]:
        """Prompt with one pad per image, and target."""
        self.require_fields(row)
        messages = row.messages
        if self.system_prompt is not None and messages[0]["role"] != "system":
            system = {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]}
            messages = [system, *messages]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            expected = "take the turns of the row"
            raise bad_row(row.where, "the chat template", expected, f"it says: {error}") from None
        ids = torch.tensor(self.tokenizer.encode(text, add_special_tokens=False))
        if messages[0]["role"] == "system":
            types = key_types(ids[None], tokens=self.tokens)
            if not (types == KeyType.SYSTEM).any():
                remedy = (
                    "Use the chat template saved with a Qwen-VL model; system attention, and with"
                    " it VAS and AGTO, needs the turn."
                )
                expected = "write the system turn as <|im_start|>system ... <|im_end|>"
                got = "the prompt has none"
                raise bad_row(row.where, "the chat template", expected, got, remedy)
        target = torch.empty(0, dtype=torch.int64)
        if self.with_target and row.target is not None:
            target_ids = self.tokenizer.encode(row.target, add_special_tokens=False)
            target = torch.tensor([*target_ids, self.tokens.turn_end])
            if torch.isin(target, torch.tensor(self.tokens.visual)).any():
                remedy = "Take <|image_pad|> and <|video_pad|> out of it."
                got = "it holds an image or video pad"
                raise bad_row(row.where, "the answer", "be text", got, remedy)
        return ids, target

    def require_fields(self, row: Row) -> None:
        """Raises RowError where the row lacks what the stage needs."""
        if self.stage == "sft" and row.target is None:
            lacks = "an answer or a final assistant message"
            remedy = "Add one, or set data.bad_rows=skip."
        elif self.stage == "grpo" and row.answer is None:
            lacks = "an answer to check against"
            remedy = "Add one, set data.bad_rows=skip, or name rewards that need none."
        else:
            return
        form = "{where}: {expected}; {got}."
        expected = f"stage {self.stage} needs {lacks}"
        raise RowError(Problem(row.where, "answer", expected, "got none", remedy, form))

    def _expand_pads(self, ids: Tensor, features: Tensor, row: Row) -> Tensor:
        """One pad per image as the template writes it -> one pad per visual feature."""
        is_pad = ids == self.image_pad
        if torch.isin(ids, torch.tensor(self.tokens.visual[1:])).any():
            remedy = "Take <|video_pad|> out of the text."
            raise bad_row(row.where, "the prompt", "hold no video", "it holds a video pad", remedy)
        if int(is_pad.sum()) != len(features):
            got = f"got {int(is_pad.sum())} for {len(features)} images"
            remedy = "Take <|image_pad|> out of the text and check the chat template."
            raise bad_row(row.where, "the prompt", "hold one image pad per image", got, remedy)
        repeats = torch.ones_like(ids)
        repeats[is_pad] = features
        return ids.repeat_interleave(repeats)

    def _fit(self, prompt: Tensor, target: Tensor, row: Row) -> tuple[Tensor, Tensor, int]:
        """Prompt and target within max_length, and how many tokens were cut off."""
        excess = len(prompt) + len(target) - self.max_length
        if excess <= 0:
            return prompt, target, 0
        if self.overlong == "cut":
            text = turn_content(prompt[None], tokens=self.tokens)[0]
            shorter = cut(
                prompt, text & ~torch.isin(prompt, self._special), target, self.max_length
            )
            if shorter is not None:
                return *shorter, excess
        raise OverlongError(
            Problem(
                row.where,
                "a sample",
                f"have at most data.max_length = {self.max_length} tokens",
                f"this has {len(prompt)} in the prompt and {len(target)} in the target",
                "Raise it or shrink the images."
                if self.overlong == "cut"
                else "Raise it, shrink the images, or set data.overlong to drop or cut.",
            )
        )


def _not_taken(row: Row, error: ValueError) -> RowError:
    return bad_row(row.where, "images", "be such that the image processor takes them", f"{error}")
