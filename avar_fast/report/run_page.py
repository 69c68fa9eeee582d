"""The page of training runs: summary, differing settings, curves, completions, recipes."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..characters import visible
from . import figures
from .completions import Record, choose
from .document import html_table, write_page
from .meaning import differences_note, queries_note
from .metrics import BY_LAYER, VAS_SECTION, sections_of, with_step_times
from .run_folder import RunFolder, setting_text

NONE = "-"
LONGEST = 3000  # characters of a text that the page shows of a completion or prompt
LEFT_OUT = ("train.output_dir",)  # settings that always differ
UNUSED = {"sft": ("grpo", "rollout")}
"""{stage: sections of the recipe that it does not read}"""
LAYERS_NOTE = (
    "Means over heads and queries; in stage grpo, over the tokens of completions. The score by head"
    " needs the checkpoint: python -m avar_fast.studies score RUN/latest --data ROWS --out DIR"
)


def write_runs(path: Path, runs: Sequence[RunFolder]) -> None:
    """Writes the page.

    Args:
        path: of the HTML file.
        runs: with names of their own, one at least.

    Raises:
        ValueError: a line of the completions is damaged, or there are too many runs.
    """
    names = ", ".join(run.name for run in runs)
    title = f"Training run{'s' if len(runs) > 1 else ''}: {names}"
    logs = {run.name: with_step_times(run.log) for run in runs}
    others = (differences_note(runs, section) for section in ("AGTO", "Rewards"))
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        html_table(summary_table(runs, logs)),
        _note(" ".join(filter(None, (queries_note(runs), *others)))),
        *(_note(note) for run in runs for note in run.notes),
        _differences(runs),
        *_curves(runs, logs),
        *(_completions(run) for run in runs),
        "<h2>Recipes</h2>",
        *(
            f"<details><summary>{html.escape(run.name)}</summary>"
            f"<pre>{html.escape(run.recipe)}</pre></details>"
            for run in runs
        ),
    ]
    write_page(path, title, parts)


def summary_table(
    runs: Sequence[RunFolder], logs: dict[str, list[dict[str, Any]]]
) -> list[list[str]]:
    """Header and one line per run. Metrics that no run has logged are left out.

    Args:
        runs: the runs.
        logs: {name of a run: lines of its log, with ``seconds_per_step``}.
    """
    last, middle = "last", "median"
    columns = (
        ("loss", "loss", last),
        ("eval_loss", "held-out loss", last),
        ("accuracy", "accuracy", last),
        ("eval_accuracy", "held-out accuracy", last),
        ("reward", "reward", last),
        ("vas_log_ratio", "VAS log ratio", last),
        ("vas_share", "VAS share", last),
        ("tokens_per_s", "tokens/s", middle),
        ("mfu", "MFU", middle),
        ("seconds_per_step", "s/step", middle),
        ("peak_gib", "peak GiB", last),
    )
    shown = [c for c in columns if any(figures.points_of(log, c[0]) for log in logs.values())]
    lines = [["run", "stage", "steps", *(title for _, title, _ in shown), "model"]]
    for run in runs:
        values = [
            [value for _, value in figures.points_of(logs[run.name], key)] for key, _, _ in shown
        ]
        cells = [
            NONE if not v else number(v[-1] if how == last else median(v))
            for v, (_, _, how) in zip(values, shown, strict=True)
        ]
        steps = f"{run.log[-1]['step']} of {run.settings.get('train.steps', '?')}"
        model = str(run.settings.get("model.path", NONE))
        lines.append([run.name, run.stage, steps, *cells, model])
    return lines


def differing_settings(runs: Sequence[RunFolder]) -> list[list[str]]:
    """Header and one line per setting that is not the same in all runs, without the folder of the
    run itself."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in LEFT_OUT)
    lines = [["setting", *(run.name for run in runs)]]
    for key in keys:
        values = [_setting(run, key) for run in runs]
        if len(set(values)) > 1:
            lines.append([key, *values])
    return lines


