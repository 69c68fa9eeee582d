"""The rules on answers as models give them: ways to state an answer times answers, each with the
verdict that a reader would give, and strings made to trip the rules."""

import time

import pytest

from avar_fast.evaluate.benchmark import Question
from avar_fast.evaluate.benchmarks import BENCHMARKS
from avar_fast.evaluate.rules.choice import edit_distance, nearest_option
from avar_fast.evaluate.rules.final import Final, final_part, last_boxed, short_answer
from avar_fast.evaluate.rules.number import listed, lone_number
from avar_fast.rewards import AnswerChecker

CITIES = ("Tokyo", "Osaka", "Kyoto", "Nagoya Castle")
LETTERS = "ABCD"


def question(answer, kind, options=(), precision=None):
    return Question("1", "row 1", [], (), answer, kind, tuple(options), precision)


@pytest.fixture(scope="module")
def checker():
    with AnswerChecker("accuracy", 2) as checker:
        yield checker


class NEVER:
    """In place of a checker: nothing is equal that is not the same text."""

    @staticmethod
    def right(texts, wanted, rows):
        return [False] * len(texts)


def verdicts(name, questions, completions, checker=None):
    def equal(pairs):
        if not pairs:
            return []
        texts = [f"<answer>{given}</answer>" for given, _ in pairs]
        return checker.right(texts, [wanted for _, wanted in pairs], texts)

    return BENCHMARKS[name].verdicts(questions, completions, equal)


# Where the answer stands. {} is the answer; every benchmark reads these alike.
EXPLICIT = (
    "<answer>{}</answer>",
    "<think>It could be Q or 99999. No.</think><answer>{}</answer>",
    "<think>x</think>\n<answer>\n {} \n</answer>\n",
    "<answer>Q</answer> No, wait: <answer>{}</answer>",
    "So \\boxed{{{}}}",
    "<think>\\boxed{{Q}}</think>The result is \\boxed{{{}}}, that is all.",
    "First \\boxed{{Q}}, then, after another look, $\\boxed{{{}}}$.",
    "<answer>{}</answer></answer>",
    "\\boxed{{Q}} <answer>{}</answer>",
    "<think>a <answer>Q</answer></think> <answer>{}</answer> and nothing else",
)
# What no rule may take for an answer.
NOTHING = (
    "", " ", "\n", "<answer></answer>", "<answer> </answer>", "<think>The answer is {}",
    "<think>so <answer", "\\boxed{{}}", "<think>\\boxed{{{}}}", "<think>first</think>",
    "<think>{}", "<think>a</think><think>The answer is {}", "<think>{}\n{}\n",
)  # fmt: skip
LETTER_FORMS = ("{}", "({})", "{}.", "({}) ", "{}: it is so", "{}. 12 cm", "Option {}",
"option ({})",
                "The answer is {}", "answer: {}", "{})", "choice {}")  # fmt: skip


def letter_cases():
    return [
        (where.format(form.format(letter)), letter)
        for where in EXPLICIT
        for form in LETTER_FORMS
        for letter in LETTERS
    ]


CHOICE_TASKS = ("mathvista", "mathvision", "mathverse", "mmmu", "mmmu_pro_standard", "mmstar")


@pytest.mark.parametrize("name", CHOICE_TASKS)
def test_letters_in_tags_and_boxes(name):
    """480 ways to give a letter: right for the reference's, wrong for the next one."""
    cases = letter_cases()
    assert len(cases) >= 200
    texts = [text for text, _ in cases]
    for shift, right in ((0, True), (1, False)):
        golds = [LETTERS[(LETTERS.index(letter) + shift) % 4] for _, letter in cases]
        if name == "mathvista":
            golds = [CITIES[LETTERS.index(gold)] for gold in golds]
        asked = [question(gold, "choice", CITIES) for gold in golds]
        found = verdicts(name, asked, texts)
        wrong = [
            (text, verdict)
            for text, verdict in zip(texts, found, strict=True)
            if verdict.right is not right or verdict.parsed is None
        ]
        assert not wrong, wrong[:5]


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [("mathvista", "integer", "12"), ("mathvision", "free", "12"), ("mathverse", "free", "12"),
     ("mmmu", "free", "12"), ("hallusion", "yes_no", "no")],
)  # fmt: skip
def test_other_answers_in_tags_and_boxes(name, kind, answer):
    texts = [where.format(answer) for where in EXPLICIT]
    for gold in (answer, "yes" if answer == "no" else "13"):
        found = verdicts(name, [question(gold, kind)] * len(texts), texts, NEVER)
        assert [verdict.right for verdict in found] == [gold == answer] * len(texts)


