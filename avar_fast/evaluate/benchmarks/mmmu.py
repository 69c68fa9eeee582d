"""MMMU (Yue et al., CVPR 2024), split validation, and MMMU-Pro (Yue et al., 2024)."""

import ast
import re
from collections.abc import Sequence

from ...data.problems import bad_row, shown
from ..benchmark import ByQuestion, Equal, Question
from ..prediction import Verdict
from ..prompts import instruction, joined, lettered, user_turn
from ..rules.final import Final, final_part
from ..rules.mmmu import mmmu_letter, open_candidates, open_matches
from ..source import BenchmarkSource, Record

SUBJECTS = (
    "Accounting", "Agriculture", "Architecture_and_Engineering", "Art", "Art_Theory",
    "Basic_Medical_Science", "Biology", "Chemistry", "Clinical_Medicine", "Computer_Science",
    "Design", "Diagnostics_and_Laboratory_Medicine", "Economics", "Electronics",
    "Energy_and_Power", "Finance", "Geography", "History", "Literature", "Manage", "Marketing",
    "Materials", "Math", "Mechanical_Engineering", "Music", "Pharmacy", "Physics", "Psychology",
    "Public_Health", "Sociology",
)  # fmt: skip
IMAGES = tuple(f"image_{i}" for i in range(1, 8))
IMAGE_COLUMNS = {"image_1": "image", **dict.fromkeys(IMAGES[1:], "image?")}
OFFICIAL_CHOICE = "Answer with the option's letter from the given choices directly."
OFFICIAL_OPEN = "Answer the question using a single word or phrase."
OFFICIAL_PRO = (
    " The last line of your response should be of the following format: 'Answer: $LETTER' (without"
    " quotes) where LETTER is one of options. Think step by step before answering."
)
ASKED = "Answer the multiple-choice question in the image."
_MARK = re.compile(r"<image (\d)>")
NO_RANDOM = "the same, and a letter drawn at random where it finds none"


class MMMU(ByQuestion):
    name, title = "mmmu", "MMMU val"
    rule = (
        "the letter in tags, in a box, in brackets, by itself or as the option's text, else"
        " announced; open questions by what the response ends on"
    )
    official = NO_RANDOM
    num_published = 900
    source = BenchmarkSource(
        hub="MMMU/MMMU",
        splits=("validation",),
        configs=SUBJECTS,
        columns={
            "id": "text",
            "question": "text",
            "options": "text",
            "explanation": "text?",
            **IMAGE_COLUMNS,
            "img_type": "text",
            "answer": "text",
            "topic_difficulty": "text",
            "question_type": "text",
            "subfield": "text",
        },
    )

    def question(self, record: Record, where: str, style: str) -> Question:
        choice = record["question_type"] == "multiple-choice"
        options = _options(record, where) if choice else ()
        _check_answer(record["answer"], options, where)
        text = joined(
            record["question"],
            lettered(options),
            instruction(
                "choice" if choice else "free", style, OFFICIAL_CHOICE if choice else OFFICIAL_OPEN
            ),
        )
        subject = record["id"].partition("_")[2].rpartition("_")[0]
        return _question(record, where, text, options, {
            "subject": subject, "difficulty": record["topic_difficulty"],
        })  # fmt: skip

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        pairs = zip(questions, completions, strict=True)
        return [_verdict(q, final_part(completion), pro=False) for q, completion in pairs]


class MMMUPro(ByQuestion):
    """One of the two parts of MMMU-Pro. The score of the benchmark is the mean of both.

    Args:
        vision: the part whose questions are in the image; else the standard part.
    """

    num_published = 1730
    rule = (
        "the letter in tags, in a box, behind Answer:, in brackets, by itself or as the option's"
        " text, else announced"
    )
    official = NO_RANDOM

    def __init__(self, vision: bool) -> None:
        self.vision = vision
        part = "vision" if vision else "standard"
        self.name, self.title = f"mmmu_pro_{part}", f"MMMU-Pro {part}"
        columns = {"id": "text", "options": "text", "answer": "text", "subject": "text"}
        columns |= (
            {"image": "image"}
            if vision
            else {"question": "text", "topic_difficulty": "text", "img_type": "text"}
            | IMAGE_COLUMNS
        )
        self.source = BenchmarkSource(
            hub="MMMU/MMMU_Pro",
            splits=("test",),
            configs=("vision",) if vision else ("standard (10 options)",),
            columns=columns,
        )

    def question(self, record: Record, where: str, style: str) -> Question:
        options = _options(record, where)
        _check_answer(record["answer"], options, where)
        groups = {"subject": record["subject"]}
        if self.vision:
            official = "Write out the multiple-choice question in the image and then solve it."
            asked = "" if style == "official" else ASKED
            text = joined(asked, instruction("choice", style, official + OFFICIAL_PRO))
            messages = user_turn(None, text)
            return Question(
                record["id"], where, messages, ("image",), record["answer"], "choice", options,
                groups=groups,
            )  # fmt: skip
        official = "Answer the preceding multiple choice question."
        text = joined(
            record["question"],
            lettered(options, "{}. {}"),
            instruction("choice", style, official + OFFICIAL_PRO),
        )
        return _question(record, where, text, options, groups)

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        pairs = zip(questions, completions, strict=True)
        return [_verdict(q, final_part(completion), pro=True) for q, completion in pairs]


def _question(
    record: Record, where: str, text: str, options: tuple[str, ...], groups: dict[str, str]
) -> Question:
    """Makes a question whose images stand where the text first names them."""
    parts: list[str | None] = []
    columns: list[str] = []
    position = 0
    for mark in _MARK.finditer(text):
        column = f"image_{mark[1]}"
        if column in IMAGES and column not in columns:
            parts += [text[position : mark.start()], None]
            columns.append(column)
            position = mark.end()
    parts.append(text[position:])
    return Question(
        id=record["id"],
        where=where,
        messages=user_turn(*parts),
        images=tuple(columns),
        answer=record["answer"],
        kind="choice" if options else "free",
        options=options,
        groups=groups,
    )


def _options(record: Record, where: str) -> tuple[str, ...]:
    """Reads the options from text that holds a Python list."""
    try:
        options = ast.literal_eval(record["options"])
    except (ValueError, SyntaxError):
        options = None
    if not isinstance(options, list) or not 2 <= len(options) <= 26:
        raise bad_row(where, "options", "be a list as text", f"got {shown(record['options'])}")
    return tuple(str(option) for option in options)


def _check_answer(answer: str, options: tuple[str, ...], where: str) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)]
    if options and (len(answer) != 1 or answer not in letters):
        remedy = "The split test has no answers." if answer == "?" else ""
        got = f"got {shown(answer)}"
        raise bad_row(where, "answer", f"be a letter of the {len(options)} options", got, remedy)
    if not answer.strip():
        raise bad_row(where, "answer", "not be empty", "it is")


def open_answers(answer: str) -> list[str]:
    """The reference answers: one, or several written as a Python list."""
    if answer.startswith("["):
        try:
            answers = ast.literal_eval(answer)
        except (ValueError, SyntaxError):
            return [answer]
        if isinstance(answers, list) and answers:
            return [str(value) for value in answers]
    return [answer]


def _verdict(question: Question, final: Final | None, pro: bool) -> Verdict:
    if final is None:
        return Verdict(None, False)
    if question.kind == "choice":
        letter = mmmu_letter(final, question.options, pro)
        return Verdict(letter, letter == question.answer)
    candidates = open_candidates(final.text)
    parsed = "; ".join(str(candidate) for candidate in candidates)[:200]
    return Verdict(parsed, open_matches(candidates, open_answers(question.answer)))
