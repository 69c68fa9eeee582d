"""Correlations against their formulas, and the reader of evaluations."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from avar_fast.evaluate.settings import differing_settings
from avar_fast.studies.correlate import PAPER, correlate, spearman
from avar_fast.studies.plots import kind_of
from avar_fast.studies.points import (
    Point,
    point_of,
    read_point,
    require_same_questions,
)

VAS = {"ratio": 2.0, "log_ratio": 0.5, "share": 0.6}


def points(scores, accuracies):
    return [
        Point(f"p{i}", a, {"ratio": math.exp(s), "log_ratio": s, "share": 1 / (1 + math.exp(-s))})
        for i, (s, a) in enumerate(zip(scores, accuracies, strict=True))
    ]


def by_form(found):
    return {one.form: one for one in found}


def test_pearson_and_its_interval_follow_the_formulas():
    rng = np.random.default_rng(0)
    x = rng.normal(size=14)
    y = 0.5 + 0.1 * x + 0.1 * rng.normal(size=14)
    got = by_form(correlate(points(x, y), confidence=0.9))["log_ratio"].pearson
    r = np.corrcoef(x, y)[0, 1]
    reach = 1.6448536 / math.sqrt(14 - 3)
    assert got.value == pytest.approx(r)
    assert got.low == pytest.approx(math.tanh(math.atanh(r) - reach))
    assert got.high == pytest.approx(math.tanh(math.atanh(r) + reach))
    shuffled = [abs(np.corrcoef(x, rng.permutation(y))[0, 1]) >= abs(r) for _ in range(4000)]
    assert got.p == pytest.approx(np.mean(shuffled), abs=0.01)


def test_spearman_depends_on_ranks_alone():
    rng = np.random.default_rng(1)
    x = rng.normal(size=12)
    y = x + rng.normal(size=12)
    found = by_form(correlate(points(x, y)))
    ranks = [np.argsort(np.argsort(v)) for v in (x, y)]
    rho = np.corrcoef(*ranks)[0, 1]
    for form in ("ratio", "log_ratio", "share"):  # one order in three forms
        assert found[form].spearman.value == pytest.approx(rho)
    spearman = found["ratio"].spearman
    reach = 1.9599640 * math.sqrt((1 + rho**2 / 2) / 9)
    assert spearman.low == pytest.approx(math.tanh(math.atanh(rho) - reach))
    assert found["ratio"].pearson.value != pytest.approx(found["log_ratio"].pearson.value)


def test_the_paper_s_n_is_that_of_its_r_and_p():
    rng = np.random.default_rng(2)
    x, noise = rng.normal(size=(2, PAPER["n"]))
    x, noise = ((v - v.mean()) / v.std() for v in (x, noise))
    noise -= x * (x @ noise) / len(x)
    noise /= noise.std()
    y = PAPER["pearson"] * x + math.sqrt(1 - PAPER["pearson"] ** 2) * noise
    got = by_form(correlate(points(x, 0.5 + 0.1 * y)))["log_ratio"].pearson
    assert got.value == pytest.approx(PAPER["pearson"])
    assert got.p == pytest.approx(PAPER["p"], rel=0.02)


def test_three_points_say_nothing_of_the_interval_and_perfect_order_is_no_error():
    got = by_form(correlate(points([1.0, 2.0, 3.0], [0.1, 0.3, 0.2])))["share"]
    assert (got.pearson.low, got.pearson.high) == (-1.0, 1.0)
    assert (got.spearman.low, got.spearman.high) == (-1.0, 1.0)
    perfect = by_form(correlate(points(np.arange(5.0), np.arange(5.0) / 5)))["log_ratio"]
    assert perfect.pearson.value == pytest.approx(1.0)


@pytest.mark.parametrize(("number", "p"), [(3, 2 / 6), (4, 2 / 24), (5, 2 / 120), (9, 2 / 362_880)])
@pytest.mark.parametrize("sign", [1, -1])
def test_few_points_in_perfect_order_can_be_chance(number, p, sign):
    """scipy's p-value is 0 there, and its normal interval a point; of n! orders two are perfect."""
    x = np.arange(float(number))
    found = spearman(x, sign * x**3, 0.95)
    assert found.value == pytest.approx(sign)
    assert found.p == pytest.approx(p)
    near, far = sorted([sign * found.low, sign * found.high], reverse=True)
    assert near == pytest.approx(1)
    if number == 3:
        assert far == pytest.approx(-1)
    else:  # that of the order with two neighbors swapped
        rho = stats.spearmanr(x, [1.0, 0.0, *x[2:]])[0]
        reach = 1.9599640 * math.sqrt((1 + rho**2 / 2) / (number - 3))
        assert far == pytest.approx(math.tanh(math.atanh(rho) - reach))


