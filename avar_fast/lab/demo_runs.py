"""What the demo and its study draw and train, fixed beforehand."""

from .curriculum import Phase
from .walk import WalkConfig
from .walk_hints import HintedWalkConfig
from .walk_runs import WalkRun

SIDE, STEPS = 2, 4
TOWER = "scarce"
RIGHT = 0.97  # probability that a hint of the cold start is right
# The cold start comes with images of a kind that the base model has not seen, so that there is
# something to learn.
CONTRAST, NOISE = 0.4, 0.4
SFT, AGTO = "lab-walk-sft.yaml", "lab-walk-sft-agto.yaml"

_ONE_DIGIT = WalkConfig(side=SIDE, steps=1, one_digit=True)
_CLEAN = WalkConfig(side=SIDE, steps=STEPS)
_CLEAN_HINTED = HintedWalkConfig(side=SIDE, steps=STEPS)
_DIM = WalkConfig(side=SIDE, steps=STEPS, contrast=CONTRAST, noise=NOISE)


def _hinted(right: float) -> HintedWalkConfig:
    return HintedWalkConfig(side=SIDE, steps=STEPS, contrast=CONTRAST, noise=NOISE, right=right)


DATA = {
    # Half of the base model's walks have hints of other boards: it can read past them.
    "base": (
        Phase((_ONE_DIGIT,), pool=1_000, count=80 * 32),
        Phase((_CLEAN, _CLEAN_HINTED), pool=2_400, count=220 * 32),
    ),
    "hinted": (Phase((_hinted(RIGHT),), pool=2_400, count=300 * 16),),
    "unhinted": (Phase((_DIM,), pool=2_400, count=300 * 16),),
    "grpo": (Phase((_hinted(RIGHT),), pool=640, count=640),),
}
"""{data set: its phases}"""
NUM_TEST = 300
WRONG, ABSENT, RIGHT_HINTS = "wrong", "absent", "right"
TESTS = {WRONG: _hinted(0.0), ABSENT: _DIM, RIGHT_HINTS: _hinted(1.0)}
"""{hints of the test: its world}; all have the same boards, images and questions."""
CLEAN = "clean"
WORLDS = {**TESTS, CLEAN: _CLEAN}
"""{test: its world}; the clean one tells whether a base model reads."""

BASE = WalkRun(
    "base", "base model", "lab-walk-base.yaml", "init", ("train.steps=300",), data="base"
)
MORE = WalkRun(
    "more",
    "base model, more steps",
    "lab-walk-base.yaml",
    BASE.key,
    ("train.steps=200", "data.shuffle=true"),
    data="base",
)
"""Base models differ in when they begin to find their cells. One that does not read yet goes on.
One that still does not is drawn anew, as some seem never to tell certain cells apart."""
READS = 0.9  # of the later steps of clean walks, that a base model must have right
STRETCHES, DRAWS = 2, 5  # of the training of a draw of weights, and draws, at most
PLAIN = WalkRun("plain", "plain", SFT, BASE.key, data="hinted")
CURED = WalkRun("agto", "AGTO", AGTO, BASE.key, data="hinted")
CEILING = WalkRun("ceiling", "ceiling (no hints)", SFT, BASE.key, data="unhinted")
COLD_STARTS = (
    CURED,
    PLAIN,
    WalkRun("enhance", "enhance only", AGTO, BASE.key, ("agto.beta=0",), "hinted"),
    WalkRun(
        "suppress",
        "suppress only",
        AGTO,
        BASE.key,
        ("agto.alpha=0",),
        "hinted",
    ),
    WalkRun(
        "placebo",
        "placebo (text)",
        AGTO,
        BASE.key,
        ("agto.beta=0", "agto.enhance_keys=text"),
        "hinted",
    ),
    # AGTO's runs learn more slowly. Is that all that they do?
    WalkRun(
        "slow",
        "plain, lr / 4",
        SFT,
        BASE.key,
        ("optim.lr=5e-4",),
        "hinted",
    ),
    CEILING,
)
GRPO = (
    WalkRun("grpo", "then GRPO", "lab-walk-grpo.yaml", CURED.key, data="grpo"),
    WalkRun("vars", "then GRPO + VARS", "lab-walk-grpo-vars.yaml", CURED.key, data="grpo"),
)
_LONG = ("train.steps=1200",)
LONGER = (
    WalkRun(
        "slow-long", "plain, lr / 4, steps x 4", SFT, BASE.key, ("optim.lr=5e-4", *_LONG), "hinted"
    ),
    WalkRun("agto-long", "AGTO, steps x 4", AGTO, BASE.key, _LONG, "hinted"),
)
"""Runs of the study alone: is a cold start that learns slowly only late, and does a cure last?"""
RUNS = {run.key: run for run in (BASE, *COLD_STARTS, *LONGER, *GRPO)}
ORDER = (
    "base",
    "plain",
    "enhance",
    "suppress",
    "agto",
    "placebo",
    "slow",
    "ceiling",
    "grpo",
    "vars",
)
"""Of the table: what all start from, what goes wrong, the cures, their controls."""
MAX_NEW_TOKENS = 24
