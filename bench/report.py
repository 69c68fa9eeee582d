"""Tables and pictures from the CSV files of the benchmarks, into docs/ and the README.

    python -m bench.report

It writes docs/benchmarks.md, docs/img/bench-*.png, docs/img/attention-mass-cost.png and the part of
README.md between its two markers. No number in them is typed by hand.
"""

import csv
from pathlib import Path

from .figures import CsvRows, draw_headline, draw_suite, grouped
from .grpo_step.report import brief_table, draw_group_sizes, step_tables
from .measure import RESULTS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PICTURES = DOCS / "img"
MARKERS = ("<!-- benchmarks: begin -->", "<!-- benchmarks: end -->")
STEP_MARKERS = ("<!-- grpo step: begin -->", "<!-- grpo step: end -->")
STEP_SUITE, STEP_SHAPE = "grpo_step", "30 M, G = 8, 32 new tokens, 2 prompts"
UNITS = {
    "time": "ms",
    "graph_time": "ms",
    "host_time": "us",
    "time_over_anchor": "times SDPA without mass, run in turns",
    "tokens_per_s": "tokens/s",
    "extra_memory": "MiB",
}
ANCHORS = {  # of the operations whose anchor is another one
    "train_step": "times avar_sft, run in turns",
    "rollout": "times num_return_sequences, run in turns",
    "scoring": "times avar_log_probs, run in turns",
}
INTRODUCTION = """\
# Benchmarks

```bash
make bench          # run every suite with the rivals that this machine can run
make bench-report   # write this page, its pictures and the README's table
```

TRL, the rival of grpo_step, needs `pip install -e ".[bench]"`.

`make bench-report` generates this page from `bench/results/`. Nothing here is typed by hand.

How to read the tables:

- A time cell has the median, then the 20th to 80th percentile, then the share of the machine's
  measured peak. The share can exceed 100 % where the peak was measured with other instructions.
- "Over SDPA without mass, run in turns" is the ratio to torch's fused attention, which returns no
  mass. Both run alternately in one process, so that noise of the machine hits both. Below 1 is
  faster than torch.
- "shuffled" means key types in random order. Otherwise types come in runs, as in real prompts.
- On a GPU, times are the device's own, with a cold L2 cache; "graph time" is that of a replay from
  a CUDA graph, and "host time" what the host needs to launch a call. Layers of a model share one
  plan of the keys, so rows have none of its time unless they say "plan included".
- In whole training steps on a CPU, eager attention is as fast as avar at 512 and 1024 tokens: there
  attention is a small part of a step. avar is faster from 2048 tokens on. It needs less memory at
  every length.
- On the virtual Xeon, torch's bfloat16 was timed without AMX, because torch crashes there with it
  ([LOG.md](LOG.md)). That flatters the bfloat16 ratios.
"""
README_SUITE, README_MODES = "attention", ("forward", "forward_backward")
README_ROWS = {
    "avar_cpu": "avar, backend cpu",
    "avar_triton": "avar, backend triton",
    "flex_attention_without_mass": "FlexAttention, no mass",
    "second_sdpa_call": "fused attention called twice",
    "eager_output_attentions": "eager attention, weights kept",
}


def main() -> None:
    """Regenerates everything from bench/results."""
    suites = {}
    for path in sorted(RESULTS.glob("*.csv")):
        with path.open(newline="") as file:
            suites[path.stem] = list(csv.DictReader(file))
    if not suites:
        raise SystemExit(f"no CSV file in {RESULTS}; run make bench first")
    for old in PICTURES.glob("bench-*.png"):
        old.unlink()
    parts = [INTRODUCTION]
    for name, rows in suites.items():
        parts += [f"## {name}", ""]
        if name == STEP_SUITE:
            parts += step_tables(rows)
            for picture, alt in draw_group_sizes(rows, PICTURES):
                parts += [f"![{alt}](img/{picture.name})", ""]
            continue
        for group, of_group in grouped(rows, "device", "threads", "dtype", "op", "mode").items():
            parts += table(group, of_group)
        for picture, alt in draw_suite(name, rows, PICTURES):
            parts += [f"![{alt}](img/{picture.name})", ""]
    (DOCS / "benchmarks.md").write_text("\n".join(parts).rstrip() + "\n")
    if README_SUITE in suites:
        write_readme(suites[README_SUITE])
    if STEP_SUITE in suites:
        write_readme_step(suites[STEP_SUITE])


