"""Whole runs of the trainer, on a tiny model and real images."""

import json

import pytest
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from .runs import log_of, run


def test_sft_resumes_exactly_and_skips_an_interrupted_checkpoint(world, tmp_path):
    often = ["train.save_every=2", "agto.warmup=0.25", "agto.alpha_end=0.03"]
    run(world, tmp_path / "whole", *often)
    whole = log_of(tmp_path / "whole")
    assert [line["step"] for line in whole] == [1, 2, 3, 4]
    assert all(line["mfu"] is None for line in whole)  # a CPU has no peak of its own
    assert whole[-1]["lm_loss"] < whole[0]["lm_loss"]
    assert [line["agto_alpha"] for line in whole] == pytest.approx([0.005, 0.01, 0.02, 0.03])
    assert [line["agto_beta"] for line in whole] == pytest.approx([0.005, 0.01, 0.01, 0.01])
    assert {
        "lm_loss",
        "agto_enhance",
        "vas_ratio",
        "vas_log_ratio",
        "vas_share",
        "tokens_per_s",
        "tflops_per_rank",
        "lr",
    } <= set(whole[0])
    for line in whole:
        by_layer = line["vas_share_by_layer"]
        assert list(by_layer) == ["0", "1", "2", "3"]
        assert sum(by_layer.values()) / 4 == pytest.approx(line["vas_share"], abs=1e-6)

    # A crash while the newest checkpoint was written: it lacks a file, and the log runs ahead.
    newest = tmp_path / "whole" / "checkpoints" / "step-000004"
    (newest / "model.safetensors").unlink()
    done = run(world, tmp_path / "whole", *often, "--resume")
    assert f"ignored {newest}: it was interrupted" in done.stdout
    assert "resuming from" in done.stdout
    assert "step-000002" in done.stdout
    resumed = log_of(tmp_path / "whole")
    assert [line["step"] for line in resumed] == [1, 2, 3, 4]
    for a, b in zip(whole, resumed, strict=True):
        for key in ("loss", "grad_norm", "lr", "agto_alpha", "agto_beta"):
            assert a[key] == b[key], key

    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        tmp_path / "whole" / "latest", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    AutoTokenizer.from_pretrained(tmp_path / "whole" / "latest")
    Qwen2VLImageProcessorPil.from_pretrained(tmp_path / "whole" / "latest")

    again = run(world, tmp_path / "whole", check=False)
    assert again.returncode != 0
    assert "already holds checkpoints. Add --resume" in again.stderr


def test_the_step_does_not_depend_on_ranks_or_micro_batches(world, tmp_path):
    """Losses are divided by global counts: targets and guided samples are unevenly spread over
    rows."""
    runs = {
        "one": ([], 1),
        "accumulated": (["train.micro_batch_size=1"], 1),
        "ranks": (["train.micro_batch_size=2", "engine.zero_stage=2"], 2),
    }
    logs = {}
    for name, (arguments, ranks) in runs.items():
        run(world, tmp_path / name, "train.steps=2", *arguments, ranks=ranks)
        logs[name] = log_of(tmp_path / name)
    for name in ("accumulated", "ranks"):
        for a, b in zip(logs["one"], logs[name], strict=True):
            for key in ("loss", "lm_loss", "agto_enhance", "grad_norm", "vas_log_ratio"):
                assert a[key] == pytest.approx(b[key], rel=2e-4), (name, key)


