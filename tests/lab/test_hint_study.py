"""The hint study: its arms, its key type of hints, how it goes on where it was left, its page."""

import dataclasses
import json
import math
import statistics
import sys

import pytest
import torch
from avar_kernels import KeyType
from transformers import AutoModelForImageTextToText

from avar_fast.attention import intervene
from avar_fast.attention.key_typing import KeyTyping
from avar_fast.config import load_recipe
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.lab import hint_arms, hint_study
from avar_fast.lab import hint_study_parts as parts
from avar_fast.lab.hint_arms import ARMS, BASE, DATA, TESTS, arm_key, setup
from avar_fast.lab.hint_scores import HIDDEN, HINT, TYPES, HintTokens, answer, attach_with_hints
from avar_fast.lab.hint_study_report import PREDICTION, write_page
from avar_fast.lab.model import build_image_processor, save_base
from avar_fast.lab.runs import CONFIGS
from avar_fast.lab.tokenizer import build_tokenizer
from avar_fast.lab.world import DEFAULT_SYSTEM, HINT_PLACES, WorldConfig, write_rows
from avar_fast.loading import load

from .small_studies import apart, only_alone, passes_alone

TOKENIZER = build_tokenizer()
RUNS = {arm.key: arm for arm in ARMS}


TURN_TYPES = {"system": KeyType.SYSTEM, "user": KeyType.TEXT}


def rows_with(tmp_path, rows=1, cols=1, **world):
    config = WorldConfig(rows=rows, cols=cols, style="direct", **world)
    return load_rows(str(write_rows(tmp_path, config, "test", 12, seed=3)))


@pytest.mark.parametrize("place", HINT_PLACES)
@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
def test_the_hints_tokens_alone_have_a_type_of_their_own(tmp_path, place, left):
    rows = rows_with(tmp_path, rows=2, cols=3, shortcut=1.0, hint_place=place)
    encoder = Encoder(TOKENIZER, build_image_processor(), DEFAULT_SYSTEM)
    samples = [encoder(row) for row in rows]
    batch = collate(samples, TOKENIZER.pad_token_id, encoder.tokens.visual, with_target=not left)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    plain = KeyTyping(encoder.tokens)(ids, mask)
    typed = KeyTyping(encoder.tokens, len(TYPES), HintTokens(TOKENIZER))(ids, mask)
    for row, of_row, types, before in zip(rows, ids, typed, plain, strict=True):
        hint = types == HINT
        assert TOKENIZER.decode(of_row[hint]) == f"Hint: {row.columns['meta']['hint']}."
        assert set(before[hint].tolist()) == {TURN_TYPES[place]}
        assert (types[~hint] == before[~hint]).all()


