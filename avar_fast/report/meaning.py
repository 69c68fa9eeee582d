"""Settings that decide what a metric of the log measures: runs that differ in one do not compare in
that metric."""

import json
from collections.abc import Sequence

from .metrics import SCORES, VAS_SECTION
from .run_folder import RunFolder

_VAS = (*SCORES, *(f"eval_{score}" for score in SCORES))
DECIDED_BY = (
    (VAS_SECTION, "VAS", _VAS, "agto.queries"),
    # More image tokens have more mass, and so has a longer system turn.
    (VAS_SECTION, "VAS", _VAS, "data.min_pixels"),
    (VAS_SECTION, "VAS", _VAS, "data.max_pixels"),
    (VAS_SECTION, "VAS", _VAS, "data.system_prompt"),
    ("Rewards", "The visual reward", ("reward_visual",), "grpo.visual_form"),
    ("Rewards", "The visual reward", ("reward_visual",), "grpo.visual_clip"),
    ("Rewards", "The visual reward", ("reward_visual",), "grpo.visual_layers"),
    ("Rewards", "The sum of rewards", ("reward",), "grpo.rewards"),
)
"""(section of the page, subject, metrics, the setting)"""


def queries_note(runs: Sequence[RunFolder]) -> str:
    """Says whose attention the logs score, and where scores do not compare; empty where none scores
    any."""
    _, _, metrics, setting = DECIDED_BY[0]
    values = _values(runs, metrics, setting)
    roles = set(values.values())
    same = f"The queries of VAS ({setting}): {roles.pop()}." if len(roles) == 1 else ""
    return " ".join(filter(None, (same, differences_note(runs, VAS_SECTION))))


def differences_note(runs: Sequence[RunFolder], section: str) -> str:
    """Names the settings of a section's metrics that are not the same in all runs that have logged
    them; empty if there are none."""
    notes = []
    for of_section, subject, metrics, setting in DECIDED_BY:
        values = _values(runs, metrics, setting) if of_section == section else {}
        if len(set(values.values())) > 1:
            each = ", ".join(f"{value} in {name}" for name, value in values.items())
            notes.append(f"{subject} does not compare, as {setting} differs: {each}.")
    return " ".join(notes)


def _values(runs: Sequence[RunFolder], metrics: Sequence[str], setting: str) -> dict[str, str]:
    """{run: the setting's value, as the recipe has it} of the runs that have logged a metric."""
    return {
        run.name: _text(run.settings.get(setting))
        for run in runs
        if any(metric in line for line in run.log for metric in metrics)
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
