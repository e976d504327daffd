"""The house rules that a program can check."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))

# The order of the sidebar is the order of the data flow: a module imports only from modules before it.
SIDEBAR = re.findall(r"([\w/]+\.ipynb)", (ROOT / "_quarto.yml").read_text().partition("sidebar:")[2])
ORDER = [re.sub(r"^\d\d[a-z]?_|\.ipynb$", "", name) for name in SIDEBAR if re.match(r"\d\d[a-z]?_", name)]


def imports(source: str) -> set[str]:
    "Modules of the package that a module imports: at the top, inside functions, or by their name as text."
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.level == 1: found.add(node.module.split(".")[0])
            elif node.module == "lesion_seg" and node.level == 0: found |= {a.name for a in node.names}
            elif node.module.startswith("lesion_seg."): found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.level == 1: found |= {a.name for a in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__", "resolve_name"):
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            found |= {n.split(":")[0].split(".")[1] for n in names if n.startswith("lesion_seg.")}
    return found & set(ORDER)


def private_imports(source: str) -> list[str]:
    "Private names that a file takes from a module of the package."
    found = []
    for node in ast.walk(ast.parse(source)):
        ours = isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or "").startswith("lesion_seg"))
        if ours: found += [a.name for a in node.names if a.name.startswith("_") and a.name not in ("__version__", "_modidx")]
    return found


def test_every_module_has_its_place():
    assert {p.stem for p in (ROOT / "lesion_seg").glob("*.py")} - {"__init__", "__main__", "_modidx"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_arrows_point_one_way(module):
    assert imports((ROOT / "lesion_seg" / f"{module}.py").read_text()) <= set(ORDER[:ORDER.index(module)])


def test_hidden_arrows_are_seen():
    "The table of formats in `core` names its readers as text, and resolves them when a file of the kind is met; nothing else may."
    assert imports("from importlib import import_module\nimport_module('lesion_seg.dicom')") == {"dicom"}
    named = {m: set(re.findall(r"['\"]lesion_seg\.(\w+):", (ROOT / "lesion_seg" / f"{m}.py").read_text())) - {m} for m in ORDER}
    assert {m for m, found in named.items() if found} == {"core"}


FILES = sorted(p for folder in ("lesion_seg", "tests", "benchmarks", "model", ".ci") for p in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_private_name_crosses_a_module(path):
    assert private_imports(path.read_text(encoding="utf-8")) == []


def test_only_the_command_line_reads_the_configuration():
    assert [m for m in ORDER if "config" in imports((ROOT / "lesion_seg" / f"{m}.py").read_text())] == ["cli"]


HEAVY = {"augment", "loaders", "unet", "loss", "callbacks", "loggers", "distributed", "train", "evaluate", "compare", "masks", "annotators", "calibrate", "reliability", "gradcam", "report", "comparison", "sources", "tune"}
LIGHT = [m for m in ORDER if m not in HEAVY]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_stay_light(module):
    code = f"import sys, lesion_seg.{module}; print([m for m in ('torch', 'fastai', 'matplotlib', 'albumentations', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_whole(path):
    cells = json.loads(path.read_text())["cells"]
    assert path.stat().st_size <= 500 * 1024
    assert not [o for c in cells for o in c.get("outputs", []) if o["output_type"] == "error"]
    title = "".join(cells[0]["source"])
    assert re.fullmatch(r"# .+(\n\n(> .+\n?)+)?", title), "it begins with a title and a line about it; nbdev drops what else stands in this cell"
    exported = [c for c in cells if "#| export" in "".join(c["source"])]
    ran = [c for c in cells if c.get("outputs")]
    assert ran or not exported, "it is committed with its outputs"


def shows_nothing(source: str) -> bool:
    "Does a cell end on a statement that has no value to show?"
    body = ast.parse(source).body
    if not body: return True
    last = body[-1]
    quiet = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and re.match(r"test_|print$", getattr(last.value.func, "id", ""))
    return quiet or not isinstance(last, ast.Expr)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs_belong_to_their_cells(path):
    "A cell that ends on a definition, an assignment or a test has no result; one that is stored came from other code."
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code": continue
        source = "".join(cell["source"])
        results = [o for o in cell["outputs"] if o["output_type"] == "execute_result"]
        assert not (results and shows_nothing(source)), source
        assert source.strip() or not cell["outputs"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_exported_lines_are_no_longer_than_120(path):
    sources = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [line for s in sources if re.search(r"^#\|\s*export", s, re.M) for line in s.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_headings_have_cells_of_their_own(path):
    for cell in json.loads(path.read_text())["cells"][1:]:
        lines = "".join(cell["source"]).strip().splitlines()
        if cell["cell_type"] == "markdown" and any(re.match(r"#{2,3} ", line) for line in lines): assert len(lines) == 1, lines[:2]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_imports_have_cells_of_their_own(path):
    "nbdev runs every cell with an import when it makes the documentation; what else stands in it would run without the cells before."
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or re.search(r"^#\|\s*(export|exporti|hide|echo)", source, re.M): continue
        kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(source).body}
        assert len(kinds) <= 1, source


def test_no_pickle_is_written_or_loaded():
    "torch.load only with weights_only=True, nothing else that unpickles."
    for path in (ROOT / "lesion_seg").glob("*.py"):
        text = path.read_text()
        assert not re.search(r"\bimport (pickle|dill|joblib|cloudpickle)\b|torch\.save\(|allow_pickle=True|learn\.export\(", text), path.name
        assert all("weights_only=True" in line for line in text.splitlines() if "torch.load(" in line), path.name


def test_no_machine_paths_in_outputs():
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        shown = [o.get("text") or {k: v for k, v in o.get("data", {}).items() if not k.startswith("image/")} for c in cells for o in c.get("outputs", [])]
        outputs = json.dumps(shown)  # a picture may hold any letters
        assert not re.search(r"/root/|/work/|/home/\w+/", outputs), path.name


def test_sidebar_lists_every_notebook():
    listed = re.findall(r"([\w/]+\.ipynb)", (ROOT / "_quarto.yml").read_text().partition("sidebar:")[2])
    assert sorted(listed) == [p.relative_to(ROOT / "nbs").as_posix() for p in NOTEBOOKS]


def test_quarto_file_is_one_file():
    link = ROOT / "nbs" / "_quarto.yml"
    assert link.resolve() == (ROOT / "_quarto.yml").resolve()


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_workflows_name_nothing_twice(path):
    "YAML takes the last of two equal keys in silence; GitHub refuses the file."
    import yaml

    def unique(node):
        if isinstance(node, yaml.MappingNode):
            keys = [k.value for k, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            for _, v in node.value: unique(v)
        elif isinstance(node, yaml.SequenceNode):
            for v in node.value: unique(v)

    unique(yaml.compose(path.read_text(encoding="utf-8")))


PROGRAMS = sorted(p for folder in ("benchmarks", "model") for p in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_every_program_is_in_the_table_of_its_folder(path):
    assert f"`{path.name}`" in (path.parent / "README.md").read_text(encoding="utf-8")


RESULTS = sorted(p for folder in ("benchmarks", "model", "model/trials", "tests") for p in (ROOT / folder / "results").glob("*.json"))


@cache
def notebook_texts() -> dict[str, str]: return {p.stem: p.read_text(encoding="utf-8") for p in NOTEBOOKS}


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_every_result_is_on_a_page(path):
    "Some page reads the file; what no other page reads, the page of benchmarks shows."
    reads = re.compile(rf"\b{path.stem}\.json|result\([^)]*{path.stem}\b")
    assert [name for name, text in notebook_texts().items() if reads.search(text)]


def mutants() -> dict[str, list[tuple[str, str]]]:
    "The table of tests/mutants.py, read without running it."
    tree = ast.parse((ROOT / "tests" / "mutants.py").read_text(encoding="utf-8"))
    return next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.AnnAssign) and getattr(n.target, "id", "") == "MUTANTS")


@pytest.mark.parametrize("module,pairs", mutants().items())
def test_every_mutant_still_finds_its_line(module, pairs):
    "What is to be mistaken occurs exactly once, and the mistake is Python."
    source = (ROOT / "lesion_seg" / f"{module}.py").read_text(encoding="utf-8")
    assert [(old, n) for old, _ in pairs if (n := source.count(old)) != 1] == []
    for old, new in pairs: assert old != new and ast.parse(source.replace(old, new))
