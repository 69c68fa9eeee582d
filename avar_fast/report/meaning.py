"""Settings that decide what a metric of the log measures: runs that differ in one do not compare in
that metric."""

from collections.abc import Sequence

from .metrics import SCORES, VAS_SECTION
from .run_folder import RunFolder, setting_text

QUERIES = "agto.queries"
# More image tokens have more mass, and so has a longer system turn.
INPUTS = ("data.min_pixels", "data.max_pixels", "data.system_prompt")
DECIDED_BY = (
    (VAS_SECTION, "VAS", SCORES, (QUERIES, "agto.layers", *INPUTS)),
    (VAS_SECTION, "visual_share", ("visual_share",), ("grpo.visual_layers", *INPUTS)),
    (
        "AGTO",
        "The terms of AGTO",
        ("agto_enhance", "agto_suppress"),
        (QUERIES, "agto.layers", "agto.enhance_keys", "agto.eps", "agto.eps_in", *INPUTS),
    ),
    (
        "Rewards",
        "The visual reward",
        ("reward_visual",),
        ("grpo.visual_form", "grpo.visual_clip", "grpo.visual_layers", *INPUTS),
    ),
    ("Rewards", "The sum of rewards", ("reward",), ("grpo.rewards",)),
)
"""(section of the page, subject, metrics, their settings)"""


def queries_note(runs: Sequence[RunFolder]) -> str:
    """Says whose attention the logs score, and where scores do not compare; empty where none scores
    any."""
    roles = set(_values(runs, SCORES, QUERIES).values())
    same = f"The queries of VAS ({QUERIES}): {roles.pop()}." if len(roles) == 1 else ""
    return " ".join(filter(None, (same, differences_note(runs, VAS_SECTION))))


def differences_note(runs: Sequence[RunFolder], section: str) -> str:
    """Names the settings of a section's metrics that are not the same in all runs that have logged
    them; empty if there are none."""
    notes = []
    for of_section, subject, metrics, settings in DECIDED_BY:
        for setting in settings if of_section == section else ():
            values = _values(runs, metrics, setting)
            if len(set(values.values())) > 1:
                each = ", ".join(f"{value} in {name}" for name, value in values.items())
                notes.append(f"{subject}: no comparison, as {setting} differs: {each}.")
    return " ".join(notes)


def _values(runs: Sequence[RunFolder], metrics: Sequence[str], setting: str) -> dict[str, str]:
    """{run: the setting's value, as the recipe has it} of the runs that have logged a metric."""
    return {
        run.name: setting_text(run.settings.get(setting))
        for run in runs
        if any(metric in line for line in run.log for metric in metrics)
    }
