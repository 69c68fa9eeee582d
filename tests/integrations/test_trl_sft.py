"""AgtoMixin in TRL's SFTTrainer against our loss on what TRL's collator makes."""

from types import SimpleNamespace

import pytest
from transformers.trainer_pt_utils import LabelSmoother

from avar_fast.attention import SpecialTokens, query_mask, record_attention
from avar_fast.data import IGNORE
from avar_fast.integrations import AgtoMixin
from avar_fast.objectives import agto_loss
from avar_fast.train.forward import HeadLimits, label_nll

from .clients import (
    TOKENIZER,
    conversations,
    difference,
    gradients,
    processor,
    tiny_model,
)
from .steps import KeepGradients

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


class AgtoSftTrainer(AgtoMixin, trl.SFTTrainer):
    pass


def trainer_of(model, rows_file, folder, accumulation, **options):
    rows = conversations(rows_file)[:6]
    images = datasets.Sequence(datasets.Image())
    data = datasets.Dataset.from_list(rows).cast_column("images", images)
    args = trl.SFTConfig(
        output_dir=str(folder), num_train_epochs=1, max_grad_norm=1e9,
        per_device_train_batch_size=-(-len(rows) // accumulation), bf16=False, use_cpu=True,
        gradient_accumulation_steps=accumulation, logging_steps=1, report_to="none",
        save_strategy="no", disable_tqdm=True, max_length=None, lr_scheduler_type="constant",
    )  # fmt: skip
    kept = KeepGradients()
    trainer = AgtoSftTrainer(
        model=model, args=args, train_dataset=data, processing_class=processor(),
        callbacks=[kept], **options,
    )  # fmt: skip
    return trainer, kept


def whole_batch(trainer):
    """(our loss, gradients) of one forward over all that TRL's collator makes of the data."""
    batch = trainer.data_collator(list(trainer.train_dataset))
    model = trainer.model.train()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    ours = SimpleNamespace(inputs=inputs, labels=batch["labels"], label_positions=None)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    with record_attention(model) as recording:
        nll = label_nll(inner, ours, HeadLimits(1 << 30))
    tokens = SpecialTokens.from_processor(TOKENIZER)
    queries = query_mask(batch["input_ids"], batch["attention_mask"], tokens=tokens)
    extra, _ = agto_loss(recording.mass, queries, recording.key_types)
    loss = nll / (batch["labels"] != IGNORE).sum() + extra
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    return loss.item(), found


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("adapters", [False, True], ids=["full", "peft"])
def test_a_step_is_ours(rows_file, tmp_path, accumulation, adapters):
    """TRL's own settings otherwise: gradient checkpointing is on."""
    options = {}
    if adapters:
        peft = pytest.importorskip("peft")
        targets = r".*language_model.*(q_proj|v_proj)"
        options["peft_config"] = peft.LoraConfig(
            r=4, target_modules=targets, init_lora_weights=False
        )
    trainer, kept = trainer_of(tiny_model(), rows_file, tmp_path, accumulation, **options)
    assert trainer.args.gradient_checkpointing
    loss, want = whole_batch(trainer)
    trainer.train()
    (got,) = kept.steps
    assert difference(got, want) < 1e-5
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss, rel=1e-5)


def test_a_forward_after_the_loss_is_refused(rows_file, tmp_path):
    """TRL's forward for its metrics has no gradient, and its masses would be recorded."""
    trainer, _ = trainer_of(tiny_model(), rows_file, tmp_path, 1)
    trainer.label_smoother = LabelSmoother(epsilon=0.1)
    with pytest.raises(RuntimeError, match="label_smoothing_factor or compute_loss_func"):
        trainer.train()
