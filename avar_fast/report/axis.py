"""An axis of a figure: where values lie, and the ticks with their labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.ticker import MaxNLocator

CHARACTER = 6.2  # width of a character of a tick's label, in the figure's units
LOG_RANGE = 1000  # positive values of which most span this factor get a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """Maps values to positions."""

    low: float
    high: float
    start: float
    """Position of ``low``, in the figure's units."""
    end: float
    """Position of ``high``."""
    ticks: tuple[float, ...]
    """Values with a tick, ascending."""
    logarithmic: bool = False
    """Whether equal distances are equal factors."""

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    @property
    def labels(self) -> list[str]:
        """The labels of the ticks, with as many digits as tell them apart."""
        spacing = min((b - a for a, b in pairwise(self.ticks)), default=self.high - self.low)
        found = []
        for digits in range(1, 18):
            found = [label(tick, digits) for tick in self.ticks]
            gaps = (abs(float(text) - t) for text, t in zip(found, self.ticks, strict=True))
            if all(gap < spacing / 100 for gap in gaps):
                break
        return found


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
    low_tail, high_tail = np.percentile(values, [5, 95])
    if low > 0 and high_tail / low_tail > LOG_RANGE:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        every = math.ceil((last - first) / 5)
        decades = tuple(10.0**power for power in range(first, last + 1, every))
        return Axis(decades[0], 10.0**last, start, end, decades, logarithmic=True)
    margin = abs(low) / 10 or 1.0 if low == high else (high - low) / 20
    low, high = low - margin, high + margin
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    residue = (high - low) * 1e-9  # of the computation of a tick at 0
    ticks = (0.0 if abs(tick) < residue else float(tick) for tick in ticks)
    return Axis(low, high, start, end, tuple(t for t in ticks if low <= t <= high))


def label(value: float, digits: int = 6) -> str:
    """A number as short as it can be written with this many digits."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return repr(float(f"{value:.{digits}g}")).removesuffix(".0")
    shown, power = f"{value:.{digits - 1}e}".split("e")
    return f"{shown.rstrip('0').rstrip('.') if '.' in shown else shown}e{int(power)}"


def label_width(labels: Sequence[str]) -> float:
    """Width of the widest of some labels, in the figure's units."""
    return CHARACTER * max(map(len, labels), default=0)
