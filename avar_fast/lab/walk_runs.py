"""The data and the training runs on walks: a base model, and cold starts with their controls."""

from dataclasses import dataclass

from .curriculum import Phase
from .runs import TrainingRun
from .walk import WalkConfig

PRIOR = 0.97
# The cold start comes with images of a kind that the base model has not seen, so that there is
# something to learn.
CONTRAST, NOISE = 0.4, 0.4
ONE_DIGIT = WalkConfig(one_digit=True, steps=1)
UNIFORM = WalkConfig()
DIM_UNIFORM = WalkConfig(contrast=CONTRAST, noise=NOISE)
DIM_PRIOR = WalkConfig(prior=PRIOR, contrast=CONTRAST, noise=NOISE)

DATA = {
    "base": (Phase((ONE_DIGIT,), pool=1_000, count=120 * 32), Phase((UNIFORM,), 4_800, 480 * 32)),
    "prior": (Phase((DIM_PRIOR,), pool=3_200, count=200 * 32),),
    "uniform": (Phase((DIM_UNIFORM,), pool=3_200, count=200 * 32),),
}
"""{data set: its phases}"""
TEST = (Phase((DIM_UNIFORM,), pool=300, count=300),)


@dataclass(frozen=True)
class WalkRun(TrainingRun):
    """A training run on walks."""

    data: str = "prior"
    """Key of its data in ``DATA``."""


BASE = WalkRun("base", "base model", "lab-walk-base.yaml", "init", data="base")
COLD_STARTS = (
    WalkRun("agto", "cold start + AGTO", "lab-walk-sft-agto.yaml", "base"),
    WalkRun("plain", "cold start", "lab-walk-sft.yaml", "base"),
    WalkRun(
        "enhance",
        "cold start + AGTO, image term alone",
        "lab-walk-sft-agto.yaml",
        "base",
        ("agto.beta=0",),
    ),
    WalkRun(
        "placebo",
        "cold start + placebo (text for image)",
        "lab-walk-sft-agto.yaml",
        "base",
        ("agto.beta=0", "agto.enhance_keys=text"),
    ),
    WalkRun("ceiling", "cold start without prior", "lab-walk-sft.yaml", "base", data="uniform"),
)
