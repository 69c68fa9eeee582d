"""The published benchmarks. Each has a file with its schema, its prompt and its rule."""

from ..benchmark import Published
from .hallusion import HallusionBench
from .mathverse import MathVerse
from .mathvision import MathVision
from .mathvista import MathVista
from .mmmu import MMMU, MMMUPro
from .mmstar import MMStar

_ALL: tuple[Published, ...] = (
    MathVista(),
    MathVision(),
    MathVerse(),
    MMMU(),
    MMMUPro(vision=False),
    MMMUPro(vision=True),
    MMStar(),
    HallusionBench(),
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _ALL}
"""{name: benchmark}. Each has a data set of its own."""

PARTS = {
    "mathvista": ("mathvista",),
    "mathvision": ("mathvision",),
    "mathverse": ("mathverse",),
    "mmmu": ("mmmu",),
    "mmmu_pro": ("mmmu_pro_standard", "mmmu_pro_vision"),
    "mmstar": ("mmstar",),
    "hallusion": ("hallusion",),
}
"""{column of a table: names in ``BENCHMARKS``}. A column is the mean of its benchmarks' scores."""
