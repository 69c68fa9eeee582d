"""The tables of the walk study, and its page, also of a study that is unfinished."""

import json
import math

import pytest

from avar_fast.lab import walk_study
from avar_fast.lab.dose import DOSES
from avar_fast.lab.study_folder import enter_folder
from avar_fast.lab.walk_arms import ARMS, TOWERS, settings, setup
from avar_fast.lab.walk_study_report import write_page
from avar_fast.lab.walk_study_tables import correlations, difference_over_bases, findings

RUNS = {arm.key: arm for arm in ARMS}
TITLES = {arm.key: arm.title for arm in ARMS}


def test_a_correlation_between_arms_need_not_be_one_within():
    """Two arms at (0, 0) and (10, 10); within each, more score is less accuracy."""
    scores, late = [[-1.0, 1.0], [9.0, 11.0]], [[1.0, -1.0], [11.0, 9.0]]
    overall, between, within = correlations(scores, late)
    assert between == pytest.approx(1)
    assert within == pytest.approx(-1)
    assert overall == pytest.approx((100 - 4) / (100 + 4))


def test_a_constant_column_has_no_correlation():
    overall, between, within = correlations([[1.0, 1.0], [2.0, 2.0]], [[0.1, 0.2], [0.3, 0.4]])
    assert overall == pytest.approx(0.2 / math.sqrt(0.05))
    assert between == pytest.approx(1)
    assert math.isnan(within)
    assert all(map(math.isnan, correlations([[1.0, 1.0]] * 2, [[0.1, 0.2], [0.3, 0.4]])))


def result(late):
    scores = dict.fromkeys(
        (
            *("late_accuracy", "first_accuracy", "follows_rule", "margin", "visual_mass"),
            *("blind_accuracy", "reliance", "prior_accuracy", "prior_blind_accuracy"),
            *("prior_reliance", "accuracy_0", "accuracy_1"),
            *(f"vas_{role}_{form}" for role in ("user", "response") for form in ("ratio", "share")),
            *(f"vas_{role}_log_ratio" for role in ("user", "response")),
        ),
        late,
    )
    names = ("late_accuracy", "first_accuracy", "follows_rule", "visual_mass")
    doses = [{name: late + number / 100 for name in names} for number in range(len(DOSES))]
    return {"scores": scores, "log": {"lm_loss": [9.0, 1.0] + [0.5] * 20}, "doses": doses}


