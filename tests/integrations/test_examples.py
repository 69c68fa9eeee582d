"""The scripts in examples/, whole, on the lab's model."""

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers

from avar_fast.attention import attach
from avar_fast.bootstrap import Bootstrap
from avar_fast.data import load_rows
from avar_fast.lab.model import save_base
from avar_fast.loading import load
from avar_fast.studies.masses import QUANTITIES, MassSettings, collect
from avar_fast.studies.score import summarize

from .clients import processor

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = {
    "max_steps": 2, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
    "use_cpu": True, "bf16": False, "logging_steps": 1, "learning_rate": 1e-3,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return str(save_base(tmp_path_factory.mktemp("model"), seed=0))


@pytest.fixture(autouse=True)
def _processor_without_video(monkeypatch):
    """AutoProcessor needs torchvision for Qwen2.5-VL, and the lab saves no processor."""
    monkeypatch.setattr(
        transformers.AutoProcessor, "from_pretrained", staticmethod(lambda path: processor())
    )


def main_of(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def logs_of(trainer):
    return [logs for logs in trainer.state.log_history if "loss" in logs]


def test_trl_sft(model_path, rows_file, tmp_path):
    pytest.importorskip("trl")
    main = main_of("trl_sft_agto")
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer = main(model_path, str(rows_file), str(tmp_path), **STEPS, **options)
    assert [logs["agto_skipped"] for logs in logs_of(trainer)] == [0, 0]
    assert (tmp_path / "model.safetensors").exists()


def test_trl_grpo(model_path, rows_file, tmp_path):
    pytest.importorskip("trl")
    main = main_of("trl_grpo_vars")
    options = {
        "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 6,
    }  # fmt: skip
    trainer = main(model_path, str(rows_file), str(tmp_path), **STEPS, **options)
    assert len(logs_of(trainer)) == 2
    for name in ("accuracy", "vars", "format"):
        assert logs_of(trainer)[0][f"rewards/{name}/mean"] >= 0
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("adapters", ["", "lora"])
def test_trainer(model_path, rows_file, tmp_path, adapters):
    if adapters:
        pytest.importorskip("peft")
    main = main_of("trainer_agto")
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer = main(model_path, str(rows_file), str(tmp_path), adapters, **STEPS, **options)
    assert [logs["agto_skipped"] for logs in logs_of(trainer)] == [0, 0]
    saved = "adapter_model.safetensors" if adapters else "model.safetensors"
    assert (tmp_path / saved).exists()


def score_of_first_rows(path, rows_file, count):
    """VAS as ``python -m avar_fast.studies score`` has it."""
    loaded = load(path, torch.float32, torch.device("cpu"))
    attach(loaded.model, loaded.tokenizer)
    masses = collect(loaded, load_rows(str(rows_file), limit=count), MassSettings(), "own")
    return summarize(masses, Bootstrap()).overall[QUANTITIES.index("ratio")].value


def test_own_loop(model_path, rows_file):
    score = score_of_first_rows(model_path, rows_file, 4)
    history = main_of("own_loop")(model_path, str(rows_file), size=4, learning_rate=1e-3)
    losses, enhance, vas = zip(*history, strict=True)
    assert len(history) == 2
    assert losses[1] < losses[0]
    assert enhance[1] < enhance[0]
    assert vas[0] == pytest.approx(score, rel=1e-4)
