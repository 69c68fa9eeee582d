"""Packs and their order: nothing lost, nothing cut, nearly full, the same on every rank."""

import pickle
import random

import pytest
import torch

from avar_fast.data import (
    Feed,
    PackOrder,
    RowError,
    RowOrder,
    RowProblem,
    SampleStream,
    load_rows,
    measure_rows,
)
from avar_fast.data.order import MAX_OPEN, best_fit
from avar_fast.data.problems import MissingImageError

from .samples import WITH_WORKERS, collator, encoder

pytestmark = WITH_WORKERS


def lengths_like_real_ones(count, seed=0):
    """Long-tailed, between 100 and 4000, as reasoning traces are."""
    rng = random.Random(seed)
    return [min(4000, 100 + int(rng.lognormvariate(6.5, 0.8))) for _ in range(count)]


def test_packs_hold_every_row_once_within_the_capacity_and_are_nearly_full():
    lengths = lengths_like_real_ones(3000)
    packs = best_fit(lengths, 8192)
    assert sorted(i for pack in packs for i in pack) == list(range(3000))
    assert all(sum(lengths[i] for i in pack) <= 8192 for pack in packs)
    assert len(packs) <= 1.03 * sum(lengths) / 8192 + 1


def test_best_fit_takes_the_pack_with_least_room():
    # 6 and 7 open packs with rooms 4 and 3; 3 fits both and goes to the fuller; 4 to the other.
    assert best_fit([6, 7, 3, 4], 10) == [[0, 3], [1, 2]]
    assert best_fit([10, 1], 10) == [[0], [1]]
    with pytest.raises(ValueError, match="data.pack_length = 10 tokens; one has 11"):
        best_fit([11], 10)


def test_rows_in_order_stay_near_their_place():
    """Without shuffle a curriculum keeps its order: only so many packs wait for a small row."""
    lengths = [600] * (MAX_OPEN * 3) + [400] * (MAX_OPEN * 3)
    packs = best_fit(lengths, 1000)
    first_of_late = min(i for i, pack in enumerate(packs) if pack[-1] >= MAX_OPEN * 3)
    assert first_of_late >= MAX_OPEN * 2


def test_epochs_differ_and_are_a_function_of_the_seed():
    lengths = lengths_like_real_ones(200)
    order = PackOrder(range(200), lengths, 8192, seed=3)
    sizes = [len(order.packs(epoch)) for epoch in range(3)]
    dealt = [order(position) for position in range(sum(sizes))]
    for epoch in range(3):
        start = sum(sizes[:epoch])
        mine = dealt[start : start + sizes[epoch]]
        assert sorted(i for pack in mine for i in pack) == list(range(200))
    assert dealt[: sizes[0]] != dealt[sizes[0] : sum(sizes[:2])]
    # Anew, from the middle, as a resumed run asks: the same packs.
    again = PackOrder(range(200), lengths, 8192, seed=3)
    for position in (sum(sizes) - 1, sizes[0], 0, sizes[0] + 1):
        assert again(position) == dealt[position]
    other = PackOrder(range(200), lengths, 8192, seed=4)
    assert [other(p) for p in range(sizes[0])] != dealt[: sizes[0]]


def test_rows_left_out_are_never_dealt():
    order = PackOrder([1, 5, 7], [4, 4, 4], 8, seed=0)
    dealt = [order(position) for position in range(6)]
    assert {i for pack in dealt for i in pack} == {1, 5, 7}
    single = RowOrder([1, 5, 7], seed=0)
    assert sorted(i for p in range(3) for i in single(p)) == [1, 5, 7]


def test_ranks_share_the_packs_of_a_step_and_have_the_same_number(rows):
    order = PackOrder(range(5), [40, 39, 38, 20, 41], 90, seed=0)
    whole = SampleStream(rows, encoder(), order, 4)
    halves = [SampleStream(rows, encoder(), order, 4, rank=r, world_size=2) for r in range(2)]
    for step in range(4):
        parts = [half.units(step) for half in halves]
        assert len(parts[0]) == len(parts[1]) == 2
        assert sorted(parts[0] + parts[1]) == sorted(whole.units(step))


