"""Every public function says in one line what it does, and beside each parameter what it takes."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p.stem for p in (ROOT / "lesion_seg").glob("[a-z]*.py"))

# Methods whose meaning another library defines: torch, fastai, albumentations.
GIVEN = set("""forward extra_repr activation decodes encodes close accumulate reset value name apply get_params get_params_dependent_on_data
    get_transform_init_args_names before_fit before_epoch before_train before_batch after_pred after_batch after_train before_validate after_validate
    after_epoch after_fit backward get_idxs to_detach""".split())


def undocumented(source: str) -> list[str]:
    "What lacks words: a public function or class its docstring, a parameter its comment; `name: reason` each."
    comments = {t.start[0] for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
    found = []

    def docstring(node, name):
        text = ast.get_docstring(node)
        if not text: found.append(f"{name}: no docstring")
        elif len(text.splitlines()) > 1: found.append(f"{name}: a docstring of several lines")

    def parameters(node, name):
        a = node.args
        args = [x for x in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg] if x and x.arg not in ("self", "cls")]
        found.extend(f"{name}: {x.arg}" for x in args if x.end_lineno not in comments)

    def speaks_for_itself(node):
        "A property, or a rule that pydantic calls."
        names = {getattr(d.func if isinstance(d, ast.Call) else d, "id", "") for d in node.decorator_list}
        return names & {"property", "cached_property", "field_validator", "model_validator"}

    body = ast.parse(source).body
    defined = {c.name: {f.name for f in c.body if isinstance(f, ast.FunctionDef)} for c in body if isinstance(c, ast.ClassDef)}
    for node in body:
        if getattr(node, "name", "_").startswith("_"): continue
        if isinstance(node, ast.FunctionDef):
            if node.name in GIVEN and any(getattr(d, "id", "") == "patch" for d in node.decorator_list): continue
            docstring(node, node.name)
            parameters(node, node.name)
        elif isinstance(node, ast.ClassDef):
            bases = {b.id for b in node.bases if isinstance(b, ast.Name)}
            given = GIVEN.union(*(defined.get(b, ()) for b in bases))
            if "Section" not in bases: docstring(node, node.name)
            for f in [x for x in node.body if isinstance(x, ast.FunctionDef)]:
                if f.name == "__init__": parameters(f, node.name)
                elif not f.name.startswith("_") and f.name not in given and not speaks_for_itself(f):
                    docstring(f, f"{node.name}.{f.name}")
                    parameters(f, f"{node.name}.{f.name}")
    return found


@pytest.mark.parametrize("module", [m for m in MODULES if m != "cli"])
def test_public_names_are_documented(module):
    assert undocumented((ROOT / "lesion_seg" / f"{module}.py").read_text()) == []


def test_the_check_sees_what_is_missing():
    bad = "def f(a,\n  b, # words\n): return a\nclass C:\n  'x'\n  def g(self, k): 'y'\n  def _h(self, k): pass\n"
    assert undocumented(bad) == ["f: no docstring", "f: a", "C.g: k"]


def test_the_command_line_explains_every_option():
    from lesion_seg.cli import app
    from typer.main import get_command
    commands = get_command(app).commands
    assert commands and all(c.help for c in commands.values())
    silent = [f"{name} {p.name}" for name, c in commands.items() for p in c.params if not getattr(p, "help", None)]
    assert silent == []
