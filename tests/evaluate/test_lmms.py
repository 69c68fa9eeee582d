"""The model ``avar`` in lmms-eval's registry and through its interface; skipped where lmms-eval is
not installed (it pins versions that do not go with the trainer's)."""

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from PIL import Image

from avar_fast.data import load_rows
from avar_fast.evaluate import Settings, evaluate_rows, lmms_manifest
from avar_fast.evaluate.command import Model
from avar_fast.lab.model import save_base
from avar_fast.lab.world import WorldConfig, write_rows

ROOT = Path(__file__).parents[2]


def test_the_entry_point_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (value,) = project["entry-points"]["lmms_eval.models"].values()
    point = EntryPoint("avar", value, "lmms_eval.models")
    assert point.load() is lmms_manifest.manifest


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    pytest.importorskip("lmms_eval.api.model")
    folder = tmp_path_factory.mktemp("lmms")
    save_base(folder / "model", seed=0)
    rows = load_rows(str(write_rows(folder, WorldConfig(), "test", 5, seed=0)))
    return folder, rows


def requests_of(rows, **wanted):
    from lmms_eval.api.instance import Instance

    def to_messages(doc):
        images = iter(doc.images)
        return [
            {
                "role": turn["role"],
                "content": [
                    {"type": "image", "url": Image.open(next(images))}
                    if part["type"] == "image"
                    else part
                    for part in turn["content"]
                ],
            }
            for turn in doc.messages
        ]

    kwargs = {"max_new_tokens": 5, "temperature": 0, "until": ["\n\n"], **wanted}
    return [
        Instance(
            request_type="generate_until",
            arguments=("", to_messages, kwargs, i, "digits", "test"),
            idx=0,
            metadata={"task": "digits", "doc_id": i, "repeats": 1},
        )
        for i in range(len(rows))
    ]


def test_the_registry_finds_it_and_it_answers_as_the_runner_does(world):
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    folder, rows = world
    registry = ModelRegistryV2()
    registry.register_manifest(lmms_manifest.manifest())
    found = registry.get_model_class("avar")
    record = folder / "vas.jsonl"
    model = found.create_from_arg_string(
        f"pretrained={folder / 'model'},dtype=float32,visual_scale=1.5,layers=0;1,record={record}",
        {"batch_size": 2, "device": "cpu", "max_batch_size": None},
    )
    model.task_dict["digits"] = {"test": rows}
    answers = model.generate_until(requests_of(rows))
    settings = Settings(max_new_tokens=5, visual_scale=1.5, layers=(0, 1))
    loaded = Model(str(folder / "model"), "float32", model.device).loaded
    _, want = evaluate_rows(loaded, rows, settings)
    assert [a.text for a in answers] == [p.completion for p in want]
    assert [a.token_counts.output_tokens for a in answers] == [p.num_tokens for p in want]
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == [0, 1, 2, 3, 4]
    for line, prediction in zip(lines, want, strict=True):
        assert line["vas"] == pytest.approx(prediction.vas, rel=1e-4)


def test_samples_and_other_requests_are_refused(world):
    from avar_fast.evaluate.lmms import Avar

    folder, rows = world
    model = Avar(str(folder / "model"), dtype="float32")
    model.task_dict["digits"] = {"test": rows}
    with pytest.raises(ValueError, match="answers greedily"):
        model.generate_until(requests_of(rows, temperature=0.7))
    with pytest.raises(NotImplementedError):
        model.loglikelihood([])
