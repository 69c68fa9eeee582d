"""Tokenizes turns and targets so that the text of a row never becomes a control token."""

import re
from typing import Any

from .problems import RowError, bad_row

# Tokens that frame turns and images. Answers may contain other special tokens, such as those of
# boxes, or <think> if a model has it.
FRAME = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
_FIRST_PRIVATE, _LAST_PRIVATE = 0xE000, 0xF8FF  # code points for private use
HEADER = "<|im_start|>assistant\n"
THINK = "<think>"


class TextTokenizer:
    """Applies a tokenizer and its chat template to rows.

    A control token in the text of a user or an answer is tokenized as plain characters. All other
    text is tokenized as usual.

    Args:
        tokenizer: a tokenizer with Qwen-VL's special tokens and a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        ends = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
        known = tokenizer.get_added_vocab()
        control = [name for name in dict.fromkeys((*FRAME, *ends)) if name in known]
        self._control = re.compile("|".join(map(re.escape, control)))
        self.control_ids: list[int] = tokenizer.convert_tokens_to_ids(control)

    def prompt(self, messages: list[dict[str, Any]], where: str) -> tuple[list[int], str]:
        """Tokenizes the turns up to the start of the reply, with one pad per image.

        Args:
            messages: turns whose content is a list of parts.
            where: place of the row, for messages.

        Returns:
            The token ids, and the start of the reply that the template has already written, which
            is usually empty.

        Raises:
            RowError: the template or the tokenizer rejects the turns.
        """
        typed: list[str] = []
        turns = [turn | {"content": _joined(turn["content"])} for turn in messages]
        texts = [p for turn in turns for p in turn["content"] if p["type"] == "text"]
        mark = ""
        if any(self._control.search(part["text"]) for part in texts):
            mark = _unused("".join(part["text"] for part in texts), where)

        def hide(part: dict[str, Any]) -> dict[str, Any]:
            if part["type"] != "text" or not mark:
                return part
            pieces = self._control.split(part["text"])
            tokens = self._control.findall(part["text"])
            text = pieces[0]
            for token, piece in zip(tokens, pieces[1:], strict=True):
                text += f"{mark}{len(typed)}{mark}{piece}"
                typed.append(token)
            return part | {"text": text}

        turns = [turn | {"content": [hide(part) for part in turn["content"]]} for turn in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program and may raise any error
            expected = "take the turns of the row"
            raise bad_row(where, "the chat template", expected, f"it says: {error}") from None
        pieces = re.split(f"{mark}(\\d+){mark}", text) if mark else [text]
        ids: list[int] = []
        for i, piece in enumerate(pieces):
            ids += self._as_typed(typed[int(piece)], where) if i % 2 else self._ids(piece, where)
        _, header, opened = text.rpartition(HEADER)
        return ids, opened if header else ""

    def text(self, text: str, where: str) -> list[int]:
        """Tokenizes a text without the template, such as a target.

        Raises:
            RowError: the tokenizer rejects the text.
        """
        ids: list[int] = []
        start = 0
        for match in self._control.finditer(text):
            ids += self._ids(text[start : match.start()], where)
            ids += self._as_typed(match[0], where)
            start = match.end()
        return ids + self._ids(text[start:], where)

    def _ids(self, text: str, where: str) -> list[int]:
        try:
            return self.tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # tokenizers raise many kinds of errors
            raise _not_taken(where, f"it says: {error}") from None

    def _as_typed(self, token: str, where: str) -> list[int]:
        ids = self.tokenizer.encode(token, add_special_tokens=False, split_special_tokens=True)
        if set(self.control_ids).intersection(ids):
            got = f"it makes a control token of the text {token}"
            raise _not_taken(where, got)
        return ids


def continue_reply(opened: str, target: str, where: str) -> str:
    """The target as a continuation of the start of the reply that the template has written.

    If the template has opened <think>, a target with reasoning does not open it again, and a target
    without reasoning closes it first.

    Raises:
        RowError: the target has reasoning, and the template has already closed the reasoning.
    """
    if not opened.strip() or not target.lstrip().startswith(THINK):
        return f"</think>\n\n{target}" if opened.strip() == THINK else target
    if opened.strip() != THINK:
        got = f"it ends with {opened!r}"
        remedy = "Take the template of a model that reasons, or the reasoning out of the row."
        expected = "leave the reasoning of the row to the target"
        raise bad_row(where, "the chat template", expected, got, remedy)
    target = target.lstrip()[len(THINK) :]
    return target.removeprefix("\n") if opened.endswith("\n") else target


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Joins neighboring text parts. A template would concatenate them, and two halves of a control
    token would become a control token."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        if joined and part["type"] == joined[-1]["type"] == "text":
            joined[-1] = joined[-1] | {"text": joined[-1]["text"] + part["text"]}
        else:
            joined.append(part)
    return joined


def _unused(text: str, where: str) -> str:
    """A private-use character that the text does not contain and no template writes."""
    used = set(text)
    for code in range(_FIRST_PRIVATE, _LAST_PRIVATE + 1):
        if chr(code) not in used:
            return chr(code)
    expected, got = "leave a private code point unused", "it holds all of them"
    raise bad_row(where, "the text", expected, got)


def _not_taken(where: str, got: str) -> RowError:
    remedy = "Remove the text that it rejects from the row."
    return bad_row(where, "the text", "be such that the tokenizer takes it as text", got, remedy)
