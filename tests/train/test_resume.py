"""A resumed run with other settings or other rows: both take effect, or are refused by name."""

import dataclasses
import json
import shutil

import pytest

from avar_fast.config import load_recipe
from avar_fast.config.changes import changed_settings, require_fixed
from avar_fast.data import PackOrder, RowOrder, load_rows
from avar_fast.data.fingerprint import fingerprint_of
from avar_fast.train.__main__ import main
from avar_fast.train.engine import lr_factor
from avar_fast.train.resume import Resumed

from .runs import log_of, on_ranks, run


@pytest.fixture(scope="module")
def halted(world, tmp_path_factory):
    """A run of 4 steps, of which 2 are made, at a ZeRO stage that keeps settings of its own."""
    folder = tmp_path_factory.mktemp("halted")
    run(world, folder / "out", "train.steps=2", "engine.zero_stage=1", "agto.enabled=false")
    return folder / "out"


@pytest.fixture
def copy(halted, tmp_path):
    return shutil.copytree(halted, tmp_path / "out", symlinks=True)


def state_of(world, output, *settings):
    """What a resumed run starts with, and what it says; see ``state_worker``."""
    command = ["tests.train.state_worker", str(world / "recipe.yaml")]
    common = [f"train.output_dir={output}", "engine.zero_stage=1", "agto.enabled=false"]
    done = on_ranks([*command, *common, *settings], ranks=1)
    (line,) = (x for x in done.stdout.splitlines() if x.startswith("STATE"))
    return json.loads(line[len("STATE") :]), done.stderr


def test_settings_of_the_optimizer_take_effect_and_are_said(world, copy):
    """The checkpoint's came back, and its recipe named the new ones."""
    settings = ["optim.lr=5e-4", "optim.vision_lr=1e-4", "optim.weight_decay=0.1"]
    settings += ["optim.betas=[0.8, 0.9]", "optim.max_grad_norm=0.25", "optim.warmup_steps=1"]
    state, said = state_of(world, copy, *settings, "train.steps=8")
    factor = lr_factor(2, 8, 1, "cosine")
    peaks = [5e-4, 5e-4, 5e-4, 5e-4, 1e-4, 1e-4]
    assert len(state["groups"]) == 6
    for group, peak in zip(state["groups"], peaks, strict=True):
        assert group["lr"] == peak * factor
        assert group["betas"] == [0.8, 0.9]
    assert [group["weight_decay"] for group in state["groups"]] == [0.1, 0.0] * 3
    assert state["lr"] == [peak * factor for peak in peaks]
    assert state["clip"] == 0.25
    for words in (
        "settings changed from the next step on: ",
        "train.steps 2 -> 8",
        "optim.lr 0.001 -> 0.0005",
        "optim.betas (0.9, 0.95) -> (0.8, 0.9)",
        "optim.max_grad_norm 1.0 -> 0.25",
        f"learning rate: {5e-4 * factor:.4g} at the next step, by the schedule cosine over 8 steps",
        "with the old settings it would be 0.0001",
    ):
        assert words in said, words


def test_rows_that_changed_are_refused_unless_that_is_meant(world, copy):
    """Another file went on at the old position, without a word."""
    common = ["train.steps=3", "engine.zero_stage=1", "agto.enabled=false", "--resume"]
    lines = (world / "rows" / "train.jsonl").read_text().splitlines()
    file = world / "rows" / "added.jsonl"
    file.write_text("\n".join(lines + lines[:2]))
    done = run(world, copy, f"data.path={file}", *common, check=False)
    assert done.returncode != 0
    assert "2 rows were added to the first 24. Restore them, or add --new-data" in done.stderr
    done = run(world, copy, f"data.path={file}", *common, "--new-data")
    assert "new data: 2 rows were added" in done.stderr
    assert [line["step"] for line in log_of(copy)] == [1, 2, 3]
    facts = json.loads((copy / "checkpoints" / "step-000003" / "manifest.json").read_text())
    assert (facts["units"], facts["data"]["count"]) == (4, 26)
    # What is meant once holds: the same rows go on, not anew, and nothing has changed.
    state, said = state_of(world, copy, f"data.path={file}", "train.steps=3")
    order = RowOrder(range(26), 0)
    assert state["units"] == [order(position) for position in range(4, 8)]
    assert "settings changed" not in said
    assert state["lr"][0] == 1e-3 * lr_factor(3, 3, 0, "cosine")


def test_new_data_without_resume_is_an_error(world, capsys):
    with pytest.raises(SystemExit):
        main([str(world / "recipe.yaml"), "--new-data"])
    assert "--new-data needs --resume" in capsys.readouterr().err


