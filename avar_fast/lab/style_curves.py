"""What the completions of a run of GRPO on styled walks show, step by step."""

import json
import statistics
from collections import defaultdict
from pathlib import Path

from .walk_styles import follows_transcript, style_of

CORRECT, VISUAL = "exact", "visual"
"""Names of rewards."""
KEYS = {"look back": "look_back", "transcribe": "transcribe"}


def read_curves(run: Path) -> dict[str, list[float | None]]:
    """Curves over the steps of a run, from its ``completions.jsonl``; each a list with a value per
    step.

    ``accuracy`` is the share of right completions. ``look_back`` and ``transcribe`` are the shares
    of completions in these styles. ``accuracy_STYLE`` is the share of right completions among those
    of a style, ``vars_STYLE`` the mean VARS of the right ones, before its weight, and
    ``follows_transcript`` the share of transcribing completions whose walk reads what they wrote.
    The latter are None where a step has no such completion, or the run no VARS.
    """
    steps: dict[int, list[dict]] = defaultdict(list)
    with (run / "completions.jsonl").open() as lines:
        for line in lines:
            record = json.loads(line)
            steps[record["step"]].append(record)
    points = [_point(steps[step]) for step in sorted(steps)]
    return {name: [point[name] for point in points] for name in points[0]}


def _point(records: list[dict]) -> dict[str, float | None]:
    """The values of a step."""
    point: dict[str, float | None] = {"accuracy": _mean([r["rewards"][CORRECT] for r in records])}
    for style, key in KEYS.items():
        chosen = [r for r in records if style_of(r["completion"]) == style]
        right = [r for r in chosen if r["rewards"][CORRECT] >= 0.5]
        point[key] = len(chosen) / len(records)
        point[f"accuracy_{key}"] = _mean([r["rewards"][CORRECT] for r in chosen])
        point[f"vars_{key}"] = _mean([r["rewards"][VISUAL] for r in right if VISUAL in r["rewards"]])
    followed = [follows_transcript(r["completion"]) for r in records]
    point["follows_transcript"] = _mean([float(x) for x in followed if x is not None])
    return point


def _mean(values: list[float]) -> float | None:
    return statistics.mean(values) if values else None


def area(curve: list[float]) -> float:
    """The area under a curve over the steps, divided by their number: its mean."""
    return statistics.mean(curve)


def mean_of(curve: list[float | None]) -> float | None:
    """The mean of the steps that have a value; None if none has."""
    return _mean([value for value in curve if value is not None])
