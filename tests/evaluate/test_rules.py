"""The rules on answers as models give them: ways to state an answer times answers, each with the
verdict that a reader would give, and strings made to trip the rules."""

import time

import pytest

from avar_fast.evaluate.benchmarks import TASKS
from avar_fast.evaluate.benchmarks.mmmu import open_answers
from avar_fast.evaluate.question import Question
from avar_fast.evaluate.rules.choice import edit_distance, mmmu_letter, nearest_option
from avar_fast.evaluate.rules.final import Final, final_part, last_boxed, short_answer
from avar_fast.evaluate.rules.number import listed, lone_number
from avar_fast.evaluate.rules.open_answer import open_candidates, open_matches
from avar_fast.rewards import AnswerChecker

CITIES = ("Tokyo", "Osaka", "Kyoto", "Nagoya Castle")
LETTERS = "ABCD"


def question(answer, kind, options=(), precision=None):
    return Question("1", "row 1", [], (), answer, kind, tuple(options), precision)


@pytest.fixture(scope="module")
def checker():
    with AnswerChecker("accuracy", 2) as checker:
        yield checker


def verdicts(name, questions, completions, checker=None):
    def equal(pairs):
        if not pairs:
            return []
        texts = [f"<answer>{given}</answer>" for given, _ in pairs]
        return checker.right(texts, [wanted for _, wanted in pairs], texts)

    return TASKS[name].verdicts(questions, completions, equal)


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


@pytest.mark.parametrize("name", [*CHOICE_TASKS, "hallusion"])
def test_no_answer_is_unparsable_and_wrong(name):
    texts = [nothing.format(*("B",) * 2) for nothing in NOTHING]
    gold = {"mathvista": "Osaka", "hallusion": "yes"}.get(name, "B")
    for verdict in verdicts(name, [question(gold, "choice", CITIES)] * len(texts), texts):
        assert verdict.parsed is None
        assert verdict.right is False


# (completion, letter that MMMU's own code finds in it, None where it draws at random)
MMMU_TEXTS = [
    ("B", "B"), ("(B)", "B"), ("B.", "B"), ("The answer is (C).", "C"), ("I choose D", "D"),
    ("It is A or B, so A", "A"), ("(A) is wrong, (B) is right", "B"), ("A B", "B"),
    ("(D) because (A) fails", "A"), ("b", None), ("It is B!", "B"), ("Answer B, not C", "C"),
    ("B) Osaka", None), ("I think that the right city must be Kyoto here", "C"),
    ("It must be kyoto, not osaka, I am quite sure", "B"), ("Kyoto", None), ("", None),
    ("A dog sits there", "A"), ("The letter is 'D'", None), (": A :", "A"), ("E", None),
    ("None of them is right as far as I see", None), ("A, B and C", "C"), ("...C...", "C"),
    ("Answer: D", "D"), ("?!B;:", None), ("** B **", "B"), ("**B**", None), ("(b)", None),
    ("A (B) C", "B"), ("Nagoya castle is what one sees in it", "D"),
]  # fmt: skip


def test_mmmu_letters_are_those_of_the_official_rule():
    """Verdicts of the benchmark's parse_multi_choice_response, with None for its random choice."""
    for text, want in MMMU_TEXTS:
        assert mmmu_letter(Final(text, False), CITIES) == want, text


def test_mmmu_pro_letters_are_those_of_the_official_rule():
    for text, want in MMMU_PRO_TEXTS:
        assert mmmu_letter(Final(text, False), CITIES, pro=True) == want, text


MMMU_PRO_TEXTS = [
    ("Thus.\n\nAnswer: C", "C"), ("Answer: (B)", "B"), ("Answer: A\nAnswer: D", "D"),
    ("Answer: B. Blue", "B"), ("Answer: $C$", "C"), ("Answer: A and C", "C"), ("DNA is it", "A"),
    ("C.", "C"), ("It is B. Sure", "B"), ("Answer:", None), ("nothing", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "letter"),
    [("B", "B"), ("(B)", "B"), ("b. yes", "B"), ("Option C", "C"), ("option d", "D"),
     ("The answer is A.", "A"), ("The answer is (A)", "A"), ("Because it is so", None),
     ("Cannot tell", None), ("C, since ...", "C"), ("D\nA", "D"), ("E", None), ("1", None),
     ("The final answer is: B", "B"), ("After a look, I take the answer: C", "C"),
     ("A: 1", "A"), ("Look at B", None), ("b2", None), ("(B", "B"), ("<b>B</b>", None)],
)  # fmt: skip
def test_mmstar_letters(text, letter):
    for gold in "ABCD":
        (verdict,) = verdicts("mmstar", [question(gold, "choice", "ABCD")], [text])
        assert verdict.parsed == letter
        assert verdict.right is (letter == gold)


