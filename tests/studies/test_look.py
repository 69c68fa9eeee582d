"""The study look: maps of written answers against a plain forward, its page, and bad input."""

import base64
import json
import re

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.attention import record_attention
from avar_fast.data import Encoder
from avar_fast.report.look_page import look_parts
from avar_fast.report.response_maps import ResponseMaps, _pieces, response_maps
from avar_fast.studies.__main__ import main

from .model_and_rows import WITH_GAPS, edited, loaded_pair, ragged_rows

PROMPT = "You are a helpful assistant."


@pytest.mark.parametrize("family", [None, WITH_GAPS])
def test_a_token_has_the_attention_of_the_position_that_wrote_it(tmp_path, family):
    loaded, slow = loaded_pair(family)
    row = ragged_rows(tmp_path)[1]
    found = response_maps(loaded, row, PROMPT, max_new_tokens=6)
    assert len(found.pieces) == len(found.masses) == 6
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, PROMPT, max_length=1 << 20)
    sample = encoder(row)
    prompt = sample.prompt_ids
    ids = torch.cat([prompt, torch.tensor(found.token_ids)])[None]
    is_image = ids == encoder.image_pad
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": is_image.int(),
        "pixel_values": sample.pixel_values,
        "image_grid_thw": sample.image_grid_thw,
    }
    with torch.no_grad():
        out = slow(**inputs, output_attentions=True)
    attentions = [weights for weights in out.attentions if weights is not None]
    mean = torch.stack(attentions).mean(dim=(0, 2))[0, len(prompt) - 1 : -1]
    (grid,) = found.maps
    assert torch.allclose(grid.flatten(1), mean[:, is_image[0]], atol=2e-6)
    # The position before a token wrote it: its logits have the token on top.
    assert out.logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == found.token_ids
    assert grid_sums(found) == pytest.approx(found.masses[:, KeyType.VISUAL].tolist(), abs=1e-5)
    assert found.masses.sum(1).tolist() == pytest.approx([1.0] * 6, abs=1e-5)


def test_pieces_are_the_whole_text():
    loaded, _ = loaded_pair()
    words = loaded.tokenizer.encode("n\u00e9 \u4f60x", add_special_tokens=False)
    for stop in range(1, len(words) + 1):
        pieces = _pieces(words[:stop], loaded.tokenizer.decode)
        assert len(pieces) == stop
        assert "".join(pieces) == loaded.tokenizer.decode(words[:stop])


def grid_sums(found):
    return sum(one.flatten(1).sum(1) for one in found.maps).tolist()


def test_chosen_layers_are_averaged(tmp_path):
    loaded, _ = loaded_pair()
    row = ragged_rows(tmp_path)[0]
    each = [response_maps(loaded, row, PROMPT, 3, layers=[layer]) for layer in (0, 2)]
    both = response_maps(loaded, row, PROMPT, 3, layers=[0, 2])
    assert torch.allclose(both.maps[0], (each[0].maps[0] + each[1].maps[0]) / 2, atol=1e-7)
    with record_attention(loaded.model):  # the model is as before
        pass


def an_answer(pieces, size=(84, 56), question="<image>Add <b>1</b>"):
    from PIL import Image

    count = len(pieces)
    maps = torch.rand(count, 2, 3, generator=torch.Generator().manual_seed(0)) / 12
    visual = maps.flatten(1).sum(1)
    masses = torch.stack([0.7 * (1 - visual), visual, 0.3 * (1 - visual)], dim=1)
    image = Image.new("RGB", size)
    texts = (question, "<think>", "7")
    return ResponseMaps([image], [maps], masses, [0] * count, pieces, count, *texts)


