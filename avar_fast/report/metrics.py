"""The metrics of a training log: their titles, and the sections of the page that show them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

TITLES = {
    "loss": "loss",
    "lm_loss": "language-model loss",
    "eval_loss": "loss on held-out rows",
    "eval_accuracy": "accuracy on held-out rows",
    "accuracy": "accuracy of sampled completions",
    "vas_ratio": "VAS, ratio",
    "vas_log_ratio": "VAS, log ratio",
    "vas_share": "VAS, share",
    "eval_vas_ratio": "VAS, ratio, held-out rows",
    "eval_vas_log_ratio": "VAS, log ratio, held-out rows",
    "eval_vas_share": "VAS, share, held-out rows",
    "visual_share": "share of the image in the completions' attention to image and system turn",
    "agto_enhance": "image term, -log attention per image key",
    "agto_suppress": "system term, log attention per system key",
    "agto_alpha": "weight of the image term",
    "agto_beta": "weight of the system term",
    "agto_samples": "samples with AGTO",
    "agto_skipped": "samples without AGTO",
    "reward": "weighted sum of all rewards",
    "overlong_penalty": "penalty on long completions",
    "informative_groups": "share of groups whose rewards differ",
    "reward_failures": "rewards that failed",
    "clip_fraction": "share of clipped tokens",
    "ratio": "importance ratio",
    "kl": "KL from the starting model",
    "entropy": "entropy per token",
    "log_prob_gap": "gap to the sampler's log-probabilities",
    "importance_bounded": "share of bounded importance ratios",
    "completion_tokens": "tokens of a completion",
    "truncated": "share of truncated completions",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_s": "tokens per second",
    "mfu": "model FLOPs utilization",
    "tflops_per_rank": "TFLOP/s of a rank",
    "seconds_per_step": "seconds a step, with evaluation and saving",
    "step_seconds": "seconds a step",
    "generation_seconds": "seconds of sampling",
    "reward_seconds": "seconds of rewards",
    "scoring_seconds": "seconds of scoring",
    "update_seconds": "seconds of the update",
    "sync_seconds": "seconds of handing weights to the sampler",
    "eval_seconds": "seconds of an evaluation",
    "prompt_tokens_shared": "share of tokens that shared prompts save",
    "peak_gib": "peak memory in GiB",
    "samples": "samples of a step",
    "rows_skipped": "rows skipped as unusable",
    "rows_dropped": "rows dropped as overlong",
}
SCORES = tuple(
    f"{of}vas_{form}" for of in ("", "eval_") for form in ("ratio", "log_ratio", "share")
)
"""The score in its forms, of training batches and of held-out rows."""
VAS_SECTION = "Visual Attention Score"
SECTIONS = {
    "Loss and accuracy": ("loss", "lm_loss", "eval_loss", "accuracy", "eval_accuracy"),
    VAS_SECTION: (*SCORES, "visual_share"),
    "AGTO": (
        "agto_enhance", "agto_suppress", "agto_alpha", "agto_beta", "agto_samples", "agto_skipped",
    ),
    "Rewards": ("reward", "overlong_penalty", "informative_groups", "reward_failures"),
    "Completions": ("completion_tokens", "truncated"),
    "Policy": (
        "entropy", "kl", "clip_fraction", "ratio", "log_prob_gap", "importance_bounded",
    ),
    "Optimizer": ("lr", "grad_norm"),
    "Speed and memory": (
        "tokens_per_s", "mfu", "tflops_per_rank", "seconds_per_step", "step_seconds",
        "generation_seconds", "reward_seconds", "scoring_seconds", "update_seconds",
        "sync_seconds", "eval_seconds", "prompt_tokens_shared", "peak_gib",
    ),
}  # fmt: skip
"""{section: its metrics}; Rewards also has the rewards by name, and Other what is in no section."""
REWARD = "reward_"
BY_LAYER = (
    ("vas_log_ratio_by_layer", "log ratio"),
    ("vas_share_by_layer", "share"),
    ("visual_share_by_layer", "share, completions"),
)
"""Metrics with a value per layer, which have maps of their own, and the titles of these."""
NOT_DRAWN = ("step", "seconds", "resumed", *(key for key, _ in BY_LAYER))


def sections_of(keys: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Sorts the keys of a log into sections: {section: [(key, title)]}."""
    left = dict.fromkeys(key for key in keys if key not in NOT_DRAWN)
    sections = {}
    for section, names in SECTIONS.items():
        chosen = [name for name in names if name in left]
        if section == "Rewards":
            known = {name for others in SECTIONS.values() for name in others}
            chosen[1:1] = [k for k in left if k.startswith(REWARD) and k not in known]
        sections[section] = [(key, _title(key)) for key in chosen]
        left = {key: None for key in left if key not in chosen}
    return sections | {"Other": [(key, _title(key)) for key in left]}


def with_step_times(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a log with ``seconds_per_step``: the time since the line before, by its steps. A
    line after a resume has none, as the clock starts anew."""
    lines = [dict(line) for line in log]
    for before, line in pairwise(lines):
        steps = line["step"] - before["step"]
        seconds = line.get("seconds", 0) - before.get("seconds", 0)
        if steps > 0 and seconds > 0 and not line.get("resumed"):
            line["seconds_per_step"] = seconds / steps
    return lines


def _title(key: str) -> str:
    if key in TITLES:
        return TITLES[key]
    return f"reward {key.removeprefix(REWARD)}" if key.startswith(REWARD) else key
