"""Chooses the parameters that a run trains, and their learning rates."""

from pathlib import Path
from typing import Any

from torch import nn

from ..config import Recipe
from ..models import family_of


def choose_trainable(model: Any, recipe: Recipe) -> None:
    """Freezes the parts that the recipe names, or adds adapters and freezes everything else.

    Raises:
        ValueError: a name in lora.targets matches no layer of the text tower, or model.path holds
            adapters and lora.enabled is off.
    """
    adapters = getattr(model, "peft_config", {})
    if adapters and not recipe.lora.enabled:
        raise ValueError(
            f"model.path must hold whole weights where lora.enabled is off; {recipe.model.path}"
            " holds adapters. Set lora.enabled=true to train them on."
        )
    if adapters:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
        return
    if recipe.lora.enabled:
        add_adapters(model, recipe)
        return
    parts = part_of_parameters(model)
    for parameter, part in parts.items():
        parameter.requires_grad_(part not in recipe.model.freeze)


def add_adapters(model: Any, recipe: Recipe) -> None:
    """Adds LoRA adapters to the text tower's linear layers; the model keeps its class and forward.

    With the adapters disabled (``model.disable_adapters()``) it is the original model, which is the
    reference of a KL term.

    Raises:
        ValueError: a name in lora.targets matches no linear layer of the text tower.
    """
    from peft import LoraConfig

    lora, tower = recipe.lora, family_of(model).text_tower(model)
    prefix = next(name for name, module in model.named_modules() if module is tower)
    linear = [n for n, m in tower.named_modules() if isinstance(m, nn.Linear)]
    for target in lora.targets:
        if not any(name.rpartition(".")[2] == target for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ValueError(
                f"lora.targets must name linear layers of the text tower ({', '.join(known)}); got"
                f" {target!r}."
            )
    chosen = [f"{prefix}.{name}" for name in linear if name.rpartition(".")[2] in lora.targets]
    model.add_adapter(
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=lora.dropout,
            target_modules=chosen,
            base_model_name_or_path=_lasting_path(recipe.model.path),
        )
    )


def _lasting_path(path: str) -> str:
    """A folder's absolute path with links resolved, because a link may change later; or the hub
    name."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def part_of_parameters(model: Any) -> dict[nn.Parameter, str]:
    """The part that every parameter belongs to: "vision", "projector" or "language"."""
    family = family_of(model)
    projector = {p for module in family.projectors(model) for p in module.parameters()}
    vision = set(family.vision_tower(model).parameters()) - projector
    return {
        p: "projector" if p in projector else "vision" if p in vision else "language"
        for p in model.parameters()
    }


def optimizer_groups(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """AdamW's parameter groups, split by part (each has its own learning rate) and by weight decay
    (matrices only). The language model comes first: its learning rate is the one in the log."""
    optim = recipe.optim
    rates = {
        "language": optim.lr,
        "projector": optim.projector_lr or optim.lr,
        "vision": optim.vision_lr or optim.lr,
    }
    parts = part_of_parameters(model)
    groups = []
    for part, lr in rates.items():
        trained = [p for p, its_part in parts.items() if its_part == part and p.requires_grad]
        for decay, params in (
            (optim.weight_decay, [p for p in trained if p.dim() > 1]),
            (0.0, [p for p in trained if p.dim() <= 1]),
        ):
            if params:
                groups.append({"params": params, "lr": lr, "weight_decay": decay})
    return groups
