"""AGTO toward text keys, the placebo: the logged term is that of the text, and only the key set
changes."""

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.attention import attach, key_types, record_attention
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.loading import load

from .runs import log_of, run

NUM_ROWS = 4
COMMON = ["train.steps=1", "data.shuffle=false", "agto.queries=response"]


@torch.no_grad()
def pull_of(world, key_type):
    """-log of the mean attention that a response gives to each key of the type, mean over layers,
    heads and samples; one sample at a time."""
    loaded = load(str(world / "model"), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, None)
    rows = load_rows(str(world / "rows" / "train.jsonl"))
    pulls = []
    for sample in [encoder(rows[i]) for i in range(NUM_ROWS)]:
        batch = collate([sample], loaded.tokenizer.pad_token_id, encoder.tokens.visual)
        with record_attention(loaded.model) as recording:
            loaded.model(**batch.inputs, use_cache=False)
        types = key_types(batch.inputs["input_ids"], tokens=encoder.tokens)
        num_keys = (types == key_type).sum()
        start = len(sample.prompt_ids)
        masses = torch.stack([mass[0, start:, :, key_type] for mass in recording.mass.values()])
        pulls.append(-torch.log(masses.mean(dim=1) / num_keys + 1e-6).mean())
    return torch.stack(pulls).mean().item()


@pytest.mark.parametrize(("keys", "key_type"), [("image", KeyType.VISUAL), ("text", KeyType.TEXT)])
def test_the_named_keys_are_enhanced(world, tmp_path, keys, key_type):
    run(world, tmp_path / "run", *COMMON, f"agto.enhance_keys={keys}")
    (line,) = log_of(tmp_path / "run")
    assert line["agto_enhance"] == pytest.approx(pull_of(world, key_type), rel=1e-4)
    assert line["agto_samples"] == NUM_ROWS
    expected = line["lm_loss"] + 0.01 * (line["agto_enhance"] + line["agto_suppress"])
    assert line["loss"] == pytest.approx(expected, rel=1e-5)
