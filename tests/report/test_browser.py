"""Pages as a reader sees them: nothing overflows, overlaps, is cut off, pale or missing."""

import random

import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib")


from avar_fast.data import load_rows
from avar_fast.evaluate.page import write_predictions
from avar_fast.evaluate.prediction import Prediction
from avar_fast.evaluate.result import BenchmarkSummary, Result
from avar_fast.lab.walk_hints import HintedWalkConfig, hint_digits
from avar_fast.lab.walk_story import Step, story
from avar_fast.lab.world import write_rows
from avar_fast.report import write_report
from avar_fast.report.document import write_page
from avar_fast.report.look_page import look_parts
from avar_fast.report.response_maps import ResponseMaps
from avar_fast.report.run_folder import read_run
from avar_fast.report.run_page import write_runs

from .browser import look, needs_browser
from .entries import TABLE, entry
from .run_folders import write_completions, write_run

pytestmark = needs_browser
LONG = "a name without any space that is longer than a narrow screen is wide ".replace(" ", "-")
VIEWS = pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])


def study_page(folder):
    """Five models; the first has a long log, and as many layers and heads as a large model."""
    numbers = random.Random(0)
    log = [{"step": i, "lm_loss": numbers.random(), "vas_share": 0.5} for i in range(1, 900)]
    entries = []
    for number, name in enumerate(("base model", LONG, "AGTO, then GRPO", "d", "e")):
        layers, heads = (64, 40) if number == 0 else (4, 4)
        one = entry(name, log[: 900 if number == 0 else 40])
        table = [[numbers.gauss(0, 1) for _ in range(heads)] for _ in range(layers)]
        one.vas_layers[:] = range(layers)
        one.vas_table.update(log_ratio=table, share=table)
        entries.append(one)
    write_report(folder / "study.html", "A study", "Seed 0.", "", [*TABLE, [LONG, "1"]], entries)
    return folder / "study.html"


def evaluation_page(folder):
    benchmarks = {
        name: BenchmarkSummary(
            title=name, score=0.5, scores={"algebra": 0.25}, num=2, num_published=None,
            unparsable=0.0, truncated=0.5, num_unread=0, mean_tokens=7.0,
            vas={"ratio": 1e6, "log_ratio": 2.0, "share": 0.5}, vas_layers=list(range(28)),
            vas_table={"log_ratio": [[0.1 * i for i in range(28)]] * 28},
            rule="accuracy", official="", data=LONG, digest="0",
        )
        for name in ("rows", "mathvista")
    }  # fmt: skip
    predictions = [
        Prediction("rows", str(i), "4", f"<think>{LONG}</think>", None, False, 5, False, {})
        for i in range(3)
    ]
    head = {"model": {"path": f"runs/{LONG}/latest"}, "settings": {"max_new_tokens": 5}}
    result = Result("r.json", head, benchmarks, predictions)
    write_predictions(folder / "evaluation.html", result)
    return folder / "evaluation.html"


def run_page(folder):
    """Runs of both stages, many of them, with values of very different sizes."""
    numbers = random.Random(0)
    paths = {
        name: write_run(
            folder / name,
            [
                {"loss": numbers.gauss(0, scale), "lr": scale, "vas_ratio": 10 ** (i * scale)}
                for i in range(20)
            ],
            overrides=[f"data.path={LONG}{name}.jsonl"],
        )
        for name, scale in (("a", 1e-7), ("b", 1e-3), (LONG, 0.3))
    }
    rewards = [{"reward": numbers.random(), "reward_exact": i % 2} for i in range(7)]
    paths["grpo"] = write_run(folder / "grpo", rewards, "lab-grpo-vars")
    texts = ("short", LONG * 30, "line\n" * 80)
    write_completions(
        paths["grpo"],
        [
            (1, f"{LONG}.jsonl row {i}", text, 9, {"exact": i % 2, "visual": 0.1 * i})
            for i, text in enumerate(texts)
        ],
    )
    write_runs(folder / "runs.html", [read_run(name, path) for name, path in paths.items()])
    return folder / "runs.html"


