"""Overlong rows: refused, or cut where text is, never in an image."""

import pytest
import torch

from avar_fast.attention import SpecialTokens, key_types
from avar_fast.data import OverlongError
from avar_fast.data.cut import cut
from avar_fast.data.rows import parse_row

from .samples import TOKENIZER, encoder, png

TOKENS = SpecialTokens.from_processor(TOKENIZER)
LONG = "1 + 2 = 3 " * 8


def row(question="", reasoning=""):
    record = {
        "messages": [{"role": "user", "content": f"<image>Add{question}<image> row 1."}],
        "images": [png((56, 56), 0), png((84, 28), 1)],
        "answer": "3",
        "reasoning": reasoning,
    }
    return parse_row(record, "row 1", None)


def brute_force(stretches, room):
    """Takes one token at a time from the longest stretch, the last of equals."""
    stretches = list(stretches)
    while sum(stretches) > room:
        longest = max(range(len(stretches)), key=lambda i: (stretches[i], -i))
        stretches[longest] -= 1
    return stretches


@pytest.mark.parametrize("limit", [9, 12, 17, 23, 30])
def test_the_longest_stretches_lose_their_ends(limit):
    # F frame, a b c text: F aaaaaaa F F bbb F cccc, and a target of ten
    may_go = torch.tensor([0, *[1] * 7, 0, 0, 1, 1, 1, 0, *[1] * 4]).bool()
    prompt, target = torch.arange(18), torch.arange(100, 110)
    found = cut(may_go, len(target), limit)
    assert found is not None
    got = prompt[found[0]], target[: found[1]]
    assert len(got[0]) + len(got[1]) == min(limit, 28)
    assert set(prompt[~may_go].tolist()) <= set(got[0].tolist())
    lengths = [7, 3, 4, 10]
    kept = [
        sum(1 for i in got[0].tolist() if start <= i < start + n)
        for start, n in ((1, 7), (10, 3), (14, 4))
    ]
    kept.append(len(got[1]))
    # What is kept are beginnings, and as many tokens as taking from the longest leaves.
    for start, n in zip((1, 10, 14), kept, strict=False):
        assert all(i in got[0].tolist() for i in range(start, start + n))
    assert got[1].tolist() == list(range(100, 100 + kept[3]))
    want = brute_force(lengths, min(limit, 28) - 4)
    assert sorted(kept) == sorted(want)


def test_a_frame_that_does_not_fit_cannot_be_cut():
    assert cut(torch.zeros(6).bool(), 3, 6) is None
    assert cut(torch.zeros(6).bool(), 0, 5) is None
    assert cut(torch.ones(6).bool(), 3, 1) is None


def test_a_long_chain_loses_its_end_and_its_stop():
    whole = encoder(max_length=1000)(row(reasoning=LONG))
    limit = len(whole.prompt_ids) + len(whole.target_ids) - 10
    sample = encoder(max_length=limit, overlong="cut")(row(reasoning=LONG))
    assert torch.equal(sample.prompt_ids, whole.prompt_ids)
    assert torch.equal(sample.target_ids, whole.target_ids[:-10])
    assert TOKENS.turn_end not in sample.target_ids


def test_a_long_question_is_cut_around_whole_images():
    whole = encoder(max_length=1000)(row(question=LONG))
    sample = encoder(max_length=60, overlong="cut")(row(question=LONG))
    assert len(sample.prompt_ids) + len(sample.target_ids) == 60
    for kind in range(1, 3):  # every image and system token is still there
        counts = [
            int((key_types(s.prompt_ids[None], tokens=TOKENS) == kind).sum())
            for s in (whole, sample)
        ]
        assert counts[0] == counts[1] > 0
    text = TOKENIZER.decode(sample.prompt_ids)
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|vision_start|>") == text.count("<|vision_end|>") == 2
    assert torch.equal(sample.target_ids, whole.target_ids)
    assert sample.pixel_values.shape == whole.pixel_values.shape


@pytest.mark.parametrize("overlong", ["error", "drop", "cut"])
def test_what_cannot_be_cut_is_refused(overlong):
    with pytest.raises(OverlongError, match="at most data.max_length = 20 tokens; this has"):
        encoder(max_length=20, overlong=overlong)(row(question=LONG))


@pytest.mark.parametrize("overlong", ["error", "cut"])
def test_measuring_gives_the_lengths_of_encoding(overlong):
    encode = encoder(max_length=60 if overlong == "cut" else 400, overlong=overlong)
    for options in ({}, {"question": LONG}, {"reasoning": LONG}):
        sample, size = encode(row(**options)), encode.measure(row(**options))
        assert (size.prompt, size.target) == (len(sample.prompt_ids), len(sample.target_ids))
        assert (size.num_cut > 0) == (overlong == "cut" and bool(options))
