"""Fills in what math-verify alone says of the pairs in answers.tsv.

    python -m tests.rewards.make_answers

It takes each text as it stands, in dollars where it has no LaTeX of its own, as a grader would that
asks nothing else; its own limit of 5 s holds.
"""

import logging
from pathlib import Path

TABLE = Path(__file__).parent / "answers.tsv"
HEAD = "given\treference\treader\tmath-verify"


def pairs() -> list[list[str]]:
    """(given, reference, verdict, math-verify's verdict), verdicts as + and -."""
    lines = TABLE.read_text(encoding="utf-8").split("\n")
    assert lines[0] == HEAD
    return [line.split("\t") for line in lines[1:] if line]


def alone(given: str, gold: str) -> bool:
    """math-verify's verdict."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    texts = [x if "$" in x or "\\boxed" in x else f"${x}$" for x in (gold, given)]
    wanted, said = (parse(text) for text in texts)
    return bool(wanted) and bool(said) and verify(wanted, said)


def main() -> None:
    lines = [HEAD]
    for given, gold, reader, *_ in pairs():
        lines.append("\t".join((given, gold, reader, "+" if alone(given, gold) else "-")))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
