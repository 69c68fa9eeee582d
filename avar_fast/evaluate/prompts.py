"""The instructions in a prompt that tell the model how to answer a question."""

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
        kind: kind of answer, as ``Question.kind``.
        style: "tags": think, then answer between <answer> tags, as in the trainer's rows;
            "direct": only the answer; "official": the instruction of the benchmark's own code.
        official: the official instruction; empty if there is none or the question contains it.
        precision: number of decimals of a float.
    """
    if style == "official":
        return official
    form = _WHAT[kind]
    if precision is not None and kind == "float":
        form = f"a number with {precision} decimal{'s' if precision != 1 else ''}"
    if style == "direct":
        return _DIRECT.get(kind, f"Answer with {form.replace('as short as it can be', 'the value')}"
                           " and nothing else.")  # fmt: skip
    return (
        "First think between <think> and </think>, then give the final answer between <answer> and"
        f" </answer>: {form}."
    )


def lettered(options: tuple[str, ...] | list[str], form: str = "({}) {}") -> str:
    """The options with their letters, one per line."""
    return "\n".join(form.format(chr(ord("A") + i), text) for i, text in enumerate(options))


def joined(*paragraphs: str) -> str:
    """Joins the paragraphs that are not empty with line breaks."""
    return "\n".join(part for part in paragraphs if part)


def user_turn(*parts: str | None) -> list[dict]:
    """A conversation of one user turn. A part is a text, or None for an image."""
    content = [
        {"type": "image"} if part is None else {"type": "text", "text": part}
        for part in parts
        if part != ""
    ]
    return [{"role": "user", "content": content}]
