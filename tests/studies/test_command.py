"""The commands as a user runs them, on an untrained lab model; and what they say of bad input."""

import json
import shutil

import pytest
import torch

from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.studies.__main__ import main

from .model_and_rows import edited

FAST = ["--resamples", "50", "--batch-size", "4"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three models of one shape, one of another, and a file of rows."""
    folder = tmp_path_factory.mktemp("vas")
    for seed in range(3):
        save_base(folder / f"model-{seed}", seed)
    save_base(folder / "shallow", 0)
    config = json.loads((folder / "shallow" / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 2
    config["text_config"]["layer_types"] = config["text_config"].get("layer_types", [])[:2]
    (folder / "shallow" / "config.json").write_text(json.dumps(config))
    write_rows(folder / "rows", WorldConfig(), "test", 6, seed=0)
    return folder


def run(*arguments):
    main([str(a) for a in arguments])


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_score_writes_the_same_json_and_picture_twice(world, tmp_path, capsys):
    rows = world / "rows" / "test.jsonl"
    for name in ("a", "b"):
        run("score", world / "model-0", "--data", rows, "--out", tmp_path / name, *FAST)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert set(files(tmp_path / "a")) == {"score.json", "score.png"}
    result = json.loads((tmp_path / "a" / "score.json").read_text())
    assert result["rows"] == 6
    assert result["num_image_tokens"] == 6 * 4
    assert result["bootstrap"]["seed"] == 0
    assert torch.tensor(result["by_head"]["log_ratio"]["value"]).shape == (4, 4)
    assert torch.tensor(result["by_layer"]["share"]["low"]).shape == (4,)
    assert len(result["by_position"]["ratio"]["high"]) == 8
    overall = result["overall"]
    masses = sum(overall[kind]["value"] for kind in ("text", "visual", "system"))
    assert masses == pytest.approx(1.0, abs=1e-5)
    said = capsys.readouterr().out
    assert "of 6 rows with 24 image tokens; 4 layers" in said
    assert "log_ratio" in said
    assert "Attention was changed" not in said


def test_the_table_of_a_changed_model_says_so(world, tmp_path, capsys):
    given = (world / "model-0", "--data", world / "rows" / "test.jsonl", "--out", tmp_path, *FAST)
    change = ("--visual-scale", "1.5", "--form", "weights", "--layers", "0-1")
    run("score", *given, *change)
    want = "Attention was changed: visual_scale 1.5, layers (0, 1), form weights."
    assert want in capsys.readouterr().out
    run("compare", *given[:1], f"far={world / 'model-2'}", *given[1:], *change)
    assert want in capsys.readouterr().out


def test_compare_names_its_models_and_states_its_threshold(world, tmp_path, capsys):
    models = [f"base={world / 'model-0'}", world / "model-1", f"far={world / 'model-2'}"]
    data = ("--data", world / "rows" / "test.jsonl", "--out", tmp_path, "--threshold", "0.2")
    run("compare", *models, *data, *FAST)
    result = json.loads((tmp_path / "compare.json").read_text())
    assert result["threshold_of_log_ratio"] == 0.2
    assert [c["name"] for c in result["checkpoints"]] == ["base", str(world / "model-1"), "far"]
    base, far = (result["checkpoints"][i]["overall"]["log_ratio"]["value"] for i in (0, 2))
    rise = result["shifts"][1]["overall"]["log_ratio"]["value"]
    assert rise == pytest.approx(far - base, abs=1e-9)
    said = capsys.readouterr().out
    assert "lies above 0.2" in said
    assert result["shifts"][1]["verdict"] in said
    assert (tmp_path / "compare.png").stat().st_size > 1000


def test_heads_ranks_all_of_them(world, tmp_path, capsys):
    data = ("--data", world / "rows" / "test.jsonl", "--out", tmp_path, "--show", "2")
    run("heads", f"mine={world / 'model-0'}", *data, "--masks", "visual", *FAST)
    result = json.loads((tmp_path / "heads.json").read_text())
    assert len(result["heads_by_visual_mass"]) == len(result["heads_by_drop"]["visual"]) == 16
    assert set(result["drops"]) == set(result["agreement"]) == {"visual"}
    assert result["rows"] == 6
    layer, head = result["heads_by_visual_mass"][0]
    said = capsys.readouterr().out
    assert f"| {layer}.{head} " in said
    assert "Rank correlation" in said
    assert (tmp_path / "heads.png").stat().st_size > 1000


def test_models_that_see_images_of_other_sizes_are_not_compared(world, tmp_path):
    """The same weights, and a checkpoint's own pixel limits. Four times the image tokens have four
    times the mass where attention is even, so the checkpoint seemed to look more."""
    large = tmp_path / "large"
    shutil.copytree(world / "model-0", large)
    processor = json.loads((large / "preprocessor_config.json").read_text())
    processor["size"] = {"shortest_edge": 112 * 112, "longest_edge": 112 * 112}
    (large / "preprocessor_config.json").write_text(json.dumps(processor))
    given = ("compare", f"base={world / 'model-0'}", f"large={large}", "--data")
    given = (*given, world / "rows" / "test.jsonl", *FAST, "--out", tmp_path / "out")
    message = "large sees 96 in 6 rows and base 24.*--min-pixels and --max-pixels"
    with pytest.raises(SystemExit, match=message):
        run(*given)
    run(*given, "--min-pixels", 12544, "--max-pixels", 12544)
    (shift,) = json.loads((tmp_path / "out" / "compare.json").read_text())["shifts"]
    assert shift["overall"]["log_ratio"]["value"] == 0


def test_correlate_takes_results(tmp_path, capsys):
    for i, accuracy in enumerate((0.2, 0.5, 0.4, 0.9)):
        vas = {"ratio": 2.0 + i, "log_ratio": 0.1 * i, "share": 0.5 + 0.1 * i}
        text = json.dumps({"benchmarks": {"rows": {"score": accuracy, "vas": vas}}})
        (tmp_path / f"r{i}.json").write_text(text)
    run("correlate", *(tmp_path / f"r{i}.json" for i in range(4)), "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out" / "correlate.json").read_text())
    assert len(result["points"]) == 4
    assert result["paper"]["pearson"] == 0.9616
    said = capsys.readouterr().out
    assert "0.9616" in said
    assert "the paper's" in said


def test_correlate_evaluates_models(world, tmp_path, monkeypatch):
    """Answers of untrained models are all wrong: accuracy comes from elsewhere here, and the rest
    is real."""
    rights = iter([True] * 6 + [False] * 6 + [True, False] * 3)
    monkeypatch.setattr("avar_fast.rewards.answer_checker.is_correct", lambda *_: next(rights))
    models = [world / f"model-{seed}" for seed in range(3)]
    data = ("--data", world / "rows" / "test.jsonl", "--max-new-tokens", "1")
    run("correlate", *models, *data, "--out", tmp_path)
    result = json.loads((tmp_path / "correlate.json").read_text())
    assert [point["accuracy"] for point in result["points"]] == [1.0, 0.0, 0.5]
    assert len({point["vas"]["share"] for point in result["points"]}) == 3
    (tmp_path / "correlate.json").unlink()
    run("correlate", *models, *data, "--out", tmp_path)  # asking again would exhaust ``rights``
    assert json.loads((tmp_path / "correlate.json").read_text()) == result
    with pytest.raises(SystemExit, match="is a result with max_new_tokens = 1"):
        run("correlate", *models, *data[:2], "--max-new-tokens", "2", "--out", tmp_path)
    written = sorted((tmp_path / "results").iterdir())
    run("correlate", *written, "--out", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "correlate.json").read_text())
    assert again["correlations"] == result["correlations"]


def says(capsys, words, *arguments):
    """The command ends with exactly one line, and no traceback."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    text = str(caught.value) if isinstance(caught.value.code, str) else capsys.readouterr().err
    for word in words:
        assert word in text, text
    assert "Traceback" not in text
    assert "error: " in text
    assert len(text.split("error: ")[-1].strip().splitlines()) == 1


def test_bad_rows_are_named(world, tmp_path, capsys):
    def broken(change, name):
        folder = shutil.copytree(world / "rows", tmp_path / name)
        return edited(folder / "test.jsonl", change)

    score = ("score", world / "model-0", "--out", tmp_path / "out", *FAST, "--data")
    no_turns = broken(lambda i, row: i == 3 and row.pop("messages"), "turns")
    says(capsys, ["error:", "row 4", "messages"], *score, no_turns)
    no_image = broken(lambda i, row: i == 2 and row.update(images=["gone.png"]), "image")
    says(capsys, ["error:", "row 3", "gone.png does not exist"], *score, no_image)
    cut = broken(lambda i, row: None, "cut")
    picture = sorted((cut.parent / "images").iterdir())[1]
    picture.write_bytes(picture.read_bytes()[:60])
    says(capsys, ["error:", "row 2", picture.name, "cannot be read"], *score, cut)
    says(capsys, ["error:", "none.jsonl is not"], *score, tmp_path / "none.jsonl")

    no_answer = broken(lambda i, row: i == 4 and row.pop("answer"), "answer")
    models = [world / f"model-{seed}" for seed in range(3)]
    words = ["error:", "row 5", "answer must be given for accuracy"]
    says(capsys, words, "correlate", *models, "--data", no_answer, "--out", tmp_path / "out")


def test_a_prompt_without_system_turn_is_refused_with_the_remedy(world, tmp_path, capsys):
    model = shutil.copytree(world / "model-0", tmp_path / "model")
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text(template[template.index("{%- for turn") :])
    score = ("--data", world / "rows" / "test.jsonl", "--out", tmp_path / "out", *FAST)
    words = ["error:", "row 1", "have a system turn", "--system-prompt"]
    says(capsys, words, "score", model, *score, "--system-prompt", "")
    run("score", model, *score)  # with the default one it works

    deaf = template.replace('"<|im_start|>" + turn.role', '"<|im_start|>user"')
    (model / "chat_template.jinja").write_text(deaf)
    says(capsys, ["error:", "the chat template must write the system turn"], "score", model, *score)


def test_what_is_no_model_is_refused(world, tmp_path, capsys):
    data = ("--data", world / "rows" / "test.jsonl", "--out", tmp_path / "out", *FAST)
    says(capsys, ["rows has no config.json", "RUN/latest"], "score", world / "rows", *data)
    file = world / "model-0" / "config.json"
    says(capsys, ["config.json is neither"], "score", file, *data)
    says(capsys, ["error:", "nowhere is neither"], "score", tmp_path / "nowhere", *data)
    empty = shutil.copytree(world / "model-0", tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    says(capsys, ["empty cannot be loaded", "no file named"], "score", empty, *data)
    (empty / "model.safetensors").write_bytes(b"\0" * 100)
    says(capsys, ["empty cannot be loaded", "header"], "score", empty, *data)
    config = json.loads((empty / "config.json").read_text()) | {"model_type": "llama"}
    (empty / "config.json").write_text(json.dumps(config))
    says(capsys, ["must hold a model of type", "'llama'"], "score", empty, *data)


def test_checkpoints_of_other_shapes_are_refused_before_anything_is_read(
    world, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "avar_fast.studies.__main__.collect", lambda *_: pytest.fail("rows were read")
    )
    data = ("--data", world / "rows" / "test.jsonl", "--out", tmp_path, *FAST)
    models = (f"a={world / 'model-0'}", f"b={world / 'shallow'}")
    words = ["a has 4 heads in each of the layers 0..3, and b has 4 heads in each of", "0..1"]
    says(capsys, words, "compare", *models, *data)
    says(capsys, ["two or more checkpoints"], "compare", world / "model-0", *data)
    says(capsys, ["names of their own"], "compare", world / "model-0", world / "model-0", *data)


def test_points_that_make_no_correlation_are_refused(world, tmp_path, capsys):
    model, out = world / "model-0", ("--out", tmp_path)
    says(capsys, ["at least 3 points", "got 1"], "correlate", model, *out)
    says(capsys, ["got 2"], "correlate", model, world / "model-1", *out)
    models = [world / f"model-{seed}" for seed in range(3)]
    says(capsys, ["models alone with --data", "3 models"], "correlate", *models, *out)
    mixed = (*models, tmp_path / "x.json")
    says(capsys, ["1 results, 3 models"], "correlate", *mixed, *out)
    gone = [tmp_path / f"{name}.json" for name in "xyz"]
    says(capsys, ["a result must be an existing file", "x.json"], "correlate", *gone, *out)


def test_bad_options_are_named(world, tmp_path, capsys):
    data = ("--data", world / "rows" / "test.jsonl", "--out", tmp_path)
    says(capsys, ["--confidence", "between 0 and 1"], "score", "m", *data, "--confidence", "95")
    says(capsys, ["--limit", "at least 1"], "score", "m", *data, "--limit", "0")
    says(capsys, ["--eps", "not be negative"], "score", "m", *data, "--eps=-1e-6")
    says(capsys, ["--seed", "at least 0"], "score", "m", *data, "--seed=-1")
    nan = ("--threshold", "nan")
    says(capsys, ["--threshold", "finite"], "compare", "m", "n", *data, *nan)
    (tmp_path / "file").write_text("")
    says(capsys, ["--out must be a folder"], "score", "m", *data[:2], "--out", tmp_path / "file")
    one = (*data, "--limit", "1", *FAST)
    says(capsys, ["at least two rows"], "score", world / "model-0", *one)