def test_the_p_value_of_few_points_with_ties_is_that_of_all_orders():
    x, y = np.array([1.0, 1, 2, 2, 3, 5]), np.array([1.0, 2, 2, 3, 3, 3])
    exact = stats.permutation_test(
        (x,),
        lambda a: abs(stats.spearmanr(a, y)[0]),
        permutation_type="pairings",
        alternative="greater",
    )
    assert spearman(x, y, 0.95).p == pytest.approx(exact.pvalue)
    assert spearman(-x, y, 0.95).p == pytest.approx(exact.pvalue)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_fewer_than_three_points_are_refused(number):
    with pytest.raises(ValueError, match=f"at least 3 points.*got {number}. Evaluate more"):
        correlate(points(range(number), range(number)))


def test_points_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match=r"accuracy must be finite and differ.*got 0.5, 0.5, 0.5"):
        correlate(points([1.0, 2.0, 3.0], [0.5] * 3))
    with pytest.raises(ValueError, match="the ratio must be finite and differ"):
        correlate(points([1.0] * 3, [0.1, 0.2, 0.3]))


def test_a_point_is_read_from_an_evaluation(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"benchmarks": {"rows": {"score": 0.75, "vas": VAS, "num": 4}}}))
    assert read_point("mine", path) == Point("mine", 0.75, VAS, {"rows": None})


def result(name, digests, **settings):
    benchmarks = {b: {"score": 0.5, "vas": VAS, "digest": d} for b, d in digests.items()}
    return point_of(name, {"benchmarks": benchmarks, "settings": settings}, name)


def test_results_of_other_questions_are_refused():
    """Accuracy on an easy test and on a hard one say nothing of the models."""
    require_same_questions([result(n, {"rows": "1", "mmstar": d}) for n, d in ("a2", "b2")])
    require_same_questions([result("a", {"rows": "1"}), result("b", {"rows": None})])
    with pytest.raises(ValueError, match=r"those of rows differ between a and c. Evaluate all"):
        require_same_questions([result(n, {"rows": d}) for n, d in ("a1", "b1", "c2")])
    with pytest.raises(ValueError, match=r"a has rows, b rows, mmstar. Evaluate all models"):
        require_same_questions(
            [result("a", {"rows": "1"}), result("b", {"rows": "1", "mmstar": "2"})]
        )


def test_limits_of_images_that_differ_are_told():
    summaries = {"rows": {"score": 0.5, "vas": VAS}}
    limits = ([784, 50176], [784, 50176], [784, 262144])
    points = [point_of("x", {"benchmarks": summaries, "pixels": each}, "x") for each in limits]
    assert differing_settings([point.settings for point in points]) == {"pixels": list(limits)}


def test_settings_that_differ_are_told():
    scales = (1.0, 1.5, 1.5)
    points = [result("x", {"rows": "1"}, visual_scale=scale, limit=None) for scale in scales]
    assert differing_settings([point.settings for point in points]) == {
        "visual_scale": [1.0, 1.5, 1.5]
    }


def test_a_point_of_several_benchmarks_is_their_mean():
    other = {form: 3 * value for form, value in VAS.items()}
    summaries = {"a": {"score": 0.25, "vas": VAS}, "b": {"score": 0.75, "vas": other}}
    point = point_of("mine", {"benchmarks": summaries}, "file.json")
    assert point.accuracy == 0.5
    assert point.vas == pytest.approx({form: 2 * value for form, value in VAS.items()})


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"vas": VAS}, "must hold benchmarks.*it holds vas"),
        (
            {"benchmarks": {"rows": {"score": 0.5, "vas": {"ratio": 1.0}}}},
            "log_ratio, share is missing",
        ),
        ([1], "it holds a list"),
    ],
)
def test_other_json_is_refused(result, words):
    with pytest.raises(ValueError, match=words):
        point_of("mine", result, "file.json")


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x.json must be the JSON of an evaluation"):
        read_point("mine", tmp_path / "x.json")


@pytest.mark.parametrize(
    ("name", "kind", "step"),
    [
        ("agto-50", "agto", "50"),
        ("text-only#2-200", "text-only", "200"),
        ("Qwen2.5-VL-7B", "Qwen2.5-VL-7B", ""),
        ("runs/a#b", "runs/a#b", ""),
        ("-5", "-5", ""),
    ],
)
def test_points_of_one_kind_are_told_by_their_names(name, kind, step):
    assert kind_of(name) == (kind, step)