def test_what_changed_about_the_rows_is_named(world, tmp_path):
    recipe = load_recipe(world / "recipe.yaml")
    lines = (world / "rows" / "train.jsonl").read_text().splitlines()

    def of(listed, seed=0):
        (tmp_path / "rows.jsonl").write_text("\n".join(listed))
        rows = load_rows(str(tmp_path / "rows.jsonl"))
        return rows, fingerprint_of(rows, RowOrder(range(len(rows)), seed))

    _, before = of(lines)
    reseeded = replaced(recipe, "train", seed=7)
    for now, (listed, seed), words in (
        (recipe, (lines + lines[:2], 0), "2 rows were added to the first 24"),
        (recipe, (lines[:20], 0), "there were 24 rows and now there are 20"),
        (
            recipe,
            ([lines[1], *lines[1:]], 0),
            "some of the 24 rows have other content or another place",
        ),
        (reseeded, (lines, 7), r"their order has changed because of train.seed 0 -> 7"),
    ):
        rows, found = of(listed, seed)
        resumed = Resumed(tmp_path, recipe, now, before.as_dict(), new_data=False)
        with pytest.raises(
            ValueError, match=f"the rows must be those of .*; {words}. Restore them"
        ):
            resumed.units_dealt(8, rows, found)
        meant = Resumed(tmp_path, recipe, now, before.as_dict(), new_data=True)
        units, said = meant.units_dealt(8, rows, found)
        assert units == 0
        assert "the order of rows starts anew" in said
    rows, found = of(lines)
    for meant in (True, False):
        same = Resumed(tmp_path, recipe, recipe, before.as_dict(), meant)
        assert same.units_dealt(8, rows, found) == (8, "")
    unknown = Resumed(tmp_path, recipe, recipe, None, new_data=False)
    assert "they are not checked" in unknown.units_dealt(8, rows, found)[1]


def test_fingerprints_know_content_order_and_nothing_else(tmp_path):
    def of(lines, make=lambda rows: RowOrder(range(len(rows)), 0), name="rows.jsonl"):
        (tmp_path / name).write_text("\n".join(lines))
        rows = load_rows(str(tmp_path / name))
        return fingerprint_of(rows, make(rows))

    lines = [json.dumps({"problem": f"{i}?", "answer": "1"}) for i in range(5)]
    first = of(lines)
    assert of(["", *lines, ""], name="else.jsonl") == first
    assert of([line.replace(": ", ":   ") for line in lines]) == first
    for changed in (lines[::-1], lines[:4], [*lines[:4], lines[0]]):
        other = of(changed)
        assert other.rows != first.rows
        assert (other.order == first.order) == (len(changed) == 5)
    for make in (
        lambda rows: RowOrder(range(5), 1),
        lambda rows: RowOrder(range(5), 0, shuffle=False),
        lambda rows: RowOrder([0, 1, 2, 4], 0),
        lambda rows: PackOrder(range(5), [3] * 5, 9, 0),
        lambda rows: PackOrder(range(5), [3] * 5, 8, 0),
        lambda rows: PackOrder(range(5), [3, 3, 3, 3, 2], 9, 0),
    ):
        other = of(lines, make)
        assert other.rows == first.rows
        assert other.order != first.order
    assert of(lines, lambda rows: RowOrder(list(range(5)), 0)) == first


def test_parquet_and_json_have_fingerprints_of_their_texts(tmp_path):
    import datasets

    records = [{"problem": "<image>?", "answer": "1", "images": [{"bytes": b"1", "path": None}]}]
    records.append(records[0] | {"answer": "2"})

    def of(listed):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        datasets.Dataset.from_list(listed).to_parquet(str(file))
        rows = load_rows(str(file))
        return fingerprint_of(rows, RowOrder(range(len(rows)), 0)).rows

    first = of(records)
    assert of(records) == first
    assert of(records[::-1]) != first
    (tmp_path / "rows.json").write_text(json.dumps([{"problem": "?", "answer": "1"}]))
    rows = load_rows(str(tmp_path / "rows.json"))
    assert fingerprint_of(rows, RowOrder(range(1), 0)).count == 1


def test_what_the_engines_state_is_made_for_is_refused_and_all_else_is_listed(world):
    recipe = load_recipe(world / "recipe.yaml", ["agto.enabled=false"])
    refused = {
        "stage": dataclasses.replace(recipe, stage="grpo"),
        "model.path": replaced(recipe, "model", path="elsewhere"),
        "model.dtype": replaced(recipe, "model", dtype="bfloat16"),
        "model.freeze": replaced(recipe, "model", freeze=("vision",)),
        "lora.enabled": replaced(recipe, "lora", enabled=True),
        "engine.zero_stage": replaced(recipe, "engine", zero_stage=3),
        "grpo.updates_per_rollout": replaced(recipe, "grpo", updates_per_rollout=2),
    }
    for name, changed in refused.items():
        assert name in changed_settings(recipe, changed)
        with pytest.raises(ValueError, match=rf"{name} must be .*, as in run, to resume.*; got "):
            require_fixed(recipe, changed, "run")
    require_fixed(recipe, replaced(recipe, "lora", rank=3), "run")  # of adapters that are not there
    for section in dataclasses.fields(recipe):
        value = getattr(recipe, section.name)
        if not dataclasses.is_dataclass(value):
            continue
        for item in dataclasses.fields(value):
            other = replaced(recipe, section.name, **{})
            object.__setattr__(getattr(other, section.name), item.name, "another")
            name = f"{section.name}.{item.name}"
            known = [] if name == "train.output_dir" else [name]
            assert list(changed_settings(recipe, other)) == known
    path = str(world / "rows" / ".." / "model")
    assert changed_settings(recipe, replaced(recipe, "model", path=path)) == {}
    alike = [replaced(recipe, "engine", zero_stage=stage) for stage in (1, 2)]
    require_fixed(*alike, "run")


def replaced(recipe, section, **values):
    copied = dataclasses.replace(getattr(recipe, section), **values)
    return dataclasses.replace(recipe, **{section: copied})
