"""The anatomy of the notebooks against the goal: python benchmarks/anatomy.py (prints a Markdown table)."""

import json
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def anatomy(path: Path) -> dict:
    "Cells, words, lines per code cell, exported lines, tests per 100 of them, pictures and size of a notebook."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    sources = ["".join(c["source"]) for c in code]
    length = [sum(1 for x in s.splitlines() if x.strip()) for s in sources]
    lines = sorted(length) or [0]
    exported = sum(n for n, s in zip(length, sources, strict=True) if re.search(r"^\s*#\s*\|\s*export", s, re.M))
    tests = sum(len(re.findall(r"\btest_\w+\(|\bassert\b", s)) for s in sources)
    pictures = sum(any(k.startswith("image/") for o in c.get("outputs", []) for k in o.get("data", {})) for c in code)
    words = sum(len("".join(c["source"]).split()) for c in cells if c["cell_type"] == "markdown")
    return dict(cells=len(cells), words=words, median=statistics.median(lines), p90=lines[int(0.9 * (len(lines) - 1))], max=lines[-1], exported=exported,
                tests=round(100 * tests / exported) if exported else None, pictures=pictures, mb=path.stat().st_size / 2**20)


def main():
    head = ["notebook", "cells", "words", "lines per code cell (median / p90 / max)", "exported lines", "tests per 100", "pictures", "MB"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    print("| **goal** | 50-80 | 400-700 | <= 5 / <= 15 / <= 50 | | >= 20 | | <= 0.5 |")
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        a = anatomy(path)
        name, lines = path.relative_to(ROOT / "nbs").with_suffix(""), f"{a['median']:g} / {a['p90']} / {a['max']}"
        print(f"| {name} | {a['cells']} | {a['words']} | {lines} | {a['exported']} | {a['tests']} | {a['pictures']} | {a['mb']:.2f} |")


if __name__ == "__main__": main()