# Integers: (answer, what it is as a whole number; None where no one number stands there)
WHOLE = [
    ("12", 12), ("12.", 12), ("12.0", 12), ("+12", 12), ("-12", -12), ("1,200", 1200),
    ("12 cm", 12),
    ("$12", 12), ("$12$", 12), ("12%", 12), ("12 %", 12), ("12\\%", 12), ("x = 12", 12),
    ("3 + 9 = 12", 12), ("12.9", 12), ("about 12", 12), ("12 or 13", None), ("twelve", None),
    ("a", None), ("1e3", 1000), ("12 apples", 12), ("- 12", 12), ("#12", 12), ("12!", 12),
    ("12/4", 3), ("1/0", None), ("1e400", None), ("NaN", None), ("inf", None), ("12;", 12),
    ("(12)", 12), ("[12]", 12), ("{12}", 12), ("12\u00b0", 12), ("\u221e", None), ("012", 12),
    ("1.2.3", None), ("12-13", None),
]  # fmt: skip
# Floats at one decimal.
TENTHS = [
    ("1.2", "1.2"), ("1.24", "1.2"), ("1.16", "1.2"), ("1.25001", "1.3"), ("-1.2", "-1.2"),
    ("1.2 m", "1.2"), ("6/5", "1.2"), ("x = 1.2", "1.2"), ("1", "1.0"), ("0", "0.0"), (".2", "0.2"),
    ("1.", "1.0"), ("1,234.56", "1234.6"), ("1.2e1", "12.0"), ("1.2%", "1.2"), ("one", None),
    ("1.2 and 1.3", None), ("", None), ("$1.2$", "1.2"), ("\\frac{6}{5}", None),
]  # fmt: skip


def test_mathvista_numbers():
    """Each in every place an answer can stand: 10 x 38 integers and 10 x 20 floats."""
    integers = [(where.format(text), value) for where in EXPLICIT for text, value in WHOLE]
    floats = [(where.format(text), value) for where in EXPLICIT for text, value in TENTHS]
    assert min(len(integers), len(floats)) >= 200
    for text, value in integers:
        (verdict,) = verdicts("mathvista", [question("12", "integer")], [text])
        assert verdict.parsed == (None if value is None else str(value)), text
        assert verdict.right is (value == 12)
    for text, value in floats:
        (verdict,) = verdicts("mathvista", [question("1.2", "float", precision=1)], [text])
        assert verdict.parsed == value, text
        assert verdict.right is (value == "1.2")


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


# MathVision, free answers: (given, reference, equal)
LATEX = [
    ("60", "60", True), ("60.0", "60", True), ("60^\\circ", "60", True), ("60\u00b0", "60", True),
    ("61", "60", False), ("\\frac{1}{2}", "0.5", True), ("\\dfrac{1}{2}", "\\frac{1}{2}", True),
    ("1/2", "\\frac{1}{2}", True), ("0.50", "1/2", True), ("\\frac{2}{4}", "\\frac{1}{2}", True),
    ("\\frac{1}{3}", "0.5", False), ("\\sqrt{2}", "1.41", True), ("1.414", "\\sqrt{2}", True),
    ("2\\sqrt{2}", "\\sqrt{8}", True), ("\\sqrt{3}", "\\sqrt{2}", False), ("\\pi", "3.14", True),
    ("(1, 2)", "(1,2)", True), ("(2, 1)", "(1,2)", False), ("1,000", "1000", True),
    ("-5", "5", False),
    ("5 \\text{ cm}", "5", True), ("5\\mathrm{~cm}", "5", True), ("$5$", "5", True),
    ("x=5", "5", True),
    ("five", "5", False), ("", "5", False), ("5%", "5", True), ("5\\%", "5", True),
    ("5.004", "5", True),
    ("5.02", "5", False), ("1 1/2", "7", False), ("5!", "120", True), ("2^{3}", "8", True),
]  # fmt: skip


