"""Run notebooks in a real Jupyter kernel, as a reader does: python .ci/kernel.py [--write] [NOTEBOOK ...]

`nbdev_test` runs cells inside its own process; readers run them in ipykernel, where progress bars, displays and warnings behave differently.
Without names, every notebook of the sidebar is run, in its order. With `--write` the outputs are stored, which is how every stored output of
this project is made. Without it nothing is written, and the program says which notebooks failed; its exit code is 1 then. Cells that say
`#| eval: false` or `#| notest` are left alone, and `#| slow` ones too, unless outputs are written.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
LEFT = re.compile(r"^#\|\s*(notest|eval:\s*false)", re.M)
SLOW = re.compile(r"^#\|\s*slow", re.M)
VOLATILE = re.compile(r"<ipython-input-\d+-\w+>|/tmp/ipykernel_\d+/\d+\.py")


class Reader(NotebookClient):
    "Runs the cells of a notebook that a reader would run."

    slow = False

    async def async_execute_cell(self, cell, cell_index, execution_count=None, store_history=True):
        source = cell.source
        if cell.cell_type == "code" and (LEFT.search(source) or SLOW.search(source) and not self.slow): return cell
        return await super().async_execute_cell(cell, cell_index, execution_count, store_history)


def plain(output: dict) -> dict:
    "An output without what changes from run to run."
    output.pop("execution_count", None)
    if output.output_type == "execute_result": output["execution_count"] = None
    output["metadata"] = {} if "metadata" in output else output.get("metadata")
    if output.get("metadata") is None: output.pop("metadata")
    if isinstance(output.get("text"), str): output["text"] = VOLATILE.sub("<cell>", output["text"])
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    if {"image/png", "image/jpeg"} <= data.keys(): del data[max("image/png", "image/jpeg", key=lambda k: len(data[k]))]  # Pillow offers both
    return output


def run(path: Path, write: bool) -> str:
    "Run one notebook; why it failed, or nothing."
    nb = nbformat.read(path, as_version=4)
    client = Reader(nb, timeout=900, kernel_name="python3", resources=dict(metadata=dict(path=str(path.parent))))
    client.slow = write
    try: asyncio.run(client.async_execute())
    except CellExecutionError as e: return str(e)
    if write:
        for cell in nb.cells:
            if cell.cell_type == "code": cell.execution_count, cell.outputs = None, [plain(o) for o in cell.outputs]
            cell.metadata = {}
        nb.metadata = dict(kernelspec=dict(display_name="python3", language="python", name="python3"))
        path.write_text(json.dumps(json.loads(nbformat.writes(nb)), indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        subprocess.run([Path(sys.executable).parent / "nbdev_clean", "--fname", str(path)], check=True)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true", help="store the outputs")
    args = parser.parse_args()
    names = args.notebooks or [ROOT / "nbs" / n for n in re.findall(r"([\w/]+\.ipynb)", (ROOT / "_quarto.yml").read_text().partition("sidebar:")[2])]
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    failed = 0
    for path in names:
        begin = time.perf_counter()
        why = run(path.resolve(), args.write)
        print(f"{path.stem}: {'failed' if why else 'ran'} in {time.perf_counter() - begin:.0f} s", flush=True)
        if why: print(why, flush=True)
        failed += bool(why)
    return int(failed > 0)


if __name__ == "__main__": sys.exit(main())