def test_the_type_of_a_key_does_not_depend_on_later_tokens():
    ids = TOKENIZER(f"{DEFAULT_SYSTEM} Hint: 12. Add row 1.", return_tensors="pt")["input_ids"]
    classify = HintTokens(TOKENIZER)
    whole = classify(ids, torch.zeros_like(ids))
    assert TOKENIZER.decode(ids[whole == HINT]) == "Hint: 12."
    for length in range(1, ids.shape[1]):
        part = classify(ids[:, :length], torch.zeros_like(ids[:, :length]))
        assert (part == whole[:, :length]).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of an untrained model, one head a layer."""
    return save_base(tmp_path_factory.mktemp("model"), 0, "scarce")


def test_answers_and_masses_are_those_of_attention_matrices(folder, tmp_path):
    """Row by row without padding, and the hint found in the text of the row."""
    rows = rows_with(tmp_path, shortcut=0.9, test_hint="wrong", hint_place="system")
    loaded = load(str(folder), torch.float32)
    attach_with_hints(loaded)
    found = answer(loaded, rows)
    eager = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    tokenizer = loaded.tokenizer
    encoder = Encoder(tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    answered, hinted, masses = [], [], []
    for row in rows:
        sample = encoder(row)
        batch = collate([sample], 0, encoder.tokens.visual)
        with torch.no_grad():
            out = eager(**batch.inputs, use_cache=False, output_attentions=True)
        pieces = tokenizer.convert_ids_to_tokens(batch.inputs["input_ids"][0])
        at = pieces.index("<answer>")
        digit = out.logits[0, at, [tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)]]
        answered.append(str(int(digit.argmax())) == row.answer)
        hinted.append(int(digit.argmax()) == row.columns["meta"]["hint"])
        weights = torch.stack(out.attentions)[:, 0, :, at].mean((0, 1))
        first = pieces.index("Hint")
        system = pieces.index("<|im_end|>") + 2  # with its newline
        masses.append(
            {
                "hint": float(weights[first : first + 5].sum()),
                "system": float(weights[:first].sum() + weights[first + 5 : system].sum()),
                "visual": float(weights[pieces.index("<|image_pad|>")]),
            }
        )
    assert found.accuracy == pytest.approx(statistics.mean(answered))
    assert found.follows == pytest.approx(statistics.mean(hinted))
    for name in ("hint", "system", "visual"):
        wanted = statistics.mean(mass[name] for mass in masses)
        assert found.masses[name] == pytest.approx(wanted, abs=1e-5)
    assert sum(found.masses.values()) == pytest.approx(1, abs=1e-5)


def test_hints_that_are_cut_off_change_no_answer(folder, tmp_path):
    """Two sets of rows that differ in their hints alone give the same answers."""
    loaded = load(str(folder), torch.float32)
    attach_with_hints(loaded)
    wrong = rows_with(tmp_path / "wrong", shortcut=0.9, test_hint="wrong")
    right = rows_with(tmp_path / "right", shortcut=1.0, test_hint="training")
    with intervene(loaded.model, biases={HINT: HIDDEN}):
        hidden = answer(loaded, wrong), answer(loaded, right)
    assert [found.masses["hint"] for found in hidden] == [0, 0]
    assert hidden[0].accuracy == hidden[1].accuracy
    assert hidden[0].masses == pytest.approx(hidden[1].masses, abs=1e-6)


def test_answers_of_two_digits_are_refused(folder, tmp_path):
    rows = rows_with(tmp_path, rows=1, cols=4)
    with pytest.raises(ValueError, match=r"answers must be single digits; .* has '\d\d'"):
        answer(load(str(folder), torch.float32), rows)


def recipe_of(key):
    return load_recipe(CONFIGS / RUNS[key].recipe, list(RUNS[key].settings))


def test_the_grid_has_every_part_of_agto_in_every_turn():
    assert len(ARMS) == 15
    weights = {"none": None, "enhance": (0.15, 0), "suppress": (0, 0.15), "both": (0.15, 0.15)}
    for place in HINT_PLACES:
        for term, wanted in weights.items():
            for queries in ("user", "response") if wanted else ("",):
                arm = RUNS[arm_key(place, term, queries)]
                agto = recipe_of(arm.key).agto
                assert arm.place == place
                assert agto.enabled == (wanted is not None)
                if agto.enabled:
                    assert (agto.queries, (agto.alpha, agto.beta)) == (queries, wanted)


def test_arms_differ_in_the_objective_and_the_hints_alone():
    ceiling = recipe_of("ceiling")
    for key in RUNS:
        recipe = recipe_of(key)
        assert (recipe.optim, recipe.model) == (ceiling.optim, ceiling.model)
        assert dataclasses.replace(recipe.train, output_dir="") == dataclasses.replace(
            ceiling.train, output_dir=""
        )
        (phase,) = DATA[RUNS[key].place]
        assert phase.count == recipe.train.steps * recipe.train.batch_size
    assert sum(phase.count for phase in hint_arms.BASE_DATA) == 32 * 160


def test_hints_differ_in_their_turn_alone():
    """The same digits, the same pixels and the same hints in both turns; with no hint, the same
    questions."""
    for split, worlds in (
        ("train", [DATA[place][0].configs[0] for place in HINT_PLACES]),
        ("test", [TESTS[f"wrong-{place}"] for place in HINT_PLACES]),
        ("test", [TESTS["absent"], TESTS["right-user"]]),
    ):
        for index in range(5):
            one, other = (world.draw(split, 0, index) for world in worlds)
            assert one.image.tobytes() == other.image.tobytes()
            assert (one.answer, one.line) == (other.answer, other.line)
            assert one.hint in (other.hint, None)


def test_a_folder_of_other_settings_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(hint_study, "run_all", lambda *_: sys.exit("runs"))
    with pytest.raises(SystemExit, match="runs"):
        hint_study.main(["--out", str(tmp_path)])
    monkeypatch.setattr(hint_arms, "NUM_TEST", 7)
    with pytest.raises(SystemExit, match="holds a study with other num_test"):
        hint_study.main(["--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["--jobs", "0"], "--jobs must be at least 1; got 0"),
        (["--page"], "--page needs a study with a base model"),
    ],
)
def test_bad_options_are_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        hint_study.main([*arguments, "--out", str(tmp_path)])
    assert message in capsys.readouterr().err


def scores(wrong):
    names = ("absent", "right", "follows", "cut_off", *(f"{name}_mass" for name in TYPES))
    return dict.fromkeys(names, 0.5) | {"wrong": wrong}


def invented(seeds, **higher):
    """0.2 and 0.3 and so on with wrong hints; higher by the seed's value for the named arms."""
    results = {}
    for arm in ARMS:
        rise = higher.get(arm.key.replace("-", "_"), [0.0] * seeds)
        places = HINT_PLACES if arm.key == "ceiling" else (arm.place,)
        results[arm.key] = {
            seed: dict.fromkeys(places, scores(0.2 + seed / 10 + rise[seed]))
            for seed in range(seeds)
        }
    return results


def write(tmp_path, results):
    base = dict.fromkeys(HINT_PLACES, scores(0.75))
    tables = write_page(tmp_path, results, base, setup(), "the command")
    return tables, (tmp_path / "hint-study.md").read_text()


