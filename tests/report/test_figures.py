"""Axes, curves and heat maps of all pages."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from avar_fast.report import figures
from avar_fast.report.axis import step_axis, value_axis
from avar_fast.report.document import html_table
from avar_fast.report.heat_map import layer_map
from avar_fast.report.line_plot import MOST_CURVES, MOST_POINTS


def parsed(page):
    return ElementTree.fromstring(f"<div>{page}</div>")


def test_curves_of_many_runs_differ_in_color_or_dashes():
    """The colors of a seventh run and those behind it were those of the first ones."""
    logs = {f"run {i}": [{"step": 1, "a": i}, {"step": 2, "a": i + 1}] for i in range(MOST_CURVES)}
    page = parsed(figures.curves(logs, [("a", "A")]))
    for place in (page.find("div[@class='legend']"), page.find(".//figure")):
        assert place is not None
        lines = [e for e in place.iter("path") if "var" in e.get("stroke", "")]
        looks = [(e.get("stroke"), e.get("stroke-dasharray")) for e in lines]
        assert len(looks) == len(set(looks)) == MOST_CURVES


def test_too_many_curves_are_refused():
    logs = {str(i): [{"step": 1, "a": 1}] for i in range(MOST_CURVES + 1)}
    with pytest.raises(ValueError, match="at most 24 runs"):
        figures.curves(logs, [("a", "A")])


def test_curves_without_values_are_no_figure():
    assert figures.curves({"a": [{"step": 1, "b": None}]}, [("b", "B"), ("c", "C")]) == ""


def test_a_long_curve_is_thinned_and_keeps_its_extremes():
    values = np.sin(np.arange(5000) / 300)
    values[1234], values[4321] = 9.0, -9.0
    log = [{"step": i, "a": value} for i, value in enumerate(values)]
    page = figures.curves({"a": log}, [("a", "A")])
    thin, smooth = re.findall(r'<path d="(M[^"]*L[^"]*)"', page)
    assert thin.count("L") <= MOST_POINTS
    assert smooth.count("L") <= MOST_POINTS
    axis = value_axis(values.tolist(), 176, 8)
    heights = [float(point.split()[1]) for point in thin[1:].split("L")]
    assert min(heights) == pytest.approx(axis(9.0), abs=0.06)
    assert max(heights) == pytest.approx(axis(-9.0), abs=0.06)


def test_a_moving_average_ends_with_the_mean_of_its_last_values():
    """It ended at the last value, however noisy."""
    values = [0.0] * 99 + [1.0]
    log = [{"step": i, "a": value} for i, value in enumerate(values)]
    _, smooth = re.findall(r'<path d="(M[^"]*L[^"]*)"', figures.curves({"a": log}, [("a", "A")]))
    axis = value_axis(values, 176, 8)
    heights = [float(point.split()[1]) for point in smooth[1:].split("L")]
    assert heights[-1] == pytest.approx(axis(1 / 3), abs=0.06)  # a window of 5, without 2
    assert heights[-3] == pytest.approx(axis(1 / 5), abs=0.06)
    assert heights[:97] == pytest.approx([axis(0.0)] * 97, abs=0.06)


@pytest.mark.parametrize(
    "values",
    [
        [0.0],
        [5.0, 5.0],
        [-3.0, 1e-3],
        [1e-9, 2e-9],
        [1e6, 3e6],
        [1e-3, 1.0, 40.0, 5e4],
        [0, 1e4],
        [1.0000001, 1.0000003],
        [-1e-15, 3e-15],
        [123456.0, 123458.0],
        [-0.3, 0.6],
    ],
)
def test_axes_hold_all_values_and_some_ticks(values):
    axis = value_axis(values, 100, 0)
    assert all(0 <= axis(value) <= 100 for value in values)
    assert 2 <= len(axis.ticks) <= 7
    assert all(0 <= axis(tick) <= 100 for tick in axis.ticks)
    assert len(set(axis.labels)) == len(axis.ticks)
    assert [float(text) for text in axis.labels] == pytest.approx(axis.ticks, rel=1e-9, abs=1e-30)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1], ["0", "0.5", "1"]),
        ([0, 1.4e-3], ["0", "0.0005", "0.001"]),
        ([8000, 12000], ["8000", "9000", "10000", "11000", "12000"]),
        ([0, 3e-6], ["0", "1e-6", "2e-6", "3e-6"]),
        ([0.4e6, 1.7e6], ["5e5", "1e6", "1.5e6"]),
        ([1e-2, 1.0, 1e2, 1e4], ["0.01", "1", "100", "10000"]),
    ],
)
def test_labels_are_short(values, labels):
    assert value_axis(values, 100, 0).labels == labels


def test_values_over_many_orders_of_magnitude_get_a_logarithmic_axis():
    axis = value_axis([0.1, 1.0, 10.0, 1000.0, 1e4], 0, 1)
    assert axis.logarithmic
    assert axis(1.0) - axis(0.1) == pytest.approx(axis(1e4) - axis(1e3))
    assert not value_axis([1e-6] + [0.5] * 30, 0, 1).logarithmic  # one small value


@pytest.mark.parametrize("steps", [[1], [1, 2], [5, 870], list(range(1, 20001, 50))])
def test_ticks_of_steps_are_whole(steps):
    axis = step_axis(steps, 0, 100)
    assert axis.ticks
    assert all(float(tick).is_integer() for tick in axis.ticks)
    assert all(0 <= axis(step) <= 100 for step in steps)


def test_heat_maps_name_the_layers_of_their_rows():
    """Rows were numbered from 0, also where layers without attention lie between them."""
    table = [[0.1, 0.2], [0.3, 0.4]]
    page = parsed(figures.vas_tables({"a": ([1, 3], table), "b": ([0, 1], table)}, "share"))
    maps = page.findall(".//figure")
    labels = [[e.text for e in one.iter("text") if e.get("class") == "layer"] for one in maps]
    assert labels == [["1", "3"], ["0", "1"]]


def test_heat_maps_share_a_color_scale():
    page = figures.vas_tables({"a": ([0], [[0.0, 1.0]]), "b": ([0], [[1.0, 2.0]])}, "x")
    colors = re.findall(r'fill="(#\w+)"><title>layer 0, head \d: ([\d.]+)', page)
    by_value = [(float(value), color) for color, value in colors]
    assert [value for value, _ in by_value] == [0.0, 1.0, 1.0, 2.0]
    assert by_value[1][1] == by_value[2][1]
    assert len({color for _, color in by_value}) == 3


def test_labels_of_a_large_heat_map_are_thinned_out():
    heights, heads = {}, [str(head) for head in range(64)]
    for rows in (4, 28, 80):
        picture = parsed(layer_map(range(rows), heads, "head", np.zeros((rows, 64)), 0.0, 1.0))
        assert len(picture.findall(".//rect")) == rows * 64
        labels = [e for e in picture.iter("text") if e.get("class") == "layer"]
        heights[rows] = [float(e.get("y", "")) for e in labels]
        assert all(b - a >= 12 for a, b in zip(heights[rows], heights[rows][1:], strict=False))
    assert len(heights[4]) == 4
    assert len(heights[80]) > 20


def cells_of(page):
    """[(layer, step, value)] of the maps' cells."""
    found = re.findall(r"<title>layer (\d+), step (\d+): ([\w.]+)<", page)
    return [(int(layer), int(step), float(value)) for layer, step, value in found]