@pytest.mark.parametrize("name", [*CHOICE_TASKS, "hallusion"])
def test_no_answer_is_unparsable_and_wrong(name):
    texts = [nothing.format(*("B",) * 2) for nothing in NOTHING]
    gold = {"mathvista": "Osaka", "hallusion": "yes"}.get(name, "B")
    for verdict in verdicts(name, [question(gold, "choice", CITIES)] * len(texts), texts):
        assert verdict.parsed is None
        assert verdict.right is False


@pytest.mark.parametrize(
    ("text", "want"),
    [("[2014, 2016]", "[2014, 2016]"), ("[2014,2016]", "[2014, 2016]"),
    ("2014, 2016", "[2014, 2016]"),
     ("(2014, 2016)", "[2014, 2016]"), ("[2014", None), ("[" * 500, None), ("[1]" * 9999, None),
     ("__import__('os')", None), ("{2014, 2016}", None), ("[]", "[]")],
)  # fmt: skip
def test_mathvista_lists(text, want):
    assert listed(text) == want


OPTION_TEXTS = [
    ("Osaka", "Osaka"), ("osaka", "Osaka"), ("Osaka.", "Osaka"), ("(B) Osaka", "Osaka"),
    ("B", "Osaka"), ("(b)", "Osaka"), ("Osaka city", "Osaka"), ("Nagoya", None),
    ("Paris", None), ("N/A", None), ("Cannot be determined", None), ("E", None),
    ("Tokyo or Osaka", None),
    ("I do not know", None), ("Toky", "Tokyo"), ("Tokyo", "Tokyo"), ("kyoto", "Kyoto"),
    ("C.", "Kyoto"),
    ("the castle of Nagoya", None), ("x" * 201, None), ("(D)", "Nagoya Castle"),
]  # fmt: skip


def test_mathvista_options():
    for where in EXPLICIT:
        for text, want in OPTION_TEXTS:
            asked = question("Osaka", "choice", CITIES)
            (verdict,) = verdicts("mathvista", [asked], [where.format(text)])
            assert verdict.parsed == want, (where, text)
            assert verdict.right is (want == "Osaka")


@pytest.mark.parametrize(
    ("text", "options", "want"),
    [("3.0", ("1mm", "2mm", "3mm"), "3mm"), ("60", ("15*\\degree", "60*\\degree"), "60*\\degree"),
     ("4/5", ("\\frac{4}{5}", "\\frac{6}{5}"), "\\frac{4}{5}"),
     ("0.41667", ("\\frac { 5 } { 12 }", "\\frac { 12 } { 5 }"), "\\frac { 5 } { 12 }"),
     ("140", ("40\u00b0", "50\u00b0"), None), ("7", ("6", "8"), None), ("5", ("5 cm", "5 m"), None),
     ("20\u221a{2}", ("20 sea miles", "20\u221a{2} mi"), "20\u221a{2} mi"),
     ("-2", ("2", "4"), None), ("92", ("97", "102"), None), ("12", ("12 or 13", "14"), None),
     ("$3$", ("2", "3"), "3"), ("**Yes**", ("Yes", "No"), "Yes"), ("N/A", ("Yes", "No"), None)],
)  # fmt: skip
def test_mathvista_options_by_their_value(text, options, want):
    asked = question(options[0], "choice", options)
    (verdict,) = verdicts("mathvista", [asked], [f"<answer>{text}</answer>"])
    assert verdict.parsed == want


def test_nearest_option_is_by_edits_and_never_a_guess():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3
    assert nearest_option("no", ("Yes", "No")) == "No"
    assert nearest_option("ab", ("aa", "bb")) is None, "two as near"
    assert nearest_option("Inconclusive", ("Yes", "No")) is None