def test_the_page_compares_each_arm_with_none_of_its_turn(tmp_path):
    """Suppression: .3, .4, .5 higher in the system turn. Mean .4, deviation .1; t of 2 degrees of
    freedom 4.3027, so the half width is 4.3027 * .1 / sqrt(3) = .2484."""
    tables, page = write(tmp_path, invented(3, system_suppress_response=[0.3, 0.4, 0.5]))
    assert tables.split("\n\n")[0] in page
    assert "45 runs: 3 of each of 15 arms" in page
    assert "the command" in page
    assert PREDICTION in page
    assert "+0.400 [+0.152, +0.648]" in page
    (line,) = (x for x in page.splitlines() if x.startswith("- Suppression, response queries"))
    assert "the prediction came out: better with the hint in the system turn" in line
    assert line.endswith("; the difference between the turns is shown too.")
    assert "- Suppression, user queries: the prediction is not shown" in page
    lines = (x for x in page.splitlines() if x.startswith("| suppress, response queries"))
    cells = [cell.strip() for cell in next(lines).strip("|").split("|")]
    assert cells[1:] == ["+0.000 [+0.000, +0.000]", "+0.400 [+0.152, +0.648]", cells[2]]
    assert (tmp_path / "img" / "hint-study-arms.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("higher", "verdict"),
    [
        ({"user_suppress_response": [0.1, 0.1]}, "better with the hint in the user turn"),
        ({"system_suppress_response": [-0.1, -0.1]}, "worse with the hint in the system turn"),
        ({"system_suppress_response": [-0.1, 0.3]}, "not shown"),
        # Better by .3 in the system turn; by -.2 and .6, on average .2, in the user turn.
        (
            {"system_suppress_response": [0.3, 0.3], "user_suppress_response": [-0.2, 0.6]},
            "the interval of the difference between the turns holds zero",
        ),
    ],
)
def test_a_prediction_that_fails_is_told(tmp_path, higher, verdict):
    _, page = write(tmp_path, invented(2, **higher))
    (line,) = (x for x in page.splitlines() if x.startswith("- Suppression, response queries"))
    assert verdict in line
    assert "came out:" not in line


def test_the_page_of_an_unfinished_study_has_what_is_finished(tmp_path):
    results = invented(1, system_suppress_user=[0.25])
    del results["user-both-response"][0]
    tables, page = write(tmp_path, results)
    assert "14 runs: 0 to 1 of each of 15 arms" in page
    assert "not decided, because an interval needs two runs" in page
    assert "+0.250" in page
    (of_user, _) = tables.split("\n\n")
    (line,) = (x for x in of_user.splitlines() if x.startswith("| both, response queries"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == ["0", "", "", "", "", ""]


@pytest.fixture
def small(monkeypatch):
    """Few rows and two steps; everything else as in the study."""
    few = {
        place: tuple(dataclasses.replace(phase, pool=8, count=16) for phase in phases)
        for place, phases in DATA.items()
    }
    short = ("train.steps=2", "train.batch_size=4", "train.micro_batch_size=4")
    base = tuple(dataclasses.replace(phase, pool=4, count=8) for phase in hint_arms.BASE_DATA)
    arms = [dataclasses.replace(arm, settings=(*arm.settings, *short)) for arm in ARMS]
    monkeypatch.setattr(parts, "DATA", few)
    monkeypatch.setattr(parts, "NUM_TEST", 6)
    monkeypatch.setattr(parts, "BASE_DATA", base)
    monkeypatch.setattr(parts, "BASE", dataclasses.replace(BASE, settings=short))
    monkeypatch.setattr(parts, "ARMS", tuple(arms))


def test_a_small_study_in_a_process_of_its_own():
    passes_alone(__file__, "from_data_to_scores")


@only_alone
def test_a_small_study_from_data_to_scores(small, tmp_path, monkeypatch):
    """Every kind of part is made, and what is made is not made again."""
    keys = ("ceiling", "system-suppress-response")

    def make_all():
        for test in TESTS:
            parts.make_test(tmp_path, test)
        apart(parts.make_base, tmp_path)
        parts.make_seed_data(tmp_path, 0)
        for key in keys:
            apart(parts.run_arm, tmp_path, 0, key)

    def made_again(*_, **__):
        raise AssertionError("a finished part is made again")

    make_all()
    for part in ("train_whole", "write_curriculum", "save_base", "score_hints"):
        monkeypatch.setattr(parts, part, made_again)
    make_all()
    results = parts.read_results(tmp_path, seeds=2)
    assert {key: list(runs) for key, runs in results.items() if runs} == {key: [0] for key in keys}
    assert results["ceiling"][0].keys() == set(HINT_PLACES)
    assert results["system-suppress-response"][0].keys() == {"system"}
    for of_seed in (parts.read_base(tmp_path), *(results[key][0] for key in keys)):
        for of_place in of_seed.values():
            assert all(0 <= value <= 1 for value in of_place.values())
            masses = [value for name, value in of_place.items() if name.endswith("_mass")]
            assert math.fsum(masses) == pytest.approx(1, abs=1e-5)
    log = json.loads((tmp_path / "seed-0" / "ceiling.json").read_text())["log"]
    assert [line["step"] for line in log] == [1, 2]
