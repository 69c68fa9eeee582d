"""The first hour on a GPU: everything that only a device can show, in an order of its own.

    python -m bench.first_hour                 # or: make gpu-check
    python -m bench.first_hour --dry           # the same logic on the kernels of the CPU

It needs a checkout with torch, triton, transformers and pytest; no installation and no network.
Without an installation, set ``PYTHONPATH=.:kernels``, as ``make gpu-check`` does. Each part takes
at most ten minutes in a process of its own. What a part has found is kept row by row, so the same
command again goes on where the last one stopped. The report is a folder of JSON and CSV files with
a page, ``report.md``.
"""
