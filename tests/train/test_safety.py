"""What ends a run, and what it leaves behind: kill -9, SIGTERM, bad folders, another make."""

import json
import signal

import psutil
import pytest

from avar_fast.config import AgtoConfig, DataConfig, GrpoConfig, ModelConfig, Recipe, TrainConfig
from avar_fast.train.checkpoint import newest_checkpoint

from .runs import log_of, run, start, torchrun, wait_for_step


def test_killed_or_asked_to_end_a_run_goes_on_as_if_it_had_not(world, tmp_path):
    """After kill -9 from the last whole checkpoint, after SIGTERM from the step it was in; losses
    and gradient norms are those of the uninterrupted run, to the bit."""
    arguments = ["train.steps=16", "train.save_every=2", "train.micro_batch_size=1"]
    run(world, tmp_path / "whole", *arguments)

    broken = tmp_path / "broken"
    process = start(world, broken, *arguments)
    wait_for_step(process, broken, 3)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL

    process = start(world, broken, *arguments, "--resume")
    before = len(log_of(broken))
    wait_for_step(process, broken, before + 2)
    process.kill(signal.SIGTERM)
    assert process.wait(120) == 0, process.stderr[-2000:]
    printed = process.stdout + process.stderr
    reached = log_of(broken)[-1]["step"]
    assert reached < 16, "the run was over before the signal; give it more steps"
    assert f"SIGTERM received: stopped after step {reached}" in printed
    assert (broken / "checkpoints" / f"step-{reached:06d}" / "manifest.json").is_file()

    run(world, broken, *arguments, "--resume")
    whole, pieces = log_of(tmp_path / "whole"), log_of(broken)
    assert [line["step"] for line in pieces] == list(range(1, 17))
    assert [line["step"] for line in pieces if "resumed" in line][-1] == reached + 1
    assert not any("resumed" in line for line in whole)
    for a, b in zip(whole, pieces, strict=True):
        assert (a["loss"], a["grad_norm"], a["lr"]) == (b["loss"], b["grad_norm"], b["lr"])


def test_a_rank_that_dies_ends_the_run_with_a_message_and_loses_nothing(world, tmp_path):
    arguments = ["train.steps=1000", "train.save_every=2", "train.micro_batch_size=1"]
    process = torchrun(world, tmp_path / "out", *arguments, ranks=2)
    wait_for_step(process, tmp_path / "out", 3)
    workers = psutil.Process(process.pid).children(recursive=True)
    victim = next(p for p in workers if p.is_running() and p.environ().get("RANK") == "1")
    victim.kill()
    errors, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "error: rank 0 lost another rank, whose own message gives the cause" in errors
    newest, _ = newest_checkpoint(tmp_path / "out")
    assert newest is not None
    assert f"--resume continues from {newest}" in errors


def test_a_folder_that_cannot_be_written_stops_before_the_first_step(world, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = run(world, tmp_path / "file" / "run", check=False)
    assert done.returncode != 0
    assert "error: train.output_dir must be a folder that can be written" in done.stderr
    assert "step 1" not in done.stderr


def test_too_little_room_is_said(monkeypatch, tmp_path):
    from avar_fast.train import checkpoint

    checkpoint.require_room(tmp_path / "new", 1000)
    with pytest.raises(OSError, match=r"room for train.keep_last \+ 1 checkpoints.*GiB free"):
        checkpoint.require_room(tmp_path, 1e18)


def test_a_run_of_another_make_is_not_resumed(world, tmp_path):
    from avar_fast.config import dump_recipe, load_recipe
    from avar_fast.train.checkpoint import needs_reshaping

    def recipe_with(*overrides):
        return load_recipe(world / "recipe.yaml", list(overrides))

    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe_with()))
    (tmp_path / "manifest.json").write_text(json.dumps({"step": 1, "ranks": 2, "files": {}}))
    assert not needs_reshaping(tmp_path, recipe_with(), 2)
    assert needs_reshaping(tmp_path, recipe_with(), 4)
    assert needs_reshaping(tmp_path, recipe_with("engine.zero_stage=2"), 2)
    for override, words in (
        ("engine.zero_stage=3", "engine.zero_stage must be 1.*1 and 2 can resume each.*; got 3"),
        ("engine.zero_stage=0", "engine.zero_stage must be 1"),
        ("lora.enabled=true", "lora.enabled must be"),
        ("model.freeze=[vision]", "model.freeze must be"),
    ):
        with pytest.raises(ValueError, match=words):
            needs_reshaping(tmp_path, recipe_with(override), 2)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe_with("engine.zero_stage=0")))
    assert not needs_reshaping(tmp_path, recipe_with("engine.zero_stage=0"), 4)


def test_random_states_are_loaded_without_running_code(tmp_path):
    """They were unpickled like any object."""
    import random

    import numpy as np
    import torch

    from avar_fast.train import random_state

    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    file = tmp_path / "rank0.pt"
    torch.save(random_state.get_random_state(), file)
    drawn = draw()
    random_state.set_random_state(random_state.read_random_state(file))
    assert draw() == drawn

    class Runs:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"torch": Runs()}, file)
    with pytest.raises(ValueError, match=r"rank0.pt must hold random states and nothing else"):
        random_state.read_random_state(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("layers", [(99,), (), (-1,), (1, 2)])
@pytest.mark.parametrize("name", ["agto.layers", "grpo.visual_layers"])
def test_layers_without_attention(name, layers):
    """Those of AGTO ended in a traceback at step 1."""
    from torch import nn

    from avar_fast.train.grpo.reward import require_layers

    sections = {
        "agto.layers": {"agto": AgtoConfig(layers=layers)},
        "grpo.visual_layers": {"grpo": GrpoConfig(visual_layers=layers)},
    }
    recipe = Recipe(
        stage="sft",
        model=ModelConfig(path="unused"),
        data=DataConfig(path="unused"),
        train=TrainConfig(output_dir="unused", steps=1),
        **sections[name],
    )
    words = f"{name} must be some of the text layers with attention, 1, 3; got"
    with pytest.raises(ValueError, match=words):
        require_layers(recipe, dict.fromkeys((1, 3), nn.Identity()))
