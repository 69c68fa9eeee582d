"""The JSONL log, across an interruption too, and what other loggers get."""

import json

from avar_fast.config import load_recipe
from avar_fast.train import tracker as tracker_module
from avar_fast.train.tracker import Tracker


def test_resume_drops_later_lines_and_those_that_were_cut_and_says_so(tmp_path, capsys):
    """A half-written line used to stay in the middle of the log, which no reader could parse."""
    text = "stage: sft\nmodel: {path: x}\ndata: {path: y}\n"
    text += f"train: {{output_dir: {tmp_path}, steps: 9}}\n"
    (tmp_path / "r.yaml").write_text(text)
    log = tmp_path / "log.jsonl"
    whole = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3)]
    log.write_text("\n".join([*whole, '{"step": 4, "lo']))
    tracker = Tracker(load_recipe(tmp_path / "r.yaml"), rank=0, first_step=2)
    tracker.log(3, {"loss": 0.5})
    tracker.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] == 0.5
    assert "dropped 1 line(s)" in capsys.readouterr().err


def test_values_by_layer_are_an_object_in_the_log_and_scalars_elsewhere(tmp_path, monkeypatch):
    """TensorBoard and W&B take numbers only."""
    written = []
    monkeypatch.setattr(tracker_module, "_writer", lambda *_: lambda *given: written.append(given))
    text = "stage: sft\nmodel: {path: x}\ndata: {path: y}\n"
    text += f"train: {{output_dir: {tmp_path}, steps: 9}}\ntracking: {{loggers: [tensorboard]}}\n"
    (tmp_path / "r.yaml").write_text(text)
    tracker = Tracker(load_recipe(tmp_path / "r.yaml"), rank=0, first_step=0)
    tracker.log(1, {"loss": 0.5, "mfu": None, "x_by_layer": {3: 0.25, 7: 0.75}})
    tracker.close()
    assert written == [(1, {"loss": 0.5, "x_by_layer/3": 0.25, "x_by_layer/7": 0.75})]
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert (line["mfu"], line["x_by_layer"]) == (None, {"3": 0.25, "7": 0.75})