def test_the_page_holds_every_map_and_no_foreign_markup():
    answer = an_answer(["3", "</script><script>alert(1)", " "])
    page = "".join(look_parts("Title & more", "intro <i>", [{"base": answer, "b&w": answer}]))
    assert "<b>1</b>" not in page
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "Title &amp; more" in page
    assert "b&amp;w" in page
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert len(blocks) == 2
    data = json.loads(blocks[0])
    levels = torch.tensor(list(base64.b64decode(data["maps"][0]))).view(3, 2, 3)
    top = answer.maps[0].max()
    assert (levels / 255 * top - answer.maps[0]).abs().max() <= top / 500
    assert len(data["notes"]) == 3
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_text_that_turns_direction_turns_no_text_of_the_page():
    answer = an_answer(["3\u202e", "\u05e9\u05dc\u05d5\u05dd", "\n"], question="Add\u202e 1")
    page = "".join(look_parts("Title", "intro", [{"base": answer}]))
    assert "\u202e" not in page
    assert "\\u202e" not in page  # as JSON has it
    assert "<bdi>Add\ufffd 1</bdi> (answer: <bdi>7</bdi>)" in page
    assert "\u05e9\u05dc\u05d5\u05dd" in page
    assert '"a line break: ' in page


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((84, 56), (160, 107)),
        ((1, 200), (16, 200)),
        ((200, 1), (200, 16)),
        ((3000, 2000), (640, 427)),
        ((1, 1), (160, 160)),
        ((40, 6000), (16, 640)),
    ],
)
def test_images_of_any_size_fit_the_screen(size, shown):
    page = "".join(look_parts("Title", "intro", [{"base": an_answer(["3"], size=size)}]))
    width, height = shown
    assert f"width:{width}px;aspect-ratio:{width}/{height}" in page


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from avar_fast.lab.model import save_base
    from avar_fast.lab.world import WorldConfig, write_rows

    folder = tmp_path_factory.mktemp("look")
    save_base(folder / "model", 0)
    write_rows(folder / "rows", WorldConfig(), "test", 4, seed=0)
    return folder


def run(*arguments):
    main([str(a) for a in arguments])


def test_the_command_shows_two_models_side_by_side(world, tmp_path, capsys):
    rows, model = world / "rows" / "test.jsonl", world / "model"
    models = (f"base={model}", f"agto={model}")
    reading = ("--data", rows, "--limit", 2, "--max-new-tokens", 4)
    run("look", *models, *reading, "--layers", "0,2", "--out", tmp_path)
    result = json.loads((tmp_path / "look.json").read_text())
    assert len(result["rows"]) == 2
    assert set(result["rows"][0]["models"]) == {"base", "agto"}
    assert result["layers"] == [0, 2]
    assert len(result["rows"][0]["models"]["base"]["visual_mass_by_token"]) == 4
    assert result["rows"][0]["models"]["base"]["num_image_tokens"] == 4
    page = (tmp_path / "look.html").read_text()
    assert page.count('class="model"') == 4
    assert page.count("; 4 image tokens</p>") == 4
    assert capsys.readouterr().out.rstrip().endswith("look.json, look.html")


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (["a", "b", "c"], [], "one model, or two with names of their own; got a, b, c"),
        (["x=a", "x=b"], [], "two with names of their own; got x, x. Write NAME=PATH"),
        (["model"], ["--layers", "9"], "layers of model must be a non-empty subset of 0..3"),
        (["model"], ["--layers", "x"], "--layers must be like 0-7,12; got 'x'"),
        (["model"], ["--data", "no.jsonl"], "--data must be an existing file; no.jsonl is not"),
    ],
)
def test_bad_input(world, tmp_path, models, options, message, monkeypatch):
    """None costs an answer."""
    monkeypatch.chdir(world)
    monkeypatch.delattr("avar_fast.studies.__main__.response_maps")
    with pytest.raises(SystemExit) as stopped:
        run("look", *models, "--data", "rows/test.jsonl", "--out", tmp_path, *options)
    assert message in str(stopped.value)


def test_rows_without_an_image_are_left_out_or_refused(world, tmp_path):
    def without(number, row):
        if number != 2:
            row["messages"][0]["content"] = "Add 1 and 2."
            del row["images"]

    rows = world / "mixed.jsonl"
    rows.write_text((world / "rows" / "test.jsonl").read_text().replace("images/", "rows/images/"))
    edited(rows, without)
    run("look", world / "model", "--data", rows, "--max-new-tokens", 2, "--out", tmp_path)
    result = json.loads((tmp_path / "look.json").read_text())
    assert [row["row"].rpartition(" ")[2] for row in result["rows"]] == ["3"]
    rows.write_text("\n".join(rows.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(SystemExit, match="look needs rows with an image; none of 2 has one"):
        run("look", world / "model", "--data", rows, "--out", tmp_path)