def test_layers_over_steps_are_drawn_where_they_were_logged():
    """A resumed run may record other layers; a line without values is left out."""
    first = [{"step": 1, "x": {"1": 0.5, "3": 0.25}}, {"step": 2}, {"step": 3, "x": {"3": 0.75}}]
    page = figures.layers_over_steps({"a": first, "b": [{"step": 1}]}, "x", "share")
    cells = cells_of(page)
    assert cells[:1] + cells[2:] == [(1, 1, 0.5), (3, 1, 0.25), (3, 3, 0.75)]
    assert cells[1][:2] == (1, 3)
    assert np.isnan(cells[1][2])
    assert page.count("<svg") == 1
    assert figures.layers_over_steps({"b": [{"step": 1}]}, "x", "share") == ""


def test_layers_over_many_steps_are_means_over_neighbors():
    values = np.random.default_rng(0).random((2, 1000))
    values[0, 7] = np.nan
    log = [{"step": i + 1, "x": {"0": a, "4": b}} for i, (a, b) in enumerate(values.T.tolist())]
    cells = cells_of(figures.layers_over_steps({"a": log}, "x", "share"))
    assert len(cells) == 2 * figures.MOST_COLUMNS
    of_layer = [cell for cell in cells if cell[0] == 4]
    ends = [0, *(step for _, step, _ in of_layer)]
    assert ends[-1] == 1000
    for (start, end), (_, _, value) in zip(pairwise(ends), of_layer, strict=True):
        assert value == pytest.approx(values[1, start:end].mean(), abs=1e-4)
    assert all(np.isfinite(value) for _, _, value in cells)


def test_numbers_of_a_table_are_aligned_and_texts_are_not():
    page = html_table([["name", "n", "text", "m"], ["a", "1.5", "x", "-"], ["b", "-", "2", "3 %"]])
    assert re.findall(r'<th class="number">(\w+)', page) == ["n", "m"]
    assert page.count('<td class="number">') == 4
