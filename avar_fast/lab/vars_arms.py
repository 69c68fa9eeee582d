"""What the VARS study runs, fixed beforehand: its world, its cold start and its arms."""

from dataclasses import asdict, replace

from ..config import load_recipe
from .curriculum import Phase
from .runs import CONFIGS, read_recipes
from .walk import WalkConfig
from .walk_arms import READS, STRETCHES
from .walk_runs import BASE, MORE, WalkRun
from .walk_styles import StyledWalkConfig

SIDE, STEPS = 2, 4
CONTRAST, NOISE = 0.85, 0.1
SLIP = 0.05
TOWER = "plenty"

ONE_DIGIT = WalkConfig(side=SIDE, steps=1, one_digit=True)
CLEAN = WalkConfig(side=SIDE, steps=STEPS)
DIM = WalkConfig(side=SIDE, steps=STEPS, contrast=CONTRAST, noise=NOISE)
STYLED = StyledWalkConfig(
    side=SIDE, steps=STEPS, contrast=CONTRAST, noise=NOISE, transcript=0.5, slip=SLIP
)
# A wrong digit in every transcript: a walk on them cannot be read off the image, so the base model
# learns to walk on what it wrote.
COPIED = StyledWalkConfig(side=SIDE, steps=STEPS, transcript=1.0, slip=1.0)
READER = replace(BASE, settings=("train.steps=460",))
COLD = WalkRun(
    "cold",
    "cold start in two styles",
    "lab-walk-sft.yaml",
    BASE.key,
    ("optim.lr=1e-3", "train.steps=200", "train.batch_size=32"),
    data="cold",
)
PLAIN = "plain"
FORMS = ("share", "log_ratio", "ratio")


def _arm(key: str, title: str, form: str | None = None, *more: str) -> WalkRun:
    recipe = "lab-walk-grpo.yaml" if form is None else "lab-walk-grpo-vars.yaml"
    settings = () if form is None else (f"grpo.visual_form={form}",)
    return WalkRun(key, title, recipe, COLD.key, (*settings, *more), data="grpo")


_UNSCALED = "grpo.loss=dr_grpo"
ARMS = (
    _arm(PLAIN, "GRPO"),
    *(_arm(form, f"GRPO + VARS ({form})", form) for form in FORMS),
    _arm("plain-unscaled", "Dr. GRPO", None, _UNSCALED),
    _arm("share-unscaled", "Dr. GRPO + VARS (share)", "share", _UNSCALED),
)
REFERENCES = {**dict.fromkeys(FORMS, PLAIN), "share-unscaled": "plain-unscaled"}
"""{arm with VARS: the same without}"""
DATA = {
    "base": (
        Phase((ONE_DIGIT,), pool=1_000, count=80 * 32),
        Phase((CLEAN,), pool=4_000, count=140 * 32),
        Phase((COPIED, CLEAN), pool=2_000, count=240 * 32),
    ),
    "cold": (Phase((STYLED,), pool=4_000, count=200 * 32),),
    "grpo": (Phase((DIM,), pool=640, count=640),),
}
"""{data set: its phases}; the cold start's rows alone are answered in two styles."""
CLEAN_ROWS = 200
LAST = 10  # steps at the end of a run, whose mean stands for its end


def settings() -> dict:
    """All that decides the results of a seed; studies with other settings share no folder."""
    runs = (READER, MORE, COLD, *ARMS)
    return {
        "recipes": read_recipes({run.recipe for run in runs}),
        "runs": [[run.key, run.recipe, run.start, run.data, *run.settings] for run in runs],
        "reads": [READS, STRETCHES, CLEAN_ROWS],
        "tower": TOWER,
        "data": {name: [asdict(phase) for phase in phases] for name, phases in DATA.items()},
        "last": LAST,
    }


def setup() -> str:
    """What is trained and measured, in Markdown."""
    cold = load_recipe(CONFIGS / COLD.recipe, list(COLD.settings))
    grpo = load_recipe(CONFIGS / ARMS[1].recipe, list(ARMS[1].settings))
    weights = ", ".join(f"{name} {weight:g}" for name, weight in grpo.grpo.rewards.items())
    return "\n".join(
        [
            "What was fixed before any run with VARS was compared with one without:",
            "",
            f"- World: walks of {STEPS} steps on {SIDE} x {SIDE} handwritten digits, contrast"
            f" {CONTRAST:g}, noise {NOISE:g}. A response either looks back (`C1A3B7D0`: it reads"
            " each digit when it comes to its cell) or transcribes (`A3B7C1D0;C1A3B7D0`: it writes"
            " down the board and walks on what it wrote). Both read each cell of the board.",
            f"- Cold start: {cold.train.steps} steps of {cold.train.batch_size} rows, half of them"
            f" in each style, learning rate {cold.optim.lr:g}. One transcript in {1 / SLIP:.0f} has"
            " a wrong digit at a cell of the walk, and walk and answer follow it: so a model"
            " learns to walk on the transcript, and transcripts are less reliable than looking"
            " back.",
            f"- Each seed has its own base model (4 layers, 3 heads; trained until {READS:.0%} of"
            " the later steps of clean walks are right, and on transcripts that all have a wrong"
            " digit), rows, order and cold start. All arms of a seed start from its cold start and"
            " see the same prompts.",
            f"- GRPO: {grpo.train.steps} steps of {grpo.train.batch_size} prompts with"
            f" {grpo.grpo.group_size} completions, learning rate {grpo.optim.lr:g}, temperature"
            f" {grpo.grpo.temperature:g}. Rewards: {weights}; the arm without VARS has no visual"
            " reward. VARS goes to right answers alone.",
            "- Primary endpoint: the area under the curve of sampled accuracy over the steps,"
            " divided by their number. Others: accuracy and the share of completions that look"
            f" back in the last {LAST} steps. All are of the completions sampled in training, so"
            " on training handwriting.",
            "",
            "Dr. GRPO does not divide a group's advantages by their deviation. Where all"
            " completions are right, that deviation is VARS' alone.",
            "",
            "Pilots chose world and tower. On 3 x 3 boards with walks of 4 steps, VARS (share) of"
            " right answers was higher for transcripts (0.38 against 0.26): most tokens of a long"
            " transcript read the image, and many tokens of a short response are tags. On 2 x 2"
            " boards, where both styles read four cells, looking back has more. Where a transcript"
            " was wrong, the tower with scarce heads read the image again at 67 % of the cells. The"
            " one with plenty of heads, whose base model had learned to copy, did so at 30 %. Two"
            " earlier runs had dimmer images and a slip in one transcript in ten: with contrast 0.6"
            " and noise 0.2 (one seed) one sampled transcript in four was wrong, with 0.7 and 0.15"
            " (three seeds) one in five. VARS helped in no form there. Images and slips are"
            " now such that one sampled transcript in ten is wrong. The arms of Dr. GRPO joined"
            " after the first run.",
        ]
    )
