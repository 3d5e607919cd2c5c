"""Draws a record of compare_h5ad.py as a bar chart.

    python3 benches/peers/plot_h5ad.py benches/runs/NAME.json > chart.svg
"""

import html
import json
import pathlib
import sys

WIDTH, LEFT, RIGHT = 720, 190, 110
BAR, GAP, GROUP = 18, 4, 22
COLOURS = {"cellfeed": "#2f6f9f", "scdataset": "#b9a06a", "limit": "#d9d9d9"}
NAMES = {"cellfeed": "Cellfeed", "scdataset": "scDataset", "limit": "limit of the machine"}


def draw(result):
    """The SVG of a record."""
    groups = []
    for s in result["summaries"]:
        bars = [(who, s[who]["cells_per_second"], s[who]) for who in ("cellfeed", "scdataset")]
        bars.append(("limit", s["limit_cells_per_second"], None))
        groups.append((s["store"], [bar for bar in bars if bar[1]]))
    most = max((value for _, bars in groups for _, value, _ in bars), default=1)
    scale = (WIDTH - LEFT - RIGHT) / most
    out, y = [], 64
    for store, bars in groups:
        out.append(text(12, y + BAR - 5, store, weight="bold"))
        y += BAR + GAP
        for who, value, spread in bars:
            out.append(text(LEFT - 8, y + BAR - 5, NAMES[who], anchor="end"))
            out.append(f'<rect x="{LEFT}" y="{y}" width="{value * scale:.1f}" height="{BAR}" '
                       f'fill="{COLOURS[who]}"/>')
            if spread and spread["slowest"] != spread["fastest"]:
                low, high = (LEFT + spread[key] * scale for key in ("slowest", "fastest"))
                middle = y + BAR / 2
                out.append(f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#222"/>')
                value_end = max(high, LEFT + value * scale)
            else:
                value_end = LEFT + value * scale
            out.append(text(value_end + 6, y + BAR - 5, f"{value:,.0f}"))
            y += BAR + GAP
        y += GROUP
    o = result["options"]
    title = "Cells per second from .h5ad, block shuffling"
    detail = (
        f"m = {o['batch_size']}, b = {o['block_size']}, f = {o['fetch_factor']}, {o['layout']}, "
        f"{'cold' if o['cold'] else 'warm'}; medians of {o['rounds']}, lines from slowest to "
        f"fastest; {result['cpu']}, {result['cores']} cores"
    )
    head = [text(12, 24, title, weight="bold", size=15), text(12, 44, detail, size=11)]
    return page(WIDTH, y, [*head, *out])


def page(width, height, parts):
    """An SVG with a white ground."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>', *parts, "</svg>", "",
    ])


def text(x, y, words, anchor="start", weight="normal", size=12):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
            f'font-size="{size}" fill="#222">{html.escape(words)}</text>')


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: plot_h5ad.py RECORD.json > CHART.svg")
    print(draw(json.loads(pathlib.Path(sys.argv[1]).read_text())), end="")
