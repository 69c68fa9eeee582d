"""Encodes rows to token ids and pixels, with the tokenizer's chat template and image processor."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention import SpecialTokens, key_types, query_mask, turn_content
from .cut import cut
from .images import image_size, open_image
from .problems import RowError, RowProblem, bad_row
from .rows import Row
from .sample import Sample, Size
from .texts import TextTokenizer, continue_reply

Overlong = Literal["error", "drop", "cut"]
Stage = Literal["sft", "grpo"]
TrainTurns = Literal["last", "all"]


class OverlongError(RowError):
    """A row with more tokens than ``data.max_length``."""


@dataclass(frozen=True)
class _Text:
    """A row's tokens, with one pad per image or (after ``_expand_pads``) with all pads."""

    prompt: Tensor
    """(P,) int64."""
    target: Tensor
    """(T,) int64."""
    trained: Tensor
    """(P,) bool, as ``Sample.trained``."""
    opened: str
    """As ``Sample.opened``."""
    num_cut: int = 0
    """Tokens that were cut off."""


class Encoder:
    """Turns rows into samples.

    Args:
        tokenizer: a tokenizer with Qwen-VL's special tokens and a chat template.
        image_processor: Qwen-VL's image processor.
        system_prompt: system turn for rows without one; None adds no turn.
        max_length: most tokens in prompt and target together; None for no limit.
        overlong: what to do with a longer row. "error" and "drop" raise OverlongError (a caller
            that drops rows catches it); "cut" shortens its text.
        stage: "sft" requires a target in each row, "grpo" an answer; None requires neither.
        with_target: if false, samples are prompts alone, even if their rows have answers.
        train_turns: "all" also labels earlier assistant turns, as the template writes them.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        system_prompt: str | None,
        max_length: int | None = None,
        overlong: Overlong = "error",
        stage: Stage | None = None,
        with_target: bool = True,
        train_turns: TrainTurns = "last",
    ) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.system_prompt, self.max_length = system_prompt, max_length
        self.overlong, self.stage, self.with_target = overlong, stage, with_target
        self.train_turns = train_turns
        self.texts = TextTokenizer(tokenizer)
        self.tokens = SpecialTokens.from_processor(tokenizer)
        self.image_pad = self.tokens.visual[0]
        self._special = torch.tensor(tokenizer.all_special_ids)

    def __call__(self, row: Row) -> Sample:
        """Encodes one row.

        Raises:
            RowError: the row lacks a field that the stage needs, the chat template drops its system
                turn, an image cannot be read, or template, tokenizer or image processor reject the
                row. The message names the row.
            OverlongError: the row has more than max_length tokens (with "cut": its images leave no
                room for text).
        """
        text = self._text(row)
        pixels = grid = None
        features = torch.empty(0, dtype=torch.int64)
        sizes: list[tuple[int, int]] = []
        if row.images:
            images = [open_image(x, row.where, f"image {i}") for i, x in enumerate(row.images)]
            try:
                processed = self.image_processor(images=images, return_tensors="pt")
            except Exception as error:  # for example, an extreme aspect ratio
                raise _not_taken(row, error) from None
            pixels, grid = processed["pixel_values"], processed["image_grid_thw"]
            features = grid.prod(dim=1) // self.image_processor.merge_size**2
            patch = self.image_processor.patch_size
            sizes = [(w * patch, h * patch) for _, h, w in grid.tolist()]
        text = self._fit(self._expand_pads(text, features, row), row)
        trained = text.trained if text.trained.any() else None
        return Sample(
            row, text.prompt, text.target, pixels, grid, trained, text.opened, tuple(sizes)
        )

    def measure(self, row: Row, decode: bool = False) -> Size:
        """The number of tokens of ``__call__``'s sample, computed from the headers of the images.

        Args:
            row: the row.
            decode: also decode the images, to find damaged ones.

        Raises:
            RowError, OverlongError: as ``__call__``; a damaged image only with ``decode``.
        """
        text = self._text(row)
        features = []
        for i, image in enumerate(row.images):
            opened = open_image(image, row.where, f"image {i}") if decode else None
            width, height = opened.size if opened else image_size(image, row.where, f"image {i}")
            try:
                patches = self.image_processor.get_number_of_image_patches(height, width)
            except Exception as error:
                raise _not_taken(row, error) from None
            features.append(patches // self.image_processor.merge_size**2)
        expanded = self._expand_pads(text, torch.tensor(features, dtype=torch.int64), row)
        text = self._fit(expanded, row)
        earlier = sum(turn["role"] == "assistant" for turn in row.messages)
        return Size(
            len(text.prompt),
            len(text.target),
            text.num_cut,
            int(text.trained.sum()),
            earlier + (len(text.target) > 0),
        )

    def _text(self, row: Row) -> _Text:
        """Tokenizes a row: the prompt with one pad per image, and the target."""
        self.require_fields(row)
        messages = row.messages
        if self.system_prompt is not None and messages[0]["role"] != "system":
            system = {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]}
            messages = [system, *messages]
        prompt_ids, opened = self.texts.prompt(messages, row.where)
        ids = torch.tensor(prompt_ids, dtype=torch.int64)
        if messages[0]["role"] == "system":
            types = key_types(ids[None], tokens=self.tokens)
            if not (types == KeyType.SYSTEM).any():
                remedy = (
                    "Use the chat template saved with a Qwen-VL model; VAS and AGTO need the system"
                    " turn."
                )
                expected = "write the system turn as <|im_start|>system ... <|im_end|>"
                got = "the prompt has none"
                raise bad_row(row.where, "the chat template", expected, got, remedy)
        target, trained = torch.empty(0, dtype=torch.int64), torch.zeros_like(ids, dtype=torch.bool)
        if self.with_target and row.target is not None:
            reply = continue_reply(opened, row.target, row.where)
            target = torch.tensor([*self.texts.text(reply, row.where), self.tokens.turn_end])
            if self.train_turns == "all":
                trained = self._earlier_turns(ids, row)
        return _Text(ids, target, trained, opened)

    def _earlier_turns(self, ids: Tensor, row: Row) -> Tensor:
        """(P,) bool: trained tokens of the earlier assistant turns, with their end-of-turn tokens.
        Text that the template writes after the last header is not trained: the target continues
        it."""
        response = query_mask(ids[None], role="response", tokens=self.tokens)[0]
        # Control tokens, such as those around images, are not trained, except the end of a turn.
        is_control = torch.isin(ids, torch.tensor(self.texts.control_ids))
        response &= self._before_reply(ids) & (~is_control | (ids == self.tokens.turn_end))
        flags = [m.get("trained", True) for m in row.messages if m["role"] == "assistant"]
        if all(flags):
            return response
        turn = (ids == self.tokens.turn_start).cumsum(0)
        assistant_turns = turn[response].unique()
        if len(assistant_turns) != len(flags):
            got = f"got {len(assistant_turns)} of {len(flags)}"
            raise bad_row(row.where, "the chat template", "write every assistant turn", got)
        return response & torch.isin(turn, assistant_turns[torch.tensor(flags)])

    def _before_reply(self, ids: Tensor) -> Tensor:
        """(P,) bool: tokens before the last header. A template may also write after it."""
        turn = (ids == self.tokens.turn_start).cumsum(0)
        return turn < turn[-1]

    def require_fields(self, row: Row) -> None:
        """Raises RowError if the row lacks a field that the stage needs."""
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
        raise RowError(RowProblem(row.where, "answer", expected, "got none", remedy, form))

    def _expand_pads(self, text: _Text, features: Tensor, row: Row) -> _Text:
        """Repeats the one pad that the template writes per image: one pad per visual feature."""
        is_pad = text.prompt == self.image_pad
        if int(is_pad.sum()) != len(features):
            got = f"got {int(is_pad.sum())} for {len(features)} images"
            remedy = "Use the chat template saved with a Qwen-VL model."
            expected = "write one image pad per image"
            raise bad_row(row.where, "the chat template", expected, got, remedy)
        repeats = torch.ones_like(text.prompt)
        repeats[is_pad] = features
        prompt, trained = (x.repeat_interleave(repeats) for x in (text.prompt, text.trained))
        return replace(text, prompt=prompt, trained=trained)

    def _fit(self, text: _Text, row: Row) -> _Text:
        """Returns the text if it fits into max_length; else cuts it or raises OverlongError."""
        if self.max_length is None:
            return text
        prompt, target = text.prompt, text.target
        excess = len(prompt) + len(target) - self.max_length
        if excess <= 0:
            return text
        if self.overlong == "cut":
            is_text = turn_content(prompt[None], tokens=self.tokens)[0]
            is_text &= ~torch.isin(prompt, self._special) & self._before_reply(prompt)
            kept = cut(is_text, len(target), self.max_length)
            if kept is not None:
                keeps, num_target = kept
                trained = self._without_cut_ends(prompt, text.trained, keeps)
                return _Text(
                    prompt[keeps], target[:num_target], trained[keeps], text.opened, excess
                )
        raise OverlongError(
            RowProblem(
                row.where,
                "a sample",
                f"have at most data.max_length = {self.max_length} tokens",
                f"this has {len(prompt)} in the prompt and {len(target)} in the target",
                "Raise it or shrink the images."
                if self.overlong == "cut"
                else "Raise it, shrink the images, or set data.overlong to drop or cut.",
            )
        )

    def _without_cut_ends(self, prompt: Tensor, trained: Tensor, keeps: Tensor) -> Tensor:
        """``trained`` without the end-of-turn tokens of cut turns, so that the model does not learn
        to stop there."""
        turn = (prompt == self.tokens.turn_start).cumsum(0)
        in_cut_turn = torch.isin(turn, turn[trained & ~keeps])
        return trained & ~(in_cut_turn & (prompt == self.tokens.turn_end))


def _not_taken(row: Row, error: Exception) -> RowError:
    return bad_row(row.where, "images", "be such that the image processor takes them", f"{error}")
