"""Studies of a model with recurrent layers: layers are named by their index in the model."""

import json

import pytest
import torch

from avar_fast.evaluate import Settings, evaluate_rows
from avar_fast.lab.tokenizer import DEFAULT_SYSTEM
from avar_fast.models import family_at, family_of
from avar_fast.models.decoders import attention_layers
from avar_fast.studies import plots
from avar_fast.studies.__main__ import main
from avar_fast.studies.masses import QUANTITIES, MassSettings, collect

from ..attention.tiny_models import models as lab_models
from ..models.families import FAMILIES
from ..models.families import models as family_models
from .model_and_rows import WITH_GAPS, loaded_pair, ragged_rows

LAYERS = [1, 3]
LATER = 3


def save(loaded, folder):
    for part in (loaded.model, loaded.tokenizer, loaded.image_processor):
        part.save_pretrained(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, the same one with other queries in its later layer with attention, the configuration
    of one whose attention is in other layers, and rows."""
    folder = tmp_path_factory.mktemp("gaps")
    loaded, _ = loaded_pair(WITH_GAPS)
    save(loaded, folder / "base")
    with torch.no_grad():
        loaded.model.model.language_model.layers[LATER].self_attn.q_proj.weight.mul_(-1.5)
    save(loaded, folder / "tuned")
    config = json.loads((folder / "base" / "config.json").read_text())
    types = config["text_config"]["layer_types"]
    types[2], types[3] = types[3], types[2]
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text(json.dumps(config))
    ragged_rows(folder, count=4)
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a study draws, instead of their files."""
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, _: figures.append(figure))
    return figures


def run(world, out, study, *models):
    """The JSON of a study."""
    data = ["--data", world / "test.jsonl", "--out", out, "--resamples", "50"]
    main([str(argument) for argument in (study, *models, *data)])
    return json.loads((out / f"{study}.json").read_text())


def require_named(figures, num_maps, num_curves):
    """The maps and the curves over layers of a figure name layers 1 and 3."""
    (figure,) = figures
    maps = [axis for axis in figure.axes if axis.get_ylabel() == "layer"]
    assert len(maps) == num_maps
    for axis in maps:
        assert [label.get_text() for label in axis.get_yticklabels()] == ["1", "3"]
        assert list(axis.get_yticks()) == [0, 1], "the rows of the table"
    curves = [axis for axis in figure.axes if axis.get_xlabel() == "layer"]
    assert len(curves) == num_curves
    for axis in curves:
        assert list(axis.get_xticks()) == LAYERS
        assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "3"]
        for line in axis.lines:
            assert list(line.get_xdata()) == LAYERS


def test_score(world, tmp_path, drawn, capsys):
    result = run(world, tmp_path, "score", world / "base")
    assert (result["layers"], result["layer_indices"]) == (2, LAYERS)
    assert "2 layers (1, 3) of 4 heads" in capsys.readouterr().out
    require_named(drawn, num_maps=1, num_curves=2)


def test_compare_finds_the_layer_that_changed(world, tmp_path, drawn, capsys):
    result = run(world, tmp_path, "compare", world / "base", f"tuned={world / 'tuned'}")
    (shift,) = result["shifts"]
    earlier, later = shift["by_layer"]["log_ratio"]["value"]
    assert earlier == 0.0
    assert later != 0.0
    moved = [(move["layer"], move["head"]) for move in shift["moved_most"]]
    assert sorted(moved[:4]) == [(LATER, head) for head in range(4)]
    assert result["layer_indices"] == LAYERS
    said = capsys.readouterr().out
    assert f"moved most: {LATER}.{moved[0][1]}: " in said
    require_named(drawn, num_maps=1, num_curves=1)


def test_heads(world, tmp_path, drawn, capsys):
    result = run(world, tmp_path, "heads", world / "base")
    assert result["layer_indices"] == LAYERS
    every = [[layer, head] for layer in LAYERS for head in range(4)]
    orders = {"visual_mass": result["heads_by_visual_mass"], **result["heads_by_drop"]}
    tables = {"visual_mass": result["visual_mass"], **result["drops"]}
    for name, order in orders.items():
        assert sorted(order) == every
        values = [tables[name]["value"][LAYERS.index(layer)][head] for layer, head in order]
        assert values == sorted(values, reverse=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    named = [line.split()[1] for line in lines[1:]]
    assert named == [f"{layer}.{head}" for layer, head in orders["visual_mass"]]
    layer, head = orders["visual_mass"][-1]
    value = tables["visual_mass"]["value"][LAYERS.index(layer)][head]
    assert f"{value:.3f} [" in lines[-1]
    require_named(drawn, num_maps=3, num_curves=0)


def test_checkpoints_with_attention_in_other_layers_are_refused(world, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "avar_fast.studies.__main__.collect", lambda *_: pytest.fail("rows were read")
    )
    words = r"a has 4 heads in each of the layers 1, 3, and b has 4 .* layers 1\.\.2\. Score them"
    with pytest.raises(SystemExit, match=words):
        run(world, tmp_path, "compare", f"a={world / 'base'}", f"b={world / 'other'}")


def test_an_evaluation_names_layers_and_intervenes_in_them(tmp_path):
    loaded, _ = loaded_pair(WITH_GAPS)
    rows = ragged_rows(tmp_path, count=4)
    masses = collect(loaded, rows, MassSettings())
    want = masses.by_head[..., QUANTITIES.index("share")].sum(0) / masses.counts.sum()
    settings = {"system_prompt": DEFAULT_SYSTEM, "max_new_tokens": 1}
    plain, changed = (
        evaluate_rows(loaded, rows, Settings(**settings, **change))[0]
        for change in ({}, {"visual_bias": 3.0, "layers": (LATER,)})
    )
    assert plain.vas_layers == changed.vas_layers == LAYERS
    before, during = (torch.tensor(summary.vas_table["share"]) for summary in (plain, changed))
    torch.testing.assert_close(before, want.to(before), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(during[0], before[0], rtol=1e-5, atol=1e-6)
    assert (during[1] > before[1] + 0.01).all(), "layer 3, the second row, looks more"
    with pytest.raises(ValueError, match="layers must be a non-empty subset of 1, 3; got"):
        evaluate_rows(loaded, rows, Settings(**settings, visual_bias=3.0, layers=(0, 1)))


@pytest.mark.parametrize("family", [None, *FAMILIES])
def test_layers_with_attention_are_known_from_the_configuration(family, tmp_path):
    model, _ = lab_models() if family is None else family_models(family)
    model.config.save_pretrained(tmp_path)
    layers = attention_layers(family_at(str(tmp_path))[1].text_config)
    assert layers == tuple(family_of(model).text_attention(model))
