"""The recipe of a run: what can be set, and how it is read. A section's class is in the file of its
name."""

from .agto import AgtoConfig
from .data import DataConfig
from .engine import EngineConfig
from .eval import EvalConfig
from .grpo import GrpoConfig
from .lora import LoraConfig
from .model import ModelConfig
from .optim import OptimConfig
from .recipe import Recipe
from .recipe_file import dump_recipe, load_recipe, read_recipe
from .rollout import RolloutConfig
from .tracking import TrackingConfig
from .train import TrainConfig

__all__ = [
    "AgtoConfig",
    "DataConfig",
    "EngineConfig",
    "EvalConfig",
    "GrpoConfig",
    "LoraConfig",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "RolloutConfig",
    "TrackingConfig",
    "TrainConfig",
    "dump_recipe",
    "load_recipe",
    "read_recipe",
]
