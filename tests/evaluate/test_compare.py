"""Paired differences of two results against loops over resampled questions, and the page."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from avar_fast.bootstrap import Bootstrap
from avar_fast.evaluate import BenchmarkSummary, Result
from avar_fast.evaluate.__main__ import main
from avar_fast.evaluate.benchmarks import BENCHMARKS
from avar_fast.evaluate.compare import compare
from avar_fast.evaluate.prediction import Prediction
from avar_fast.evaluate.provenance import commit_of
from avar_fast.evaluate.result import write_json
from avar_fast.evaluate.table import columns_of, paper

FORMS = ("ratio", "log_ratio", "share")


def predictions(name, rights, seed=0, ids=None):
    rng = np.random.default_rng(seed)
    return [
        Prediction(
            name, str(i) if ids is None else ids[i], "x", "text", "x", bool(right), 5, False, {},
            dict(zip(FORMS, rng.uniform(0.1, 1, 3).tolist(), strict=True)), int(rng.integers(3, 9)),
        )
        for i, right in enumerate(rights)
    ]  # fmt: skip


def summary(score=0.0):
    return BenchmarkSummary(
        "t", score, {}, 1, None, 0.0, 0.0, 0, 1.0, {}, [], {}, "rule", "official", "d", "h"
    )


def result(path, *groups):
    names = dict.fromkeys(p.benchmark for group in groups for p in group)
    found = {name: summary() for name in names}
    return Result(path, {}, found, [p for group in groups for p in group])


def test_intervals_are_those_of_a_loop_over_resamples():
    rng = np.random.default_rng(7)
    rights = rng.random((2, 60)) < [[0.5], [0.7]]
    a, b = (predictions("mmstar", r, seed) for seed, r in enumerate(rights))
    found = compare(result("a", a), result("b", b), Bootstrap(0.9, 4000, 3))["benchmarks"]["mmstar"]
    draws = rng.integers(0, 60, (4000, 60))
    differences = [100 * (rights[1][d].mean() - rights[0][d].mean()) for d in draws]
    low, high = np.quantile(differences, [0.05, 0.95])
    assert found["score"]["difference"] == pytest.approx(
        100 * (rights[1].mean() - rights[0].mean())
    )
    assert found["score"]["low"] == pytest.approx(low, abs=1.7)
    assert found["score"]["high"] == pytest.approx(high, abs=1.7)
    assert found["only_a"] == (rights[0] & ~rights[1]).sum()
    assert found["only_b"] == (rights[1] & ~rights[0]).sum()
    share = found["vas"]["share"]
    for side, group in (("a", a), ("b", b)):
        total = sum(p.vas["share"] * p.num_queries for p in group)
        assert share[side] == pytest.approx(total / sum(p.num_queries for p in group))

    def vas_of(group, draw):
        drawn = [group[i] for i in draw]
        return sum(p.vas["share"] * p.num_queries for p in drawn) / sum(
            p.num_queries for p in drawn
        )

    differences = [vas_of(b, d) - vas_of(a, d) for d in draws[:1000]]
    low, high = np.quantile(differences, [0.05, 0.95])
    assert share["low"] == pytest.approx(low, abs=0.02)
    assert share["high"] == pytest.approx(high, abs=0.02)


def test_runs_that_are_the_same_differ_by_nothing_and_the_seed_settles_the_rest():
    rights = [True, False] * 20
    a, b = predictions("mmstar", rights), predictions("mmstar", rights[::-1])
    same = compare(result("a", a), result("a", a), Bootstrap())["benchmarks"]["mmstar"]["score"]
    assert same["low"] == same["high"] == 0
    one, two = (compare(result("a", a), result("b", b), Bootstrap(seed=5)) for _ in range(2))
    assert one == two
    other = compare(result("a", a), result("b", b), Bootstrap(seed=6))
    assert other["benchmarks"]["mmstar"]["score"]["low"] != pytest.approx(
        one["benchmarks"]["mmstar"]["vas"]["share"]["low"]
    )


def test_hallusion_resamples_sets_whose_tallies_add_up():
    ids = [f"VS/chart/{s}/{f}/{q}" for s in range(6) for f in (1, 2) for q in (0, 1)]
    rng = np.random.default_rng(1)
    group = predictions("hallusion", rng.random(24) < 0.7, ids=ids)
    benchmark = BENCHMARKS["hallusion"]
    clusters = {}
    for p in group:
        clusters.setdefault(benchmark.cluster(p), []).append(p)
    assert len(clusters) == 6
    total = np.sum([benchmark.tally(some) for some in clusters.values()], axis=0)
    assert total.tolist() == [list(pair) for pair in benchmark.tally(group)]
    found = compare(result("a", group), result("b", group), Bootstrap())
    score = found["benchmarks"]["hallusion"]["score"]["a"]
    assert score == pytest.approx(100 * benchmark.scores(group)["score"])


def test_the_mean_is_over_benchmarks_and_mmmu_pro_is_one():
    groups = [
        predictions("mmstar", [True] * 4),
        predictions("mmmu_pro_standard", [True, True, False, False]),
        predictions("mmmu_pro_vision", [False] * 4),
    ]
    found = compare(result("a", *groups), result("b", *groups), Bootstrap())
    assert found["overall"]["a"] == pytest.approx((100 + (50 + 0) / 2) / 2)


def test_averages_are_the_papers():
    published = paper()
    rows = [row for row in published["rows"] if set(published["columns"]) <= set(row)]
    assert len(rows) >= 10
    for row in rows:
        if "average" in row and row["model"] != "ThinkLite-VL":  # published as 53.1
            mean = sum(row[c] for c in published["columns"]) / 7
            assert mean == pytest.approx(row["average"], abs=0.051), row["model"]
    scores = {name: 0.01 * i for i, name in enumerate(BENCHMARKS)}
    columns = columns_of(scores)
    pro = (scores["mmmu_pro_standard"] + scores["mmmu_pro_vision"]) / 2
    assert columns["mmmu_pro"] == pytest.approx(100 * pro)
    seven = [v for k, v in columns.items() if k != "average"]
    assert len(seven) == 7
    assert columns["average"] == pytest.approx(sum(seven) / 7)
    del scores["mmstar"]
    assert "average" not in columns_of(scores)


def test_other_questions_are_refused():
    a, b = predictions("mmstar", [True] * 4), predictions("mmstar", [True] * 3)
    with pytest.raises(ValueError, match=r"A has 4, B 3, 3 of them in common. Use --shared"):
        compare(result("a", a), result("b", b), Bootstrap())
    assert compare(result("a", a), result("b", b), Bootstrap(), shared=True)
    with pytest.raises(ValueError, match="a benchmark in common"):
        compare(result("a", a), result("b", predictions("mmmu", [True])), Bootstrap())


HEAD = {"model": {"path": "m"}, "settings": {"style": "tags"}}


def test_command_compares_files(tmp_path, capsys):
    for name, rights in (("a", [True, False] * 4), ("b", [True] * 8)):
        group = predictions("mmstar", rights)
        head = HEAD | {"settings": {"style": "tags", "visual_scale": 1 if name == "a" else 1.15}}
        head |= {"pixels": [784, 50176 if name == "a" else 262144]}
        write_json(tmp_path / f"{name}.json", head, {"mmstar": summary()}, group)
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert main(["compare", *files, f"--out={tmp_path / 'c.json'}", "--seed=4"]) == 0
    said = capsys.readouterr().out
    assert "seed 4" in said
    assert "visual_scale: A 1, B 1.15" in said
    assert "pixels: A [784, 50176], B [784, 262144]" in said
    assert "style" not in said
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["benchmarks"]["mmstar"]["score"]["difference"] == 50
    assert main(["table", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == files
    assert any("paper: AVAR-Thinker" in line for line in lines)
    (tmp_path / "x.json").write_text('{"format": 1}')
    assert main(["compare", files[0], str(tmp_path / "x.json")]) == 1
    said = capsys.readouterr().err
    assert "must be a result" in said
    assert "its format is 1, this program reads 2" in said
    assert main(["compare", files[0], str(tmp_path / "none.json")]) == 1
    assert main(["compare", *files, "--confidence=2"]) == 1


def test_the_table_says_which_scores_do_not_compare(tmp_path, capsys):
    summaries = {
        "a": {"rows": replace(summary(), num=40), "mmstar": replace(summary(), num_published=1)},
        "b": {"rows": replace(summary(), num=2, digest="other")},
        "c": {"mmstar": replace(summary(), num_published=1500)},
    }
    for name, found in summaries.items():
        changed = {"visual_scale": 1.15} if name == "c" else {}
        write_json(tmp_path / f"{name}.json", HEAD | {"settings": changed}, found, [])
    files = [str(tmp_path / f"{name}.json") for name in summaries]
    assert main(["table", *files]) == 0
    notes = capsys.readouterr().out.split("\n\n")[1].splitlines()
    a, b, c = files
    assert notes == [
        f"rows: the questions differ ({a} has 40, {b} has 2), so the scores do not compare.",
        f"{c} has only a part of mmstar.",
        f"{c}: Attention was changed: visual_scale 1.15.",
    ]
    assert main(["table", files[0], files[0]]) == 0
    assert "\n\n" not in capsys.readouterr().out


def test_a_page_or_a_comparison_does_not_replace_a_result(tmp_path, capsys):
    result = tmp_path / "r.json"
    write_json(result, HEAD, {"mmstar": summary()}, predictions("mmstar", [True, False]))
    before = result.read_bytes()
    assert main(["page", str(result), f"--out={result}"]) == 1
    said = capsys.readouterr().err
    assert f"--out must end in .html; got {result}. Use --out {tmp_path / 'r.html'}" in said
    assert main(["compare", str(result), str(result), f"--out={result}"]) == 1
    assert "is one of the results, which would be lost. Name another." in capsys.readouterr().err
    assert result.read_bytes() == before


def test_the_commit_is_the_projects_own(tmp_path):
    """Installed into the virtual environment of another checkout it has none."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for more in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *more], check=True)
    inside = tmp_path / ".venv" / "lib"
    inside.mkdir(parents=True)
    assert len(commit_of(tmp_path)["commit"]) == 40
    assert commit_of(inside) == {"commit": None}


def test_the_page_shows_answers_as_text_whatever_they_hold(tmp_path):
    pytest.importorskip("matplotlib")
    evil = '<script>alert(1)</script><img src=x onerror="x">&amp;</pre></details>'
    said = [evil, "y" * 100_000, "<answer>B</answer>"]
    group = [
        Prediction("mmstar", evil, evil, text, evil, False, 5, False, {evil: evil}) for text in said
    ]
    head = {"model": {"path": evil}, "settings": {"system_prompt": evil}}
    write_json(tmp_path / "r.json", head, {"mmstar": summary()}, group)
    out = tmp_path / "deep" / "page.html"
    assert main(["page", str(tmp_path / "r.json"), f"--out={out}"]) == 0
    page = out.read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "(100000 characters)" in page
    assert len(page) < 50_000
