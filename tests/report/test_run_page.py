"""The page of runs shows what the folders hold, and nothing is lost on the way."""

import html
import re

import pytest

from avar_fast.report.completions import choose
from avar_fast.report.metrics import sections_of, with_step_times
from avar_fast.report.run_folder import read_run
from avar_fast.report.run_page import differing_settings, summary_table, write_runs

from .run_folders import write_completions, write_run

pytest.importorskip("matplotlib")


def page_of(tmp_path, *runs):
    write_runs(tmp_path / "page.html", [read_run(run.name, run) for run in runs])
    return (tmp_path / "page.html").read_text()


def figure_of(page, key):
    """The SVG of a metric."""
    (found,) = re.findall(rf"<code>{key}</code>.*?<svg(.*?)</svg>", page)
    return found


def dots_of(picture, color):
    """(x, y) of the dots of a run's curve."""
    found = re.findall(
        rf'<circle cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" fill="var\(--c{color}\)"', picture
    )
    return [(float(x), float(y)) for x, y in found]


def test_a_curve_has_a_dot_where_the_value_is(tmp_path):
    values = [3.0, 1.0, None, float("nan"), 2.0]
    run = write_run(tmp_path / "a", [{"loss": v} for v in values])
    dots = dots_of(figure_of(page_of(tmp_path, run), "loss"), 0)
    assert len(dots) == 3
    (x1, y1), (x2, y2), (x5, y5) = dots
    assert y1 < y5 < y2  # SVG counts from the top
    assert y5 - y1 == pytest.approx(y2 - y5, abs=0.2)
    assert x5 - x1 == pytest.approx(4 * (x2 - x1), abs=0.4)


def test_runs_share_a_figure_and_keep_their_colors(tmp_path):
    first = write_run(tmp_path / "a", [{"loss": 1.0}, {"loss": 2.0}])
    second = write_run(tmp_path / "b", [{"loss": 1.0, "vas_share": 0.5}, {"vas_share": 0.6}])
    page = page_of(tmp_path, first, second)
    assert len(dots_of(figure_of(page, "loss"), 0)) == 2
    assert len(dots_of(figure_of(page, "loss"), 1)) == 1
    assert not dots_of(figure_of(page, "vas_share"), 0)
    assert len(dots_of(figure_of(page, "vas_share"), 1)) == 2


def test_the_page_says_whose_attention_is_scored(tmp_path):
    """Scores of the user's tokens and of the response's can differ by any factor, so curves of both
    in one figure would say nothing."""
    lines = [{"vas_share": 0.1}, {"vas_share": 0.2}]
    user = write_run(tmp_path / "plain", lines)
    response = write_run(tmp_path / "cured", lines, overrides=["agto.queries=response"])
    silent = write_run(tmp_path / "silent", [{"loss": 1.0}], overrides=["agto.queries=all"])
    one = "The queries of VAS (agto.queries): user."
    assert page_of(tmp_path, user, silent).count(one) == 2  # with the numbers and with the curves
    both = "VAS: no comparison, as agto.queries differs: user in plain, response in cured."
    assert page_of(tmp_path, user, response).count(both) == 2
    assert "agto.queries)" not in page_of(tmp_path, silent)
    large = write_run(tmp_path / "large", lines, overrides=["data.max_pixels=262144"])
    sizes = "VAS: no comparison, as data.max_pixels differs: null in plain, 262144 in large."
    assert page_of(tmp_path, user, large).count(f"{one} {sizes}") == 2


def test_the_page_says_which_rewards_do_not_compare(tmp_path):
    lines = [{"reward": 0.1, "reward_visual": 0.1}, {"reward": 0.2, "reward_visual": 0.2}]
    ratio, share = (
        write_run(tmp_path / form, lines, "lab-grpo-vars", [f"grpo.visual_form={form}"])
        for form in ("ratio", "share")
    )
    told = "The visual reward: no comparison, as grpo.visual_form differs: ratio in ratio, share"
    page = page_of(tmp_path, ratio, share)
    assert page.count(told) == 2
    assert "grpo.rewards differs" not in page
    plain = write_run(tmp_path / "plain", [{"reward": 1.0}, {"reward": 2.0}], "lab-grpo")
    page = html.unescape(page_of(tmp_path, share, plain))
    assert 'as grpo.rewards differs: {"exact": 1.0, "visual": 0.3, "format": 0.1} in share' in page
    assert "The visual reward: no" not in page


