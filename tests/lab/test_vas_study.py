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


STARTS = ("multimodal", "text-only", "agto")


@pytest.fixture
def quick(monkeypatch):
    """No training and no studies; the list of what would have run. AGTO's log ratio rises by 2 with
    seed 0 and by 4 with seed 1."""
    ran = []

    def train(run, out, data, seed, num_ranks):
        ran.append((out.name, run.key, run.start, data.parent.name, seed))
        every = int(run.settings[0].partition("=")[2])
        for step in (every, 2 * every):
            (out / run.key / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
        return 1.0

    def study(command, folder):
        ran.append(command)
        folder.mkdir(parents=True, exist_ok=True)
        names = [part.partition("=")[0] for part in command if "=" in part]
        rise = 4.0 if folder.parent.name == "seed-1" else 2.0
        shifts = [
            {
                "name": name,
                "verdict": "looks more" if name == "agto" else "lazy",
                "overall": {
                    "log_ratio": {"value": rise if name == "agto" else 0.0},
                    "share": {"value": 0.25},
                },
            }
            for name in STARTS
        ]
        points = [{"name": name, "accuracy": 0.5 + 0.25 * ("#1-" in name)} for name in names]
        (folder / f"{command[0]}.json").write_text(json.dumps({"shifts": shifts, "points": points}))
        return "found"

    monkeypatch.setattr(vas_study, "train", train)
    monkeypatch.setattr(vas_study, "_study", study)
    tiny = (Phase((WorldConfig(),), pool=3, count=3),)
    for name in ("CURRICULUM", "TUNE", "TEST"):
        monkeypatch.setattr(vas_study, name, tiny)
    return ran


def test_a_study_that_was_stopped_goes_on_with_the_run_that_broke_off(tmp_path, quick):
    out = tmp_path / "study"
    options = ["--out", str(out), "--ranks", "1", "--seeds", "2"]
    vas_study.main(options)
    want = [("study", "base", "init", "base", 0)]
    for seed in (0, 1):
        want += [
            (f"seed-{seed}", key, "base", "text-only" if key == "text-only" else "tune", seed)
            for key in STARTS
        ]
    assert quick[:7] == want
    first, second, correlate, starts, heads = quick[7:]
    for compare in (first, second):
        assert [part.partition("=")[0] for part in compare if "=" in part] == ["base", *STARTS]
    assert first[3] == f"text-only={out / 'seed-0' / 'text-only' / 'latest'}"
    points = [part.partition("=")[0] for part in correlate if "=" in part]
    first_run = ["base-145", "base-290", "multimodal#0-50", "multimodal#0-100"]
    assert points[:5] == [*first_run, "multimodal#1-50"]
    results = out / "correlate" / "results"
    assert starts[1] == f"multimodal#0-50={results / 'multimodal#0-50.json'}"
    assert len(points) == 2 + 12
    assert len(starts) == 1 + 12
    assert heads[0] == "heads"

    (out / "seed-1" / "text-only" / "seconds.json").unlink()
    quick.clear()
    vas_study.main(options)
    assert quick[0] == ("seed-1", "text-only", "base", "text-only", 1)
    assert quick[1][0] == "compare"


def test_the_page_tells_what_seeds_agree_on(tmp_path, quick):
    out = tmp_path / "study"
    vas_study.main(["--out", str(out), "--seeds", "2"])
    page = (out / "study.md").read_text()
    assert page.count("found") == 2 + 2 + 1
    (line,) = (line for line in page.splitlines() if line.startswith("| agto"))
    cells = [cell.strip() for cell in line.split("|")]
    deviation = 2**0.5
    assert cells[2:5] == [f"3.000 ± {deviation:.3f}", "0.250 ± 0.000", "0.625 ± 0.177"]
    assert cells[5] == "looks more, looks more"
    digits = [(out / f"seed-{seed}" / "data" / "tune" / "train.jsonl") for seed in (0, 1)]
    assert digits[0].read_text() != digits[1].read_text()


def test_folders_of_others_are_left_alone(tmp_path, quick):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(SystemExit, match="must be a new folder"):
        vas_study.main(["--out", str(tmp_path)])
    out = tmp_path / "study"
    vas_study.main(["--out", str(out), "--ranks", "1"])
    with pytest.raises(SystemExit, match="holds a study with other ranks"):
        vas_study.main(["--out", str(out), "--ranks", "2"])
    assert json.loads((out / vas_study.MARKER).read_text())["ranks"] == 1
    with pytest.raises(SystemExit):
        vas_study.main(["--out", str(out), "--seeds", "1"])
