"""Samples, batches and their order."""

import json

import pytest
import torch

from avar_fast.data import IGNORE, RowOrder, SampleStream, collate, load_rows
from avar_fast.data.encode import OverlongError

from .samples import TOKENIZER, encoder


def test_prompt_holds_one_pad_per_visual_feature_and_the_system_turn(rows):
    encode = encoder()
    for row, pads in zip(rows, (4, 3, 1, 0, 4), strict=True):
        sample = encode(row)
        assert int((sample.prompt_ids == encode.image_pad).sum()) == pads
        text = TOKENIZER.decode(sample.prompt_ids)
        assert text.startswith(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        )
        assert text.endswith("<|im_start|>assistant\n")
        assert TOKENIZER.decode(sample.target_ids) == f"<answer>{row.answer}</answer><|im_end|>"


def test_targets_are_labeled_and_nothing_else(rows):
    encode = encoder()
    samples = [encode(row) for row in rows]
    batch = collate(samples, TOKENIZER.pad_token_id, encode.tokens.visual)
    for i, sample in enumerate(samples):
        labeled = batch.labels[i] != IGNORE
        assert torch.equal(batch.labels[i][labeled], sample.target_ids)
        assert torch.equal(batch.inputs["input_ids"][i][labeled], sample.target_ids)
        length = int(batch.inputs["attention_mask"][i].sum())
        assert torch.equal(
            batch.inputs["attention_mask"][i], (torch.arange(batch.labels.shape[1]) < length).long()
        )
    assert torch.equal(
        batch.inputs["mm_token_type_ids"] == 1, batch.inputs["input_ids"] == encode.image_pad
    )
    assert batch.inputs["image_grid_thw"].shape == (4, 3)


def test_prompts_for_generation_are_padded_on_the_left(rows):
    encode = encoder()
    batch = collate(
        [encode(row) for row in rows],
        TOKENIZER.pad_token_id,
        encode.tokens.visual,
        with_target=False,
    )
    assert (batch.inputs["attention_mask"][:, -1] == 1).all()
    assert (batch.labels == IGNORE).all()


def test_bad_samples_are_named(rows, tmp_path):
    with pytest.raises(
        ValueError, match=r"row 1: a sample must have at most data.max_length = 20 tokens"
    ):
        encoder(max_length=20)(rows[0])
    (tmp_path / "bad.png").write_bytes(b"no image")
    record = {
        "messages": [{"role": "user", "content": "<image>?"}],
        "images": ["bad.png"],
        "answer": "1",
    }
    (tmp_path / "bad.jsonl").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"row 1: image .*bad.png cannot be read"):
        encoder()(load_rows(str(tmp_path / "bad.jsonl"))[0])


def stream(rows, batch_size, seed=0, shuffle=True, encode=None, **options):
    order = RowOrder(range(len(rows)), seed, shuffle)
    return SampleStream(rows, encode or encoder(), order, batch_size, **options)


def test_every_epoch_deals_each_row_once_and_ranks_share_a_step(rows):
    whole = stream(rows, 2, seed=7)
    dealt = [s.row.answer for step in range(5) for s in whole.samples(step)]
    assert sorted(dealt[:5]) == sorted(dealt[5:]) == ["0", "1", "2", "3", "4"]
    assert dealt[:5] != dealt[5:]
    halves = [stream(rows, 2, seed=7, rank=rank, world_size=2) for rank in range(2)]
    for step in range(5):
        want = [s.row.answer for s in whole.samples(step)]
        assert [s.row.answer for half in halves for s in half.samples(step)] == want


def test_without_targets_only_prompts_count_as_long(rows):
    """A long reference answer kept rows out of stage grpo, which samples its own."""
    prompt = encoder()(rows[0]).prompt_ids
    with pytest.raises(OverlongError):
        encoder(max_length=len(prompt))(rows[0])
    prompts = encoder(max_length=len(prompt), with_target=False)
    assert torch.equal(prompts(rows[0]).prompt_ids, prompt)
    assert len(prompts(rows[0]).target_ids) == prompts.measure(rows[0]).target == 0


def test_cache_keeps_within_its_bytes_and_changes_nothing(rows):
    plain, cached = stream(rows, 2), stream(rows, 2, cache_bytes=60_000)
    for step in range(6):
        for a, b in zip(plain.samples(step), cached.samples(step), strict=True):
            assert torch.equal(a.prompt_ids, b.prompt_ids)
    assert 0 < cached._cached_bytes <= 60_000
    assert cached._cached_bytes == sum(s.num_bytes for s in cached._cache.values())


def test_batch_size_must_divide_over_ranks(rows):
    with pytest.raises(
        ValueError, match="train.batch_size must be a multiple of the 2 ranks; got 3"
    ):
        stream(rows, 3, world_size=2)


def test_without_shuffle_rows_come_as_listed_and_a_repeated_row_is_encoded_once(rows, tmp_path):
    encode, calls = encoder(), []
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "listed.jsonl").write_text("\n".join([*lines, lines[0]]))
    listed = load_rows(str(tmp_path / "listed.jsonl"))

    def counting(row):
        calls.append(row.where)
        return encode(row)

    listing = stream(listed, 3, shuffle=False, encode=counting, cache_bytes=1 << 20)
    dealt = [s.row.answer for step in range(4) for s in listing.samples(step)]
    assert dealt == ["0", "1", "2", "3", "4", "0"] * 2
    assert len(calls) == 5