def test_the_page_says_which_terms_and_shares_do_not_compare(tmp_path):
    terms = [{"agto_enhance": 1.0}, {"agto_enhance": 2.0}]
    image, text = (
        write_run(tmp_path / keys, terms, overrides=[f"agto.enhance_keys={keys}"])
        for keys in ("image", "text")
    )
    told = "The terms of AGTO: no comparison, as agto.enhance_keys differs: image in image, text"
    assert page_of(tmp_path, image, text).count(told) == 2
    shares = [{"visual_share": 0.1}, {"visual_share": 0.2}]
    every, some = (
        write_run(tmp_path / name, shares, "lab-grpo", [f"grpo.visual_layers={layers}"])
        for name, layers in (("every", "null"), ("some", "[1]"))
    )
    told = "visual_share: no comparison, as grpo.visual_layers differs: null in every, [1] in some"
    assert page_of(tmp_path, every, some).count(told) == 2


def test_every_logged_metric_is_on_the_page(tmp_path):
    changing = ("loss", "agto_enhance", "reward_my_rule", "vas_ratio", "of_a_later_version")
    steady = {"lr": 0.25, "rows_skipped": 7.0, "mfu": None}
    run = write_run(
        tmp_path / "a", [{**{k: float(i) for k in changing}, **steady} for i in range(3)]
    )
    page = page_of(tmp_path, run)
    for key in changing:
        figure_of(page, key)
    same = page.partition("Metrics with one value")[2]
    cells = re.findall(r"<tr><td>([^<]*\((\w+)\))</td><td[^>]*>([^<]*)</td>", same)
    shown = {key: value for _, key, value in cells}
    assert (shown["lr"], shown["rows_skipped"], shown["mfu"]) == ("0.25", "7", "-")


def test_a_key_is_in_one_section():
    keys = ["reward", "reward_exact", "reward_seconds", "reward_failures", "x", "step", "seconds"]
    found = {name: [key for key, _ in rows] for name, rows in sections_of(keys).items()}
    assert found["Rewards"] == ["reward", "reward_exact", "reward_failures"]
    assert found["Speed and memory"] == ["reward_seconds"]
    assert found["Other"] == ["x"]


def test_seconds_a_step_are_not_taken_over_a_resume():
    log = [
        {"step": 10, "seconds": 50.0},
        {"step": 20, "seconds": 80.0},
        {"step": 25, "seconds": 4.0},
        {"step": 30, "seconds": 14.0},
        {"step": 35, "seconds": 44.0, "resumed": True},  # the new clock is past the old one
    ]
    found = [line.get("seconds_per_step") for line in with_step_times(log)]
    assert found == [None, 3.0, None, 2.0, None]


def test_the_summary_has_last_values_and_medians(tmp_path):
    run = write_run(
        tmp_path / "a",
        [
            {"loss": 3.0, "tokens_per_s": 100.0, "eval_accuracy": 0.5},
            {"loss": 2.0, "tokens_per_s": 900.0},
            {"loss": 1.0, "tokens_per_s": 300.0},
        ],
    )
    read = read_run("a", run)
    header, line = summary_table([read], {"a": read.log})
    shown = dict(zip(header, line, strict=True))
    assert shown["steps"] == "3 of 4"
    assert (shown["loss"], shown["tokens/s"], shown["held-out accuracy"]) == ("1", "300", "0.5")
    assert "MFU" not in shown


def test_differing_settings(tmp_path):
    metrics = [{"loss": 1.0}]
    first = write_run(tmp_path / "a", metrics)
    second = write_run(tmp_path / "b", metrics, overrides=["optim.lr=0.5", "model.freeze=[vision]"])
    (second / "recipe.yaml").write_text(
        (second / "recipe.yaml").read_text().replace("stage: sft\n", "stage: sft\nnewer: 1\n")
    )
    lines = differing_settings([read_run("a", first), read_run("b", second)])
    assert lines[0] == ["setting", "a", "b"]
    assert sorted(lines[1:]) == [
        ["model.freeze", "[]", '["vision"]'],
        ["newer", "-", "1"],
        ["optim.lr", "0.001", "0.5"],
    ]
    assert "The recipes are the same." in page_of(tmp_path, first, _copy(first, tmp_path / "c"))


