"""The data of training runs on walks, and how their base models are trained."""

from dataclasses import dataclass

from .curriculum import Phase
from .runs import TrainingRun
from .walk import WalkConfig

PRIOR = 0.97
# The cold start comes with images of a kind that the base model has not seen, so that there is
# something to learn.
CONTRAST, NOISE = 0.45, 0.35
ONE_DIGIT = WalkConfig(one_digit=True, steps=1)
UNIFORM = WalkConfig()
DIM_UNIFORM = WalkConfig(contrast=CONTRAST, noise=NOISE)
DIM_PRIOR = WalkConfig(prior=PRIOR, contrast=CONTRAST, noise=NOISE)

DATA = {
    "base": (Phase((ONE_DIGIT,), pool=1_000, count=120 * 32), Phase((UNIFORM,), 4_800, 480 * 32)),
    "prior": (Phase((DIM_PRIOR,), pool=2_400, count=300 * 16),),
    "uniform": (Phase((DIM_UNIFORM,), pool=2_400, count=300 * 16),),
}
"""{data set: its phases}"""


@dataclass(frozen=True)
class WalkRun(TrainingRun):
    """A training run on walks."""

    data: str = "prior"
    """Key of its data in ``DATA``."""


BASE = WalkRun("base", "base model", "lab-walk-base.yaml", "init", data="base")
MORE = WalkRun(
    "base",
    "base model, more steps",
    "lab-walk-base.yaml",
    "base",
    ("train.steps=300", "data.shuffle=true"),
    data="base",
)
"""Base models differ in when they begin to find their cells. One that does not read yet goes on."""
