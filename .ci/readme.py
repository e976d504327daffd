"""Make README.md from nbs/index.ipynb (nbdev's own nbdev_readme needs Quarto); with --check, only compare."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDEX, README = ROOT / "nbs" / "index.ipynb", ROOT / "README.md"
NOTE = "<!-- Made from nbs/index.ipynb by `make export`; edit it there. -->"


def outputs(cell: dict) -> str:
    "A code cell's text outputs as a fenced block."
    texts = ["".join(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in cell["outputs"]]
    text = "\n".join(t.rstrip() for t in texts if t.strip())
    return f"\n\n```text\n{text}\n```" if text else ""


def markdown(cell: dict) -> str:
    "A cell as Markdown; hidden cells and directives vanish."
    source = "".join(cell["source"]).strip()
    if cell["cell_type"] == "markdown": return re.sub(r"\]\((?=images/|[\w/]+\.ipynb)", "](nbs/", source)
    if re.search(r"^#\|\s*echo:\s*false", source, re.M):
        shown = outputs(cell).strip()
        if not shown and "print(" in source:  # its output is all that a reader would see
            sys.exit(f"{INDEX.name}: cell {cell['id']} shows nothing: run `make outputs NB=nbs/{INDEX.name}`")
        return shown
    if re.search(r"^#\|\s*(hide|export|default_exp)\b|^#\|\s*include:\s*false", source, re.M): return ""
    source = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
    return f"```python\n{source}\n```{outputs(cell)}" if source else ""


def main() -> int:
    cells = json.loads(INDEX.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join([NOTE, *filter(None, map(markdown, cells))]) + "\n"
    if "--check" not in sys.argv: README.write_text(text, encoding="utf-8")
    elif README.read_text(encoding="utf-8") != text:
        print("README.md differs from nbs/index.ipynb: run `make export` and commit.")
        return 1
    return 0


if __name__ == "__main__": sys.exit(main())
