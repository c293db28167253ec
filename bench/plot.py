"""Draws what bench/run.py has written: python plot.py bench.json performance.svg"""

from __future__ import annotations

import json
import sys

import matplotlib as mpl
from matplotlib import pyplot as plt

COLOURS = {"released": "#b0b0b0", "here": "#2b6cb0", "floor": "#e0a030"}
LABELS = {"released": "execnet 2.1", "here": "this execnet", "floor": "floor"}


def draw(result: dict[str, object], file: str) -> None:
    rows: dict[str, dict[str, float | None]] = {
        name: cells for name, cells in result["rows"].items() if not name.startswith("memory")
    }
    mpl.rcParams.update({"svg.hashsalt": "execnet", "svg.fonttype": "none"})  # the same figures give the same file
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(rows) + 1.2), layout="constrained")
    for who, colour in COLOURS.items():
        points = [(cells[who], -at) for at, cells in enumerate(rows.values()) if cells[who] is not None]
        axes.scatter(*zip(*points, strict=True), s=46, color=colour, label=LABELS[who], zorder=3)
    axes.set_xscale("log")
    axes.set_yticks([-at for at in range(len(rows))], labels=list(rows))
    axes.set_xlabel("seconds, less is better")
    axes.grid(axis="x", which="major", color="#dddddd")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    axes.set_title(str(result["machine"]), fontsize=8, color="#777777", loc="left", pad=24)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as json_file:
        draw(json.load(json_file), sys.argv[2])
