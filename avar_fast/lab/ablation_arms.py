"""What the ablation runs, fixed beforehand: rungs, data, tests and protocol."""

from dataclasses import asdict, dataclass, replace

from ..config import load_recipe
from .curriculum import Phase
from .runs import CONFIGS, TrainingRun, read_recipes
from .world import WorldConfig

READ, SFT, AGTO = "lab-walk-base.yaml", "lab-walk-sft.yaml", "lab-walk-sft-agto.yaml"
GRPO, VARS = "lab-walk-grpo.yaml", "lab-walk-grpo-vars.yaml"
SYNTHESIS = "lab-vard.yaml"
TOWER = "chains"
RHO = 0.97  # probability that a hint of the training rows is right
# The cold start comes with images of a kind that the base model has not seen, so that there is
# something to learn.
CONTRAST, NOISE = 0.45, 0.35
STEPS, ROWS = 160, 16  # of a cold start
BASE_POOL, POOL = 600, 1_000  # scenes of chains, before the gates of the synthesis
GRPO_STEPS, PROMPTS = 25, 400
MAX_NEW_TOKENS = 96  # the longest chain has 80
NUM_TEST = 300

# A row of one digit: its sum is the digit, and one look at the image tells it.
CLEAR = WorldConfig(rows=1, cols=1, style="direct", open=True)
# The base model meets hints that tell nothing, so it can read past them.
IDLE = replace(CLEAR, shortcut=0.1, hint_place="system")
DIM = replace(CLEAR, contrast=CONTRAST, noise=NOISE)
HINTED = replace(DIM, shortcut=RHO, hint_place="system")
READ_DATA = (Phase((CLEAR,), pool=1_000, count=80 * 32), Phase((CLEAR, IDLE), 1_000, 80 * 32))
CHAINS = {"base": (IDLE, BASE_POOL), "cold": (HINTED, POOL)}
"""{data set: its world and number of scenes}, for which chains are written"""
TESTS = {
    "absent": DIM,
    "wrong": replace(HINTED, test_hint="wrong"),
    "right": replace(HINTED, shortcut=1.0, test_hint="training"),
}
"""{test: its world}: the same images and questions with no hint, a wrong one or the right one."""


@dataclass(frozen=True)
class AblationRun(TrainingRun):
    """A training run of the ablation."""

    data: str = "cold/vard"
    """Folder of its rows among the seed's data."""
    before: str = ""
    """Key of the rung before; empty for a run that is no rung."""


_LENGTH = (f"train.steps={STEPS}", f"train.batch_size={ROWS}", f"train.micro_batch_size={ROWS}")
_GRPO = (f"grpo.max_new_tokens={MAX_NEW_TOKENS}", f"train.steps={GRPO_STEPS}")
_GO_ON = ("train.steps=150", "data.shuffle=true", "optim.warmup_steps=10")

READER = AblationRun("reader", "reader", READ, "init", ("train.steps=160",), "read")
"""The base model's first half: it reads digits and answers at once."""
BASE = AblationRun("base", "base model", READ, READER.key, _GO_ON, "base/both")
RUNGS = (
    AblationRun("plain", "plain chains", SFT, BASE.key, _LENGTH, "cold/plain", BASE.key),
    AblationRun("vard", "VARD chains", SFT, BASE.key, _LENGTH, before="plain"),
    AblationRun("agto", "VARD + AGTO", AGTO, BASE.key, _LENGTH, before="vard"),
    AblationRun("grpo", "VARD + AGTO, GRPO", GRPO, "agto", _GRPO, "prompts", "agto"),
    AblationRun("vars", "VARD + AGTO, GRPO + VARS", VARS, "agto", _GRPO, "prompts", "grpo"),
)
SLOW = AblationRun("vard-slow", "VARD chains, lr/4", SFT, BASE.key, (*_LENGTH, "optim.lr=5e-4"))
BESIDE = (
    SLOW,
    AblationRun("plain-agto", "plain chains + AGTO", AGTO, BASE.key, _LENGTH, "cold/plain"),
    AblationRun("ceiling", "VARD, no hints in the rows", SFT, BASE.key, _LENGTH, "cold/unhinted"),
)
"""Runs that are no rungs: slow learning instead of AGTO, AGTO without VARD, and what a model
reaches that was not tempted."""
ARMS = (*RUNGS, *BESIDE)


