"""The lab's rows through the whole command, and what comes out through the trainer as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.synthesize.__main__ import main

ROOT = Path(__file__).parents[2]


def test_two_steps_of_agto_on_what_the_lab_writes(tmp_path):
    rows = write_rows(tmp_path / "data", WorldConfig(), "train", num_rows=8, seed=0)
    recipe = ROOT / "configs" / "lab-vard.yaml"
    out = tmp_path / "out"
    assert main([str(recipe), f"data.path={rows}", f"output_dir={out}", "samples=1"]) == 0
    assert json.loads((out / "report.json").read_text())["rows"]["accepted"] >= 4
    save_base(tmp_path / "model", seed=0)
    training = {
        "stage": "sft",
        "model": {"path": str(tmp_path / "model"), "dtype": "float32"},
        "data": {"path": str(out / "rows.jsonl"), "workers": 0},
        "train": {
            "output_dir": str(tmp_path / "run"),
            "steps": 2,
            "batch_size": 4,
            "micro_batch_size": 2,
        },
        "agto": {"enabled": True},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(training))  # JSON is YAML
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "-m", "avar_fast.train", str(tmp_path / "recipe.yaml")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2
    assert all(step["lm_loss"] > 0 and step["vas_log_ratio"] is not None for step in log)
