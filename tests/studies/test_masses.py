"""Sums of scores per row against eager attention matrices, row by row and token by token."""

import json

import pytest
import torch

from avar_fast.data import Encoder, collate, load_rows
from avar_fast.evaluate import Settings, evaluate_rows
from avar_fast.lab.tokenizer import DEFAULT_SYSTEM
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.studies.masses import QUANTITIES, MassSettings, collect

from ..attention.tiny_models import TOKENIZER
from .model_and_rows import WITH_GAPS, edited, loaded_pair, ragged_rows

EPS = 1e-6


def spans_by_hand(ids):
    """Positions of system turn, image and user text behind the image's first token, of a lab
    prompt."""
    names = TOKENIZER.convert_ids_to_tokens(ids)
    starts = [i for i, name in enumerate(names) if name == "<|im_start|>"]
    image = [i for i, name in enumerate(names) if name == "<|image_pad|>"]
    system = range(starts[0], starts[1])
    user = [i for i in range(starts[1], starts[2]) if i > image[0] and i not in image]
    return list(system), image, user


def eager_quantities(slow, loaded, row):
    """(queries, layers, heads, quantities) of one row, from whole attention matrices."""
    encoder = Encoder(TOKENIZER, loaded.image_processor, DEFAULT_SYSTEM, 1 << 20)
    sample = encoder(row)
    batch = collate([sample], TOKENIZER.pad_token_id, encoder.tokens.visual, with_target=False)
    with torch.no_grad():
        attentions = slow(**batch.inputs, output_attentions=True).attentions
    system, image, user = spans_by_hand(sample.prompt_ids.tolist())
    per_query = []
    for query in user:
        weights = torch.stack([layer[0, :, query] for layer in attentions]).double()
        v, s = weights[..., image].sum(-1), weights[..., system].sum(-1)
        values = [
            *(v / (s + EPS), ((v + EPS) / (s + EPS)).log(), v / (v + s + EPS)),
            *(1 - v - s, v, s, (v + EPS).log(), (s + EPS).log()),
        ]
        per_query.append(torch.stack(values, dim=-1))
    return torch.stack(per_query)


@pytest.mark.parametrize(("family", "layers"), [(None, (0, 1, 2, 3)), (WITH_GAPS, (1, 3))])
def test_sums_per_row_head_and_position_are_those_of_eager_attention(tmp_path, family, layers):
    loaded, slow = loaded_pair(family)
    rows = ragged_rows(tmp_path)
    got = collect(loaded, rows, MassSettings(batch_size=4, num_positions=3))
    assert got.rows == tuple(row.where for row in rows)
    assert got.layers == layers
    assert got.by_head.shape == (6, len(layers), 4, len(QUANTITIES))
    for i, row in enumerate(rows):
        want = eager_quantities(slow, loaded, row)
        num = len(want)
        assert got.counts[i] == num
        torch.testing.assert_close(got.by_head[i], want.sum(0), rtol=2e-4, atol=2e-4)
        part = torch.tensor([query * 3 // num for query in range(num)])
        for position in range(3):
            some = want[part == position].mean(dim=2).sum(0)
            assert got.position_counts[i, position] == int((part == position).sum())
            torch.testing.assert_close(got.by_position[i, position], some, rtol=2e-4, atol=2e-4)


def test_batches_do_not_change_sums_and_positions_add_up(tmp_path):
    loaded, _ = loaded_pair()
    rows = ragged_rows(tmp_path)
    one, other = (collect(loaded, rows, MassSettings(batch_size=size)) for size in (1, 6))
    torch.testing.assert_close(one.by_head, other.by_head, rtol=1e-4, atol=1e-4)
    assert one.counts.equal(other.counts)
    assert one.position_counts.sum(dim=1).equal(one.counts)
    torch.testing.assert_close(one.by_position.sum(dim=1), one.by_head.mean(dim=2))


def test_the_overall_score_is_that_of_an_evaluation(tmp_path):
    loaded, _ = loaded_pair()
    rows = ragged_rows(tmp_path)
    settings = Settings(system_prompt=DEFAULT_SYSTEM, max_new_tokens=1)
    want = evaluate_rows(loaded, rows, settings, batch_size=3)[0].vas
    got = collect(loaded, rows, MassSettings())
    for form, value in want.items():
        sums = got.by_head[..., QUANTITIES.index(form)].mean(dim=(1, 2))
        assert (sums.sum() / got.counts.sum()).item() == pytest.approx(value, rel=1e-4)


def test_rows_without_an_image_are_left_out_and_counted(tmp_path):
    def drop_image(number, row):
        if number % 2:
            row["messages"][0]["content"] = "What is 1 + 1?"
            del row["images"]

    path = write_rows(tmp_path, WorldConfig(), "test", 5, seed=0)
    got = collect(
        loaded_pair()[0], load_rows(str(edited(path, drop_image))), MassSettings(batch_size=1)
    )
    assert len(got.rows) == 3
    assert got.num_without_image == 2


def test_data_without_any_image_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "1?"}], "answer": "1"}))
    with pytest.raises(ValueError, match="needs rows with an image; none of 1 has one"):
        collect(loaded_pair()[0], load_rows(str(path)), MassSettings())


def test_response_queries_are_those_of_the_reference(tmp_path):
    loaded, _ = loaded_pair()
    rows = ragged_rows(tmp_path, count=3)
    got = collect(loaded, rows, MassSettings(queries="response"))
    for row, count in zip(rows, got.counts, strict=True):
        assert count == len(TOKENIZER.encode(row.target)) + 1  # and its end

    path = edited(tmp_path / "test.jsonl", lambda _, row: [row.pop(x, 0) for x in ("answer",)])
    with pytest.raises(ValueError, match=r"row 1: answer must be given for queries of the resp"):
        collect(loaded, load_rows(str(path)), MassSettings(queries="response"))
