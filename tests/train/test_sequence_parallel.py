"""Rows shared by ranks (DeepSpeed-Ulysses) compute what one rank computes: kernels to trainer."""

import json
import threading

import pytest
import torch

from avar_fast.attention import split_sequence
from avar_fast.config import load_recipe
from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.train.sequence_parallel import SequenceParallel
from tests.attention.caches import cache_in, given
from tests.attention.tiny_models import models

from .runs import launch, log_of, on_ranks

PACKED = {"packing": True, "max_length": 100, "pack_length": 211}
# name: (settings, the run of one rank to compare with)
RUNS = {
    "zero1": ({"engine": {"zero_stage": 1}}, "one"),
    "zero2_packed": ({"engine": {"zero_stage": 2}, "data": PACKED}, "one_packed"),
    "zero3": (
        {"engine": {"zero_stage": 3}, "model": {"gradient_checkpointing": True}},
        "one",
    ),
    "zero3_packed": ({"engine": {"zero_stage": 3}, "data": PACKED}, "one_packed"),
}
CASES = (
    "qwen2_5_vl",
    "qwen2_5_vl_packed",
    "qwen2_5_vl_checkpointed",
    "one_key_head",
    "qwen3_vl",
    "qwen3_vl_packed",
    "qwen2_vl",
)


class Threads(SequenceParallel):
    """Ranks that are threads, for groups larger than a test can start processes for."""

    def __init__(self, size, rank, mail, barrier):
        self.size, self.rank, self.mail, self.barrier = size, rank, mail, barrier

    def _all_to_all(self, parts):
        self.barrier.wait(timeout=60)  # all have read what was there
        self.mail[self.rank] = parts
        self.barrier.wait(timeout=60)
        return torch.stack([sent[self.rank] for sent in self.mail])


def on_threads(size, work):
    """What ``work(sequence)`` returns on each of ``size`` ranks."""
    mail, barrier, results = [None] * size, threading.Barrier(size), [None] * size

    def run(rank):
        results[rank] = work(Threads(size, rank, mail, barrier))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


@pytest.mark.parametrize(
    ("size", "heads", "key_heads", "length"),
    [(2, 4, 2, 9), (4, 8, 2, 3), (4, 8, 8, 16), (7, 28, 4, 23), (6, 12, 4, 1), (3, 3, 1, 7)],
)
def test_every_rank_gets_its_heads_with_their_key_heads_and_its_tokens_back(
    size, heads, key_heads, length
):
    """Also where key heads are fewer than ranks or no multiple of them, and where some ranks hold
    no token at all."""
    torch.manual_seed(0)
    q = torch.randn(2, length, heads, 5)
    k, v = torch.randn(2, 2, length, key_heads, 5)

    def work(sequence):
        own = [sequence.split(x, 1) for x in (q, k, v)]
        whole = sequence.to_heads(*own, length)
        return whole, own[0], sequence.to_tokens(whole[0])

    share = heads // size
    for rank, (whole, stretch, back) in enumerate(on_threads(size, work)):
        mine = range(rank * share, (rank + 1) * share)
        assert torch.equal(whole[0], q[:, :, mine])
        per_key = share // whole[1].shape[2]
        for place, head in enumerate(mine):
            key_head = head // (heads // key_heads)
            assert torch.equal(whole[1][:, :, place // per_key], k[:, :, key_head])
            assert torch.equal(whole[2][:, :, place // per_key], v[:, :, key_head])
        assert torch.equal(back, stretch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trained for three steps on two ranks that share rows, and on one; with what the ranks found
    in single steps, case by case."""
    folder = tmp_path_factory.mktemp("runs")
    save_base(folder / "model", seed=0)
    write_rows(folder / "rows", WorldConfig(), "train", num_rows=12, seed=0)
    alone = {"one": {}, "one_packed": {"data": PACKED}}
    shared = {name: changes for name, (changes, _) in RUNS.items()}
    for name, changes in (alone | shared).items():
        recipe = {
            "stage": "sft",
            "model": {"path": str(folder / "model"), "dtype": "float32"},
            "data": {"path": str(folder / "rows" / "train.jsonl"), "workers": 0},
            "optim": {"lr": 1e-3},
            "train": {"output_dir": str(folder / name), "steps": 3, "batch_size": 2},
            "agto": {"enabled": True, "alpha": 0.01, "beta": 0.01},
            "engine": {"sequence_parallel": 2 if name in RUNS else 1},
            "eval": {
                "path": str(folder / "rows" / "train.jsonl"),
                "limit": 3,
                "every": 2,
                "max_new_tokens": 2,
            },
        }
        for section, values in changes.items():
            recipe[section] = recipe.get(section, {}) | values
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    launch([folder / f"{name}.yaml" for name in alone], ranks=1)
    recipes = json.dumps([str(folder / f"{name}.yaml") for name in shared])
    on_ranks(["tests.train.sequence_worker", str(folder / "differences.json"), recipes], ranks=2)
    return folder


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_find_the_loss_masses_and_gradients_of_one(runs, rank, case):
    found = json.loads((runs / "differences.json").read_text())[rank][case]
    assert found["loss"] < 1e-6, found
    assert found["mass"] < 1e-6, found
    assert found["gradient"] < 1e-4, found


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_shares_rows_is_that_of_one_rank(runs, name):
    got, want = log_of(runs / name), log_of(runs / RUNS[name][1])
    assert [line["step"] for line in got] == [1, 2, 3]
    for a, b in zip(got, want, strict=True):
        assert (a["samples"], a["agto_samples"]) == (b["samples"], b["agto_samples"])
        for key in ("loss", "lm_loss", "agto_enhance", "grad_norm", "vas_ratio", "vas_log_ratio"):
            assert a[key] == pytest.approx(b[key], rel=5e-4), key
        key = "vas_share_by_layer"
        assert a[key] == pytest.approx(b[key], rel=5e-4), key
    for key in ("eval_loss", "eval_vas_log_ratio"):  # rows of their own for a while, then shared
        for step in (1, 2):
            assert got[step][key] == pytest.approx(want[step][key], rel=5e-4), key


def test_sizes_that_do_not_divide_are_said(monkeypatch, runs):
    model = models()[0]  # 4 heads
    with pytest.raises(ValueError, match="must divide the text tower's 4 attention heads; got 3"):
        split_sequence(model, Threads(3, 0, [], None))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    with pytest.raises(ValueError, match="must divide the number of ranks; got 3 for 4 ranks"):
        SequenceParallel(3)
    for override, words in (
        ("engine.sequence_parallel=0", "engine.sequence_parallel must be positive"),
        ("stage=grpo", "engine.sequence_parallel must be 1 in stage grpo"),
    ):
        with pytest.raises(ValueError, match=words):
            load_recipe(runs / "zero1.yaml", [override, "agto.enabled=false"])


def test_a_split_model_refuses_a_cache_and_its_text_tower_alone():
    model = models()[0]
    split_sequence(model, Threads(1, 0, [None], threading.Barrier(1)))
    ids = torch.arange(7)[None]
    cache = cache_in(model(input_ids=ids, use_cache=True))
    with pytest.raises(ValueError, match="works without a cache of keys"):
        model(input_ids=ids, **given(model, cache))
    with pytest.raises(RuntimeError, match="its text tower was called alone"):
        model.model.language_model(input_ids=ids)