def test_the_page_compares_each_arm_with_plain(tmp_path):
    """Plain .2 and .4, ceiling .6 higher, enhance .3 and .1 higher: half the gap is .2 of .6."""
    late = {key: [0.3, 0.5] for key in RUNS} | {
        "plain": [0.2, 0.4],
        "ceiling": [0.8, 1.0],
        "enhance": [0.5, 0.5],
    }
    results = {
        tower: {
            key: {(base, 0): result(value) for base, value in enumerate(late[key])} for key in keys
        }
        for tower, keys in TOWERS.items()
    }
    table = write_page(tmp_path, TITLES, results, setup(), "the command")
    (line,) = (line for line in table.splitlines() if TITLES["enhance"] in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    half_width = 12.7062 * (0.2 / math.sqrt(2)) / math.sqrt(2)  # t of one degree of freedom
    assert cells[1:3] == ["2", "0.500 \u00b1 0.000"]
    assert cells[3] == f"+0.200 [{0.2 - half_width:+.3f}, {0.2 + half_width:+.3f}]"
    assert cells[4] == "33%"
    assert cells[-1] == "0.500 \u00b1 0.000"
    page = (tmp_path / "walk-study.md").read_text()
    assert table in page
    assert "the command" in page
    assert "| +0.300 | +0.100 | +0.200 [" in page  # enhance by base model
    assert "ceiling): better, +0.600 [+0.600, +0.600]; over base models better, +0.600" in page
    assert f"- {TITLES['enhance']}: no difference shown, +0.200" in page
    for picture in ("arms", "steps", "scores", "doses"):
        assert f"img/walk-study-{picture}.png" in page
        assert (tmp_path / "img" / f"walk-study-{picture}.png").read_bytes()[:4] == b"\x89PNG"


def test_more_seeds_of_the_same_base_models_do_not_narrow_the_interval_over_base_models():
    """Base 0 gains .1 in every seed, base 1 gains .3. Means .1 and .3: mean .2, deviation .1414; t
    of one degree of freedom 12.7062, so the half width is 12.7062 * .1414 / sqrt(2) = 1.2706."""
    plain = {(base, seed): result(0.2 + seed / 10) for base in (0, 1) for seed in range(5)}
    gains = {(0, seed): 0.1 for seed in range(5)} | {(1, seed): 0.3 for seed in range(5)}
    arm = {pair: result(plain[pair]["scores"]["late_accuracy"] + gains[pair]) for pair in plain}
    arms = {"plain": plain, "enhance": arm}
    of_bases = difference_over_bases(arm, plain)
    assert f"{of_bases:+.3f}" == "+0.200 [-1.071, +1.471]"
    (line,) = findings(TITLES, arms)
    assert "enhance only, response, 0.15: better, +0.200 [+0.125, +0.275]; over base" in line
    assert line.endswith("over base models no difference shown, +0.200 [-1.071, +1.471].")
    one = {pair: plain[pair] for pair in plain if pair[0] == 0}
    assert difference_over_bases(arm, one) is None


def write_results(out, tower, keys, pairs):
    for base, seed in pairs:
        folder = out / f"{tower}-{base}" / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for key in keys:
            (folder / f"{key}.json").write_text(json.dumps(result(base + seed / 10)))


def test_the_page_of_an_unfinished_study_has_what_is_finished(tmp_path, capsys):
    """Two pairs are whole, a third has one arm, and the control has not begun."""
    enter_folder(tmp_path, walk_study.MARKER, settings())
    write_results(tmp_path, "scarce", RUNS, [(0, 0), (1, 0)])
    write_results(tmp_path, "scarce", ["plain"], [(2, 0)])
    walk_study.main(["--out", str(tmp_path), "--page"])
    counts = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert sorted(counts) == ["2"] * (len(RUNS) - 1) + ["3"]
    assert "No run of it is finished" in (tmp_path / "walk-study.md").read_text()
    write_results(tmp_path, "plenty", ["plain"], [(0, 0), (1, 0)])
    with pytest.raises(
        SystemExit, match=r"plenty tower must have two finished runs.*ceiling \(0\)"
    ):
        walk_study.main(["--out", str(tmp_path), "--page"])


def test_an_arm_that_is_ahead_of_plain_is_compared_where_both_are_finished(tmp_path):
    """AGTO has runs of pairs that plain or the ceiling lack. It gains .1 wherever plain has a run;
    of the gap, .4, that is a quarter. The pair (2, 0), far above, counts in the mean alone."""
    pairs = [(0, 0), (1, 0)]
    arms = {
        key: {pair: result(0.2 + pair[0] / 10 + {"ceiling": 0.4}.get(key, 0.0)) for pair in pairs}
        for key in RUNS
    }
    arms["enhance"] = {pair: result(0.3 + pair[0] / 10) for pair in pairs}
    arms["enhance"][2, 0] = result(0.9)
    table = write_page(tmp_path, TITLES, {"scarce": arms}, setup(), "the command")
    (line,) = (line for line in table.splitlines() if TITLES["enhance"] in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == "3"
    assert cells[3:5] == ["+0.100 [+0.100, +0.100]", "25%"]
    page = (tmp_path / "walk-study.md").read_text()
    assert f"({2 * len(RUNS)} runs)" in page  # of the pairs that every arm has


def test_runs_that_share_no_pairs_are_one_clear_error(tmp_path):
    enter_folder(tmp_path, walk_study.MARKER, settings())
    write_results(tmp_path, "scarce", RUNS.keys() - {"slow"}, [(0, 0), (1, 0), (2, 0)])
    write_results(tmp_path, "scarce", ["slow"], [(0, 1), (1, 0), (2, 1)])
    with pytest.raises(SystemExit, match="two bases and seeds of the scarce tower must have"):
        walk_study.main(["--out", str(tmp_path), "--page"])
