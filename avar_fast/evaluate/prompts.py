"""The words around a benchmark's question that say how to answer."""

STYLES = ("tags", "direct", "official")

_WHAT = {
    "choice": "the letter of the right option",
    "integer": "a whole number",
    "float": "a decimal number",
    "list": "a list such as [1, 2, 3]",
    "free": "as short as it can be",
    "yes_no": "Yes or No",
}
_DIRECT = {
    "choice": "Answer with the letter of the right option and nothing else.",
    "yes_no": "Answer with Yes or No and nothing else.",
}


def instruction(kind: str, style: str, official: str, precision: int | None = None) -> str:
    """The last paragraph of a prompt.

    Args:
        kind: of the question.
        style: "tags": think, then answer between <answer> tags, as the trainer's rows do;
            "direct": the answer alone; "official": the words the benchmark's own code uses.
        official: those words; empty where the question already holds them or there are none.
        precision: decimals of a float.
    """
    if style == "official":
        return official
    what = _WHAT[kind]
    if precision is not None and kind == "float":
        what = f"a number with {precision} decimal{'s' if precision != 1 else ''}"
    if style == "direct":
        return _DIRECT.get(kind, f"Answer with {what.replace('as short as it can be', 'the value')}"
                           " and nothing else.")  # fmt: skip
    return (
        "First think between <think> and </think>, then give the final answer between <answer> and"
        f" </answer>: {what}."
    )


def lettered(options: tuple[str, ...] | list[str], form: str = "({}) {}") -> str:
    """One line per option."""
    return "\n".join(form.format(chr(ord("A") + i), text) for i, text in enumerate(options))


def joined(*paragraphs: str) -> str:
    return "\n".join(part for part in paragraphs if part)


def user_turn(*parts: str | None) -> list[dict]:
    """One user turn of texts and, where a part is None, images."""
    content = [
        {"type": "image"} if part is None else {"type": "text", "text": part}
        for part in parts
        if part != ""
    ]
    return [{"role": "user", "content": content}]
