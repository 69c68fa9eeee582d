"""Compiled kernels under test without a GPU: see ``emulator``."""
