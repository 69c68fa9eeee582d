"""The code blocks of docs/drop-in.md, run as they are on the lab's model."""

import re
from pathlib import Path

import pytest
import torch
import transformers

from avar_fast.lab.model import save_base

from .clients import conversations, processor
from .steps import inputs_of, samples_of

PAGE = (Path(__file__).parents[2] / "docs" / "drop-in.md").read_text()
NOT_RUN = "(not run)"
MOST_LINES = 10
STEPS = {
    "max_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
    "use_cpu": True, "bf16": False, "logging_steps": 1, "per_device_train_batch_size": 4,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def sections():
    """{heading: python blocks}"""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)[1:]
    found = zip(parts[::2], parts[1::2], strict=True)
    blocks = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return {heading: blocks.findall(text) for heading, text in found}


RUN = {name: blocks for name, blocks in sections().items() if blocks and NOT_RUN not in name}


@pytest.fixture
def names(tmp_path_factory, monkeypatch):
    """The names that the section "The model" defines."""
    folder = str(save_base(tmp_path_factory.mktemp("model"), seed=0))
    load = transformers.AutoModelForImageTextToText.from_pretrained
    for loader, replaced in (
        (transformers.AutoModelForImageTextToText, lambda path, **how: load(folder, **how)),
        (transformers.AutoProcessor, lambda path: processor()),
    ):
        monkeypatch.setattr(loader, "from_pretrained", staticmethod(replaced))
    defined = {}
    for block in RUN["The model"]:
        exec(block, defined)
    return defined


def run(section, names, **given):
    names |= given
    for block in RUN[section]:
        exec(block, names)
    return names


def dataset_of(rows_file, columns):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(conversations(rows_file)).select_columns(columns)
    return data.cast_column("images", datasets.Sequence(datasets.Image()))


def loss_of(trainer):
    return trainer.state.log_history[0]["loss"]


def test_every_block_is_short_and_run():
    assert all(
        len([line for line in block.splitlines() if line.strip()]) <= MOST_LINES
        for blocks in RUN.values()
        for block in blocks
    )
    assert set(RUN) == {
        "The model", "TRL, supervised", "TRL, GRPO", "transformers", "PEFT", "A loop of your own",
    }  # fmt: skip


def test_trl_supervised(names, rows_file, tmp_path):
    trl = pytest.importorskip("trl")
    data = dataset_of(rows_file, ["prompt", "completion", "images"])
    args = trl.SFTConfig(output_dir=str(tmp_path), max_length=None, **STEPS)
    trainer = run("TRL, supervised", names, args=args, data=data)["trainer"]
    assert loss_of(trainer) > 0
    assert trainer.state.log_history[0]["agto_skipped"] == 0


def test_trl_grpo(names, rows_file, tmp_path):
    trl = pytest.importorskip("trl")
    data = dataset_of(rows_file, ["prompt", "images", "answer"])
    args = trl.GRPOConfig(
        output_dir=str(tmp_path), num_generations=4, max_completion_length=4,
        reward_weights=[1.0, 0.3], **STEPS,
    )  # fmt: skip
    trainer = run("TRL, GRPO", names, args=args, data=data)["trainer"]
    assert {"rewards/accuracy/mean", "rewards/vars/mean"} <= set(trainer.state.log_history[0])


def test_transformers_with_and_without_peft(names, rows_file, tmp_path):
    pytest.importorskip("peft")
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path), remove_unused_columns=False, **STEPS
    )
    given = {"args": args, "data": samples_of(rows_file, 8), "collator": inputs_of}
    whole = run("transformers", names, **given)["trainer"]
    assert whole.state.log_history[0]["agto_skipped"] >= 0
    run("PEFT", names)
    adapted = run("transformers", names, **given)["trainer"]
    trained = [name for name, p in adapted.model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    assert loss_of(adapted) > 0


def test_own_loop(names, rows_file):
    batches = [inputs_of(samples_of(rows_file, 2)), inputs_of(samples_of(rows_file, 3))]
    run("A loop of your own", names, batches=batches)
    grads = [p.grad for p in names["model"].parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(grad).all() for grad in grads)
