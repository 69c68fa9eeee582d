"""The trainer as users start it, twenty steps of each stage on the lab's model and data."""

import importlib.util
import json
import subprocess
import sys

from .device_tests import ROOT
from .part_report import PartReport, SkipPartError

RECIPES = {"sft": "lab-sft-agto.yaml", "grpo": "lab-grpo-vars.yaml"}
NEEDED = ("deepspeed", "datasets", "sklearn", "yaml", "PIL", "tqdm", "math_verify")


def run(report: PartReport) -> None:
    """One row per stage: steps, last loss, tokens per second.

    Raises:
        SkipPartError: a package of the trainer is missing.
        RuntimeError: a program fails.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SkipPartError(f"not installed: {', '.join(missing)}")
    steps, rows = (2, 16) if report.dry else (20, 200)
    folder = report.folder / "training"
    data, model = folder / "data", folder / "model"
    if not (data / "train.jsonl").is_file():
        of_data = ["--out", data, "--rows", rows, "--split", "train", "--seed", 0]
        _program(["avar_fast.lab", "data", *of_data])
    if not (model / "config.json").is_file():
        _program(["avar_fast.lab", "model", "--out", model, "--seed", 0])
    for stage, recipe in RECIPES.items():
        if report.has(stage=stage):
            continue
        output = folder / stage
        _program(
            [
                "torch.distributed.run", "--standalone", "--nproc_per_node=1",
                "-m", "avar_fast.train", ROOT / "configs" / recipe,
                f"model.path={model}", f"data.path={data / 'train.jsonl'}",
                f"train.output_dir={output}", f"train.steps={steps}", "train.batch_size=4",
                "train.micro_batch_size=4", "tracking.log_every=1",
                *(["grpo.prompts_per_generation=4"] if stage == "grpo" else []),
            ]
        )  # fmt: skip
        lines = (output / "log.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        report.add(stage=stage, steps=len(lines), last=json.dumps(last)[:400])


def _program(module_and_arguments: list) -> None:
    command = [sys.executable, "-m", *map(str, module_and_arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stdout + done.stderr)[-2000:]}")
