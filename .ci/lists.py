"""Write the lists of notebooks that stand in several places, from one: python .ci/lists.py [--check]

The order is the sidebar's, in `_quarto.yml`; what a notebook is about is the line under its own title. The table of the contributor page and the
one of the index are made from these. With --check nothing is written, and the exit code says whether something is out of date.
"""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def chapters() -> dict[str, list[str]]:
    "The notebooks with a number, by chapter, in the order of the sidebar."
    sidebar = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    listed = {s["section"]: s["contents"] for s in sidebar if isinstance(s, dict)}
    numbered = {k: [name.removesuffix(".ipynb") for name in v if re.match(r"\d\d[a-z]?_", name)] for k, v in listed.items()}
    return {k: v for k, v in numbered.items() if v}


def subject(name: str) -> str:
    "What a notebook says under its title."
    title = "".join(json.loads((NBS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"][0]["source"])
    lines = [line.removeprefix("> ").strip() for line in title.splitlines() if line.startswith("> ")]
    return " ".join(lines).rstrip(".").replace("|", "\\|")


def modules_table() -> str:
    "Notebook, module and subject, for those who change the code."
    rows = [f"| {n} | {n.partition('_')[2]} | {subject(n)} |" for names in chapters().values() for n in names]
    return "\n".join(["| notebook | module | what it holds |", "|---|---|---|", *rows])


PROMISES = {
    "Foundations": "say what went wrong in one sentence, write files that are whole or not there, know every file format from one table",
    "Data": "read any photograph, DICOM included, draw phantoms, find near-duplicates, split without leaks, fetch ISIC, pack TFRecords",
    "Training": "train reproducibly, pull the plug without harm, keep a model without pickles",
    "Judgement": "say how good a model is, how sure you are of that, and whether its uncertainty points at the failures",
    "Use": "go from a file to a mask, a border, an area in mm²: without PyTorch, in 8-bit integers, for archives of any size",
    "The page": "serve a page where a reader drops photographs",
    "The shell": "do all of it from a shell, with one configuration file",
}


def course_table() -> str:
    "The chapters with their notebooks and what a reader can do after them."
    rows = [f"| **{chapter}** | {', '.join(f'[{n}]({n}.ipynb)' for n in names)} | {PROMISES[chapter]} |" for chapter, names in chapters().items()]
    return "\n".join(["| chapter | notebooks | what you can do after reading them |", "|---|---|---|", *rows])


TABLES = {"contributing": modules_table, "index": course_table}


def replaced(text: str, table: str) -> str:
    "A cell's text with its table of notebooks exchanged; the table begins with the same line."
    head = table.splitlines()[0]
    return re.sub(re.escape(head) + r"\n(\|.*\n?)+", lambda _: table + "\n", text).rstrip("\n")


def main() -> int:
    stale = []
    for page, table in TABLES.items():
        path = NBS / f"{page}.ipynb"
        nb = json.loads(path.read_text(encoding="utf-8"))
        head, found = table().splitlines()[0], False
        for cell in nb["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] != "markdown" or head not in text: continue
            found = True
            new = replaced(text, table())
            if new != text: stale.append(page)
            cell["source"] = new.splitlines(keepends=True)
        if not found: raise SystemExit(f"{path} has no table that begins with {head}")
        if "--check" not in sys.argv and page in stale:
            path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    if stale and "--check" in sys.argv: print(f"the table of {', '.join(stale)} is out of date: run make export and commit")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__": sys.exit(main())
