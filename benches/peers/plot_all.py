"""Draws what all.py found as bars on a logarithmic scale.

    python3 benches/peers/plot_all.py benches/runs/NAME.json > chart.svg
"""

import argparse
import json
import math
import pathlib
import sys

from plot_h5ad import page, text

WIDTH, LEFT, RIGHT, TOP = 760, 200, 150, 84
BAR, GAP, GROUP = 16, 5, 30
OURS, THEIRS = "#2f6f9f", "#b9a06a"


def draw(title, summaries, machine, options):
    """The SVG of the summaries of one record."""
    skip = {"case", "agreement", "agree"}
    groups = [
        (found["case"], [(who, m) for who, m in found.items() if who not in skip])
        for found in summaries
    ]
    rates = [m["cells_per_second"] for _, bars in groups for _, m in bars if m["cells_per_second"]]
    if not rates:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="60"/>\n'
    low = 10 ** math.floor(math.log10(min(rates)) - 0.01)
    high = max(rates)
    scale = (WIDTH - LEFT - RIGHT) / math.log10(high / low)

    def at(rate):
        return LEFT + math.log10(max(rate, low) / low) * scale

    out, y = [], TOP
    for case, bars in groups:
        out.append(text(12, y + BAR - 4, case, weight="bold"))
        y += BAR + GAP
        first = next((m["cells_per_second"] for _, m in bars), None)
        for who, m in sorted(bars, key=lambda bar: -(bar[1]["cells_per_second"] or 0)):
            out.append(text(LEFT - 8, y + BAR - 4, who, anchor="end"))
            rate = m["cells_per_second"]
            if not rate:
                out.append(text(LEFT + 6, y + BAR - 4, "failed"))
                y += BAR + GAP
                continue
            colour = OURS if who.startswith("Cellfeed") else THEIRS
            out.append(f'<rect x="{LEFT}" y="{y}" width="{at(rate) - LEFT:.1f}" height="{BAR}" '
                       f'fill="{colour}"/>')
            if m["slowest"] != m["fastest"]:
                out.append(f'<path d="M{at(m["slowest"]):.1f} {y + BAR / 2}H{at(m["fastest"]):.1f}" '
                           f'stroke="#222"/>')
            words = f"{rate:,.0f}"
            if first and not who.startswith("Cellfeed"):
                words += f"  (1/{first / rate:,.1f})"
            out.append(text(max(at(rate), at(m["fastest"])) + 6, y + BAR - 4, words))
            y += BAR + GAP
        y += GROUP - GAP
    lines = []
    power = int(math.log10(low))
    while 10**power <= high:
        x = at(10**power)
        lines.append(f'<path d="M{x:.1f} {TOP - 12}V{y - GROUP + GAP}" stroke="#ddd"/>')
        lines.append(text(x, TOP - 16, f"{10**power:,}", anchor="middle", size=11))
        power += 1
    detail = (
        f"minibatches of 64 cells; medians of {options.rounds} interleaved rounds, lines from slowest to "
        f"fastest; logarithmic; {machine['cpu']}, {machine['cores']} cores"
    )
    head = [text(12, 24, title, weight="bold", size=15), text(12, 44, detail, size=11)]
    return page(WIDTH, y, [*lines, *head, *out])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: plot_all.py RECORD.json > CHART.svg")
    record = json.loads(pathlib.Path(sys.argv[1]).read_text())
    options = argparse.Namespace(**record["options"])
    print(draw(record["what"], record["summaries"], record, options), end="")
