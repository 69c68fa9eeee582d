"""Runs that are killed, resumed, shared among ranks; sweeps."""

import json
import multiprocessing
import signal
import socket

import pytest

from avar_fast.evaluate import read_result
from avar_fast.evaluate.__main__ import main
from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows

NUM_ROWS = 11


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Model, rows and the result of a run without a break."""
    folder = tmp_path_factory.mktemp("runs")
    save_base(folder / "model", seed=0)
    write_rows(folder / "rows", WorldConfig(), "test", NUM_ROWS, seed=0)
    assert main(arguments(folder, folder / "whole.json")) == 0
    return folder


def arguments(folder, out, *more):
    return [
        str(folder / "model"), f"--data={folder / 'rows' / 'test.jsonl'}", f"--out={out}",
        "--dtype=float32", "--max-new-tokens=24", "--batch-size=1", *more,
    ]  # fmt: skip


RANK = """
import os, signal, sys
os.environ |= {environment!r}
sys.stderr = open({log!r}, "w", buffering=1)
import torch
torch.set_num_threads(1)
from avar_fast.evaluate import journal
from avar_fast.evaluate.__main__ import main

lines, add = [], journal.Journal.add
def add_and_be_killed(self, value):
    add(self, value)
    lines.extend([value] if "predictions" in value else [])
    if len(lines) == {killed_after}:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.add = add_and_be_killed
