"""HallusionBench (Guan et al., CVPR 2024): 951 questions with an image and 178 without.

The official aAcc and qAcc count all questions. The official fAcc counts figures, so it covers only
the questions with an image. VLMEvalKit's score is the mean of the three over the questions with an
image. Model reports give this score, and most likely the paper does, too.
"""

from collections.abc import Sequence

from ...data.problems import bad_row, shown
from ..benchmark import Dialogue, Equal, Question
from ..judge.prompts import correctness, read_word
from ..prediction import Prediction, Verdict, scores_by_group
from ..prompts import instruction, joined, user_turn
from ..rules.final import final_part
from ..rules.yes_no import yes_or_no
from ..source import BenchmarkSource, Record

ANSWERS = {"0": "no", "1": "yes"}
ID = ("category", "subcategory", "set_id", "figure_id", "question_id")
FIGURE, QUESTION = ID.index("figure_id"), ID.index("question_id")


class HallusionBench:
    name, title = "hallusion", "HallusionBench"
    rule = (
        "yes or no in tags, in a box, first or alone; mean of aAcc, fAcc and qAcc over the 951"
        " questions with an image; the official aAcc and qAcc over all 1129 stand beside it"
    )
    official = "GPT-4 judges each answer; without an image an unclear one is right"
    num_published = 1129
    source = BenchmarkSource(
        hub="lmms-lab-encoder/HallusionBench",
        splits=("image", "non_image"),
        columns={
            "category": "text",
            "subcategory": "text",
            "visual_input": "text",
            "set_id": "text",
            "figure_id": "text",
            "sample_note": "text",
            "question_id": "text",
            "question": "text",
            "gt_answer_details": "text",
            "gt_answer": "text",
            "filename": "text?",
            "image": "image?",
        },
    )

    def question(self, record: Record, where: str, style: str) -> Question:
        if record["gt_answer"] not in ANSWERS:
            raise bad_row(where, "gt_answer", "be 0 or 1", f"got {shown(record['gt_answer'])}")
        id = "/".join(record[field] for field in ID)
        if (record["visual_input"] != "0") != has_image(id):
            got = f"got {shown(record['visual_input'])} of {id}"
            raise bad_row(where, "visual_input", "be 0 of VS figures 0 and of them alone", got)
        text = joined(record["question"], instruction("yes_no", style, ""))
        return Question(
            id=id,
            where=where,
            messages=user_turn(None, text) if has_image(id) else user_turn(text),
            images=("image",) if has_image(id) else (),
            answer=ANSWERS[record["gt_answer"]],
            kind="yes_no",
            groups={name: record[name] for name in ("category", "subcategory", "visual_input")},
            asked=record["question"],
            details=record["gt_answer_details"],
        )

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        verdicts = []
        for question, completion in zip(questions, completions, strict=True):
            final = final_part(completion)
            answer = None if final is None else yes_or_no(final)
            verdicts.append(Verdict(answer, answer == question.answer))
        return verdicts

    def dialogue(self, question: Question, completion: str) -> Dialogue:
        """The judge says whether the response is correct. As in the official rule, an unclear
        response is wrong for a question with an image and right for one without."""
        reference = f"{question.answer}. {question.details}"
        reply = yield correctness(question.asked, reference, completion)
        judgment = read_word(reply, ("correct", "incorrect", "unclear"))
        if judgment == "unclear":
            right = not has_image(question.id)
            return Verdict("unclear" if right else None, right)
        other = "no" if question.answer == "yes" else "yes"
        return Verdict(question.answer if judgment == "correct" else other, judgment == "correct")

    def tally(self, predictions: Sequence[Prediction]) -> list[tuple[int, int]]:
        return list(_counts([p for p in predictions if has_image(p.id)]).values())

    def cluster(self, prediction: Prediction) -> str:
        """The set of a question. Different sets share no figures and no questions."""
        return "/".join(prediction.id.split("/")[:FIGURE])

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """``score`` is the mean of aAcc, fAcc and qAcc over the questions with an image."""
        with_image = [p for p in predictions if has_image(p.id)]
        parts = {name: right / num for name, (right, num) in _counts(with_image).items() if num}
        official = {
            f"official {name}": right / num
            for name, (right, num) in _counts(predictions).items()
            if name != "fAcc"
        }
        score = sum(parts.values()) / max(len(parts), 1)
        return scores_by_group(predictions) | {"score": score} | parts | official


def has_image(id: str) -> bool:
    """Whether a question has an image. Only figure 0 of category VS (visual supplement) stands for
    no image."""
    parts = id.split("/")
    return not (parts[0] == "VS" and parts[FIGURE] == "0")


def _counts(predictions: Sequence[Prediction]) -> dict[str, tuple[int, int]]:
    """(right, all) counts of aAcc, fAcc and qAcc.

    aAcc counts predictions. fAcc counts figures; all questions on a figure must be right. qAcc
    counts questions; a question must be right on all its figures.
    """
    return {
        "aAcc": (sum(p.right for p in predictions), len(predictions)),
        "fAcc": _all_right(predictions, but_for=QUESTION),
        "qAcc": _all_right(predictions, but_for=FIGURE),
    }


def _all_right(predictions: Sequence[Prediction], but_for: int) -> tuple[int, int]:
    """(number of groups in which every prediction is right, number of groups). The ids in a group
    differ only in the part ``but_for``."""
    right: dict[tuple[str, ...], bool] = {}
    for prediction in predictions:
        parts = prediction.id.split("/")
        key = (*parts[:but_for], *parts[but_for + 1 :])
        right[key] = right.get(key, True) and prediction.right
    return sum(right.values()), len(right)
