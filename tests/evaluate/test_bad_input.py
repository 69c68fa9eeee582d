"""What can be wrong with data, model and answers: each ends in a message that says so, and what was
done is kept."""

import json
import shutil

import pytest
from datasets import Dataset, DatasetDict, Features, Value
from safetensors.torch import load_file, save_file

from avar_fast.evaluate import BenchmarkTask, Settings, answerer, command, read_result
from avar_fast.evaluate.__main__ import main
from avar_fast.evaluate.arguments import layer_numbers
from avar_fast.evaluate.benchmarks import BENCHMARKS
from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows

from . import world

NOBODY = "http://127.0.0.1:9"  # discard: nobody listens


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_base(tmp_path_factory.mktemp("model"), seed=0))


def opened(name, folder):
    return BenchmarkTask(BENCHMARKS[name], str(folder), Settings())


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    columns = {"pid": Value("string"), "question": Value("string")}
    data = Dataset.from_list([{"pid": "1", "question": "?"}], Features(columns))
    data.to_parquet(str(tmp_path / "data" / "testmini-00000-of-00001.parquet"))
    with pytest.raises(ValueError, match=r"mathvista needs the columns .* lacks image, decoded_im"):
        opened("mathvista", tmp_path)


def test_another_split_is_named(tmp_path):
    world.mathvista(tmp_path)
    file = next((tmp_path / "data").iterdir())
    file.rename(file.with_name("test-00000-of-00001.parquet"))
    with pytest.raises(ValueError, match=r"needs split testmini .* holds data/test-00000"):
        opened("mathvista", tmp_path)


def test_a_copy_without_all_subjects_is_named(tmp_path):
    world.mmmu(tmp_path, subjects=("Accounting", "Agriculture"))
    with pytest.raises(ValueError, match="Architecture_and_Engineering"):
        opened("mmmu", tmp_path)


