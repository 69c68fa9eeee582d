"""The page of a report: how every part ended, and its rows as a table."""

import csv
import json
from pathlib import Path

PARTS = {  # module of this package: what it does, in order
    "environment": "device, packages, time of the first call",
    "device_tests": "the GPU tier of the tests",
    "sanitizer": "memcheck, racecheck, initcheck and synccheck on a selection",
    "attention": "forward and backward beside torch's attention, cuDNN and flash-attn",
    "tile_sweep": "tiles of the kernels: candidates for the table",
    "decoding": "one query on a long cache, beside copy bandwidth",
    "model_steps": "an SFT step and a scoring pass at 3B shape",
    "training": "the trainer, twenty steps of both stages",
}
MOST_ROWS = 60


def write_page(folder: Path) -> None:
    """Writes ``report.md`` from what the parts have left."""
    machine = json.loads((folder / "machine.json").read_text())
    lines = ["# The first hour", "", ", ".join(f"{key} {value}" for key, value in machine.items())]
    if machine["dry"] == "True":
        lines += ["", "Rehearsed on the kernels of the CPU: the numbers say nothing about a GPU."]
    lines += ["", "| part | what | ended | seconds |", "|---|---|---|---:|"]
    ended = {name: _result(folder, name) for name in PARTS}
    for name, what in PARTS.items():
        result = ended[name]
        lines.append(f"| {name} | {what} | {result['status']} | {result['seconds']:.0f} |")
    for name, what in PARTS.items():
        lines += ["", f"## {name}: {what}", ""]
        if message := ended[name]["message"].strip():
            lines += ["```", message[-3000:], "```", ""]
        lines += _table(folder / f"{name}.csv")
    best = folder / "tiles.txt"
    if best.is_file():
        lines += ["", "## fastest tiles", "", "```", best.read_text().rstrip(), "```"]
    (folder / "report.md").write_text("\n".join(lines) + "\n")


def _result(folder: Path, name: str) -> dict:
    file = folder / f"{name}.json"
    if not file.is_file():
        return {"status": "not run", "message": "", "seconds": 0.0}
    return json.loads(file.read_text())


def _table(file: Path) -> list[str]:
    if not file.is_file():
        return ["No rows."]
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    if not rows:
        return ["No rows."]
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows[:MOST_ROWS]:
        cells = (str(row[column]).replace("|", "/").replace("\n", " ") for column in columns)
        lines.append("| " + " | ".join(cells) + " |")
    if len(rows) > MOST_ROWS:
        lines.append(f"\n{len(rows) - MOST_ROWS} more rows in {file.name}.")
    return lines
