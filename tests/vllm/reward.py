"""A reward that differs within almost every group of a model with random weights."""


def length(completions, **columns):
    return [(sum(map(ord, str(completion))) % 7) / 7 for completion in completions]