def test_packed_and_padded_runs_learn_the_same(world, tmp_path):
    """A step of all rows, three times: in two packs, of a set with rows to leave out, and one by
    one, where text meets images on the other rank. A packed run resumes with the very same
    step."""
    rows = [f"data.path={world / 'rows' / 'mixed.jsonl'}", "train.steps=3"]
    packing = [f"data.path={world / 'rows' / 'dirty.jsonl'}", "data.bad_rows=skip"]
    packing += [
        "data.overlong=drop",
        "data.packing=true",
        "data.max_length=100",
        "data.pack_length=500",
    ]
    packing += ["train.batch_size=2", "train.micro_batch_size=1"]
    padding = ["train.batch_size=18", "train.micro_batch_size=1", "engine.zero_stage=2"]
    packing += ["train.save_every=2", "data.workers=2"]
    done = run(world, tmp_path / "packed", *rows, *packing, ranks=2)
    assert "data: 18 rows to train on, 2 skipped as unusable, 1 dropped as overlong." in done.stderr
    assert "First skipped: " in done.stderr
    assert "dirty.jsonl line 19 must be one JSON object" in done.stderr
    run(world, tmp_path / "padded", *rows, *padding, ranks=2)
    packed, padded = log_of(tmp_path / "packed"), log_of(tmp_path / "padded")
    assert [line["samples"] for line in packed] == [18] * 3
    counted = [packed[0][f"rows_{what}"] for what in ("skipped", "dropped", "cut")]
    assert counted == [2, 1, 0]
    for a, b in zip(packed, padded, strict=True):
        assert a["agto_samples"] == b["agto_samples"] == 12
        for key in ("loss", "lm_loss", "agto_enhance", "grad_norm", "vas_log_ratio", "vas_share"):
            assert a[key] == pytest.approx(b[key], rel=5e-4), key
    assert packed[2]["loss"] < packed[0]["loss"]

    (tmp_path / "packed" / "checkpoints" / "step-000003" / "model.safetensors").unlink()
    run(world, tmp_path / "packed", *rows, *packing, "--resume", ranks=2)
    again = log_of(tmp_path / "packed")
    assert [line["step"] for line in again] == [1, 2, 3]
    assert [again[2][key] for key in ("loss", "grad_norm", "samples")] == [
        packed[2][key] for key in ("loss", "grad_norm", "samples")
    ]


def test_grpo_first_update_is_on_policy_and_moves_the_model(world, tmp_path):
    arguments = [
        "stage=grpo",
        "agto.enabled=false",
        "train.steps=2",
        "grpo.kl_coef=0.01",
        "grpo.rewards={accuracy: 1, visual: 0.3, 'tests.train.reward_functions:by_letter': 1}",
        "train.micro_batch_size=3",
    ]
    run(world, tmp_path / "grpo", *arguments, ranks=2)
    log = log_of(tmp_path / "grpo")
    assert log[0]["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert log[0]["clip_fraction"] == 0
    assert log[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert {"reward", "accuracy", "reward_accuracy", "reward_visual", "reward_by_letter"} <= set(
        log[0]
    )
    assert {"informative_groups", "reward_seconds"} <= set(log[0])
    assert log[0]["reward_failures"] == 0
    Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "grpo" / "latest")


def test_nan_stops_the_run_and_names_the_last_good_checkpoint(world, tmp_path):
    arguments = ["train.save_every=1", "optim.lr=1e30", "optim.max_grad_norm=1e30"]
    done = run(world, tmp_path / "nan", *arguments, check=False)
    assert done.returncode != 0
    assert "error: loss is nan at step 2" in done.stderr
    assert "Rows of this step:" in done.stderr
    assert done.stderr.count("train.jsonl row ") >= 4
    assert (
        f"Last good checkpoint: {tmp_path / 'nan' / 'checkpoints' / 'step-000001'}" in done.stderr
    )


def test_typo_and_missing_image_stop_with_a_message(world, tmp_path):
    done = run(world, tmp_path / "x", "train.stpes=3", check=False)
    assert done.returncode != 0
    assert "unknown key train.stpes; did you mean train.steps" in done.stderr

    rows = (world / "rows" / "train.jsonl").read_text().splitlines()
    record = json.loads(rows[0]) | {"images": ["gone.png"]}
    broken = world / "rows" / "broken.jsonl"
    broken.write_text(json.dumps(record))
    done = run(world, tmp_path / "y", f"data.path={broken}", check=False)
    assert done.returncode != 0
    assert "broken.jsonl row 1: image" in done.stderr
    assert "gone.png does not exist" in done.stderr
    assert "error: " in done.stderr


def test_dry_run_prints_recipe_and_memory_plan_and_writes_nothing(world, tmp_path, capsys):
    from avar_fast.train.__main__ import main

    main([str(world / "recipe.yaml"), f"train.output_dir={tmp_path / 'dry'}", "--dry-run"])
    printed = capsys.readouterr().out
    assert "alpha: 0.01" in printed
    assert "memory plan per rank, 1.1" in printed
    assert not (tmp_path / "dry").exists()


def test_checkpointed_layers_give_the_same_agto_run(world, tmp_path):
    arguments = ["train.steps=2", "agto.alpha=0.1"]
    run(world, tmp_path / "plain", *arguments)
    run(world, tmp_path / "saved", *arguments, "model.gradient_checkpointing=true")
    for a, b in zip(log_of(tmp_path / "plain"), log_of(tmp_path / "saved"), strict=True):
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
        assert a["agto_enhance"] == pytest.approx(b["agto_enhance"], rel=1e-5)