def test_a_run_goes_on_with_other_ranks_and_batches_where_it_was(rows):
    """Two steps of 4 on two ranks, then steps of 3 on three: every row once an epoch."""
    order = RowOrder(range(5), seed=0)
    before = [SampleStream(rows, encoder(), order, 4, rank=r, world_size=2) for r in range(2)]
    start = (2, before[0].position(2))
    after = [
        SampleStream(rows, encoder(), order, 3, rank=r, world_size=3, start=start) for r in range(3)
    ]
    dealt = []
    for step in range(6):
        shares = [stream.units(step) for stream in (before if step < 2 else after)]
        dealt += [unit for units in zip(*shares, strict=True) for unit in units]
    assert dealt == [order(position) for position in range(20)]
    assert after[0].position(6) == 20


def texts(samples):
    return [(s.row.where, s.prompt_ids.tolist()) for s in samples]


def feed_of(rows, workers, first_step=0, size=1):
    stream = SampleStream(rows, encoder(), RowOrder(range(len(rows)), 1), 4)
    return Feed(stream, size, texts, first_step, 4, workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_random_state_of_a_run_is_left_alone(rows, workers):
    """DataLoader draws from the global generator as it starts, which shifted a resumed run."""
    before = torch.get_rng_state()
    feed_of(rows, workers).next_step()
    list(measure_rows(rows, encoder(), range(2), workers, decode=False))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_and_resuming_change_nothing(rows):
    feeds = [feed_of(rows, workers) for workers in (0, 1, 2)]
    steps = [[feed.next_step() for _ in range(4)] for feed in feeds]
    assert steps[0] == steps[1] == steps[2]
    assert [len(items) for items in steps[0]] == [4] * 4
    later = feed_of(rows, 2, first_step=2)
    assert [later.next_step(), later.next_step()] == steps[0][2:]
    wider = feed_of(rows, 2, size=2)
    assert wider.next_step() == [a + b for a, b in (steps[0][0][:2], steps[0][0][2:])]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_row_stops_with_its_own_message(rows, tmp_path, workers):
    (tmp_path / "2.png").write_bytes(b"no image")
    feed = feed_of(load_rows(str(tmp_path / "rows.jsonl")), workers)
    with pytest.raises(RowError) as caught:
        [feed.next_step() for _ in range(4)]
    assert str(caught.value).startswith(f"{tmp_path / 'rows.jsonl'} row 3: image ")
    assert "Traceback" not in str(caught.value)


def test_micro_batches_must_divide_the_share_of_a_rank(rows):
    with pytest.raises(ValueError, match="multiple of train.micro_batch_size; got 4 and 3"):
        feed_of(rows, 0, size=3)


def test_what_workers_are_given_can_be_pickled(rows):
    """Where processes are spawned, as on some systems and by default from Python 3.14 on."""
    from avar_fast.attention import SpecialTokens
    from tests.attention.tiny_models import TOKENIZER, models

    collate = collator(models()[0], SpecialTokens.from_processor(TOKENIZER))
    order = PackOrder(range(len(rows)), [40] * len(rows), 100, 0)
    stream = SampleStream(rows, encoder(), order, 1)
    again, pack = pickle.loads(pickle.dumps((stream, collate.pack)))
    got, want = pack(again.samples(0)), collate.pack(stream.samples(0))
    assert torch.equal(got.inputs["input_ids"], want.inputs["input_ids"])
    error = pickle.loads(
        pickle.dumps(MissingImageError(RowProblem("row 1", "image", "exist", "no")))
    )
    assert isinstance(error, FileNotFoundError)
    assert str(error) == "row 1: image must exist; no."
