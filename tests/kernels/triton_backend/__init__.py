"""Tests of the Triton backend without a GPU: numbers in the interpreter, resources by compiling ahead of time."""