def test_a_copy_without_all_splits_is_named(tmp_path):
    world.hallusion(tmp_path)
    (tmp_path / "data" / "non_image-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"needs split non_image .* holds data/image-00000"):
        opened("hallusion", tmp_path)


def test_data_sets_saved_to_disk(tmp_path):
    """A DatasetDict serves; a Dataset serves where the benchmark is one table."""
    world.mmstar(tmp_path)
    whole = Dataset.from_parquet(str(tmp_path / "mmstar.parquet"))
    whole.save_to_disk(tmp_path / "one")
    DatasetDict({"val": whole}).save_to_disk(tmp_path / "dict")
    for name in ("one", "dict"):
        assert len(opened("mmstar", tmp_path / name).questions) == 5
    with pytest.raises(ValueError, match="hallusion needs 2 tables of .* Save a DatasetDict"):
        opened("hallusion", tmp_path / "one")
    with pytest.raises(ValueError, match="needs split image, .* holds val"):
        opened("hallusion", tmp_path / "dict")


def test_a_split_that_is_another(tmp_path):
    """The split without images replaced by a copy of the other, and by one that asks for images."""
    world.hallusion(tmp_path)
    files = [tmp_path / "data" / f"{s}-00000-of-00001.parquet" for s in ("image", "non_image")]
    records = Dataset.from_parquet(str(files[1]))
    shutil.copy(*files)
    with pytest.raises(ValueError, match=r"\(non_image\) row 1: the id must be there once"):
        opened("hallusion", tmp_path)
    records.map(lambda _: {"visual_input": "2"}).to_parquet(str(files[1]))
    with pytest.raises(ValueError, match="visual_input must be 0 of VS figures 0"):
        opened("hallusion", tmp_path)


def test_a_folder_that_is_not_there_and_one_that_is_empty(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        opened("mmstar", tmp_path / "none")
    with pytest.raises(ValueError, match="holds no parquet file"):
        opened("mmstar", tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    world.mmstar(tmp_path)
    (tmp_path / "mmstar.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match=r"mmstar needs split val .* cannot be read"):
        opened("mmstar", tmp_path)


def test_without_the_hub_the_remedy_is_a_local_copy():
    with pytest.raises(ValueError, match=r"--data mmstar=FOLDER"):
        BenchmarkTask(BENCHMARKS["mmstar"], None, Settings())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": ""}, "answer must not be empty.*use testmini"),
        ({"answer": None}, "answer must be text; got None"),
        ({"answer": "Paris", "choices": ["a", "b"]}, "answer must be one of choices"),
        ({"answer_type": "essay"}, "answer_type must be one of integer, float, list"),
        ({"answer_type": "float"}, "precision must be given"),
    ],
)
def test_records_that_are_not_what_they_should_be(tmp_path, change, words):
    good = world.mathvista_record(1)
    bad = world.mathvista_record(2) | change
    if change.get("choices"):
        bad["question_type"] = "multi_choice"
    world.mathvista(tmp_path, [good, bad])
    with pytest.raises(ValueError, match=words) as caught:
        opened("mathvista", tmp_path)
    assert "row 2" in str(caught.value)


def test_an_id_twice(tmp_path):
    world.mmstar(tmp_path, [world.mmstar_record(0), world.mmstar_record(0)])
    with pytest.raises(ValueError, match=r"row 2: the id must be there once"):
        opened("mmstar", tmp_path)


def test_a_damaged_image_costs_its_question_alone_until_it_is_mended(
    tmp_path, model, capsys, monkeypatch
):
    broken = {"bytes": b"\x89PNG not an image", "path": None}
    records = [world.mmstar_record(i) for i in range(4)]
    world.mmstar(
        tmp_path / "data", [*records[:2], world.mmstar_record(2, image=broken), records[3]]
    )
    out = tmp_path / "r.json"
    given = [model, "--benchmarks=mmstar", f"--data=mmstar={tmp_path / 'data'}", f"--out={out}"]
    given += ["--dtype=float32", "--max-new-tokens=2"]
    assert main(given) == 1
    said = capsys.readouterr()
    assert "row 3: image of bytes cannot be read" in said.err
    assert "1 questions could not be asked" in said.err
    result = read_result(out)
    assert [p.error is None for p in result.predictions] == [True, True, False, True]
    assert result.benchmarks["mmstar"].num_unread == 1

    assert result.head["earlier_projects"] == []

    out.unlink()
    world.mmstar(tmp_path / "data", records)
    monkeypatch.setattr(command, "project", lambda: {"version": "2", "commit": "later"})
    assert main(given) == 0
    assert "0/1 " in capsys.readouterr().err, "the others are not asked again"
    mended = read_result(out)
    assert mended.benchmarks["mmstar"].num_unread == 0
    assert mended.head["project"]["commit"] == "later"
    assert mended.head["earlier_projects"] == [result.head["project"]], "three answers are its"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["data", "r.json"]


def test_no_system_turn(tmp_path, model, capsys):
    rows = write_rows(tmp_path, WorldConfig(), "test", 2, seed=0)
    given = [model, f"--data={rows}", f"--out={tmp_path / 'r.json'}", "--dtype=float32"]
    given += ["--max-new-tokens=2", "--system-prompt="]
    assert main(given) == 1
    said = capsys.readouterr().err
    assert "VAS needs a system turn" in said
    assert "--no-vas" in said
    assert main([*given, "--no-vas"]) == 0
    assert read_result(tmp_path / "r.json").benchmarks["rows"].vas == {}


def test_a_model_whose_template_has_no_system_turn(tmp_path, capsys):
    save_base(tmp_path / "model", seed=0)
    template = tmp_path / "model" / "chat_template.jinja"
    text = template.read_text()
    assert "system" in text or "message" in text
    template.write_text(
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
        "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
        "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}"
        "{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rows = write_rows(tmp_path / "rows", WorldConfig(), "test", 2, seed=0)
    given = [str(tmp_path / "model"), f"--data={rows}", f"--out={tmp_path / 'r.json'}"]
    given += ["--dtype=float32", "--max-new-tokens=2"]
    assert main(given) == 1
    assert "the chat template must write the system turn" in capsys.readouterr().err
    (tmp_path / "r.json").unlink()
    assert main([*given[:2], f"--out={tmp_path / 's.json'}", *given[3:], "--system-prompt=",
                 "--no-vas"]) == 0  # fmt: skip


def test_endless_and_hostile_answers_are_kept_whole(tmp_path, model, monkeypatch, capsys):
    said = ["<b>bold</b>" * 10, "x" * 100_000, "\x00\x1b[31m\ud7ff", "| a | b |\n|---|"]
    rows = write_rows(tmp_path, WorldConfig(), "test", 4, seed=0)
    responses = [answerer.Response(text, len(text), True, None) for text in said]
    monkeypatch.setattr(answerer.Answerer, "respond", lambda *_: responses)
    out = tmp_path / "r.json"
    assert main([model, f"--data={rows}", f"--out={out}", "--dtype=float32"]) == 0
    result = read_result(out)
    assert [p.completion for p in result.predictions] == said
    assert result.benchmarks["rows"].unparsable == 1.0
    assert "100.0 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--benchmarks=mmvet"], "--benchmarks must be among mathvista"),
        (["--benchmarks=all,mathvisa"], "got mathvisa. Did you mean mathvista?"),
        ([], "nothing to evaluate on"),
        (["--benchmarks=rows"], "needs --data"),
        (["--data=a=b"], "must be rows or NAME=FOLDER"),
        (["--benchmarks=mmstar", "--data=mmmu=x"], "is for a benchmark that --benchmarks does not"),
        (["--data=none.jsonl"], "none.jsonl"),
        (["--data=x.jsonl", "--limit=0"], "limit must be at least 1"),
        (["--data=x.jsonl", "--layers=a"], "--layers must be like"),
        (["--data=x.jsonl", "--visual-scale=nan"], "visual_scale must be finite"),
        (["--data=x.jsonl", "--engine=vllm"], "need the model's own forward"),
        (["--data=x.jsonl", "--engine=vllm", "--no-vas", "--visual-bias=1"], "own forward"),
        (
            ["--data=x.jsonl", "--min-pixels=9", "--max-pixels=8"],
            "min_pixels must be at most max",
        ),
    ],
)
def test_bad_arguments(tmp_path, model, capsys, more, words):
    assert main([model, f"--out={tmp_path / 'r.json'}", *more]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--engine=vllm_server"], "rollout.server_url must be the address"),
        (["--engine=vllm", "--rollout=gpu=1"], "did you mean rollout.gpu_memory"),
        (["--engine=vllm", "--rollout=gpu_memory=2"], "rollout.gpu_memory must be below 1"),
        (["--rollout=server_url=http://host"], "got rollout.engine=model"),
        (
            [
                "--engine=vllm_server",
                f"--rollout=server_url={NOBODY}",
                "--rollout=server_seconds=1",
            ],
            "did not answer in 1 s",
        ),
    ],
)
def test_an_engine_that_cannot_be_used(tmp_path, model, capsys, more, words):
    rows = write_rows(tmp_path, WorldConfig(), "test", 1, seed=0)
    given = [model, f"--data={rows}", f"--out={tmp_path / 'r.json'}", "--no-vas"]
    assert main([*given, *more]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def test_vllm_takes_whole_weights_only(tmp_path, model, capsys):
    adapted = tmp_path / "adapted"
    shutil.copytree(model, adapted)
    (adapted / "adapter_config.json").write_text("{}")
    rows = write_rows(tmp_path, WorldConfig(), "test", 1, seed=0)
    given = [str(adapted), f"--data={rows}", f"--out={tmp_path / 'r.json'}", "--no-vas"]
    assert main([*given, "--engine=vllm"]) == 1
    assert "needs whole weights" in capsys.readouterr().err


def test_rows_without_an_answer_are_named(tmp_path, model, capsys):
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "?"}]})
    )
    given = [model, f"--data={tmp_path / 'rows.jsonl'}", f"--out={tmp_path / 'r.json'}"]
    assert main(given) == 1
    assert "rows.jsonl row 1: the answer must be there" in capsys.readouterr().err


