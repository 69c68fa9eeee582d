"""What reward functions are asked about in these tests."""

from avar_fast.rewards import Completions

FUNCTIONS = "tests.rewards.functions"


def asked(texts=("a", "bb", "ccc"), answer=("1", "2", "3"), group_size=1, **columns):
    count = len(texts)
    return Completions(
        [[{"role": "user", "content": [{"type": "text", "text": "?"}]}]] * count,
        list(texts),
        [[7] * i for i in range(count)],
        {"answer": list(answer), **columns},
        [f"rows.jsonl row {i // group_size + 1}" for i in range(count)],
    )