def _setting(run: RunFolder, key: str) -> str:
    """A setting as YAML; a dash where the run's recipe lacks it or its stage does not use it."""
    if key not in run.settings or key.partition(".")[0] in UNUSED.get(run.stage, ()):
        return NONE
    return setting_text(run.settings[key])


def number(value: float) -> str:
    """A number of four digits at most, as a reader writes it."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return f"{value:.3g}"


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>' if text else ""


def _differences(runs: Sequence[RunFolder]) -> str:
    if len(runs) < 2:
        return ""
    lines = differing_settings(runs)
    found = html_table(lines) if len(lines) > 1 else "<p>The recipes are the same.</p>"
    return f"<h2>What differs between the recipes</h2>{found}"


def _curves(runs: Sequence[RunFolder], logs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Sections of curves, and a table of the metrics that have one value in each run."""
    keys = dict.fromkeys(key for log in logs.values() for line in log for key in line)
    parts, constant = [], [["metric", *logs]]
    for section, metrics in sections_of(keys).items():
        drawn = []
        for key, title in metrics:
            values = [_distinct(log, key) for log in logs.values()]
            if any(len(v) > 1 for v in values):
                drawn.append((key, title))
            else:
                constant.append(
                    [f"{title} ({key})", *(number(v.pop()) if v else NONE for v in values)]
                )
        if drawn:
            is_vas = section == VAS_SECTION
            note = queries_note(runs) if is_vas else differences_note(runs, section)
            parts.append(f"<h2>{section}</h2>{_note(note)}{figures.curves(logs, drawn)}")
        if section == VAS_SECTION and (maps := _vas_maps(logs)):
            parts.append(maps)
    if len(constant) > 1:
        parts.append(f"<h2>Metrics with one value</h2>{html_table(constant)}")
    return parts


def _vas_maps(logs: dict[str, list[dict[str, Any]]]) -> str:
    """The score by layer over the steps; empty if no run has logged it."""
    maps = "".join(figures.layers_over_steps(logs, key, title) for key, title in BY_LAYER)
    return f'<h2>VAS by layer</h2><p class="note">{LAYERS_NOTE}</p>{maps}' if maps else ""


def _distinct(log: list[dict[str, Any]], key: str) -> set[float]:
    return {value for _, value in figures.points_of(log, key)}


def _completions(run: RunFolder) -> str:
    """The chosen completions of a run; empty if it has none."""
    count, kinds = choose(run.completions(), run.gate)
    if not count:
        return ""
    titles: dict[int, list[str]] = {}
    records: dict[int, Record] = {}
    for kind, chosen in kinds.items():
        for record in chosen:
            titles.setdefault(id(record), []).append(kind)
            records[id(record)] = record
    cards = (_card(record, titles[key]) for key, record in records.items())
    return (
        f"<h2>Completions of {html.escape(run.name)}</h2>"
        f'<p class="note">A choice from {count} completions of all steps, at most one per row and'
        f' kind.</p><div class="cards">{"".join(cards)}</div>'
    )


def _card(record: Record, titles: list[str]) -> str:
    rewards = ", ".join(
        f"{name} {NONE if value is None or not math.isfinite(value) else number(value)}"
        for name, value in record["rewards"].items()
    )
    facts = (
        f"step {record['step']}, {record['row']}, {record['tokens']} tokens, reward"
        f" {number(record['reward'])} ({rewards}), advantage {number(record['advantage'])}"
    )
    return (
        f'<div class="card"><h3>{html.escape("; ".join(titles))}</h3>'
        f'<p class="note">{html.escape(facts)}</p>'
        f"<pre>{html.escape(_cut(record['prompt']))}</pre>"
        f"<pre>{html.escape(_cut(record['completion']))}</pre></div>"
    )


def _cut(text: str) -> str:
    """A text whose control characters are visible. A long one keeps its start and its end, where
    the answer is."""
    shown = visible(text)
    if len(shown) <= LONGEST:
        return shown
    half = LONGEST // 2
    left_out = len(shown) - 2 * half
    return f"{shown[:half]}\n[{left_out} characters left out]\n{shown[-half:]}"
