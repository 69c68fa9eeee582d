"""The rows of the ablation's cold starts: the same questions with plain and with anchored chains,
from one run of the lab's synthesis."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from .ablation_arms import HINTED, POOL, SYNTHESIS
from .runs import CONFIGS
from .study_folder import read_lines
from .world import write_rows

KINDS = ("plain", "vard", "unhinted")


def write_chains(out: Path, world, pool: int, seed: int) -> None:
    """Writes ``KIND/train.jsonl`` for each kind of chains, with the images in ``dim``.

    The synthesis sees clear images, as a teacher that reads better than the model to be trained.
    The rows have the dim images of the same scenes. What a gate of the synthesis rejects is in no
    kind.

    Exits the program where the synthesis fails.
    """
    clear = write_rows(out / "clear", replace(world, contrast=1.0, noise=0.0), "train", pool, seed)
    dim = read_lines(write_rows(out / "dim", world, "train", pool, seed))
    synthesis = out / "synthesis"
    _synthesize(clear, synthesis)
    reasoned = {
        (step["key"], step["sample"]): step["text"]
        for step in read_lines(synthesis / "steps.jsonl")
        if step["step"] == "reason"
    }
    rows = {kind: [] for kind in KINDS}
    for row in read_lines(synthesis / "rows.jsonl"):
        scene = dim[row["meta"]["source_row"] - 1]
        *prompt, anchored = row["messages"]
        reasoning, _, _ = reasoned[row["id"], row["meta"]["sample"]].rpartition("<answer>")
        plain = f"<think>\n{reasoning.strip()}\n</think>\n<answer>{row['answer']}</answer>"
        plain = {"role": "assistant", "content": plain}
        unhinted = [turn for turn in prompt if turn["role"] != "system"]
        turns = {
            "plain": [*prompt, plain],
            "vard": [*prompt, anchored],
            "unhinted": [*unhinted, anchored],
        }
        images = [f"../dim/{image}" for image in scene["images"]]
        for kind, messages in turns.items():
            made = {"id": scene["id"], "messages": messages, "images": images}
            rows[kind].append(made | {"answer": row["answer"], "meta": scene["meta"]})
    for kind, made in rows.items():
        (out / kind).mkdir()
        (out / kind / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))


def _synthesize(rows: Path, out: Path) -> None:
    """Runs the lab's synthesis recipe, one chain a row."""
    settings = (f"output_dir={out}", f"data.path={rows}", "samples=1")
    command = [sys.executable, "-m", "avar_fast.synthesize", str(CONFIGS / SYNTHESIS), *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the synthesis ended with exit code {done.returncode}; {done.stderr}")
