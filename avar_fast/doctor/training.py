"""What a recipe of the trainer needs."""

import os
import shutil
import sys
from pathlib import Path

from ..config import Recipe
from ..missing import HELD_OUT, IN_RECIPE
from .findings import LIGER, Finding, Packages, of_folder, of_functions, of_package, of_rows
from .machine import MachineState

PART = "avar_fast.train"
ALWAYS: tuple[str, ...] = ("torch", "transformers", "deepspeed", "numpy", "pillow", "tqdm")
LOADERS = {"vllm": "vllm", "vllm_server": "openai"}


def training_findings(recipe: Recipe, packages: Packages, machine: MachineState) -> list[Finding]:
    """All that the recipe needs and this machine lacks."""
    found = []
    for name, what in _packages_needed(recipe, machine, packages).items():
        found += of_package(name, what, packages, PART)
    found += _of_device(recipe, machine)
    found += _of_compiler(machine)
    found += _of_model(recipe.model.path, packages)
    found += of_rows(recipe.data.path, IN_RECIPE, packages)
    if recipe.eval.path is not None:
        found += of_rows(recipe.eval.path, HELD_OUT, packages)
    found += of_folder(recipe.train.output_dir, "train.output_dir")
    if recipe.stage == "grpo":
        found += of_functions([name for name in recipe.grpo.rewards if ":" in name])
        found += _of_server(recipe)
    return found


def _packages_needed(recipe: Recipe, machine: MachineState, packages: Packages) -> dict[str, str]:
    """{package: the setting that needs it}."""
    needed = dict.fromkeys(ALWAYS, PART)
    if recipe.lora.enabled:
        needed["peft"] = "lora.enabled"
    rules = set(recipe.grpo.rewards) if recipe.stage == "grpo" else set()
    if recipe.eval.path is not None and recipe.eval.max_new_tokens:
        rules.add(recipe.eval.checker)
    if "accuracy" in rules:
        needed["math-verify"] = "the reward accuracy"
    if recipe.stage == "grpo" and recipe.rollout.engine in LOADERS:
        needed[LOADERS[recipe.rollout.engine]] = f"rollout.engine={recipe.rollout.engine}"
    for logger in recipe.tracking.loggers:
        needed[logger] = "tracking.loggers"
    if machine.has_gpu and recipe.model.liger and packages[LIGER].version is None:
        needed[LIGER] = "model.liger"
    if machine.has_gpu and packages["flash-attn"].version is not None:
        needed["flash-attn"] = "the vision tower, which uses it where it is installed,"
    return needed


def _of_device(recipe: Recipe, machine: MachineState) -> list[Finding]:
    dtype = recipe.model.dtype
    found = []
    if dtype == "float16" and not machine.has_gpu:
        use = "Use float32 or bfloat16"
        found.append(Finding(f"model.dtype float16 needs a GPU; torch sees none. {use}"))
    if machine.capability is not None and (0, 0) < machine.capability < (8, 0):
        if dtype == "bfloat16":
            use = "Use float16"
            found.append(Finding(f"model.dtype bfloat16 is emulated on this GPU. {use}", False))
        use = f"the backend triton does not run: {machine.backends.get('triton')}"
        found.append(Finding(f"attention takes the backend eager, {use}", False))
    return found


def _of_compiler(machine: MachineState) -> list[Finding]:
    """Without a GPU, DeepSpeed compiles an operator at first use and keeps it."""
    compiler = os.environ.get("CXX", "c++")
    if machine.has_gpu or shutil.which(compiler):
        return []
    folder = os.environ.get("TORCH_EXTENSIONS_DIR", f"{sys.prefix}/torch_extensions")
    if any(Path(folder).rglob("deepspeed_shm_comm*.so")):
        return []
    said = f"there is no {compiler}. Install one, or name it in CXX"
    return [Finding(f"DeepSpeed needs a C++ compiler at first use on a CPU; {said}")]


def _of_model(path: str, packages: Packages) -> list[Finding]:
    if packages["transformers"].lack:
        said = "is not checked before transformers works"
        return [Finding(f"model.path={path} {said}", fatal=False)]
    from ..loading import require_model
    from ..models import holds_adapters, whole_model_at
    from ..models.load_errors import naming_model

    found = []
    try:
        with naming_model(path):
            base = whole_model_at(path)
        if holds_adapters(path):
            found += of_package("peft", f"model.path={path}, which holds adapters,", packages, PART)
        if Path(base).is_dir():
            require_model(path)
        else:
            found += _of_hub_name(base)
    except ValueError as error:
        found.append(Finding(str(error)))
    return found


def _of_hub_name(name: str) -> list[Finding]:
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return []
    if constants.HF_HUB_OFFLINE:
        return [Finding(f"model.path={name} is not in the cache of the hub, and HF_HUB_OFFLINE=1")]
    said = "is taken as a hub name, which is not looked up here and is not in the cache"
    return [Finding(f"model.path={name} {said}", fatal=False)]


def _of_server(recipe: Recipe) -> list[Finding]:
    rollout = recipe.rollout
    if rollout.engine != "vllm_server":
        return []
    folder = rollout.server_folder or f"{recipe.train.output_dir}/rollout_weights"
    started = f"the server at {rollout.server_url} is not asked; start it before the run"
    return [*of_folder(folder, "rollout.server_folder"), Finding(started, fatal=False)]
