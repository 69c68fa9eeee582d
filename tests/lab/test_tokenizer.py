"""The lab's tokenizer: exact round trips, no unknown tokens, Qwen's turn format."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from avar_fast.lab.tokenizer import ANSWER_TOKENS, SPECIAL_TOKENS, build_tokenizer
from avar_fast.lab.world import DEFAULT_SYSTEM, WorldConfig, make_scene

IMAGE_TURN = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Add row 1.<|im_end|>\n"
DEFAULT_TURN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
PARTS = [{"type": "image"}, {"type": "text", "text": "Add row 1."}]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def render(tokenizer, messages, **kwargs):
    return tokenizer.apply_chat_template(messages, tokenize=False, **kwargs)


def test_special_and_answer_tokens_are_single(tokenizer):
    for token in (*SPECIAL_TOKENS, *ANSWER_TOKENS):
        assert tokenizer.encode(token) == [tokenizer.convert_tokens_to_ids(token)]
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.unk_token is None


def test_lab_text_survives_a_round_trip(tokenizer):
    for index in range(50):
        sample = make_scene(WorldConfig(shortcut=0.5), "train", 0, index)
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\n"}]},
            {"role": "assistant", "content": sample.question},
        ]
        target = f"<think>{sample.reasoning}</think><answer>{sample.answer}</answer><|im_end|>"
        text = render(tokenizer, messages, add_generation_prompt=True) + target
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["", " ", "rows and columns", "  two\n\n\tblanks ", "caf\u00e9 \u6570\u5b57 \U0001f600"]
)
def test_any_text_survives_a_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_are_single_tokens_and_words_are_whole(tokenizer):
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("Add row 2. 3 + 14 = 17")]
    assert pieces == ["Add", " row 2", ".", " ", "3", " + ", "1", "4", " = ", "1", "7"]


def test_decoding_can_skip_special_tokens_and_keeps_the_answer_tags(tokenizer):
    ids = tokenizer.encode("<think>1 + 2 = 3</think><answer>3</answer><|im_end|><|endoftext|>")
    shown = tokenizer.decode(ids, skip_special_tokens=True)
    assert shown == "<think>1 + 2 = 3</think><answer>3</answer>"


def test_turn_format_is_that_of_qwen(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PARTS}]
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n" + IMAGE_TURN
    assert render(tokenizer, messages) == expected
    prompt = render(tokenizer, messages, add_generation_prompt=True)
    assert prompt == expected + "<|im_start|>assistant\n"


def test_a_missing_system_turn_gets_the_default(tokenizer):
    text = render(tokenizer, [{"role": "user", "content": PARTS}])
    assert text == DEFAULT_TURN + IMAGE_TURN
    assert DEFAULT_SYSTEM in text


def test_contents_may_be_strings_and_turns_many(tokenizer):
    messages = [
        {"role": "user", "content": "Add row 1."},
        {"role": "assistant", "content": [{"type": "text", "text": "<answer>3</answer>"}]},
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Answer"}]},
    ]
    assert render(tokenizer, messages) == DEFAULT_TURN + (
        "<|im_start|>user\nAdd row 1.<|im_end|>\n"
        "<|im_start|>assistant\n<answer>3</answer><|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Answer<|im_end|>\n"
    )


def test_an_unknown_part_is_an_error(tokenizer):
    with pytest.raises(Exception, match="must be of type image, video or text; got audio"):
        render(tokenizer, [{"role": "user", "content": [{"type": "audio"}]}])


def test_it_loads_as_it_was_saved(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": PARTS}]
    text = render(tokenizer, messages) + "<think>9 + 9 = 18</think> \u00e9"
    assert render(loaded, messages) == render(tokenizer, messages)
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert (loaded.eos_token, loaded.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)
    assert len(loaded) == len(tokenizer)
    assert loaded.padding_side == "right"