@pytest.mark.parametrize("name", ["mathvision", "mathverse"])
def test_latex_answers(name, checker):
    """33 pairs in 7 places each; all that are equal as mathematics to two decimals are right."""
    places = [place for place in EXPLICIT if "\\boxed{{Q}}" not in place][:7]
    cases = [(place.format(a), b, ok) for place in places for a, b, ok in LATEX]
    assert len(cases) >= 200
    asked = [question(gold, "free") for _, gold, _ in cases]
    found = verdicts(name, asked, [text for text, _, _ in cases], checker)
    skipped = ("x=5",) if name == "mathverse" else ()
    wrong = [
        (text, gold, verdict)
        for (text, gold, ok), verdict in zip(cases, found, strict=True)
        if verdict.right is not ok and not any(s in text for s in skipped)
    ]
    assert not wrong, wrong[:8]


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


# MMMU's open questions: (response, answers, right by the benchmark's own code)
OPEN = [
    ("24", ["24"], True), ("The result is 24.", ["24"], True), ("24.0", ["24"], True),
    ("24.001", ["24"], True), ("24.01", ["24"], False), ("= 24", ["24"], True),
    ("x = 24 m", ["24"], True),
    ("1,200", ["1200"], True), ("So it is 1200", ["1200"], True), ("It is 7 or 24", ["24"], True),
    ("blue whale", ["whale"], True), ("It is a Blue Whale", ["blue whale"], True),
    ("shark", ["whale"], False),
    ("-3", ["3"], False), ("$24", ["24"], True), ("24%", ["24"], True), ("2.4e1", ["24"], True),
    ("twenty-four", ["24"], False), ("", ["24"], False), ("5", ["4", "5"], True),
    ("a", ["a"], True),
    ("the answer is a", ["a"], True), ("0.334", ["0.33"], True), ("it is x", ["x y"], False),
    ("final answer sphere", ["sphere"], True), ("24\nso 25", ["25"], True),
    ("24 so 25", ["24"], False),
]  # fmt: skip


def test_mmmu_open_answers():
    cases = [(place.format(text), golds, ok) for place in EXPLICIT for text, golds, ok in OPEN]
    assert len(cases) >= 200
    for text, golds, ok in cases:
        gold = str(golds) if len(golds) > 1 else golds[0]
        (verdict,) = verdicts("mmmu", [question(gold, "free")], [text])
        assert verdict.right is ok, (text, golds)
    assert open_answers("['4', '5']") == ["4", "5"]
    assert open_answers("[unclosed") == ["[unclosed"]
    assert not open_matches(open_candidates("nothing"), ["24"])


YES_NO = [
    ("Yes", "yes"), ("no", "no"), ("Yes.", "yes"), ("NO!", "no"), ("Yes, there is no doubt", "yes"),
    ("No, yes is wrong", "no"), ("The answer is yes", "yes"), ("I would say no", "no"),
    ("Maybe", None),
    ("yes and no", "yes"), ("It is neither yes nor no", None), ("Not sure", None), ("nope", None),
    ("yesterday", None), ("1", None), ("**Yes**", "yes"), ("It does not.", None),
    ("Yes\nNo", "yes"),
    ("know", None), ("'no'", "no"),
]  # fmt: skip


def test_yes_and_no():
    cases = [(place.format(text), said) for place in EXPLICIT for text, said in YES_NO]
    cases += [(text, said) for text, said in YES_NO]
    assert len(cases) >= 200
    for text, said in cases:
        for gold in ("yes", "no"):
            (verdict,) = verdicts("hallusion", [question(gold, "yes_no")], [text])
            assert verdict.parsed == said, text
            assert verdict.right is (said == gold)


ENDLESS = (
    "x" * 100_000, "<answer>" * 12_500, "\\boxed{" * 15_000, "answer is " * 10_000, "(A) " * 25_000,
    "1 " * 50_000, "is " * 33_000, "<think>" * 14_000, "=" * 100_000, "\n" * 100_000,
    "yes no " * 15_000,
    "<answer>" + "9" * 100_000 + "</answer>", "<answer>" + "{" * 100_000 + "</answer>",
    "\\boxed{" + "{" * 50_000 + "}" * 50_000, "so . " * 20_000, "-" * 100_000, "9," * 50_000,
)  # fmt: skip


@pytest.mark.parametrize("name", list(TASKS))
def test_100_000_characters_take_no_time(name, checker):
    kinds = {"hallusion": "yes_no", "mathvision": "free", "mathverse": "free", "mmmu": "free"}
    kind = kinds.get(name, "choice")
    gold = {"yes_no": "yes", "free": "12"}.get(kind, "Osaka" if name == "mathvista" else "B")
    asked = [question(gold, kind, CITIES if kind == "choice" else ())] * len(ENDLESS)
    started = time.perf_counter()
    found = verdicts(name, asked, ENDLESS, checker)
    assert time.perf_counter() - started < 10
    assert len(found) == len(ENDLESS)