@pytest.mark.parametrize(
    ("text", "want"),
    [("The answer is 12.", "12"), ("Answer: 12", "12"), ("**Answer:** 12\nBecause.", "12"),
     ("The answer is 5. No, the final answer is: 12", "12"), ("12", "12"), ("12 cm", "12 cm"),
     ("x" * 101, None), ("a\nb", None), ("The answer should be 12", "12"), ("answer =\n12", "12"),
     ("The answer is", None), ("An answerable thing\nwith 12", None)],
)  # fmt: skip
def test_announced_answers(text, want):
    final = final_part(text)
    assert (None if final is None else short_answer(final)) == want


def test_boxes_are_taken_whole():
    assert last_boxed("\\boxed{\\frac{1}{2}} and \\boxed{{a}{b}}") == "{a}{b}"
    assert last_boxed("\\boxed{1} \\boxed{2") is None
    cut = "\\boxed{1} \\boxed{2"
    assert final_part(cut) == Final(cut, False, cut)
    assert lone_number("1 = 2 = 3") == 3


# MathVision's letters and option texts in plain text: (completion, parsed, right for "C" = "3")
OPTIONS = ("1", "2", "3", "4", "5")
MATHVISION_TEXTS = [
    ("The answer is C.", "C", True), ("I pick (C).", "C", True), ("C\nbecause", "C", True),
    ("(C)\nbecause", "C", True), ("It is 3", "3", True), ("The value is 3.", "3", True),
    ("The final answer is 4", "4", False), ("\\boxed{3}", "3", True), ("\\boxed{(C)}", "C", True),
    ("\\boxed{(A),(B),(C)}", "(A),(B),(C)", False), ("\\boxed{\\text{C}}", "C", True),
    ("\\boxed{45}. The answer is: (C).", "C", True), ("The answer is \\textbf{C}", "C", True),
    ("\\boxed{\\frac{6}{2}}", "\\frac{6}{2}", True), ("c", "C", True), ("F", "F", False),
    ("A lot of words\nthat end nowhere", None, False), ("The answer is (C) 3 cm", "C", True),
]  # fmt: skip


def test_mathvision_letters(checker):
    asked = [question("C", "choice", OPTIONS)] * len(MATHVISION_TEXTS)
    found = verdicts("mathvision", asked, [text for text, _, _ in MATHVISION_TEXTS], checker)
    for (text, parsed, right), verdict in zip(MATHVISION_TEXTS, found, strict=True):
        assert (verdict.parsed, verdict.right) == (parsed, right), text


def test_an_answer_that_would_never_be_computed_is_wrong_and_named(checker):
    checker._rewards.row_seconds = 2.0
    started = time.monotonic()
    text = "<answer>5^{5^{5^{5^5}}}</answer>"
    (verdict,) = verdicts("mathvision", [question("7", "free")], [text], checker)
    checker._rewards.row_seconds = 5.0
    assert not verdict.right
    assert time.monotonic() - started < 20
    assert "killed" in checker.problems[-1]


ENDLESS = (
    "x" * 100_000, "<answer>" * 12_500, "\\boxed{" * 15_000, "answer is " * 10_000, "(A) " * 25_000,
    "1 " * 50_000, "is " * 33_000, "<think>" * 14_000, "=" * 100_000, "\n" * 100_000,
    "yes no " * 15_000,
    "<answer>" + "9" * 100_000 + "</answer>", "<answer>" + "{" * 100_000 + "</answer>",
    "\\boxed{" + "{" * 50_000 + "}" * 50_000, "so . " * 20_000, "-" * 100_000, "9," * 50_000,
)  # fmt: skip


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_100_000_characters_take_no_time(name, checker):
    kinds = {"hallusion": "yes_no", "mathvision": "free", "mathverse": "free", "mmmu": "free"}
    kind = kinds.get(name, "choice")
    gold = {"yes_no": "yes", "free": "12"}.get(kind, "Osaka" if name == "mathvista" else "B")
    asked = [question(gold, kind, CITIES if kind == "choice" else ())] * len(ENDLESS)
    started = time.perf_counter()
    found = verdicts(name, asked, ENDLESS, checker)
    assert time.perf_counter() - started < 10
    assert len(found) == len(ENDLESS)
