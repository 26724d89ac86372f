"""A small line chart as SVG: one quantity over training steps, drawn without scripts so that the page stays
one file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 34
"""Pixels around the plot: tick labels at the left and below."""
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range with the ticks that lie in it."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


def line_chart(points: Points, *, label: str, colour: str, limit: tuple[float, str] | None = None) -> Markup:
    """One series of (step, value) points; `limit` is a dashed horizontal line with its name."""
    if not points:
        return Markup('<p class="quiet">No values of {} were printed.</p>').format(label)
    values = [value for _, value in points] + ([limit[0]] if limit else [])
    x = nice_axis(0, max(step for step, _ in points), most=5)
    y = nice_axis(min(0.0, *values), max(values), most=4)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(step: float, value: float) -> tuple[float, float]:
        return LEFT + x.place(step) * plot_width, TOP + (1 - y.place(value)) * plot_height

    parts: list[str] = []
    for tick in y.ticks:
        _, ty = at(x.low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{ty:.1f}" y2="{ty:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 7}" y="{ty + 3.5:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in x.ticks:
        tx, _ = at(tick, y.low)
        parts.append(
            f'<text class="tick" x="{tx:.1f}" y="{HEIGHT - 17}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">step</text>')
    if limit:
        _, ly = at(x.low, limit[0])
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{ly:.1f}" y2="{ly:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT + 4}" y="{ly - 5:.1f}">{escape(limit[1])}</text>')
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(*point) for point in points))
    parts.append(
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
    )
    if len(points) <= 20:
        parts += [
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>'
            for px, py in (at(*point) for point in points)
        ]
    title = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    # Everything in the parts is a number, an escaped text or written here.
    return Markup(title + "".join(parts) + "</svg>")  # noqa: S704 - made of escaped parts


def nice_axis(low: float, high: float, *, most: int) -> Axis:
    """An axis from a round number at or below `low` to one at or above `high`, with at most about `most`
    intervals.
    """
    if high <= low:
        high = low + 1.0
    raw = (high - low) / most
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return Axis(low=first * step, high=last * step, ticks=tuple(i * step for i in range(first, last + 1)))
