"""The demo over seeds: its page says what the numbers say, its folder is its own."""

import json
import re
import statistics

import pytest
from scipy import stats

from avar_fast.lab import demo_study
from avar_fast.lab.demo_runs import MORE, ORDER, RUNS, STEPS, WRONG
from avar_fast.lab.demo_study_page import SHOWN, write_page

pytest.importorskip("matplotlib")

LATE = {"plain": [0.10, 0.14, 0.12], "agto": [0.90, 0.95, 0.94], "slow": [0.6, 0.1, 0.9]}
"""{arm: its primary endpoint per seed}; other arms are as plain, with one exception."""


def scores(late):
    return {
        "accuracy": [late] * STEPS, "first": late, "late": late, "follows": 1 - late,
        "masses": {"text": 0.2, "visual": 0.5, "system": 0.3},
    }  # fmt: skip


def results(seeds=3):
    found = {}
    for seed in range(seeds):
        models = {}
        for key, run in RUNS.items():
            late = LATE.get(key, LATE["plain"])[seed] - 0.05 * (key == "placebo") * (seed + 1)
            models[key] = {
                "title": run.title,
                "wrong": scores(late), "absent": scores(0.5), "right": scores(1.0),
                "whole_walks": late / 2,
                "vas": {"ratio": 1.0, "log_ratio": 0.25 * seed, "share": 0.5},
            }  # fmt: skip
        interventions = {
            title: scores(0.1 + 0.1 * number + 0.01 * seed)
            for number, title in enumerate(demo_study.INTERVENTIONS)
        }
        found[seed] = {"models": models, "interventions": interventions}
    return found


def test_the_page_says_what_the_numbers_say(tmp_path):
    main = write_page(tmp_path, results(), "python -m x")
    page = (tmp_path / "demo.md").read_text()
    assert main in page
    assert (tmp_path / "img" / "demo-study.png").stat().st_size > 5_000
    assert page.startswith(
        "# Does AGTO cure a model that copies a hint?\n\n3 seeds of `python -m x`"
    )
    mean, deviation = statistics.mean(LATE["agto"]), statistics.stdev(LATE["agto"])
    assert re.search(rf"\| AGTO +\| {mean:.3f} ± {deviation:.3f} \|", page)
    differences = [a - b for a, b in zip(LATE["agto"], LATE["plain"], strict=True)]
    half = stats.t.ppf(0.975, 2) * statistics.stdev(differences) / 3**0.5
    middle = statistics.mean(differences)
    interval = f"{middle:+.3f} [{middle - half:+.3f}, {middle + half:+.3f}]"
    assert f"- AGTO: better, {interval}." in page
    assert "- plain, lr / 4: no difference shown, " in page
    assert "- placebo (text): no difference shown, -0.100 [-0.224, +0.024]." in page
    assert f"- {RUNS['plain'].title}: " not in page
    lines = page[page.index("## Without training") :]
    assert "| bias of system keys -1e4" in lines
    assert "+0.100 [+0.100, +0.100]" in lines


def test_every_arm_stands_in_the_table_once():
    assert sorted(SHOWN) == sorted(RUNS)
    assert [key for key in SHOWN if key in ORDER] == list(ORDER)


def test_finished_seeds_are_read_and_unfinished_ones_are_not(tmp_path):
    kept = results(2)
    for seed, run in kept.items():
        folder = tmp_path / f"seed-{seed + 1}"
        folder.mkdir()
        for key, model in run["models"].items():
            (folder / f"{key}.json").write_text(json.dumps(model))
        (folder / "interventions.json").write_text(json.dumps(run["interventions"]))
    (tmp_path / "seed-0-making").mkdir()
    read = demo_study.read_results(tmp_path, 5)
    assert read == {1: kept[0], 2: kept[1]}
    assert demo_study.read_results(tmp_path, 2) == {1: kept[0]}
    assert read[1]["models"]["agto"][WRONG]["late"] == LATE["agto"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--seeds", "1"], "--seeds must be at least 2"), (["--page"], "--page needs two finished")],
)
def test_too_few_seeds_are_refused(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit):
        demo_study.main(["--out", str(tmp_path), *arguments])
    assert words in capsys.readouterr().err


def test_the_settings_name_every_run_that_decides_a_result():
    runs = {run[0]: run for run in demo_study.settings()["runs"]}
    assert set(runs) == {*RUNS, MORE.key}
    assert "train.steps=200" in runs[MORE.key]


def test_a_folder_of_other_settings_is_refused(tmp_path):
    (tmp_path / demo_study.MARKER).write_text("{}")
    with pytest.raises(SystemExit, match="same settings"):
        demo_study.main(["--out", str(tmp_path), "--page"])
