"""What the walk study runs, fixed beforehand: arms, towers, tests and protocol."""

from dataclasses import asdict

from ..config import load_recipe
from .dose import DOSES
from .runs import CONFIGS, read_recipes
from .walk_runs import BASE, DATA, DIM_PRIOR, DIM_UNIFORM, MORE, UNIFORM, WalkRun

PLAIN, AGTO = "lab-walk-sft.yaml", "lab-walk-sft-agto.yaml"


def _agto(key: str, title: str, queries: str, alpha: float, beta: float, *more: str) -> WalkRun:
    weights = (f"agto.queries={queries}", f"agto.alpha={alpha}", f"agto.beta={beta}")
    return WalkRun(key, title, AGTO, "base", (*weights, *more))


ARMS = (
    WalkRun("ceiling", "no prior in the rows (ceiling)", PLAIN, "base", data="uniform"),
    WalkRun("plain", "plain", PLAIN, "base"),
    _agto("agto-user-15", "AGTO, user, 0.15", "user", 0.15, 0.15),
    _agto("agto-user-03", "AGTO, user, 0.03", "user", 0.03, 0.03),
    _agto("agto-response-15", "AGTO, response, 0.15", "response", 0.15, 0.15),
    _agto("agto-response-03", "AGTO, response, 0.03", "response", 0.03, 0.03),
    _agto("enhance", "enhance only, response, 0.15", "response", 0.15, 0),
    _agto("suppress", "suppress only, response, 0.15", "response", 0, 0.15),
    _agto(
        "placebo",
        "placebo: enhance text, response, 0.15",
        "response",
        0.15,
        0,
        "agto.enhance_keys=text",
    ),
    # The control for AGTO's slower learning: the language-model loss of AGTO (response, 0.15) ends
    # at three times that of plain; with a quarter of the learning rate, that of plain ends at about
    # twice its own.
    WalkRun("slow", "plain, a quarter of the learning rate", PLAIN, "base", ("optim.lr=5e-4",)),
)
"""The arms of the scarce tower, where text and image compete in one head a layer."""
CONTROLLED = ("ceiling", "plain", "agto-response-15", "enhance")
"""The arms of the plenty tower, the negative control."""
TOWERS = {"scarce": tuple(arm.key for arm in ARMS), "plenty": CONTROLLED}
"""{tower: keys of its arms}"""
TESTS = {"uniform": (DIM_UNIFORM, 300), "prior": (DIM_PRIOR, 200), "clean": (UNIFORM, 200)}
"""{test: (its walks, their number)}, on handwriting that no model was trained on."""
READS = 0.85  # late accuracy on clean walks that a base model must have
STRETCHES = 4  # of its training, at most
DOSE_ROWS = 200


def settings() -> dict:
    """All that decides the results of a pair; studies with other settings share no folder."""
    recipes = {BASE.recipe, *(arm.recipe for arm in ARMS)}
    return {
        "recipes": read_recipes(recipes),
        "arms": {arm.key: [arm.recipe, arm.data, *arm.settings] for arm in ARMS},
        "base": [[run.recipe, *run.settings] for run in (BASE, MORE)],
        "reads": [READS, STRETCHES],
        "towers": {tower: list(keys) for tower, keys in TOWERS.items()},
        "data": {name: [asdict(phase) for phase in phases] for name, phases in DATA.items()},
        "tests": {name: [asdict(world), count] for name, (world, count) in TESTS.items()},
        "doses": [asdict(dose) for dose in DOSES],
        "dose_rows": DOSE_ROWS,
    }


def setup() -> str:
    """What is trained and tested, in Markdown."""
    recipe = load_recipe(CONFIGS / PLAIN, [])
    optim, train = recipe.optim, recipe.train
    clipping = f"at norm {optim.max_grad_norm:g}" if optim.max_grad_norm else "off"
    (_, uniform), (_, prior) = TESTS["uniform"], TESTS["prior"]
    return "\n".join(
        [
            "What was fixed before any arm but `plain` and `ceiling` was looked at:",
            "",
            f"- World: walks of {DIM_PRIOR.steps} steps on {DIM_PRIOR.side} x {DIM_PRIOR.side}"
            " handwritten digits. In the cold start's rows the next digit follows a rule with"
            f" probability {DIM_PRIOR.prior:g}, so it can be guessed; images have contrast"
            f" {DIM_PRIOR.contrast:g} and noise {DIM_PRIOR.noise:g}, the base model's 1 and 0.",
            f"- Cold start: {train.steps} steps of {train.batch_size} rows, learning rate"
            f" {optim.lr:g}, clipping {clipping}, the whole model with its vision tower.",
            f"- Base models: trained on clean uniform walks until {READS:.0%} of the later steps"
            " are right.",
            "- Towers: scarce heads (2 layers, 1 head), where text and image compete in one head,"
            " and plenty (4 layers, 3 heads), the negative control.",
            f"- Tests: {uniform} uniform walks and {prior} with the prior, on held-out handwriting."
            " The true steps before each step are given.",
            "- Primary endpoint: late accuracy, the mean over the steps after the first, on uniform"
            " walks. Others: accuracy at the first step, which no rule helps; how frequently the"
            " rule's digit is predicted where it is wrong; attention on the image (visual mass)"
            " where digits are predicted; accuracy without the image; VAS.",
            "",
            "One arm was added after a look at the first runs, whose AGTO ended with a higher"
            " language-model loss than `plain`: `plain` with a quarter of the learning rate. The"
            " late accuracy of AGTO in these runs was known then, and that of this arm on one pilot"
            " run (0.778), so this arm is a lead to be tested on other base models and no planned"
            " comparison.",
        ]
    )
