"""The Triton backend without a GPU: numbers in the interpreter, resources ahead of time."""
