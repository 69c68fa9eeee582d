"""The ablation's chains: the same questions with plain and with anchored texts, from one run of the
lab's synthesis."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from .ablation_arms import SYNTHESIS
from .runs import CONFIGS
from .study_folder import read_lines
from .world import WorldConfig, write_rows

KINDS = ("plain", "vard", "unhinted", "both")


def write_chains(out: Path, world: WorldConfig, pool: int, seed: int) -> None:
    """Writes ``KIND/train.jsonl`` for each kind of rows, with their images in ``scenes``:

    - ``plain``: the texts of the synthesis before they are rewritten;
    - ``vard``: the rewritten texts;
    - ``unhinted``: these without the hints of the system turn;
    - ``both``: each scene twice, with either text; every other scene without its hint.

    The synthesis sees clear images: the writer stands for a teacher that reads better than the
    model to be trained. What a gate of the synthesis rejects is in no kind.

    Exits the program where the synthesis fails.
    """
    scenes = read_lines(write_rows(out / "scenes", world, "train", pool, seed))
    clear = replace(world, contrast=1.0, noise=0.0)
    synthesis = out / "synthesis"
    _synthesize(write_rows(out / "clear", clear, "train", pool, seed), synthesis)
    reasoned = {
        (step["key"], step["sample"]): step["text"]
        for step in read_lines(synthesis / "steps.jsonl")
        if step["step"] == "reason"
    }
    rows: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for row in read_lines(synthesis / "rows.jsonl"):
        number = row["meta"]["source_row"] - 1
        plain = _target(reasoned[row["id"], row["meta"]["sample"]], row["answer"])
        for kind, messages in _kinds(row["messages"], plain, number):
            rows[kind].append(_row(scenes[number], messages))
    for kind, of_kind in rows.items():
        (out / kind).mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in of_kind)
        (out / kind / "train.jsonl").write_text(lines)


def _synthesize(rows: Path, out: Path) -> None:
    """Runs the lab's synthesis with one chain a row. It is a program of its own, because the
    package of the synthesis builds on that of the lab."""
    settings = (f"output_dir={out}", f"data.path={rows}", "samples=1")
    command = [sys.executable, "-m", "avar_fast.synthesize", str(CONFIGS / SYNTHESIS), *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the synthesis ended with exit code {done.returncode}:\n{done.stderr}")


def _target(reasoned: str, answer: str) -> dict:
    """The assistant's turn with a text of the reasoning step, in the form of the synthesis."""
    reasoning = reasoned.rpartition("<answer>")[0].strip()
    content = f"<think>\n{reasoning}\n</think>\n<answer>{answer}</answer>"
    return {"role": "assistant", "content": content}


def _kinds(messages: list[dict], plain: dict, number: int) -> list[tuple[str, list[dict]]]:
    """(kind, turns) of all rows of a scene, from the turns with the rewritten text."""
    *hinted, anchored = messages
    unhinted = [turn for turn in hinted if turn["role"] != "system"]
    either = unhinted if number % 2 else hinted
    return [
        ("plain", [*hinted, plain]),
        ("vard", [*hinted, anchored]),
        ("unhinted", [*unhinted, anchored]),
        ("both", [*either, plain]),
        ("both", [*either, anchored]),
    ]


def _row(scene: dict, messages: list[dict]) -> dict:
    images = [f"../scenes/{image}" for image in scene["images"]]
    return {name: scene[name] for name in ("id", "answer", "meta")} | {
        "messages": messages,
        "images": images,
    }
