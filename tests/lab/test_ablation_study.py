"""The ablation as a program: how it goes on where it was left, and its page."""

import dataclasses
import json
import math
import re
import sys

import pytest

from avar_fast.lab import ablation, ablation_arms, ablation_rows, ablation_scores
from avar_fast.lab import ablation_parts as parts
from avar_fast.lab.ablation_arms import (
    ARMS,
    BASE,
    READ_DATA,
    READER,
    SLOW,
    TESTS,
    setup,
)
from avar_fast.lab.ablation_report import write_page
from avar_fast.lab.world import write_rows
from avar_fast.vas import FORMS

from .small_studies import apart, only_alone, passes_alone


def test_a_folder_of_other_settings_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "run_all", lambda *_: sys.exit("runs"))
    with pytest.raises(SystemExit, match="runs"):
        ablation.main(["--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="every arm must have a finished run for a page; base,"):
        ablation.main(["--out", str(tmp_path), "--page"])
    monkeypatch.setattr(ablation_arms, "NUM_TEST", 7)
    with pytest.raises(SystemExit, match="holds a study with other num_test"):
        ablation.main(["--out", str(tmp_path)])


@pytest.mark.parametrize("option", ["--seeds", "--jobs"])
def test_bad_options_are_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ablation.main([option, "0", "--out", str(tmp_path / "study")])
    assert f"{option} must be at least 1; got 0" in capsys.readouterr().err


SCORES = (
    *("absent", "right", "follows", "answered"),
    *(f"vas_{role}_{form}" for form in FORMS for role in ("user", "response")),
    *(f"{keys}_{at}" for keys in ("visual", "system") for at in ("user", "response", "digit")),
)


def invented(seeds, **higher):
    """0.2, 0.3 and so on with wrong hints; higher by the seed's value for the named runs."""
    return {
        key: {
            seed: dict.fromkeys(SCORES, 0.5)
            | {"wrong": 0.2 + seed / 10 + higher.get(key, [0.0] * seeds)[seed]}
            for seed in range(seeds)
        }
        for key in (BASE.key, *(arm.key for arm in ARMS))
    }


def test_the_page_compares_each_rung_with_the_one_before(tmp_path):
    """AGTO: .3, .4, .5 higher than VARD; GRPO stays there, VARS does not; slow learning has .1 of
    it. Mean .4, deviation .1; t of 2 degrees of freedom 4.3027, so the half width is
    4.3027 * .1 / sqrt(3) = .2484."""
    high, slow = [0.3, 0.4, 0.5], [0.1, 0.1, 0.1]
    results = invented(3, agto=high, grpo=high, **{SLOW.key: slow})
    table = write_page(tmp_path, results, setup(), "the command")
    page = (tmp_path / "ablation.md").read_text()
    assert table in page
    assert "the command" in page
    assert "- VARD + AGTO, against VARD chains: better, +0.400 [+0.152, +0.648]." in page
    assert "- VARD + AGTO, against VARD chains, lr/4: better, +0.300 [+0.052, +0.548]." in page
    assert "- VARD + AGTO, GRPO, against VARD + AGTO: no difference shown, +0.000 [" in page
    assert "GRPO + VARS, against VARD + AGTO, GRPO: worse, -0.400 [-0.648, -0.152]." in page
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if re.match(r"\| VARD \+ AGTO, GRPO +\|", line)
    ]
    assert [row[1] for row in cells] == [
        "3",
        "+0.000 [+0.000, +0.000]",  # the rung before
        "+0.400 [+0.152, +0.648]",  # plain chains
        "3",
    ]
    assert cells[0][2] == "0.700 \u00b1 0.200"
    assert (tmp_path / "img" / "ablation-rungs.png").read_bytes()[:4] == b"\x89PNG"


def test_the_page_of_one_run_has_no_intervals(tmp_path):
    results = invented(1, agto=[0.25])
    write_page(tmp_path, results, "The setup.", "the command")
    page = (tmp_path / "ablation.md").read_text()
    assert "against VARD chains: no interval from fewer than two pairs, +0.250." in page
    assert "[+" not in page


def test_a_score_that_a_model_lacks_is_left_out_with_its_pair(tmp_path):
    """Seed 1 of AGTO has no digit in any response. VARD chains have .5 there, and AGTO .7 and .9:
    differences .2 and .4, whose t interval of one degree of freedom is 12.7062 * .1 wide each
    way."""
    results = invented(3)
    for seed, value in ((0, 0.7), (1, math.nan), (2, 0.9)):
        results["agto"][seed]["visual_digit"] = value
    for seed in range(3):
        results["vars"][seed]["system_digit"] = math.nan
    write_page(tmp_path, results, "The setup.", "the command")
    page = (tmp_path / "ablation.md").read_text()
    assert "nan" not in page
    assert "+0.300 [-0.971, +1.571]" in page
    assert "0.800 \u00b1 0.141" in page


def quick_chains(out, world, pool, seed):
    """The sums' own chains for each kind of rows: a synthesis takes seconds to start."""
    for kind in ablation_rows.KINDS:
        write_rows(out / kind, dataclasses.replace(world, style="chain"), "train", 8, seed)


@pytest.fixture
def small(monkeypatch):
    """Few rows, two steps, short responses; everything else as in the study."""
    short = ("train.steps=2", "train.batch_size=4", "train.micro_batch_size=4")
    of_grpo = ("grpo.max_new_tokens=4", "grpo.group_size=2", "grpo.prompts_per_generation=4")

    def shorter(run):
        more = of_grpo if "grpo" in run.recipe else ()
        return dataclasses.replace(run, settings=(*run.settings, *short, *more))

    few = tuple(dataclasses.replace(phase, pool=4, count=8) for phase in READ_DATA)
    monkeypatch.setattr(parts, "READ_DATA", few)
    monkeypatch.setattr(parts, "write_chains", quick_chains)
    monkeypatch.setattr(parts, "PROMPTS", 8)
    monkeypatch.setattr(parts, "NUM_TEST", 3)
    monkeypatch.setattr(parts, "READER", shorter(READER))
    monkeypatch.setattr(parts, "BASE", shorter(BASE))
    monkeypatch.setattr(parts, "ARMS", tuple(map(shorter, ARMS)))
    monkeypatch.setattr(ablation_scores, "MAX_NEW_TOKENS", 4)


def test_a_small_study_in_a_process_of_its_own():
    passes_alone(__file__, "from_data_to_scores")


@only_alone
def test_a_small_study_from_data_to_scores(small, tmp_path, monkeypatch):
    """Every kind of run is made, and what is made is not made again."""
    keys = ("base", "agto", "vars")

    def make_all():
        for test in TESTS:
            parts.make_test(tmp_path, test)
        parts.make_data(tmp_path, 0)
        apart(parts.train_reader, tmp_path, 0)
        for key in keys:
            apart(parts.run, tmp_path, 0, key)

    def made_again(*_, **__):
        raise AssertionError("a finished part is made again")

    make_all()
    for part in ("train_whole", "write_curriculum", "write_chains", "write_rows", "save_base"):
        monkeypatch.setattr(parts, part, made_again)
    monkeypatch.setattr(parts, "score", made_again)
    make_all()
    results = parts.read_results(tmp_path, seeds=2)
    assert {key: list(runs) for key, runs in results.items() if runs} == {key: [0] for key in keys}
    assert set(results["vars"][0]) == {*SCORES, "wrong"}
    log = [json.loads(x) for x in (tmp_path / "seed-0/vars/log.jsonl").read_text().splitlines()]
    assert any("visual" in name for name in log[-1])
