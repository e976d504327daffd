"""The house rules that a program can check."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))

# The order of the sidebar is the order of the data flow: a module imports only from modules before it.
SIDEBAR = re.findall(r"([\w/]+\.ipynb)", (ROOT / "_quarto.yml").read_text().partition("sidebar:")[2])
ORDER = [re.sub(r"^\d\d[a-z]?_", "", name)[:-6] for name in SIDEBAR if re.match(r"\d\d[a-z]?_", name)]


def imports(path: Path) -> set[str]:
    "Modules of the package that a module imports, at the top or inside functions."
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.level == 1: found.add(node.module.split(".")[0])
            elif node.module == "lesion_seg" and node.level == 0: found |= {a.name for a in node.names}
            elif node.module.startswith("lesion_seg."): found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.level == 1: found |= {a.name for a in node.names}
    return found & set(ORDER)


def test_every_module_has_its_place():
    assert {p.stem for p in (ROOT / "lesion_seg").glob("*.py")} - {"__init__", "_modidx"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_arrows_point_one_way(module):
    assert imports(ROOT / "lesion_seg" / f"{module}.py") <= set(ORDER[:ORDER.index(module)])


def test_only_the_command_line_reads_the_configuration():
    assert [m for m in ORDER if "config" in imports(ROOT / "lesion_seg" / f"{m}.py")] == ["cli"]


LIGHT = ["core", "tiff", "data", "manifest", "isic", "records", "audit", "dicom", "dicom_seg", "untrusted", "bundle", "mc_dropout",
         "contours", "onnx", "quantize", "predict", "benchmark", "session", "app", "batch", "config", "cli"]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_stay_light(module):
    code = f"import sys, lesion_seg.{module}; print([m for m in ('torch', 'fastai', 'matplotlib', 'albumentations', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_small_and_whole(path):
    cells = json.loads(path.read_text())["cells"]
    assert path.stat().st_size <= 500 * 1024
    assert not [o for c in cells for o in c.get("outputs", []) if o["output_type"] == "error"]
    title = "".join(cells[0]["source"])
    assert re.fullmatch(r"# .+(\n\n(> .+\n?)+)?", title), "it begins with a title and a line about it; nbdev drops what else stands in this cell"
    code = [[x for x in "".join(c["source"]).splitlines() if x.strip()] for c in cells if c["cell_type"] == "code"]
    assert max(map(len, code), default=0) <= 50
    exported = [c for c in cells if "#| export" in "".join(c["source"])]
    ran = [c for c in cells if c.get("outputs")]
    assert ran or not exported, "it is committed with its outputs"


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
        outputs = json.dumps([c.get("outputs", []) for c in json.loads(path.read_text())["cells"]])
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