def test_settings_that_a_stage_does_not_use_are_no_difference(tmp_path):
    runs = [
        write_run(tmp_path / name, [{"loss": 1.0}], overrides=[f"grpo.temperature={name}"])
        for name in ("0.5", "0.7")
    ]
    sampling = write_run(tmp_path / "grpo", [{"loss": 1.0}], "lab-grpo", ["grpo.temperature=0.9"])
    assert len(differing_settings([read_run(run.name, run) for run in runs])) == 1
    lines = differing_settings([read_run(run.name, run) for run in (runs[0], sampling)])
    assert ["grpo.temperature", "-", "0.9"] in lines


def _copy(run, to):
    to.mkdir()
    for name in ("recipe.yaml", "log.jsonl"):
        (to / name).write_text((run / name).read_text())
    return to


COMPLETIONS = [
    (1, "row 0", "right, looks", 3, {"exact": 1.0, "visual": 0.9}),
    (1, "row 1", "right, looks away", 3, {"exact": 1.0, "visual": 0.1}),
    (1, "row 2", "long and wrong", 9, {"exact": 0.0, "visual": 0.0}),
    (2, "row 2", "wrong too, but later", 4, {"exact": 0.0, "visual": 0.0}),
    (2, "row 3", "half right", 2, {"exact": 0.5, "visual": 0.5}),
    (2, "row 4", "the rule does not apply", 2, {"exact": None, "visual": 0.0}),
]


@pytest.fixture
def grpo_run(tmp_path):
    run = write_run(tmp_path / "vars", [{"reward": 1.0}, {"reward": 2.0}], "lab-grpo-vars")
    write_completions(run, COMPLETIONS)
    return run


def test_the_chosen_completions(grpo_run):
    read = read_run("vars", grpo_run)
    count, kinds = choose(read.completions(), read.gate)
    texts = {kind: [record["completion"] for record in chosen] for kind, chosen in kinds.items()}
    assert count == 6
    assert texts == {
        "highest reward": ["right, looks", "right, looks away"],
        "lowest reward": ["wrong too, but later", "the rule does not apply"],
        "longest": ["long and wrong", "right, looks"],
        "right, highest visual reward": ["right, looks", "half right"],
        "right, lowest visual reward": ["right, looks away", "half right"],
    }


def test_without_vars_no_completion_looks(grpo_run):
    records = list(read_run("vars", grpo_run).completions())
    for record in records:
        del record["rewards"]["visual"]
    _, kinds = choose(records, "exact")
    assert list(kinds) == ["highest reward", "lowest reward", "longest"]


def test_completions_of_a_run_are_shown_with_their_rewards(tmp_path, grpo_run):
    page = html.unescape(page_of(tmp_path, grpo_run))
    card = re.search(r'<div class="card">(?:(?!class="card").)*right, looks<', page, re.DOTALL)
    assert card
    for shown in ("highest reward; longest; right, highest", "row 0", "exact 1", "visual 0.9"):
        assert shown in card[0]
    assert "A choice from 6 completions" in page


def test_text_of_a_model_cannot_inject_and_long_text_keeps_its_ends(tmp_path, grpo_run):
    attack = "<script>alert(1)</script><img src=x>"
    long = "start" + "x" * 10_000 + "end\x1b[31m"
    write_completions(
        grpo_run,
        [
            (1, "row <b>", attack, 3, {"exact": 1.0, "visual": 0.0}),
            (1, "row 2", long, 9, {"exact": 0.0, "visual": 0.0}),
        ],
    )
    page = page_of(tmp_path, grpo_run)
    assert "<script" not in page
    assert "<img" not in page
    assert html.escape(attack) in page
    assert re.search(r"startx+\n\[\d+ characters left out\]\nx+end", page)
    assert "\x1b" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", page)