def table(group: tuple[str, ...], rows: CsvRows) -> list[str]:
    """Median times with p20..p80 and percent of the roofline, a column per length."""
    device, threads, dtype, op, mode = group
    shapes = sorted({row["shape"] for row in rows})
    lengths = sorted({int(row["length"]) for row in rows})
    stamp = sorted({f"torch {r['torch']}, commit {r['commit']}, {r['date']}" for r in rows})
    lines = [f"### {op}, {mode.replace('_', ' + ')}, {dtype}", ""]
    lines += [f"{_machine(device, threads)}; {'; '.join(stamp)}.", ""]
    for shape in shapes:
        for metric, unit in UNITS.items():
            cells = {
                (row["provider"], int(row["length"])): row
                for row in rows
                if row["shape"] == shape and row["metric"] == metric
            }
            if not cells:
                continue
            unit = ANCHORS.get(op, unit) if metric == "time_over_anchor" else unit
            lines += [f"{shape}, {metric.replace('_', ' ')} in {unit}:", ""]
            lines += [
                "| | " + " | ".join(f"L = {length}" for length in lengths) + " |",
                "|---|" + "---:|" * len(lengths),
            ]
            for provider in sorted(
                {p for p, _ in cells}, key=lambda p: (not p.startswith("avar"), p)
            ):
                row = [_cell(cells.get((provider, length))) for length in lengths]
                lines.append(f"| {provider} | " + " | ".join(row) + " |")
            lines.append("")
    return lines


def _machine(device: str, threads: str) -> str:
    """A processor with its threads, or a GPU alone."""
    return device if device.startswith("NVIDIA") else f"{device}, {threads} threads"


def _cell(row: dict[str, str] | None) -> str:
    if row is None:
        return "-"
    if row["metric"] != "time":
        return row["p50"]
    percent = f", {float(row['roofline_percent']):.0f} %" if row["roofline_percent"] else ""
    return f"{row['p50']} ({row['p20']} to {row['p80']}{percent})"


def write_readme(rows: CsvRows) -> None:
    """Writes the ratios of each machine into the README's marked part, at the longest length at
    which eager attention was tried, and the picture that the README opens with."""
    lines = []
    machines = grouped(rows, "device", "threads")
    for (device, threads), measured in sorted(machines.items(), reverse=True):  # NVIDIA first
        eager = [row for row in measured if row["provider"] == "eager_output_attentions"]
        longest = max(int(row["length"]) for row in eager or measured)
        here = [row for row in measured if int(row["length"]) == longest]
        columns = [
            (dtype, mode) for (dtype,) in sorted(grouped(here, "dtype")) for mode in README_MODES
        ]
        lines += [f"{_machine(device, threads)}, L = {longest}:", ""]
        titles = [f"{dtype}, {mode.replace('_', ' + ')}" for dtype, mode in columns]
        lines += ["| | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
        ratios = {
            (row["provider"], row["dtype"], row["mode"]): float(row["p50"])
            for row in here
            if row["metric"] == "time_over_anchor"
        }
        for provider, label in README_ROWS.items():
            cells = [ratios.get((provider, *column)) for column in columns]
            if cells[-1] is None:  # not tried, or without a backward
                continue
            shown = ["-" if ratio is None else f"{ratio:.2f}" for ratio in cells]
            lines.append(f"| {label} | " + " | ".join(shown) + " |")
        lines.append("")
    draw_headline(rows, PICTURES)
    _replace_in_readme(MARKERS, lines)


def write_readme_step(rows: CsvRows) -> None:
    """Writes the table of one case of GRPO's steps into the README's marked part."""
    lines = []
    chosen = [row for row in rows if row["shape"] == STEP_SHAPE and row["length"] == "300"]
    for (device, threads), of_machine in grouped(chosen, "device", "threads").items():
        lines += [f"{_machine(device, threads)}:", "", *brief_table(of_machine), ""]
    _replace_in_readme(STEP_MARKERS, lines)


def _replace_in_readme(markers: tuple[str, str], lines: list[str]) -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    begin, end = (text.index(marker) for marker in markers)
    head, tail = text[: begin + len(markers[0])], text[end:]
    readme.write_text(head + "\n\n" + "\n".join(lines) + "\n" + tail)


if __name__ == "__main__":
    main()
