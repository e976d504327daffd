"""Run a notebook's own cells against the exported module, so that coverage sees what the notebooks test.

nbdev_test runs exported cells inside the notebook; here they are skipped and their names come from the package instead.
"""

import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import matplotlib

SKIP = re.compile(r"^#\|\s*(export|exports|exporti|slow|notest)\b|^#\|\s*eval:\s*false", re.M)


def main(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    sources = ["".join(c["source"]) for c in cells]
    found = re.search(r"^#\|\s*default_exp\s+(\S+)", "\n".join(sources), re.M)
    notebook = sys.modules["notebook"] = ModuleType("notebook")  # a real module, so that what a cell defines can be pickled for workers
    names = vars(notebook)
    if found:
        names |= {k: v for k, v in vars(import_module(f"lesion_seg.{found[1]}")).items() if not k.startswith("__")}
    os.chdir(path.parent)
    for i, source in enumerate(sources):
        if not SKIP.search(source) and not source.startswith("#| default_exp"):
            exec(compile(source, f"{path.name}[{i}]", "exec"), names)  # noqa: S102 (our own notebooks)


if __name__ == "__main__":
    matplotlib.use("Agg")
    main(Path(sys.argv[1]).resolve())
