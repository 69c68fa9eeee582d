"""An axis of a figure: where values lie, and the ticks with their labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

CHARACTER = 6.2  # width of a character of a tick's label, in the figure's units
LOG_RANGE = 1000  # positive values of which most span this factor get a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """Maps values to positions.

    Args:
        low, high: values at the ends.
        start, end: positions of the ends.
        ticks: values with a tick, ascending.
        logarithmic: whether equal distances are equal factors.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def step_axis(steps: Sequence[int], start: float, end: float) -> Axis:
    """The axis of the steps of all curves of a figure."""
    low, high = min(steps), max(steps)
    if low == high:
        low, high = low - 1, high + 1
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10], integer=True).tick_values(low, high)
    return Axis(low, high, start, end, tuple(t for t in ticks if low <= t <= high))


def value_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """The axis of the values of all curves of a figure. It is logarithmic where nine in ten of the
    values, all positive, span several orders of magnitude."""
    low, high = min(values), max(values)
    fifth, last_fifth = np.percentile(values, [5, 95])
    if low > 0 and last_fifth / fifth > LOG_RANGE:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        every = math.ceil((last - first) / 5)
        decades = tuple(10.0**power for power in range(first, last + 1, every))
        return Axis(decades[0], 10.0**last, start, end, decades, logarithmic=True)
    margin = abs(low) / 10 or 1.0 if low == high else (high - low) / 20
    low, high = low - margin, high + margin
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return Axis(low, high, start, end, tuple(t for t in ticks if low <= t <= high))


def label(value: float) -> str:
    """A tick's label: short, and without the rounding errors of the tick's computation."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if 1e-4 <= abs(value) < 1e5:
        return f"{value:.6g}"
    digits, power = f"{value:.4e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def label_width(labels: Sequence[str]) -> float:
    """Width of the widest of some labels, in the figure's units."""
    return CHARACTER * max(map(len, labels), default=0)
