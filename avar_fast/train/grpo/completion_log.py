"""The log of completions: all of them in a file, a few on the terminal."""

import json
from pathlib import Path
from typing import Any

import torch

from ...characters import visible
from ...config.grpo import reward_label
from ..run import Run
from ..tracker import cut_back

FILE = "completions.jsonl"
TEXT_SHOWN = 300  # most characters of a completion in a table


class CompletionLog:
    """Writes ``completions.jsonl`` in the run's folder on rank 0. A line has the step, row, prompt,
    completion, tokens, rewards by name, their weighted sum and the advantage."""

    def __init__(self, run: Run) -> None:
        self.run, self.file = run, None
        if run.tracker.active:
            path = Path(run.recipe.train.output_dir) / FILE
            cut_back(path, run.first_step)
            self.file = path.open("a")

    def write(self, step: int, own_records: list[dict[str, Any]]) -> None:
        """Appends the completions of a step, counted from 1; all ranks call it together."""
        shares: list[Any] = [None] * self.run.engine.world_size if self.file else None  # pyright: ignore
        torch.distributed.gather_object(own_records, shares)
        if self.file is None:
            return
        records = [{"step": step, **record} for share in shares for record in share]
        self.file.writelines(json.dumps(record) + "\n" for record in records)
        self.file.flush()
        tracking = self.run.recipe.tracking
        if tracking.show_every and (step - 1) % tracking.show_every == 0 and tracking.show_count:
            # Spread over the step, so that they belong to several prompts.
            chosen = records[:: max(len(records) // tracking.show_count, 1)][: tracking.show_count]
            self.run.tracker.say(table(step, chosen))

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def records_of(
    responses: list[Any],
    texts: list[str],
    values: dict[str, torch.Tensor],
    total: torch.Tensor,
    advantages: torch.Tensor,
) -> list[dict[str, Any]]:
    """The file's record of every completion; a reward that does not apply is null."""
    prompts = [_prompt_text(response.row.messages) for response in responses]
    rewards = {reward_label(name): v.tolist() for name, v in values.items()}
    return [
        {
            "row": response.row.where,
            "prompt": prompts[i],
            "completion": texts[i],
            "tokens": len(response.target_ids),
            "rewards": {n: None if v[i] != v[i] else round(v[i], 6) for n, v in rewards.items()},
            "reward": round(total[i].item(), 6),
            "advantage": round(advantages[i].item(), 6),
        }
        for i, response in enumerate(responses)
    ]


def table(step: int, records: list[dict[str, Any]]) -> str:
    """A text table of completions with their rewards."""
    lines = [f"completions of step {step}"]
    for record in records:
        rewards = ", ".join(
            f"{name} {'-' if value is None else format(value, '.3g')}"
            for name, value in record["rewards"].items()
        )
        lines.append(
            f"| {record['row']} | reward {record['reward']:.3g} ({rewards}) | advantage"
            f" {record['advantage']:.3g} | {record['tokens']} tokens"
        )
        lines += [
            f"|   < {_shortened(record['prompt'])}",
            f"|   > {_shortened(record['completion'])}",
        ]
    return "\n".join(lines)


def _shortened(text: str) -> str:
    """A text on one line. A long text keeps its start and its end, where the answer is. Control
    characters are replaced, because a terminal would obey them."""
    line = visible(" ".join(text.split()), kept="")
    if len(line) <= TEXT_SHOWN:
        return line
    half = TEXT_SHOWN // 2
    return f"{line[:half]} ... {line[-half:]}"


def _prompt_text(messages: list[dict[str, Any]]) -> str:
    parts = [part for turn in messages for part in turn["content"]]
    return "".join(part["text"] if part["type"] == "text" else "<image>" for part in parts)
