"""Run by test_agto on each of two ranks: one step of a Trainer with AGTO, in DDP.

argv: the file of rows, and the folder for the gradients of rank 0.
"""

import os
import sys
from pathlib import Path

import torch

from .clients import end_rank, tiny_model
from .steps import samples_of, trainer_of


def main() -> None:
    samples, folder = samples_of(Path(sys.argv[1]), 8), Path(sys.argv[2])
    options = {"per_device_train_batch_size": 2, "ddp_backend": "gloo"}
    trainer, kept = trainer_of(tiny_model(), samples, folder, 2, **options)
    trainer.train()
    (step,) = kept.steps
    if os.environ["RANK"] == "0":
        torch.save(step, folder / "gradients.pt")
    end_rank()


main()
