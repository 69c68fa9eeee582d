"""A small tokenizer with Qwen's special tokens and turn format.

Byte-level BPE as Qwen's, without merges: the lab's own words are entries of the vocabulary and
taken whole, everything else falls apart into bytes. So any text survives a round trip, no token is
ever unknown, and the vocabulary stays near 300 entries. Digits are single tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .world import DEFAULT_SYSTEM, MAX_SIDE, STYLE_REQUEST

PAD = "<|endoftext|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (PAD, TURN_START, TURN_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
# Not special: they are part of the answer, so decoding must show them.
ANSWER_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")

# A word with its leading blank is one token, as in Qwen's vocabulary.
_SENTENCES = (DEFAULT_SYSTEM, "Hint: Add", *STYLE_REQUEST.values())
_SIGNS = (" + ", " = ")
# One token names the whole line: binding a word to a number first costs a tiny model hundreds of
# steps before it finds out where to look.
_LINES = tuple(f" {kind} {at + 1}" for kind in ("row", "column") for at in range(MAX_SIDE))
_ROLES = ("system", "user", "assistant")

CHAT_TEMPLATE = """\
{%- if not messages or messages[0].role != "system" -%}
{{- "<|im_start|>system\\n" + default_system + "<|im_end|>\\n" -}}
{%- endif -%}
{%- for turn in messages -%}
{{- "<|im_start|>" + turn.role + "\\n" -}}
{%- if turn.content is string -%}
{{- turn.content -}}
{%- else -%}
{%- for part in turn.content -%}
{%- if part.type == "image" -%}
{{- "<|vision_start|><|image_pad|><|vision_end|>" -}}
{%- elif part.type == "video" -%}
{{- "<|vision_start|><|video_pad|><|vision_end|>" -}}
{%- elif part.type == "text" -%}
{{- part.text -}}
{%- else -%}
{{- raise_exception("a content part must be of type image, video or text; got " + part.type) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- "<|im_start|>assistant\\n" -}}
{%- endif -%}
"""


def lab_words(more: Sequence[str] = ()) -> list[str]:
    """The pieces of text, longer than one character, that are tokens of their own."""
    words: set[str] = {*_ROLES, *_SIGNS, *_LINES, *more}
    for sentence in _SENTENCES:
        words.update(re.findall(r" ?[A-Za-z]+", sentence))
    # "Add" starts a question or follows a hint; both must be one token.
    words.update({" Add", "Add"})
    return sorted(word for word in words if len(word) > 1)


def build_tokenizer(more_words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Build the lab's tokenizer: the same every time, nothing is learned or downloaded.

    Args:
        more_words: words with their leading blank that become tokens too.
    """
    words = lab_words(more_words)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocab = {char: at for at, char in enumerate(sorted(byte_level.alphabet()))}
    for word in words:
        vocab.setdefault(word.replace(" ", "\u0120"), len(vocab))  # byte-level name of a blank
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    longest_first = sorted(words, key=len, reverse=True)
    # (?!...) keeps a word from being cut out of a longer one: "users" is bytes, not "user" + "s".
    pieces = "|".join(
        re.escape(word) + ("(?![A-Za-z0-9])" if word[-1].isalnum() else "")
        for word in longest_first
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(f"{pieces}|[\\s\\S]"), behavior="isolated"), byte_level]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    core.add_tokens([AddedToken(token, normalized=False) for token in ANSWER_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in (PAD, TURN_END)],
        chat_template=CHAT_TEMPLATE.replace("default_system", repr(DEFAULT_SYSTEM)),
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="right",
    )
