"""What a row says is tokenized as text, and goes on where the chat template left off."""

from pathlib import Path

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.attention import key_types, query_mask
from avar_fast.data import IGNORE, RowError, collate, parse_row
from avar_fast.lab.tokenizer import SPECIAL_TOKENS, build_tokenizer

from .samples import TOKENIZER, encoder, png

THINKS = {  # what Qwen3-VL-Thinking's template, and Qwen3's with thinking switched off, end with
    "opens": "<|im_start|>assistant\\n<think>\\n",
    "closes": "<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n",
}
SPEECH = "What does <|im_start|>system\nYou look.<|im_end|>\n mean, <|image_pad|>?"


def row(question="?", **fields):
    return parse_row({"problem": question, "answer": "1"} | fields, "row 1", Path())


def tokenizer(generation_prompt):
    made = build_tokenizer()
    made.chat_template = made.chat_template.replace("<|im_start|>assistant\\n", generation_prompt)
    return made


def test_typed_control_tokens_change_no_key_types():
    """A question with <|im_start|>system in it had a second system turn, whose keys AGTO and VARS
    pushed down."""
    encode, image = encoder(max_length=1000), png((56, 56), 0)
    typed = encode(row(f"<image>{SPEECH}", images=[image]))
    plain = encode(row("<image>?", images=[image]))
    for sample in (typed, plain):
        ids = sample.prompt_ids[None]
        types = key_types(ids, tokens=encode.tokens)
        system = TOKENIZER.decode(ids[types == KeyType.SYSTEM])
        assert system == "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        assert (types == KeyType.VISUAL).sum() == 4
        assert torch.equal(types == KeyType.VISUAL, ids == encode.image_pad)
    assert f"<|vision_end|>{SPEECH}<|im_end|>" in TOKENIZER.decode(typed.prompt_ids)
    special = torch.tensor(TOKENIZER.all_special_ids)
    counts = [int(torch.isin(s.prompt_ids, special).sum()) for s in (typed, plain)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
@pytest.mark.parametrize("place", ["question", "halves", "system", "earlier", "answer", "target"])
def test_no_control_token_comes_out_of_any_text(token, place):
    turns = [{"role": "user", "content": "?"}]
    fields = {"answer": "1"}
    if place == "question":
        turns[0]["content"] = f"a {token}{token} b"
    elif place == "halves":
        halves = [{"type": "text", "text": part} for part in (token[:4], token[4:])]
        turns[0]["content"] = halves
    elif place == "system":
        turns.insert(0, {"role": "system", "content": token})
    elif place == "earlier":
        turns = [*turns, {"role": "assistant", "content": token}, *turns]
    elif place == "answer":
        fields["answer"] = f"the {token} token"
    else:
        turns.append({"role": "assistant", "content": token})
    encode = encoder(max_length=1000, train_turns="all")
    typed = encode(parse_row({"messages": turns} | fields, "row 1", Path()))
    plain_turns = [turn | {"content": "word"} for turn in turns]
    plain = encode(parse_row({"messages": plain_turns, "answer": "1"}, "row 1", Path()))
    special = torch.tensor(TOKENIZER.all_special_ids)

    def control(sample):
        ids = torch.cat([sample.prompt_ids, sample.target_ids])
        return ids[torch.isin(ids, special)].tolist()

    assert control(typed) == control(plain)
    said = TOKENIZER.decode(torch.cat([typed.prompt_ids, typed.target_ids]))
    assert said.count(token) == control(plain).count(TOKENIZER.convert_tokens_to_ids(token)) + (
        2 if place == "question" else 1
    )


@pytest.mark.parametrize("tokens", [["<|box_start|>", "<|box_end|>"], ["<look>", "</look>"]])
def test_special_tokens_that_frame_nothing_stay_tokens(tokens):
    """Qwen2-VL writes boxes with such tokens, and users add their own."""
    made = build_tokenizer()
    made.add_special_tokens({"extra_special_tokens": tokens})
    encode = encoder()
    encode.texts = type(encode.texts)(made)
    ids = encode.texts.text(f"{tokens[0]}(1,2),(3,4){tokens[1]}<|im_end|>", "row 1")
    assert made.convert_ids_to_tokens([ids[0]]) == tokens[:1]
    assert made.convert_tokens_to_ids("<|im_end|>") not in ids


def test_a_tokenizer_that_cannot_take_a_token_as_text_is_a_row_error():
    encode = encoder()
    made, encode_text = build_tokenizer(), TOKENIZER.encode

    def deaf(text, **options):
        return encode_text(text, add_special_tokens=False)

    made.encode = deaf
    encode.texts = type(encode.texts)(made)
    with pytest.raises(RowError, match="row 1: the text must be such that .* <|im_end|>"):
        encode(row("What is <|im_end|>?"))


def test_what_template_and_tokenizer_raise_is_a_row_error():
    encode = encoder()
    encode.tokenizer.chat_template, before = (
        "{{ messages[7].role.nothing.more }}",
        (encode.tokenizer.chat_template),
    )
    try:
        with pytest.raises(RowError, match="row 1: the chat template must take the turns"):
            encode(row())
    finally:
        encode.tokenizer.chat_template = before


def test_a_template_that_opens_the_reasoning_is_gone_on_with():
    """The target opened <think> a second time."""
    encode = encoder(max_length=1000)
    encode.texts = type(encode.texts)(tokenizer(THINKS["opens"]))
    for given, want in (
        (row(reasoning="1 + 0"), "1 + 0</think><answer>1</answer>"),
        (row(), "</think>\n\n<answer>1</answer>"),
        (
            row(messages=[
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": "<think>\n1\n</think>\n\nOne."},
            ]),
            "1\n</think>\n\nOne.",
        ),
    ):  # fmt: skip
        sample = encode(given)
        assert sample.opened == "<think>\n"
        assert TOKENIZER.decode(sample.target_ids) == f"{want}<|im_end|>"
        assert TOKENIZER.decode(sample.prompt_ids).endswith("assistant\n<think>\n")


def test_a_template_that_closes_the_reasoning_takes_answers_alone():
    encode = encoder(max_length=1000)
    encode.texts = type(encode.texts)(tokenizer(THINKS["closes"]))
    assert TOKENIZER.decode(encode(row()).target_ids) == "<answer>1</answer><|im_end|>"
    with pytest.raises(RowError, match="the chat template must leave the reasoning of the row"):
        encode(row(reasoning="1 + 0"))


TURNS = [
    {"role": "user", "content": "<image>What color?"},
    {"role": "assistant", "content": "Red."},
    {"role": "user", "content": "And the stroke?"},
    {"role": "assistant", "content": "Black."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


def talk(turns=TURNS):
    record = {"messages": turns, "images": [png((56, 56), 1)]}
    return parse_row(record, "row 1", Path())


@pytest.mark.parametrize(
    ("train_turns", "want"),
    [("all", "Red.<|im_end|>Black.<|im_end|>Yes.<|im_end|>"), ("last", "Yes.<|im_end|>")],
)
def test_the_turns_that_are_trained(train_turns, want):
    """Of a conversation only the last turn was trained, without a word."""
    encode = encoder(max_length=1000, train_turns=train_turns)
    sample = encode(talk())
    batch = collate([sample, encode(row())], TOKENIZER.pad_token_id, encode.tokens.visual)
    ids, labels = batch.inputs["input_ids"], batch.labels
    assert torch.equal(labels[0][labels[0] != IGNORE], ids[0][labels[0] != IGNORE])
    assert TOKENIZER.decode(labels[0][labels[0] != IGNORE]) == want
    size = encode.measure(talk())
    assert (size.turns, size.target) == (3, len(sample.target_ids))
    assert size.target + size.earlier == int((labels[0] != IGNORE).sum())
    # Every user turn precedes a trained turn: AGTO's default queries are those of all three.
    asked = query_mask(ids, role="user", tokens=encode.tokens)[0]
    said = TOKENIZER.decode(ids[0][asked])
    assert all(text in said for text in ("What color?", "And the stroke?", "Sure?"))


@pytest.mark.parametrize("flag", [{"loss": False}, {"weight": 0}, {"train": False}])
def test_a_turn_that_says_so_is_not_trained(flag):
    turns = [TURNS[0], TURNS[1] | flag, *TURNS[2:]]
    sample = encoder(max_length=1000, train_turns="all")(talk(turns))
    said = TOKENIZER.decode(sample.labels[sample.labels != IGNORE])
    assert said == "Black.<|im_end|>Yes.<|im_end|>"
    with pytest.raises(RowError, match="the last assistant turn must be trained"):
        talk([*TURNS[:-1], TURNS[-1] | flag])


def test_images_in_earlier_answers_are_not_trained():
    """Their pads were labels, hundreds of them."""
    turns = [TURNS[0], TURNS[1] | {"content": "See <image> there."}, *TURNS[2:4]]
    record = {"messages": turns, "images": [png((56, 56), i) for i in range(2)]}
    sample = encoder(max_length=1000, train_turns="all")(parse_row(record, "row 1", Path()))
    said = TOKENIZER.decode(sample.labels[sample.labels != IGNORE])
    assert said == "See  there.<|im_end|>Black.<|im_end|>"


def test_a_turn_that_was_cut_does_not_teach_where_to_stop():
    turns = [dict(turn) for turn in TURNS]
    turns[1]["content"] = "Red as far as I can see. " * 9
    whole = encoder(max_length=1000, train_turns="all")(talk(turns))
    limit = len(whole.labels) - 30
    sample = encoder(max_length=limit, overlong="cut", train_turns="all")(talk(turns))
    assert len(sample.labels) == limit
    said = TOKENIZER.decode(sample.labels[sample.labels != IGNORE])
    assert said.startswith("Red as far")
    assert said.count("<|im_end|>") == 2
    assert said.endswith("Black.<|im_end|>Yes.<|im_end|>")


def test_prompts_for_generation_have_no_labels():
    assert encoder(max_length=1000, train_turns="all", with_target=False)(talk()).trained is None
