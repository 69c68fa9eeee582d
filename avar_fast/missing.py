"""Hints for missing files that this project's recipes name: how to make them."""

from pathlib import Path


def how_to_make(path: str | Path) -> str:
    """A hint that starts with a space, for an error about a missing path; empty without one."""
    parts = Path(path).parts
    if parts[:2] == ("runs", "demo"):
        return " The demo makes it: python -m avar_fast.lab.demo --out runs/demo"
    if parts[:2] == ("runs", "vard-lab"):
        command = "data --out runs/vard-lab/data --rows 200 --split train --seed 0"
        return f" The lab writes it: python -m avar_fast.lab {command}"
    if parts and (parts[-1] == "latest" or parts[-2:-1] == ("checkpoints",)):
        above = len(parts) - (1 if parts[-1] == "latest" else 2)
        run = Path(*parts[:above])
        return (
            f" A run with train.output_dir={run} leaves it there: train that recipe first, or give"
            " the folder that you have."
        )
    return ""
