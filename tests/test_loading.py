"""What is read of a model's folder: whether the tokenizer fits, where completions end, pixels."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from avar_fast.lab.model import save_base
from avar_fast.loading import load, load_processors


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save_base(folder, seed=0)
    return folder


@pytest.fixture
def copied(base, tmp_path):
    return shutil.copytree(base, tmp_path / "model")


def edit(folder, name, **change):
    held = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(held | change))


def test_tokens_beyond_the_embedding_are_named_before_anything_runs(copied):
    """They ended in an IndexError in the first forward that met one."""
    tokenizer = AutoTokenizer.from_pretrained(copied)
    tokenizer.add_tokens(["<|looks|>"] + [f"<|extra_{i}|>" for i in range(64)])
    tokenizer.save_pretrained(copied)
    for read in (load_processors, lambda path: load(path, torch.float32)):
        with pytest.raises(ValueError, match=r"must fit its model; .*resize_token_embeddings"):
            read(str(copied))
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(copied)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(copied)
    assert load(str(copied), torch.float32).model.config.get_text_config().vocab_size == 366


def test_a_model_with_another_image_token_is_named(copied):
    edit(copied, "config.json", image_token_id=3)
    with pytest.raises(ValueError, match="image_pad.* image_token_id in config.json is 3"):
        load_processors(str(copied))


@pytest.mark.parametrize(
    ("named", "want"),
    [
        (["<|im_end|>", "<|endoftext|>"], ["<|im_end|>", "<|endoftext|>"]),
        (["<|endoftext|>"], ["<|im_end|>", "<|endoftext|>"]),
        (None, ["<|im_end|>"]),
    ],
)
def test_completions_end_at_every_token_of_the_generation_config(copied, named, want):
    tokenizer = AutoTokenizer.from_pretrained(copied)
    ids = None if named is None else tokenizer.convert_tokens_to_ids(named)
    edit(copied, "generation_config.json", eos_token_id=ids)
    assert load_processors(str(copied)).eos_ids == tuple(tokenizer.convert_tokens_to_ids(want))


def test_without_a_generation_config_the_models_own_token_counts(copied):
    (copied / "generation_config.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(copied)
    config = json.loads((copied / "config.json").read_text())
    held = config.get("text_config", config)
    held["eos_token_id"] = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    (copied / "config.json").write_text(json.dumps(config))
    want = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert load_processors(str(copied)).eos_ids == tuple(want)


@pytest.mark.parametrize(
    ("limits", "want"),
    [((None, 50_000), (3136, 50_000)), ((100_000, None), (100_000, 100_000)), ((8, 9), (8, 9))],
)
def test_pixel_limits_move_one_another_where_they_must(base, limits, want):
    size = load_processors(str(base)).image_processor.size
    got = load_processors(str(base), *limits).image_processor.size
    least, most = want
    if limits[0] is None:
        least = min(size["shortest_edge"], most)
    if limits[1] is None:
        most = max(size["longest_edge"], least)
    assert (got["shortest_edge"], got["longest_edge"]) == (least, most)
