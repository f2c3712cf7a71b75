"""A picture of the ratios: one bar for each benchmark, with its target, in SVG.

Does not belong here: measuring (measure.py), the report (__main__.py).
"""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from bench.ratios.measure import Benchmark

WIDTH, LABELS, BAR, GAP = 900, 470, 18, 10


def bars(results: Mapping[str, dict[str, Any]], benchmarks: Mapping[str, Benchmark]) -> str:
    """The picture. Lengths are logarithms, from a tenth of the floor on; a line marks what was wanted."""
    found = {name: told for name, told in results.items() if name in benchmarks}
    most = max((max(told["ratio"], _wanted(benchmarks[name], told)) for name, told in found.items()), default=1.0)
    room = WIDTH - LABELS - 70

    def length(ratio: float) -> float:
        return room * max(0.0, math.log10(ratio * 10) / math.log10(most * 10))

    parts = []
    for place, (name, told) in enumerate(found.items()):
        top = GAP + place * (BAR + GAP)
        wanted = _wanted(benchmarks[name], told)
        colour = "#2f7d4f" if told["ratio"] <= wanted else "#b4532a"
        mark = LABELS + length(wanted)
        title = escape(benchmarks[name].title.replace("`", ""))
        end = LABELS + length(told["ratio"])
        parts += [
            f'<text x="{LABELS - 8}" y="{top + 13}" text-anchor="end">{title[:66]}</text>',
            f'<rect x="{LABELS}" y="{top}" width="{end - LABELS:.0f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{max(end, mark) + 6:.0f}" y="{top + 13}">{told["ratio"]:.2f}</text>',
            f'<line x1="{mark:.0f}" x2="{mark:.0f}" y1="{top - 3}" y2="{top + BAR + 3}" stroke="#222"/>',
        ]
    height = GAP + len(found) * (BAR + GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="12">', *parts, "</svg>", ""])


def _wanted(benchmark: Benchmark, told: dict[str, Any]) -> float:
    """The highest ratio with which the target is reached."""
    return benchmark.target + benchmark.allowance / float(told["floor"])
