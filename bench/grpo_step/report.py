"""Tables and a picture of the steps of GRPO."""

import re
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from ..figures import CsvRows, grouped, save_figure

LABELS = {
    "avar": "avar, VARS",
    "avar_without_vars": "avar, no VARS",
    "avar_separate_rows": "avar, VARS, separate rows and scoring pass",
    "trl": "TRL, sdpa, no VARS",
    "trl_head_on_completions": "TRL, sdpa, no VARS, LM head at completions only",
    "trl_with_vars": "TRL, VARS as a reward function",
}
PARTS = ("generation", "reward", "scoring", "update")
NOTE = """\
Seconds of each part are medians. "Times avar" is the median over steps run in turns. All trainers
have the same prompts, the same rewards and, on given completions, the same gradient norm. On a CPU,
TRL runs the LM head at every position of a row; in the row "LM head at completions only" it is
changed to run it where a label is, as it does on a GPU. Memory is the peak of the process during
avar's update, and during TRL's whole step.
"""


def step_tables(rows: CsvRows) -> list[str]:
    """A table per machine, shape and prompt length."""
    lines = [NOTE]
    for (device, threads), measured in grouped(rows, "device", "threads").items():
        stamp = sorted({f"torch {r['torch']}, commit {r['commit']}, {r['date']}" for r in measured})
        lines += [f"### {device}, {threads} threads", "", f"{'; '.join(stamp)}.", ""]
        for (shape, length), of_case in grouped(measured, "shape", "length").items():
            lines += [f"{shape}, prompts of about {length} tokens:", ""]
            lines += [*case_table(of_case), ""]
    return lines


def case_table(rows: CsvRows) -> list[str]:
    """The table of one case: a line per trainer."""
    head = ("trainer", "sampling s", "rewards s", "scoring s", "update s", "step s", "times avar",
            "completion tokens/s", "peak MiB")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    cells = {(r["provider"], r["mode"], r["metric"]): r["p50"] for r in rows}
    for provider, label in LABELS.items():
        if (provider, "step", "time") not in cells:
            continue
        shown = [
            *(cells[provider, part, "time"] for part in (*PARTS, "step")),
            cells[provider, "step", "time_over_avar"],
            cells[provider, "step", "completion_tokens"],
            cells[provider, "update", "peak_memory"],
        ]
        lines.append(f"| {label} | " + " | ".join(shown) + " |")
    return lines


def brief_table(rows: CsvRows) -> list[str]:
    """Seconds of a step by trainer, and their ratio to avar's."""
    lines = ["| trainer | step s | times avar |", "|---|---:|---:|"]
    cells = {(r["provider"], r["metric"]): r["p50"] for r in rows if r["mode"] == "step"}
    for provider, label in LABELS.items():
        if (provider, "time") in cells:
            ratio = float(cells[provider, "time_over_avar"])
            lines.append(f"| {label} | {cells[provider, 'time']} | {ratio:.1f} |")
    return lines


def draw_group_sizes(rows: CsvRows, folder: Path) -> list[tuple[Path, str]]:
    """Draws seconds of a step against completions per prompt, shared and separate."""
    found = {}
    for row in rows:
        match = re.fullmatch(r"30 M, G = (\d+), 32 new tokens, .*", row["shape"])
        if match and row["length"] == "300" and (row["mode"], row["metric"]) == ("step", "time"):
            line = found.setdefault(row["provider"], {})
            line[int(match[1])] = float(row["p50"])
    drawn = {name: line for name, line in found.items() if len(line) > 1}
    if not drawn:
        return []
    figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    for provider, line in drawn.items():
        style = "o-" if provider == "avar" else "s--"
        axis.plot(*zip(*sorted(line.items()), strict=True), style, label=LABELS[provider])
    sizes = sorted({size for line in drawn.values() for size in line})
    axis.set(xscale="log", xlabel="completions per prompt", ylabel="seconds of a step")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.set_ylim(bottom=0)
    axis.minorticks_off()
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    axis.set_title("A step of GRPO, 2 prompts of 300 tokens, 32 new tokens, 30 M model", fontsize=9)
    path = folder / "bench-grpo-step-group-size.png"
    save_figure(figure, path, dpi=110)
    return [(path, "seconds of a GRPO step against completions per prompt, shared and separate")]
