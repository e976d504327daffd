"""How the notebooks read, in numbers: python .ci/anatomy.py [FOLDER ...] (prints a Markdown table; a folder is one of notebooks, here or elsewhere)

Private definitions for each public one, how example cells end, characters and length of exported lines, words of prose for each exported line,
words a sentence, and how often a reader is spoken to. They describe; none of them is a target.
"""

import ast
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPORT = re.compile(r"^#\|\s*export", re.M)


def cells(folder: Path) -> list[tuple[str, str]]:
    "Kind and text of all cells of the notebooks with a number."
    found = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]: found.append((cell["cell_type"], "".join(cell["source"])))
    return found


def ends_on(source: str) -> str:
    "'value', 'test' or 'other': what an example cell shows last."
    try: body = ast.parse(source).body
    except SyntaxError: return "other"
    if not body: return "other"
    last = body[-1]
    if isinstance(last, ast.Assert): return "test"
    call = last.value if isinstance(last, ast.Expr) else None
    if isinstance(call, ast.Call):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        if name.startswith("test_"): return "test"
        return "value"
    if isinstance(last, ast.For) and all(isinstance(x, ast.Expr) and "test_" in ast.dump(x) or isinstance(x, ast.Assert) for x in last.body): return "test"
    return "value" if isinstance(last, ast.Expr) else "other"


def anatomy(folder: Path) -> dict[str, str]:
    "The row of a folder of notebooks."
    code = [s for kind, s in cells(folder) if kind == "code" and s.strip()]
    exported = [re.sub(r"^#\|.*\n?", "", s, flags=re.M) for s in code if EXPORT.search(s)]
    examples = [s for s in code if not EXPORT.search(s) and not re.search(r"^#\|\s*(hide|default_exp|echo)", s, re.M)
                and not all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(re.sub(r"^[%!].*$", "", s, flags=re.M)).body)]
    names = [n.name for s in exported for n in ast.parse(s).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    private = [n for n in names if n.startswith("_")]
    lines = [x.rstrip() for s in exported for x in s.splitlines() if x.strip()]
    ends = [ends_on(s) for s in examples]
    prose = " ".join(re.sub(r"```.*?```|\$\$.*?\$\$|`[^`]*`|\[([^]]*)\]\([^)]*\)|^[#>|].*$", r"\1", s, flags=re.S | re.M) for kind, s in cells(folder) if kind == "markdown")
    words = re.findall(r"[A-Za-z][\w'-]*", prose)
    sentences = [s for s in re.split(r"[.?!:]\s+", prose) if len(s.split()) > 1]
    spoken = sum(w.lower() in ("you", "we", "your", "our", "us", "let's") for w in words)
    return {
        "private / public definitions": f"{len(private)}/{len(names) - len(private)} = {len(private) / max(1, len(names) - len(private)):.2f}",
        "example cells that end on a value / on a test": f"{ends.count('value') / len(ends):.0%} / {ends.count('test') / len(ends):.0%}",
        "characters an exported line; lines over 110": f"{sum(map(len, lines)) / len(lines):.0f}; {sum(len(x) > 110 for x in lines) / len(lines):.1%}",
        "exported lines": str(len(lines)),
        "words of prose for each exported line": f"{len(words) / len(lines):.1f}",
        "words a sentence": f"{sum(len(s.split()) for s in sentences) / len(sentences):.1f}",
        "'you' and 'we' for 100 words": f"{100 * spoken / len(words):.1f}",
    }


def main() -> None:
    folders = [Path(a) for a in sys.argv[1:]] or [ROOT / "nbs"]
    columns = [anatomy(f) for f in folders]
    print("| | " + " | ".join(f.resolve().parent.name if f.name == "nbs" else f.name for f in folders) + " |\n" + "|---" * (len(folders) + 1) + "|")
    for name in columns[0]: print(f"| {name} | " + " | ".join(c[name] for c in columns) + " |")


if __name__ == "__main__": main()
