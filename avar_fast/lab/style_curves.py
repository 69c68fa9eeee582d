"""What the completions of a run of GRPO on styled walks show, step by step."""

import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np

from .study_folder import read_lines
from .walk_styles import looks_back, pairs_of, read_response

CORRECT, VISUAL = "exact", "visual"
"""Names of rewards."""
STYLES = ("look_back", "transcribe")
Curves = dict[str, list[float | None]]
Seeds = dict[int, dict]
"""{seed: the curves of a run}, of an arm."""


def read_curves(run: Path, data: Path) -> Curves:
    """Curves over the steps of a run, from its ``completions.jsonl``: lists with a value per step.

    ``accuracy`` is the share of right completions, ``STYLE`` the share of completions in a style,
    ``accuracy_STYLE`` the share of right ones among these, and ``vars_STYLE`` the mean VARS of the
    right ones, before its weight. ``wrong_transcripts`` is the share of transcripts that differ
    from the board, and ``follows_wrong`` the share of these on which the walk goes on all the same.
    A value is None where a step has no such completion, or the run no VARS.

    Args:
        run: the run's folder.
        data: the JSONL file of its rows.
    """
    boards = [np.array(row["meta"]["board"]) for row in read_lines(data)]
    steps: dict[int, list[dict]] = defaultdict(list)
    for record in read_lines(run / "completions.jsonl"):
        steps[record["step"]].append(record)
    points = [_point(steps[step], boards) for step in sorted(steps)]
    return {name: [point[name] for point in points] for name in points[0]}


def _point(records: list[dict], boards: list[np.ndarray]) -> dict[str, float | None]:
    """The values of a step."""
    point = {"accuracy": mean_of([r["rewards"][CORRECT] for r in records])}
    responses = [(r, read_response(r["completion"])) for r in records]
    written = [(r, x) for r, x in responses if x is not None and x.transcript is not None]
    looking = [r for r in records if looks_back(r["completion"])]
    for style, chosen in zip(STYLES, (looking, [r for r, _ in written]), strict=True):
        rewards = [r["rewards"] for r in chosen]
        right = [reward for reward in rewards if reward[CORRECT] >= 0.5]
        point[style] = len(chosen) / len(records)
        point[f"accuracy_{style}"] = mean_of([reward[CORRECT] for reward in rewards])
        point[f"vars_{style}"] = mean_of([reward.get(VISUAL) for reward in right])
    wrong = [x for r, x in written if x.transcript != pairs_of(boards[_row_number(r)])]
    point["wrong_transcripts"] = len(wrong) / len(written) if written else None
    point["follows_wrong"] = mean_of([float(response.follows_transcript) for response in wrong])
    return point


def _row_number(record: dict) -> int:
    """The place of a completion's row in its file, from 0 on; "FILE row 1" is the first."""
    return int(record["row"].rpartition(" row ")[2]) - 1


def mean_of(values: list[float | None]) -> float | None:
    """The mean of the values that are there; None if none is."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
