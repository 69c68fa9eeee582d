"""Text-only rows for the lab's cold start: the same questions, answers and chains, with the grid
written out in the question instead of shown in an image.

In the paper the text-only cold start is reasoning in language that needs no image. Here the digits
are given, the steps to the answer are the same, and nothing in the row can be learned by looking.
"""

import json
from pathlib import Path

from ..data.schemas import IMAGE_MARK


def write_text_rows(source: Path, out: Path) -> Path:
    """Rewrites every row of a lab file into a row without an image; returns ``out``."""
    lines = []
    for line in source.read_text().splitlines():
        row = json.loads(line)
        turn = row["messages"][-1]  # a hint may stand in a system turn before it
        # " row 1" with its blank is the token that the question names the line with.
        grid = "".join(
            f" row {at + 1}: {' '.join(map(str, digits))}"
            for at, digits in enumerate(row["meta"]["digits"])
        )
        turn["content"] = f"{grid}\n{turn['content'].removeprefix(IMAGE_MARK)}"
        del row["images"]
        lines.append(json.dumps(row) + "\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(lines))
    return out
