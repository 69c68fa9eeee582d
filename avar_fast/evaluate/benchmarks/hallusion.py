"""HallusionBench (Guan et al., CVPR 2024), the questions with an image."""

from collections.abc import Sequence

from ...data.problems import bad_row, shown
from ..judge_prompts import correctness, read_word
from ..prompts import instruction, joined, user_turn
from ..question import Dialogue, Equal, Prediction, Question, Verdict, scores_by_group
from ..rules.final import final_part
from ..rules.yes_no import yes_or_no
from ..source import Record, Source

ANSWERS = {"0": "no", "1": "yes"}
ID = ("category", "subcategory", "set_id", "figure_id", "question_id")
FIGURE, QUESTION = ID.index("figure_id"), ID.index("question_id")


class HallusionBench:
    name, title = "hallusion", "HallusionBench"
    rule = "yes or no in tags, in a box, first or alone; mean of aAcc, fAcc and qAcc"
    official = "GPT-4 judges each answer"
    num_published = 951
    source = Source(
        hub="lmms-lab/HallusionBench",
        split="image",
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
            "image": "image",
        },
    )

    def question(self, record: Record, where: str, style: str) -> Question:
        if record["gt_answer"] not in ANSWERS:
            raise bad_row(where, "gt_answer", "be 0 or 1", f"got {shown(record['gt_answer'])}")
        return Question(
            id="/".join(record[field] for field in ID),
            where=where,
            messages=user_turn(None, joined(record["question"], instruction("yes_no", style, ""))),
            images=("image",),
            answer=ANSWERS[record["gt_answer"]],
            kind="yes_no",
            groups={"category": record["category"], "subcategory": record["subcategory"]},
            asked=record["question"],
            details=record["gt_answer_details"],
        )

    def verdicts(
        self, questions: Sequence[Question], completions: Sequence[str], equal: Equal
    ) -> list[Verdict]:
        verdicts = []
        for question, completion in zip(questions, completions, strict=True):
            final = final_part(completion)
            said = None if final is None else yes_or_no(final)
            verdicts.append(Verdict(said, said == question.answer))
        return verdicts

    def dialogue(self, question: Question, completion: str) -> Dialogue:
        """A judge says whether the response is correct; unclear ones are wrong, as officially."""
        reference = f"{question.answer}. {question.details}"
        reply = yield correctness(question.asked, reference, completion)
        said = read_word(reply, ("correct", "incorrect", "unclear"))
        if said == "unclear":
            return Verdict(None, False)
        other = "no" if question.answer == "yes" else "yes"
        return Verdict(question.answer if said == "correct" else other, said == "correct")

    def tally(self, predictions: Sequence[Prediction]) -> list[tuple[int, int]]:
        return [
            (sum(p.right for p in predictions), len(predictions)),
            _all_right(predictions, but_for=QUESTION),
            _all_right(predictions, but_for=FIGURE),
        ]

    def cluster(self, prediction: Prediction) -> str:
        """The set: no figure and no question is in two of them."""
        return "/".join(prediction.id.split("/")[:FIGURE])

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """aAcc of questions; fAcc of figures, all of whose questions must be right; qAcc of
        questions, which must be right on all their figures."""
        by_group = scores_by_group(predictions)
        shares = [right / num for right, num in self.tally(predictions)]
        parts = dict(zip(("aAcc", "fAcc", "qAcc"), shares, strict=True))
        return by_group | {"score": sum(shares) / 3} | parts


def _all_right(predictions: Sequence[Prediction], but_for: int) -> tuple[int, int]:
    """(groups in which every prediction is right, groups); in a group all parts of the ids are
    the same but for one."""
    right: dict[tuple[str, ...], bool] = {}
    for prediction in predictions:
        parts = prediction.id.split("/")
        key = (*parts[:but_for], *parts[but_for + 1 :])
        right[key] = right.get(key, True) and prediction.right
    return sum(right.values()), len(right)