def story_page(folder):
    """The walks of a demo: one model copies the hint, and one, with a long name, looks."""
    world = HintedWalkConfig(side=3, steps=4)
    rows = load_rows(str(write_rows(folder, world, "test", 2, seed=0)))
    copied, looked = [], []
    for row in rows:
        meta = row.columns["meta"]
        steps = list(zip(meta["cells"], meta["digits"], hint_digits(meta["hint"]), strict=True))
        none, all_ = [[0.0] * 3] * 3, [[0.3] * 3] * 3
        copied.append([Step(c, d, h, h, none, [0.1] * 8, [0.0, 0.0, 1.0]) for c, d, h in steps])
        looked.append([Step(c, d, h, d, all_, [0.0] * 8, [0.1, 0.9, 0.0]) for c, d, h in steps])
    entries = [entry("plain", [{"step": i, "lm_loss": 1.0} for i in range(5)])]
    told = story(rows, {"plain": copied, LONG: looked}, 0.97)
    write_report(folder / "demo.html", "A demo", "Seed 0.", told, TABLE, entries)
    return folder / "demo.html"


@VIEWS
@pytest.mark.parametrize(
    ("make", "num_images"),
    [(study_page, 0), (evaluation_page, 0), (run_page, 0), (story_page, 16)],
)
def test_pages(tmp_path, make, num_images, width, scheme):
    page = make(tmp_path)
    seen = look(page, tmp_path, width, scheme)
    assert seen["problems"] == []
    assert seen["pictures"] == page.read_text().count("<figure>") > 0
    assert seen["images"] == num_images
    assert seen["titles"] > seen["pictures"]
    assert width - 20 <= seen["width"] <= width
    assert seen["back"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}[scheme]


@VIEWS
def test_the_page_of_look(tmp_path, width, scheme):
    """Two models, two images, one of them a strip; a question and tokens without a space."""
    sides = ((3, 4), (6, 1))
    images = [Image.new("RGB", size) for size in ((900, 700), (1, 200))]
    maps = [torch.full((9, *side), 0.01) for side in sides]
    masses, pieces = torch.tensor([[0.5, 0.18, 0.32]] * 9), [LONG] * 8 + ["\n"]
    answer = ResponseMaps(images, maps, masses, [0] * 9, pieces, 9, LONG, "<think>", LONG)
    parts = look_parts("Where the answer looks", "2 rows", [{"base": answer, LONG: answer}])
    write_page(tmp_path / "look.html", "look", parts)
    seen = look(tmp_path / "look.html", tmp_path, width, scheme)
    assert seen["problems"] == []
    assert seen["images"] == 4
    assert seen["titles"] == 4


FAULTS = {
    '<div style="width:500px">x</div>': "the page is 516 wide in ",
    '<h2>One</h2><h3 style="margin-top:-40px">Two</h3>': 'H2 "One" lies on H3 "Two"',
    '<figure><figcaption style="margin-bottom:-30px">Three</figcaption><svg viewBox="0 0 9 9">'
    "</svg></figure>": 'FIGCAPTION "Three" lies on svg ""',
    '<figure><svg viewBox="0 0 99 99"><rect width="50" height="50"/><text x="9" y="20">four</text>'
    "</svg></figure>": 'text "four" lies on rect ""',
    '<figure><svg viewBox="0 0 99 99"><text x="9" y="20">five</text><text x="15" y="25">six</text>'
    "</svg></figure>": 'text "five" lies on text "six"',
    '<figure><svg viewBox="0 0 99 99"><text x="90" y="20">seven</text></svg></figure>': (
        'text "seven" is cut off'
    ),
    '<img src="data:image/png;base64,AAAA">': (
        "an image does not load: data:image/png;base64,AAAA"
    ),
    '<p style="color:#888">eight</p>': 'P "eight" is pale',
    '<div class="legend"><svg viewBox="0 0 9 9"><path stroke="#ccc"/></svg></div>': (
        "a curve is pale"
    ),
}
APART = '<div style="height:60px"></div>'


def test_faults_are_seen(tmp_path):
    """Each fault is found, and none but these."""
    write_page(tmp_path / "page.html", "A page", [APART.join(FAULTS)])
    problems = look(tmp_path / "page.html", tmp_path, 400, "light")["problems"]
    unseen = [f for f in FAULTS.values() if not any(p.startswith(f) for p in problems)]
    assert not unseen, problems
    assert len(problems) == len(FAULTS), problems
