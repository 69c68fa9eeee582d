"""What the hint study runs, fixed beforehand: arms, data, tests and protocol."""

from dataclasses import asdict, dataclass, replace

from ..config import load_recipe
from .curriculum import Phase
from .runs import CONFIGS, TrainingRun, read_recipes
from .world import HINT_PLACES, WorldConfig

PLAIN, AGTO = "lab-walk-sft.yaml", "lab-walk-sft-agto.yaml"
TOWER = "scarce"
RHO = 0.97  # probability that a hint of the cold start is right
# The cold start comes with images of a kind that the base model has not seen, so that there is
# something to learn.
CONTRAST, NOISE = 0.45, 0.35
STEPS, ROWS = 160, 16  # of a cold start
POOL = 1_600  # different rows of a cold start
WEIGHT = 0.15  # of AGTO's terms, the paper's
TERMS = {"suppress": (0.0, WEIGHT), "both": (WEIGHT, WEIGHT), "enhance": (WEIGHT, 0.0)}
"""{part of AGTO: (alpha, beta)}"""
QUERIES = ("response", "user")
NO_HINTS = "none"
_LENGTH = (f"train.steps={STEPS}", f"train.batch_size={ROWS}", f"train.micro_batch_size={ROWS}")


# A row of one digit, answered at once: one look at the image answers it.
CLEAR = WorldConfig(rows=1, cols=1, style="direct", open=True)
DIM = replace(CLEAR, contrast=CONTRAST, noise=NOISE)


@dataclass(frozen=True)
class HintArm(TrainingRun):
    """A cold start of the study."""

    place: str = NO_HINTS
    """The turn with the hints of its rows, or ``NO_HINTS``."""


def arm_key(place: str, term: str = "none", queries: str = "") -> str:
    """The key of an arm, such as "system-suppress-response"; "system-none" has no queries."""
    return "-".join(part for part in (place, term, queries) if part)


CEILING = HintArm("ceiling", "no hints in the rows (ceiling)", PLAIN, "base", _LENGTH)
ARMS = (
    *(HintArm(arm_key(place), "no AGTO", PLAIN, "base", _LENGTH, place) for place in HINT_PLACES),
    CEILING,
    *(
        HintArm(
            arm_key(place, term, queries),
            f"{term}, {queries} queries",
            AGTO,
            "base",
            (f"agto.queries={queries}", f"agto.alpha={alpha}", f"agto.beta={beta}", *_LENGTH),
            place,
        )
        for term, (alpha, beta) in TERMS.items()
        for queries in QUERIES
        for place in HINT_PLACES
    ),
)
"""In the order in which a seed runs them: those that the prediction is about come first."""

# The base model meets hints that tell nothing, in both turns: it can read past them.
_READ = (CLEAR, *(replace(CLEAR, shortcut=0.1, hint_place=place) for place in HINT_PLACES))
BASE_DATA = (Phase(_READ[:1], pool=1_000, count=80 * 32), Phase(_READ, pool=800, count=80 * 32))
BASE = TrainingRun("base", "base model", "lab-walk-base.yaml", "init", ("train.steps=160",))
DATA = {
    NO_HINTS: (Phase((DIM,), POOL, STEPS * ROWS),),
    **{
        place: (Phase((replace(DIM, shortcut=RHO, hint_place=place),), POOL, STEPS * ROWS),)
        for place in HINT_PLACES
    },
}
"""{place of the hints: phases of a cold start}"""
NUM_TEST = 300
ABSENT = "absent"
TESTS = {
    ABSENT: DIM,
    **{
        f"wrong-{place}": replace(DIM, shortcut=RHO, hint_place=place, test_hint="wrong")
        for place in HINT_PLACES
    },
    **{
        f"right-{place}": replace(DIM, shortcut=1.0, hint_place=place, test_hint="training")
        for place in HINT_PLACES
    },
}
"""{test: its world}: the same images and questions, with the same wrong hints in both turns."""


def settings() -> dict:
    """All that decides the results of a seed; studies with other settings share no folder."""
    recipes = {BASE.recipe, *(arm.recipe for arm in ARMS)}
    return {
        "recipes": read_recipes(recipes),
        "tower": TOWER,
        "base": [BASE.recipe, *BASE.settings],
        "base_data": [asdict(phase) for phase in BASE_DATA],
        "arms": {arm.key: [arm.recipe, arm.place, *arm.settings] for arm in ARMS},
        "data": {place: [asdict(phase) for phase in phases] for place, phases in DATA.items()},
        "tests": {name: asdict(world) for name, world in TESTS.items()},
        "num_test": NUM_TEST,
    }


def setup() -> str:
    """What is trained and tested, in Markdown."""
    optim = load_recipe(CONFIGS / PLAIN, []).optim
    base = load_recipe(CONFIGS / BASE.recipe, list(BASE.settings)).train
    return "\n".join(
        [
            "- World: an image of one handwritten digit; the question asks for the sum of its row"
            " or column, which is the digit. One look at the image answers it. In the cold start's"
            f" rows a hint is right with probability {RHO:g}, else it is a random wrong digit; it"
            " is the same text, `Hint: 7.`, at the end of the system turn or before the question."
            f" Images have contrast {CONTRAST:g} and noise {NOISE:g}, the base model's 1 and 0.",
            "- Model: the tower with scarce heads (2 layers, 1 head). All seeds start from one"
            f" base model of {base.steps} steps, which met hints that tell nothing in both turns.",
            f"- Cold start: {STEPS} steps of {ROWS} rows, learning rate {optim.lr:g}, clipping off,"
            " the whole model with its vision tower. A seed has its own digits, hints and order."
            " All arms of a seed share them; only the turn of the hint differs.",
            f"- AGTO: weight {WEIGHT:g} for each term. `enhance` raises attention on image keys,"
            " `suppress` lowers it on keys of the system turn, in which a hint may stand. Queries"
            " are the user's text or the response.",
            "- Key types: the hint's tokens have a type of their own when a model is tested, so"
            " `system` and `text` are the other keys of these kinds. In training they have the"
            " type of their turn, as the objective knows no hints.",
            f"- Tests: {NUM_TEST} questions on held-out handwriting, the same with no hint, with a"
            " wrong hint and with the right one. Masses are those of the query that predicts the"
            " digit, with wrong hints, mean over layers and heads.",
            "- Primary endpoint: accuracy with wrong hints.",
        ]
    )