sys.exit(main({given!r}))
"""


@pytest.fixture(scope="module")
def start():
    """Starts ranks as torchrun does, from a server that has imported everything once; returns their
    exit codes and what rank 0 wrote to stderr."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avar_fast.evaluate.__main__", "avar_fast.models.qwen2_5_vl"])

    def started(folder, given, ranks=1, killed_after=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        processes = []
        for rank in range(ranks):
            environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            log = str(folder / f"rank{rank}.log")
            code = RANK.format(
                environment=environment, log=log, given=given, killed_after=killed_after
            )
            processes.append(context.Process(target=exec, args=(code, {})))
            processes[-1].start()
        for process in processes:
            process.join(120)
        return [process.exitcode for process in processes], (folder / "rank0.log").read_text()

    return started


def test_killed_on_one_rank_and_resumed_on_two_it_is_the_same_run(world, tmp_path, start):
    out, parts = tmp_path / "result.json", tmp_path / "result.json.parts"
    given = arguments(world, out)
    codes, _ = start(tmp_path, given, killed_after=2)
    assert codes == [-signal.SIGKILL]
    assert not out.exists()
    file = parts / "rank-0.jsonl"
    done = file.read_bytes()
    held = sum(len(json.loads(line)["predictions"]) for line in done.split(b"\n")[:-1])
    assert held == 8, "two chunks of four"
    file.write_bytes(done + b'{"benchmark": "rows", "predic')  # as a kill within a write leaves it

    codes, said = start(tmp_path, given, ranks=2)
    assert codes == [0, 0], said
    assert f"0/{(NUM_ROWS - held + 1) // 2} " in said, "rank 0 takes half of what is left"
    want, got = read_result(world / "whole.json"), read_result(out)
    assert got.head["ranks"] == 2
    assert not parts.exists()
    assert [p.id for p in got.predictions] == [p.id for p in want.predictions]
    for a, b in zip(got.predictions, want.predictions, strict=True):
        assert (a.completion, a.parsed, a.right) == (b.completion, b.parsed, b.right)
        assert a.vas == pytest.approx(b.vas, rel=1e-4)
    table, wanted = (r.benchmarks["rows"].vas_table["share"] for r in (got, want))
    for row, other in zip(table, wanted, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def test_a_rank_may_have_no_question(world, tmp_path, start):
    codes, said = start(tmp_path, arguments(world, tmp_path / "r.json", "--limit=1"), ranks=2)
    assert codes == [0, 0], said
    (prediction,) = read_result(tmp_path / "r.json").predictions
    assert prediction.completion == read_result(world / "whole.json").predictions[0].completion


def test_other_settings_are_not_mixed_into_a_run(world, tmp_path, capsys):
    out = tmp_path / "result.json"
    parts = tmp_path / "result.json.parts"
    whole = read_result(world / "whole.json")
    parts.mkdir()
    (parts / "settings.json").write_text(json.dumps(whole.head["identity"]))
    (parts / "rank-0.jsonl").write_text('{"benchmark": "rows", "predictions": [], "vas": {}}\n')
    assert main(arguments(world, out, "--visual-scale=1.5")) == 1
    said = capsys.readouterr().err
    assert "visual_scale = 1.0; this run has 1.5" in said
    assert main([*arguments(world, out), "--limit=3"]) == 1
    assert "data.rows" in capsys.readouterr().err
    (parts / "rank-0.jsonl").unlink()
    given = [*arguments(world, out), "--limit=1", "--max-new-tokens=2"]
    assert main(given) == 0, "a run that ended before its first prediction binds nobody"


def test_a_sweep_goes_on_where_it_was_left(world, tmp_path, capsys):
    given = ["sweep", *arguments(world, tmp_path), "--limit=2", "--visual-scale=1,1.5"]
    given += ["--system-scale=1,0.6", "--max-new-tokens=2"]
    assert main(given) == 0
    table = capsys.readouterr().out
    written = json.loads((tmp_path / "sweep.json").read_text())
    points = written["points"]
    assert [p["point"] for p in points] == [
        {"visual_scale": v, "system_scale": s} for v in (1, 1.5) for s in (1, 0.6)
    ]
    shares = [p["vas"]["rows"]["share"] for p in points]
    assert len(set(shares)) == 4
    kept = tmp_path / "visual_scale=1,system_scale=0.6.json"
    before = kept.stat().st_mtime_ns
    (tmp_path / "visual_scale=1.5,system_scale=1.json").unlink()
    assert main(given) == 0
    assert kept.stat().st_mtime_ns == before
    assert capsys.readouterr().out == table
    assert main([*given, "--max-new-tokens=3"]) == 1
    assert "max_new_tokens = 2; this run has 3" in capsys.readouterr().err


def test_a_sweep_names_what_all_its_points_share(world, tmp_path, capsys):
    given = ["sweep", *arguments(world, tmp_path), "--limit=1", "--visual-scale=1,1.5"]
    given += ["--max-new-tokens=1", "--form=weights", "--layers=0-1"]
    assert main(given) == 0
    told = "Attention was changed: layers [0, 1], form weights."
    settings = json.loads((tmp_path / "sweep.json").read_text())["settings"]
    assert (settings["form"], settings["layers"]) == ("weights", [0, 1])
    assert "visual_scale" not in settings
    assert capsys.readouterr().out.endswith(f"\n\n{told}\n")
    assert (tmp_path / "sweep.md").read_text().endswith(f"\n\n{told}\n")


def test_an_intervention_changes_what_is_said_and_its_layers_count(world, tmp_path, capsys):
    outs = [tmp_path / f"{i}.json" for i in range(3)]
    flags = ([], ["--visual-bias=8"], ["--visual-bias=8", "--layers=0-1,3"])
    for out, more in zip(outs, flags, strict=True):
        given = arguments(world, out, "--limit=3", "--max-new-tokens=8", "--batch-size=3")
        assert main([*given, *more]) == 0
        assert ("Attention was changed: visual_bias 8" in capsys.readouterr().out) == bool(more)
    plain, all_layers, some = (read_result(out) for out in outs)
    assert some.head["settings"]["layers"] == [0, 1, 3]
    assert some.head["pixels"] == [784, 50176]  # those of the lab's image processor
    said = [[p.completion for p in r.predictions] for r in (plain, all_layers)]
    assert said[0] != said[1]
    shares = [r.benchmarks["rows"].vas["share"] for r in (plain, some, all_layers)]
    assert shares[0] < shares[1] < shares[2]
    tables = [r.benchmarks["rows"].vas_table["share"] for r in (plain, some, all_layers)]
    assert tables[1][2] != pytest.approx(tables[2][2], rel=1e-3), "layer 2 is left alone"