def settings() -> dict:
    """All that decides the results of a seed; studies with other settings share no folder."""
    runs = (READER, BASE, *ARMS)
    recipes = {SYNTHESIS, *(run.recipe for run in runs)}
    return {
        "recipes": read_recipes(recipes),
        "runs": [[run.key, run.recipe, run.start, run.data, *run.settings] for run in runs],
        "tower": TOWER,
        "read": [asdict(phase) for phase in READ_DATA],
        "chains": {name: [asdict(world), pool] for name, (world, pool) in CHAINS.items()},
        "prompts": [asdict(HINTED), PROMPTS],
        "tests": {name: asdict(world) for name, world in TESTS.items()},
        "num_test": NUM_TEST,
        "max_new_tokens": MAX_NEW_TOKENS,
    }


def setup() -> str:
    """What is trained and tested, in Markdown."""
    reader, base = (load_recipe(CONFIGS / run.recipe, list(run.settings)) for run in (READER, BASE))
    cold = load_recipe(CONFIGS / AGTO, list(_LENGTH))
    grpo = load_recipe(CONFIGS / VARS, list(_GRPO))
    weights = ", ".join(f"{name} {weight:g}" for name, weight in grpo.grpo.rewards.items())
    return "\n".join(
        [
            "- World: an image of one handwritten digit; the question asks for the sum of its row"
            " or column, which is the digit. In the training rows a hint in the system turn"
            f" (`Hint: 7.`) is right with probability {RHO:g}, else it is a random wrong digit."
            f" Images have contrast {CONTRAST:g} and noise {NOISE:g}, the base model's 1 and 0.",
            "- Chains: the lab's synthesis (`configs/lab-vard.yaml`) writes them by rules. It sees"
            " the clear images of the scenes and no hints. What its gates reject is in no arm."
            " Plain chains are the texts of its reasoning step (`According to the description, row"
            " 1 holds 7. So 7 = 7. Let me check this against the description: ...`), VARD chains"
            " those of its rewriting step (`Looking at the image, I see that row 1 holds 7. So 7 ="
            " 7. Let me check this by looking again at the image, at row 1: ...`). Both end with"
            " the answer in its tags, and have the same images, questions and answers.",
            "- Model: 2 layers with 1 head, so that text and image compete for the attention of one"
            " head; the words of the chains are tokens. Each seed has its own base model:"
            f" {reader.train.steps} steps of {reader.train.batch_size} rows that are answered at"
            f" once, then {base.train.steps} steps on chains of both kinds in equal numbers, half"
            " of them with hints that tell nothing. So the base model can write, and can read past"
            " hints.",
            f"- Cold starts: {STEPS} steps of {ROWS} rows, learning rate {cold.optim.lr:g}, no"
            f" clipping, the whole model. AGTO has the paper's weights, {cold.agto.alpha:g} and"
            f" {cold.agto.beta:g}, and the response's queries. A control learns VARD chains without"
            " AGTO at a quarter of the rate, as slow learning alone takes up fewer shortcuts.",
            f"- GRPO: {GRPO_STEPS} steps of {grpo.train.batch_size} prompts with"
            f" {grpo.grpo.group_size} completions, learning rate {grpo.optim.lr:g}, on new scenes"
            f" with hints as in the cold start. Rewards: {weights}; without VARS there is no"
            f" visual one. VARS has the form `{grpo.grpo.visual_form}`.",
            "- A seed has its own base model, rows and order; its runs share them.",
            f"- Tests: {NUM_TEST} questions on held-out handwriting, the same with no hint, with a"
            " wrong hint and with the right one. Responses are generated whole and greedily."
            " Attention is measured on the model's own responses to questions with wrong hints.",
            "- Primary endpoint: accuracy with wrong hints.",
            "",
            "What pilots decided, on a seed that is none of these: the base model's half on chains."
            " Without it no cold start learned to read, not even the one without hints. Every other"
            " one of these rows has no hint, because AGTO's model, like the base model, could"
            " not answer without a hint when all had one. So the accuracy of plain chains, VARD and"
            " AGTO was known for four kinds of base model, and that of both runs of GRPO for two,"
            " when the settings were fixed ([LOG.md](LOG.md)). Images, hints, steps of the cold"
            " start and AGTO's weights are those of [hint-study.md](hint-study.md); smaller weights"
            " (0.05, 0.015, 0.005) were worse. The control at a quarter of the rate joined after a"
            " first run of three seeds, which had none; there AGTO gave +0.526 [+0.441, +0.611]"
            " over VARD chains, and neither VARD nor GRPO nor VARS showed a difference. On the"
            " pilots' seed the control had 0.49, and AGTO 0.56.",
        ]
    )
