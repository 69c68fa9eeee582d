"""The text-only cold start's rows, and a study that was stopped."""

import json

import pytest

from avar_fast.data import load_rows
from avar_fast.lab import vas_study
from avar_fast.lab.curriculum import Phase
from avar_fast.lab.text_only import write_text_rows
from avar_fast.lab.world import WorldConfig, write_rows


def test_text_rows_ask_the_same_and_tell_the_grid(tmp_path):
    source = write_rows(tmp_path, WorldConfig(rows=2, cols=3), "train", 20, seed=0)
    told = load_rows(str(write_text_rows(source, tmp_path / "text" / "train.jsonl")))
    for shown, row in zip(load_rows(str(source)), told, strict=True):
        assert row.images == []
        assert (row.answer, row.target) == (shown.answer, shown.target)
        (part,) = row.messages[0]["content"]
        (a, b, c), (d, e, f) = row.columns["meta"]["digits"]
        question = shown.messages[0]["content"][-1]["text"]
        assert part["text"] == f" row 1: {a} {b} {c} row 2: {d} {e} {f}\n{question}"


@pytest.fixture
def quick(monkeypatch):
    """No training and no studies; the list of what would have run."""
    ran = []

    def train(stage, out, data, seed, num_ranks):
        ran.append((stage.key, stage.start, data.parent.name))
        every = int(stage.settings[0].partition("=")[2])
        for step in (every, 2 * every):
            (out / stage.key / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
        return 1.0

    monkeypatch.setattr(vas_study, "train", train)
    monkeypatch.setattr(vas_study, "_study", lambda command, folder: ran.append(command) or "found")
    tiny = (Phase((WorldConfig(),), pool=3, count=3),)
    for name in ("CURRICULUM", "TUNE", "TEST"):
        monkeypatch.setattr(vas_study, name, tiny)
    return ran


def test_a_study_that_was_stopped_goes_on_with_the_run_that_broke_off(tmp_path, quick):
    out = tmp_path / "study"
    vas_study.main(["--out", str(out), "--ranks", "1"])
    want = [("base", "init", "base"), ("multimodal", "base", "tune")]
    want += [("text-only", "base", "text-only"), ("agto", "base", "tune")]
    assert quick[:4] == want
    compare, correlate, starts, heads = quick[4:]
    names = [part.partition("=")[0] for part in compare if "=" in part]
    assert names == ["base", "multimodal", "text-only", "agto"]
    points = [part.partition("=")[0] for part in correlate if "=" in part]
    assert points[:3] == ["base-145", "base-290", "multimodal-50"]
    assert starts[1] == f"multimodal-50={out / 'correlate' / 'results' / 'multimodal-50.json'}"
    assert len(starts) == 1 + 6
    assert heads[0] == "heads"
    assert (out / "study.md").read_text().count("found") == 4

    (out / "text-only" / "seconds.json").unlink()
    quick.clear()
    vas_study.main(["--out", str(out), "--ranks", "1"])
    assert quick[0] == ("text-only", "base", "text-only")
    assert quick[1][0] == "compare"


def test_folders_of_others_are_left_alone(tmp_path, quick):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(SystemExit, match="must be a new folder"):
        vas_study.main(["--out", str(tmp_path)])
    out = tmp_path / "study"
    vas_study.main(["--out", str(out), "--seed", "1"])
    with pytest.raises(SystemExit, match='holds a study with {"seed": 1'):
        vas_study.main(["--out", str(out), "--seed", "2"])
    assert json.loads((out / vas_study.MARKER).read_text())["seed"] == 1
