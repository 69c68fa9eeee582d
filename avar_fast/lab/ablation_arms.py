"""What the ablation runs, fixed beforehand: rungs, data, tests and protocol."""

import hashlib
from dataclasses import asdict, dataclass, replace

from ..config import load_recipe
from .curriculum import Phase
from .runs import CONFIGS, TrainingRun
from .world import WorldConfig

SFT, AGTO = "lab-walk-sft.yaml", "lab-walk-sft-agto.yaml"
SYNTHESIS = "lab-vard.yaml"
TOWER = "chains"
RHO = 0.97  # probability that a hint of the training rows is right
CONTRAST, NOISE = 0.45, 0.35
STEPS, ROWS = 160, 16  # of a cold start
POOL = 1_000  # scenes of a cold start, before the gates of the synthesis
PROMPTS = 400  # of GRPO
MAX_NEW_TOKENS = 112

# A row of one digit: its sum is the digit, and one look at the image tells it.
CLEAR = WorldConfig(rows=1, cols=1, style="direct", open=True)
DIM = replace(CLEAR, contrast=CONTRAST, noise=NOISE)
HINTED = replace(DIM, shortcut=RHO, hint_place="system")


@dataclass(frozen=True)
class AblationRun(TrainingRun):
    """A training run of the ablation."""

    data: str = "vard"
    """Which rows: "plain" or "vard" chains, "unhinted" (VARD chains), or the "prompts" of GRPO."""


_LENGTH = (f"train.steps={STEPS}", f"train.batch_size={ROWS}", f"train.micro_batch_size={ROWS}")
_GRPO = (f"grpo.max_new_tokens={MAX_NEW_TOKENS}", "train.steps=25")

READER = AblationRun("reader", "reader", "lab-walk-base.yaml", "init", ("train.steps=160",), "read")
BASE = AblationRun("base", "base model", "lab-walk-base.yaml", "reader", ("train.steps=150","data.shuffle=true","optim.warmup_steps=10"), "both")
ARMS = (
    AblationRun("plain", "plain chains", SFT, BASE.key, _LENGTH, "plain"),
    AblationRun("vard", "VARD chains", SFT, BASE.key, _LENGTH),
    AblationRun("agto", "VARD + AGTO", AGTO, BASE.key, _LENGTH),
    AblationRun("grpo", "VARD + AGTO, GRPO", "lab-walk-grpo.yaml", "agto", _GRPO, "prompts"),
    AblationRun("vars", "VARD + AGTO, GRPO + VARS", "lab-walk-grpo-vars.yaml", "agto", _GRPO, "prompts"),
    AblationRun("plain-agto", "plain + AGTO", AGTO, BASE.key, _LENGTH, "plain"),
    AblationRun("unhinted", "VARD without hints", SFT, BASE.key, _LENGTH, "unhinted"),
)
_READ = (CLEAR, replace(CLEAR, shortcut=0.1, hint_place="system"))
BASE_DATA = (Phase(_READ[:1], pool=1_000, count=80 * 32), Phase(_READ, pool=1_000, count=80 * 32))
NUM_TEST = 300
TESTS = {
    "absent": DIM,
    "wrong": replace(HINTED, test_hint="wrong"),
    "right": replace(HINTED, shortcut=1.0, test_hint="training"),
}
