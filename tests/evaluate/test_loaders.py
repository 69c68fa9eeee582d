"""The loaders on small data sets with the published schemas, through the command on a tiny
model."""

import json

import pytest

from avar_fast.evaluate import BenchmarkTask, Settings, read_result
from avar_fast.evaluate.__main__ import main
from avar_fast.evaluate.benchmarks import BENCHMARKS, PARTS
from avar_fast.evaluate.prediction import Prediction
from avar_fast.lab.model import save_base

from . import world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, write in world.ALL.items():
        write(folder / name)
    save_base(folder / "model", seed=0)
    return folder


def open_tasks(folder, style="tags"):
    return {
        part: BenchmarkTask(BENCHMARKS[part], str(folder / name), Settings(style=style))
        for name, parts in PARTS.items()
        for part in parts
    }


COUNTS = {
    "mathvista": 4, "mathvision": 3, "mathverse": 2, "mmmu": 60, "mmmu_pro_standard": 1,
    "mmmu_pro_vision": 1, "mmstar": 5, "hallusion": 6,
}  # fmt: skip


@pytest.mark.parametrize("style", ["tags", "direct", "official"])
def test_every_question_becomes_a_row_with_its_images(folder, style):
    for name, task in open_tasks(folder, style).items():
        assert len(task.questions) == COUNTS[name]
        for question in task.questions:
            row = task.row(question)
            parts = [p for turn in row.messages for p in turn["content"]]
            without = question.id.startswith("VS/chart/0/0/")  # HallusionBench's figure 0 is none
            num = sum(p["type"] == "image" for p in parts)
            assert num == len(row.images)
            assert (num == 0) is without
            assert all(isinstance(image, bytes) for image in row.images)
            if style == "tags":
                assert "<answer>" in parts[-1]["text"]


def test_questions_hold_what_the_records_say(folder):
    tasks = open_tasks(folder)
    vista = {q.id: q for q in tasks["mathvista"].questions}
    assert [vista[i].kind for i in "1234"] == ["integer", "float", "choice", "list"]
    assert vista["2"].precision == 1
    assert "(B) Osaka" in text_of(vista["3"])
    vision = tasks["mathvision"].questions[1]
    assert (vision.answer, vision.options[2]) == ("C", "3")
    assert [q.id for q in tasks["mathverse"].questions] == ["2", "3"]
    mmmu = tasks["mmmu"].questions[0]
    assert mmmu.images == ("image_1", "image_2")
    kinds = [p["type"] for p in mmmu.messages[0]["content"]]
    assert kinds == ["text", "image", "text", "image", "text"]
    assert text_of(mmmu).count("<image 1>") == 1, "only the first mention is the image"
    assert mmmu.groups["subject"] == "Accounting"
    pro = tasks["mmmu_pro_standard"].questions[0]
    assert "J. option J" in text_of(pro)
    hallusion = tasks["hallusion"].questions[0]
    assert (hallusion.id, hallusion.answer) == ("VS/chart/0/1/0", "yes")


def text_of(question):
    return "".join(p.get("text", "") for p in question.messages[0]["content"])


def test_official_style_uses_the_words_of_the_benchmarks(folder):
    tasks = open_tasks(folder, "official")
    assert text_of(tasks["mathvista"].questions[0]) == "Hint: a number.\nHow many?"
    assert text_of(tasks["mathverse"].questions[0]) == "Please first reason."
    assert "\\boxed{}" in text_of(tasks["mathvision"].questions[0])
    assert text_of(tasks["mmstar"].questions[0]).endswith("D: 4")


def test_all_seven_through_the_command(folder, tmp_path, capsys):
    out = tmp_path / "all.json"
    data = [f"--data={name}={folder / name}" for name in world.ALL]
    small = ["--limit=2", "--max-new-tokens=2", "--dtype=float32", "--batch-size=4"]
    assert main([str(folder / "model"), "--benchmarks=all", f"--out={out}", *data, *small]) == 0
    printed = capsys.readouterr().out
    assert "paper: AVAR-Thinker" in printed
    assert "2 of 1000" in printed
    result = read_result(out)
    assert set(result.benchmarks) == set(BENCHMARKS)
    assert len(result.predictions) == 2 * 6 + 1 + 1
    for summary in result.benchmarks.values():
        assert set(summary.vas) == {"ratio", "log_ratio", "share"}
    body = json.loads(out.read_text())
    assert body["model"]["weights"]
    assert "commit" in body["project"]


def test_hallusion_counts_figures_and_questions():
    """Figure 1: both right; figure 2: question 0 right, 1 wrong; without a figure: question 0
    wrong, 1 right. Officially the last count as questions, not as a figure."""

    def prediction(figure, question, right):
        id = f"VS/chart/0/{figure}/{question}"
        return Prediction("hallusion", id, "yes", "", "yes", right, 1, False, {})

    given = [prediction(1, 0, True), prediction(1, 1, True)]
    given += [prediction(2, 0, True), prediction(2, 1, False)]
    benchmark = BENCHMARKS["hallusion"]
    alone = benchmark.scores(given)
    given += [prediction(0, 0, False), prediction(0, 1, True)]
    for scores in (alone, benchmark.scores(given)):
        assert scores["aAcc"] == 0.75
        assert scores["fAcc"] == 0.5
        assert scores["qAcc"] == 0.5
        assert scores["score"] == pytest.approx((0.75 + 0.5 + 0.5) / 3)
    assert alone["official aAcc"] == 0.75
    assert scores["official aAcc"] == pytest.approx(4 / 6)
    assert scores["official qAcc"] == 0, "question 0 is wrong without a figure, 1 on figure 2"
    assert benchmark.tally(given) == [(3, 4), (1, 2), (1, 2)]