def test_layers_that_the_model_lacks(tmp_path, model, capsys):
    rows = write_rows(tmp_path, WorldConfig(), "test", 1, seed=0)
    given = [model, f"--data={rows}", f"--out={tmp_path / 'r.json'}", "--dtype=float32"]
    assert main([*given, "--visual-scale=2", "--layers=0-9"]) == 1
    assert "layers must be a non-empty subset of 0..3" in capsys.readouterr().err


def test_a_sweep_names_missing_layers_before_its_first_point(tmp_path, model, capsys):
    rows = write_rows(tmp_path, WorldConfig(), "test", 1, seed=0)
    given = ["sweep", model, f"--data={rows}", f"--out={tmp_path / 'sweep'}", "--dtype=float32"]
    assert main([*given, "--visual-scale=1,2", "--layers=4"]) == 1
    assert "must be a non-empty subset of 0..3; got [4]" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    "options", [{"form": "weights"}, {"changed_queries": "response"}, {"layers": (1,)}]
)
def test_how_to_intervene_without_an_intervention_is_refused(options):
    with pytest.raises(ValueError, match="says how an intervention acts, but there is none"):
        Settings(**options).require_effect()
    Settings(**options, visual_scale=1.1).require_effect()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "softmax"}, "form must be one of logits, weights, weights_unnormalized; got"),
        ({"changed_queries": "system"}, "changed_queries must be one of"),
        ({"form": "weights", "system_scale": 0.0}, "system_scale must be positive with form"),
        ({"form": "weights", "visual_scale": 1e-50}, "visual_scale must be positive with form"),
        ({"visual_scale": 1e39}, r"visual_scale must be finite, from -1e\+30 to 1e\+30"),
    ],
)
def test_interventions_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)


def test_a_model_without_finite_logits_is_told_in_a_line(tmp_path, model, capsys):
    broken = shutil.copytree(model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    for name, weight in weights.items():
        if "visual" in name:
            weight.fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    rows = write_rows(tmp_path, WorldConfig(), "test", 1, seed=0)
    given = [str(broken), f"--data={rows}", f"--out={tmp_path / 'r.json'}", "--no-vas"]
    assert main([*given, "--dtype=float32"]) == 1
    assert "error: the model gives logits that are not finite" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["5-2", "x", "1-", "-1", "0-99999999999", "9" * 5000])
def test_layers_that_are_no_ranges(text):
    with pytest.raises(ValueError, match="--layers must be like 0-7,12; got"):
        layer_numbers(text)
    assert layer_numbers("0-2,5,5") == (0, 1, 2, 5)
