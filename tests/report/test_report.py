"""The report is one self-contained file that holds what it was given, in order."""

import re

import pytest

from avar_fast.report import write_report

from .entries import TABLE, entry

pytest.importorskip("matplotlib")


def test_the_page_tells_the_story_then_the_numbers(tmp_path):
    log = [{"step": i, "lm_loss": 1 / (i + 1), "vas_share": 0.5} for i in range(30)]
    entries = [entry("base & <start>", log), entry("AGTO", log[:3])]
    path = tmp_path / "out" / "report.html"
    write_report(path, "A <study>", "Seed 0.", "<p>A story.</p>", TABLE, entries)
    page = path.read_text()
    marks = (
        "A &lt;study&gt;</h1>",
        "Seed 0.",
        "<p>A story.</p>",
        "0.625",
        "Training",
        "VAS per layer",
    )
    places = [page.index(mark) for mark in marks]
    assert places == sorted(places)
    assert page.count("base &amp; &lt;start&gt;") >= 3
    assert page.count("<title>layer 3, head 1: 0.4</title>") == 4
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_model_without_a_log_has_no_curve(tmp_path):
    write_report(tmp_path / "page.html", "A study", "", "", TABLE, [entry("AGTO", [])])
    assert "<h2>Training</h2>" not in (tmp_path / "page.html").read_text()
