"""Each rule on tables of answers written by hand, in answers/*.tsv: what a careful reader takes
them to say, what the rule says where that differs, and the verdict of the benchmark's own code.

A line break is written as a return symbol, nothing as "-". The official verdicts are of the code as
published: MMStar 88f243a, MMMU and MMMU-Pro bb0b95a ("?" where they draw a letter at random),
MathVision a1f5cc3 (whose LaTeX parser plays no part in letters), VLMEvalKit e8e78f0 for yes and no,
where the benchmark itself asks GPT-4.
"""

from pathlib import Path

import pytest

from avar_fast.evaluate.benchmark import Question
from avar_fast.evaluate.benchmarks import BENCHMARKS
from avar_fast.evaluate.benchmarks.mmmu import open_answers
from avar_fast.rewards import AnswerChecker

CITIES = ("Tokyo", "Osaka", "Kyoto", "Nagoya Castle")
OPTIONS = {"mmstar": tuple("ABCD"), "mathverse": tuple("ABCDEF")}
LETTER_RULES = ("mmstar", "mmmu", "mmmu_pro", "mathvista", "mathvision", "mathverse")
OFFICIAL = ("mmstar", "mmmu", "mmmu_pro", "mathvision")
TABLES = {
    "letters": LETTER_RULES,
    "numbers": ("mathvista",),
    "latex": ("mathvision", "mathverse"),
    "open": ("mmmu",),
    "yes_no": ("hallusion",),
}
TAGS = ("<answer", "think>", "boxed", "fbox")  # the official codes know neither these nor the like


def table(name):
    """Rows of a table, their texts with line breaks."""
    file = Path(__file__).parent / "answers" / f"{name}.tsv"
    lines = file.read_text(encoding="utf-8").split("\n")[1:-1]
    return [[line.split("\t")[0].replace("\u23ce", "\n"), *line.split("\t")[1:]] for line in lines]


def by_rule(others):
    """{rule: verdict} where rules read otherwise; ``others`` is like "mmmu,mmmu_pro=B mmstar=-"."""
    pairs = [part.rpartition("=") for part in others.split()]
    return {rule: said for rules, _, said in pairs for rule in rules.split(",")}


def verdicts(rule, questions, texts, equal=lambda pairs: [False] * len(pairs)):
    return BENCHMARKS["mmmu_pro_standard" if rule == "mmmu_pro" else rule].verdicts(
        questions, texts, equal
    )


def question(answer, kind, options=(), precision=None):
    return Question("VD/a/0/1/0", "row 1", [], (), answer, kind, tuple(options), precision)


@pytest.mark.parametrize("name", TABLES)
def test_every_rule_has_200_answers(name):
    rows = table(name)
    keys = [tuple(row[:2]) if name in ("latex", "open") else row[0] for row in rows]
    assert len(set(keys)) == len(keys) >= 200


def test_every_benchmark_has_a_table():
    having = {rule for rules in TABLES.values() for rule in rules}
    assert having == {name.removesuffix("_standard") for name in BENCHMARKS} - {"mmmu_pro_vision"}
    assert (
        BENCHMARKS["mmmu_pro_vision"].verdicts.__func__
        is BENCHMARKS["mmmu_pro_standard"].verdicts.__func__
    )


@pytest.mark.parametrize("rule", LETTER_RULES)
def test_letters(rule):
    rows = table("letters")
    texts = [row[0] for row in rows]
    found = [set() for _ in rows]
    for letter, city in zip("ABCD", CITIES, strict=True):
        asked = question(
            city if rule == "mathvista" else letter, "choice", OPTIONS.get(rule, CITIES)
        )
        for said, verdict in zip(found, verdicts(rule, [asked] * len(rows), texts), strict=True):
            said |= {letter} if verdict.right else set()
            assert verdict.parsed is not None or not verdict.right
    wrong = [
        (text, want, said)
        for (text, reader, others, _), said in zip(rows, found, strict=True)
        if said != ({want} if (want := by_rule(others).get(rule, reader)) != "-" else set())
    ]
    assert not wrong


@pytest.mark.parametrize("rule", OFFICIAL)
def test_letters_that_the_official_code_finds_are_found(rule):
    """Of MMStar's only those that are no word's first: officially "Answer: B" is A."""
    num = 0
    for text, reader, others, official in table("letters"):
        theirs = official.split()[OFFICIAL.index(rule)]
        opening = text.startswith(("Option ", "option ", "The answer is "))
        word = rule == "mmstar" and text.strip()[1:2].isalnum() and not opening
        if theirs in "?-" or word or any(tag in text for tag in TAGS):
            continue
        assert by_rule(others).get(rule, reader) == theirs, text
        num += 1
    assert num >= 50


def test_numbers():
    for text, reader in table("numbers"):
        value = None if reader == "-" else float(reader)
        for kind, precision, want in (
            ("integer", None, None if value is None else str(int(value))),
            ("float", 2, None if value is None else str(round(value, 2))),
        ):
            for answer in ("12", want or "0"):
                asked = question(answer, kind, precision=precision)
                (verdict,) = verdicts("mathvista", [asked], [text])
                assert verdict.parsed == want, (text, kind)
                assert verdict.right is (want == answer)


def test_latex():
    rows = table("latex")
    asked = [question(reference, "free") for _, reference, _, _ in rows]
    with AnswerChecker("accuracy", 2) as checker:

        def equal(pairs):
            texts = [f"<answer>{given}</answer>" for given, _ in pairs]
            return checker.right(texts, [wanted for _, wanted in pairs], texts)

        for rule in TABLES["latex"]:
            found = verdicts(rule, asked, [row[0] for row in rows], equal)
            wrong = [
                (rule, text, reference, verdict)
                for (text, reference, reader, others), verdict in zip(rows, found, strict=True)
                if verdict.right is not (by_rule(others).get(rule, reader) == "+")
            ]
            assert not wrong
    assert not checker.problems


def test_open_answers_as_officially():
    """The official code sees the whole text; this project's rule what the tags hold."""
    rows = table("open")
    asked = [question(reference, "free") for _, reference, *_ in rows]
    for row, verdict in zip(rows, verdicts("mmmu", asked, [row[0] for row in rows]), strict=True):
        text, _, reader, otherwise, official = row
        assert verdict.right is ((otherwise or reader) == "+"), row
        if not any(tag in text for tag in TAGS):
            assert verdict.right is (official == "+"), row


def test_several_references_are_a_list_as_text():
    assert open_answers("['4', '5']") == ["4", "5"]
    assert open_answers("[unclosed") == ["[unclosed"]


def test_yes_and_no():
    """Where VLMEvalKit's rule finds yes or no, this one finds the other nowhere."""
    rows = table("yes_no")
    for gold in ("yes", "no"):
        found = verdicts("hallusion", [question(gold, "yes_no")] * len(rows), [r[0] for r in rows])
        for (text, reader, otherwise, _), verdict in zip(rows, found, strict=True):
            want = otherwise or reader
            assert (verdict.parsed or "-") == want, text
            assert verdict.right is (want == gold)
    for text, reader, otherwise, theirs in rows:
        if "think" not in text and "<answer" not in text and "boxed" not in text:
            assert {otherwise or reader, theirs} != {"yes", "no"}, text
