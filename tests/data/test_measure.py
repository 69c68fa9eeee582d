"""The pass before training: which rows are dealt, and what is left out and counted."""

import json

import pytest

from avar_fast.data import OverlongError, RowError, load_rows, measure_rows, select

from .samples import encoder, png


@pytest.fixture
def dirty(tmp_path):
    (tmp_path / "good.png").write_bytes(png((56, 56), 0))
    (tmp_path / "cut.png").write_bytes(png((56, 56), 0)[:-900])
    good = {"problem": "<image>Add row 1.", "answer": "3", "images": ["good.png"]}
    records = [
        good,
        good | {"images": ["cut.png"]},
        good | {"reasoning": "1 + 2 = 3 " * 30},
        good | {"images": ["gone.png"]},
        {"problem": "Add row 1.", "answer": "4"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*map(json.dumps, records), '{"problem": "<ima']))
    return load_rows(str(path), keep_bad_lines=True)


def measured(rows, decode=True, workers=0, **options):
    encode = encoder(max_length=80, **options)
    return list(measure_rows(rows, encode, range(len(rows)), workers, decode))


def test_what_is_left_out_is_counted(dirty):
    chosen = select(measured(dirty, overlong="drop"), "skip", "drop")
    assert chosen.usable == [0, 4]
    assert (chosen.skipped, chosen.dropped, chosen.cut) == (3, 1, 0)
    want = encoder()
    assert chosen.lengths == [
        len(s.prompt_ids) + len(s.target_ids) for s in (want(dirty[0]), want(dirty[4]))
    ]
    assert str(chosen).startswith(
        "2 rows to train on, 3 skipped as unusable, 1 dropped as overlong"
    )
    assert "row 2: image " in str(chosen)
    cut = select(measured(dirty, overlong="cut"), "skip", "cut")
    assert (cut.usable, cut.dropped, cut.cut) == ([0, 2, 4], 0, 1)
    assert cut.lengths[1] == 80


def test_the_order_of_shares_does_not_matter(dirty):
    """Ranks measure interleaved shares; all must select alike."""
    everything = measured(dirty, overlong="cut")
    shares = everything[::2] + everything[1::2]
    assert select(shares, "skip", "cut") == select(everything, "skip", "cut")


def test_headers_alone_do_not_find_a_damaged_image(dirty):
    """Which is why skipping decodes: a run must not meet the row later."""
    assert measured(dirty, decode=False)[1].size is not None
    assert measured(dirty, decode=True)[1].problem is not None


def test_errors_are_those_of_the_first_row(dirty):
    everything = measured(dirty)
    with pytest.raises(RowError, match="row 2: image .*cut.png cannot be read"):
        select(everything, "error", "drop")
    with pytest.raises(RowError, match="row 3: a sample must have at most"):
        select(everything, "skip", "error")
    with pytest.raises(OverlongError):
        encoder(max_length=80)(dirty[2])
    with pytest.raises(ValueError, match="must hold a row that can be used; all 1 were left out"):
        select(everything[1:2], "skip", "drop")
