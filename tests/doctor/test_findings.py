"""What the doctor finds about recipes, on machines and with packages that are made up."""

import json

import pytest

from avar_fast.config import load_recipe, read_recipe
from avar_fast.doctor import training
from avar_fast.doctor.findings import lacks_of_parts, of_folder
from avar_fast.doctor.synthesis import synthesis_findings
from avar_fast.doctor.training import training_findings
from avar_fast.lab.model import save_base
from avar_fast.synthesize.recipe import SynthesisRecipe

from .states import CPU, H100, T4, packages

ADAPTERS = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("lab") / "model", seed=0)


@pytest.fixture
def recipe(tmp_path, model):
    """A recipe that lacks nothing, with changes."""
    (tmp_path / "rows.jsonl").write_text('{"problem": "?", "answer": "2"}\n')
    (tmp_path / "rows.parquet").write_text("")

    def make(*changes):
        file = tmp_path / "recipe.yaml"
        file.write_text(
            f"stage: grpo\nmodel: {{path: {model}, dtype: float32}}\n"
            f"data: {{path: {tmp_path}/rows.jsonl}}\ngrpo: {{rewards: {{exact: 1.0}}}}\n"
            f"train: {{output_dir: {tmp_path}/new/run, steps: 1}}\n"
        )
        return load_recipe(file, list(changes))

    return make


def fatal(found):
    return [each.text for each in found if each.fatal]


ALL_OPTIONAL = ("peft", "vllm", "openai", "wandb", "tensorboard", "math-verify", "datasets")


def test_a_recipe_that_lacks_nothing(recipe):
    missing = packages(*ALL_OPTIONAL, "liger-kernel", "flash-attn", "scipy", "trl")
    assert training_findings(recipe(), missing, CPU) == []


@pytest.mark.parametrize(
    ("change", "package", "words", "command"),
    [
        ("lora.enabled=true", "peft", "lora.enabled", '"avar-fast[train]"'),
        ("rollout.engine=vllm", "vllm", "rollout.engine=vllm", '"avar-fast[vllm]"'),
        ("tracking.loggers=[wandb]", "wandb", "tracking.loggers", "wandb"),
        ("tracking.loggers=[tensorboard]", "tensorboard", "tracking.loggers", "tensorboard"),
        (
            "grpo.rewards={accuracy: 1}",
            "math-verify",
            "the reward accuracy",
            '"avar-fast[train]"',
        ),
        ("train.steps=1", "deepspeed", "avar_fast.train", '"avar-fast[train]"'),
    ],
)
def test_a_missing_package(recipe, change, package, words, command):
    found = training_findings(recipe(change), packages(package), CPU)
    (said,) = fatal(found)
    assert said == (
        f"{words} needs the package {package}, which is not installed. Use: pip install {command}"
    )
    assert training_findings(recipe(change), packages(), CPU) == []


def test_a_server_of_vllm(recipe):
    server = ["rollout.engine=vllm_server", "rollout.server_url=http://h:8000"]
    (said,) = fatal(training_findings(recipe(*server), packages("openai"), CPU))
    assert said.startswith("rollout.engine=vllm_server needs the package openai")
    (note,) = training_findings(recipe(*server), packages(), CPU)
    assert not note.fatal


def test_evaluation_during_training(recipe, tmp_path):
    change = f"eval.path={tmp_path}/rows.jsonl"
    assert fatal(training_findings(recipe(change), packages("math-verify"), CPU))
    off = [change, "eval.max_new_tokens=0"]
    assert not fatal(training_findings(recipe(*off), packages("math-verify"), CPU))
    (said,) = fatal(training_findings(recipe("eval.path=no.jsonl"), packages(), CPU))
    assert said == "eval.path must be an existing file; no.jsonl is not."


def test_a_broken_package_is_named_with_its_error(recipe):
    broken = packages(peft="ImportError: no x in y")
    (said,) = fatal(training_findings(recipe("lora.enabled=true"), broken, CPU))
    assert "peft, which fails to import: ImportError: no x in y. Install a version" in said
    assert not training_findings(recipe(), broken, CPU)


def test_liger_counts_on_a_gpu_only(recipe):
    assert not training_findings(recipe(), packages("liger-kernel"), CPU)
    assert fatal(training_findings(recipe(), packages("liger-kernel"), H100))
    assert not training_findings(recipe("model.liger=false"), packages("liger-kernel"), H100)
    broken = packages(liger_kernel="ImportError: x")  # the trainer goes on without
    assert not fatal(training_findings(recipe(), broken, H100))
    assert lacks_of_parts(packages("liger-kernel"), has_gpu=False)["avar_fast.train"] == ""
    assert "liger" in lacks_of_parts(packages("liger-kernel"), has_gpu=True)["avar_fast.train"]


def test_a_broken_flash_attn_counts_on_a_gpu(recipe):
    broken = packages(flash_attn="ImportError: undefined symbol")
    assert not training_findings(recipe(), broken, CPU)
    (said,) = fatal(training_findings(recipe(), broken, H100))
    assert "flash-attn, which fails to import: ImportError: undefined symbol" in said


@pytest.mark.parametrize(
    ("machine", "dtype", "num_fatal", "num_notes"),
    [
        (CPU, "float16", 1, 0),
        (CPU, "bfloat16", 0, 0),
        (H100, "float16", 0, 0),
        (H100, "bfloat16", 0, 0),
        (T4, "bfloat16", 0, 2),
        (T4, "float16", 0, 1),
    ],
)
def test_dtype_against_device(recipe, machine, dtype, num_fatal, num_notes):
    found = training_findings(recipe(f"model.dtype={dtype}"), packages(), machine)
    assert len(fatal(found)) == num_fatal
    assert len(found) - num_fatal == num_notes


def test_a_compiler_for_deepspeed(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "absent-compiler")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    (said,) = fatal(training_findings(recipe(), packages(), CPU))
    assert "there is no absent-compiler. Install one, or name it in CXX" in said
    assert not training_findings(recipe(), packages(), H100)
    (tmp_path / "extensions" / "op").mkdir(parents=True)
    (tmp_path / "extensions" / "op" / "deepspeed_shm_comm.so").touch()
    assert not training_findings(recipe(), packages(), CPU)


def test_rows_through_datasets(recipe, tmp_path):
    changed = recipe(f"data.path={tmp_path}/rows.parquet")
    assert fatal(training_findings(changed, packages("datasets"), CPU))
    assert not training_findings(changed, packages(), CPU)
    (note,) = training_findings(recipe("data.path=owner/rows"), packages(), CPU)
    assert "owner/rows is taken as a hub name" in note.text
    (tmp_path / "rows.csv").touch()
    (said,) = fatal(training_findings(recipe(f"data.path={tmp_path}/rows.csv"), packages(), CPU))
    assert said.startswith("data.path must be a .jsonl, .json or .parquet file")


def test_models(recipe, tmp_path, monkeypatch):
    (said,) = fatal(training_findings(recipe(f"model.path={tmp_path}"), packages(), CPU))
    assert f"{tmp_path} has no config.json" in said
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    (note,) = training_findings(recipe("model.path=owner/model"), packages(), CPU)
    assert "owner/model is taken as a hub name" in note.text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (said,) = fatal(training_findings(recipe("model.path=owner/model"), packages(), CPU))
    assert "not in the cache of the hub, and HF_HUB_OFFLINE=1" in said
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "adapter_config.json").write_text(json.dumps(ADAPTERS))
    changed = recipe(f"model.path={tmp_path / 'adapters'}", "lora.enabled=true")
    assert "owner/base" in fatal(training_findings(changed, packages(), CPU))[0]


def test_without_transformers_the_model_is_not_checked(recipe, monkeypatch):
    monkeypatch.setattr(training, "of_rows", lambda *_: [])
    found = training_findings(recipe("model.path=/no/such"), packages("transformers"), CPU)
    (said,) = fatal(found)
    assert "needs the package transformers" in said
    assert len(found) == 2


def test_folders(tmp_path, monkeypatch):
    assert of_folder(str(tmp_path / "a" / "b"), "x") == []
    (tmp_path / "file").touch()
    (said,) = fatal(of_folder(str(tmp_path / "file" / "run"), "train.output_dir"))
    assert said.startswith(f"train.output_dir must be a folder; {tmp_path}/file is a file")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    (said,) = fatal(of_folder(str(tmp_path / "run"), "train.output_dir"))
    assert f"{tmp_path} is not writable" in said


def test_a_synthesis(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    file = tmp_path / "vard.yaml"
    steps = "".join(f"{name}: {{base_url: lab, model: m}}\n" for name in ("reason", "rewrite"))
    file.write_text(
        f"output_dir: {tmp_path}/out\ndata: {{path: {tmp_path}/rows.jsonl}}\n{steps}"
        "describe: {base_url: lab, model: m, key_env: A_KEY, prompt: no.yaml}\n"
    )
    made = read_recipe(SynthesisRecipe, file)
    monkeypatch.delenv("A_KEY", raising=False)
    found = fatal(synthesis_findings(made, packages("openai", "scikit-learn", "math-verify")))
    assert [text.partition(" ")[0] for text in found] == [
        "avar_fast.synthesize", "gates.checker=accuracy", "the", "describe.key_env",
        "describe.prompt",
    ]  # fmt: skip
    assert found[0].endswith('Use: pip install "avar-fast[synth]"')
    assert found[2].endswith('Use: pip install "avar-fast[lab]"')
    monkeypatch.setenv("A_KEY", "x")
    (said,) = fatal(synthesis_findings(made, packages()))
    assert said == "describe.prompt must be an existing YAML file; no.yaml is not"
