"""Every public function says in one line what it does, and `docments` knows a text for each of its parameters."""

import ast
import functools
import inspect
import sys
from importlib import import_module
from pathlib import Path

import pytest
from fastcore.docments import docments

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p.stem for p in (ROOT / "lesion_seg").glob("[a-z]*.py"))

# Methods whose meaning another library defines: torch, fastai, albumentations, pydantic. (What the page may ask is explained by `app.question`.)
GIVEN = set("""forward extra_repr activation decodes encodes close accumulate reset value name apply get_params get_params_dependent_on_data
    get_transform_init_args_names before_fit before_epoch before_train before_batch after_pred after_batch after_train before_validate after_validate
    after_epoch after_fit backward get_idxs to_detach write isatty flush count index""".split())


def own_functions(cls: type) -> dict[str, object]:
    "The public methods that a class of ours defines itself, as plain functions, and `__init__` where it is written out."
    found = {}
    for name, f in vars(cls).items():
        f = f.__func__ if isinstance(f, (classmethod, staticmethod)) else f
        if not inspect.isfunction(f) or f.__module__ != cls.__module__ or "<locals>" in f.__qualname__: continue
        if name == "__init__" and f.__code__.co_filename.startswith("<"): continue  # a dataclass writes its own
        if name == "__init__" or not name.startswith("_"): found[name] = f
    return found


def problems(f, name: str) -> list[str]:
    "What a function leaves unsaid."
    doc, found = inspect.getdoc(f) or "", []
    if not name.endswith("__init__"):
        if not doc: found.append(f"{name}: no docstring")
        elif len(doc.splitlines()) > 1: found.append(f"{name}: a docstring of several lines")
        elif not doc.endswith((".", "?", ":")): found.append(f"{name}: a docstring without a full stop")
    texts = docments(f, args_kwargs=True)
    return found + [f"{name}: {p}" for p in inspect.signature(f).parameters if p not in ("self", "cls") and not texts.get(p)]


def undocumented(module) -> list[str]:
    "What a module leaves unsaid: docstrings, and parameters without a text."
    found = []
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__: continue
        if inspect.isclass(thing):
            if issubclass(thing, tuple) and hasattr(thing, "_fields") and not own_functions(thing): continue
            for method, f in own_functions(thing).items():
                if method not in GIVEN and not hasattr(f, "is_question"): found += problems(f, f"{name}.{method}")
        elif callable(thing):
            f = inspect.unwrap(thing.func if isinstance(thing, functools.partial) else thing)
            if inspect.isfunction(f) and f.__module__ == module.__name__ and f.__name__ not in GIVEN: found += problems(f, name)
    return found


@pytest.mark.parametrize("module", [m for m in MODULES if m != "cli"])
def test_public_names_are_documented(module):
    assert undocumented(import_module(f"lesion_seg.{module}")) == []


def test_the_check_sees_what_is_missing(tmp_path, monkeypatch):
    "A comment on the last line of a signature belongs to the return value: that is how thirty functions once lost theirs."
    (tmp_path / "odd_module.py").write_text(
        "def f(a,\n  b, # words\n):\n  return a\n"
        "class C:\n  'x'\n  def g(self, k) -> int: # lost\n    'y'\n  def h(self,\n    k, # kept\n  ):\n    'z.'\n  def _i(self, k): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert undocumented(import_module("odd_module")) == ["f: no docstring", "f: a", "C.g: a docstring without a full stop", "C.g: k"]
    del sys.modules["odd_module"]


def test_the_command_line_explains_every_option():
    from lesion_seg.cli import app
    from typer.main import get_command
    commands = get_command(app).commands
    assert commands and all(c.help for c in commands.values())
    silent = [f"{name} {p.name}" for name, c in commands.items() for p in c.params if not getattr(p, "help", None)]
    assert silent == []


def sentences(source: str) -> list[str]:
    "Where an InputError is raised without its three parts, or with a full stop at the end of one: `line: why` each."
    found = []
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "InputError"): continue
        given = len(call.args) + len([k for k in call.keywords if k.arg in ("problem", "remedy", "problems")])  # each of several problems has its own remedy
        if given < 3 and not any(isinstance(a, ast.Starred) for a in call.args): found.append(f"{call.lineno}: {given} of 3 parts")
        for part in call.args[1:3]:
            last = part.values[-1] if isinstance(part, ast.JoinedStr) and part.values else part
            if isinstance(last, ast.Constant) and str(last.value).endswith("."): found.append(f"{call.lineno}: a full stop")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_sentences_have_one_form(module):
    assert sentences((ROOT / "lesion_seg" / f"{module}.py").read_text(encoding="utf-8")) == []


def test_the_form_is_seen():
    assert sentences("raise InputError('a: b')\nraise InputError(p, 'is bad', f'give {x}.')\nraise InputError(p, 'is bad', 'mend it')") == [
        "1: 1 of 3 parts", "2: a full stop"]


def test_the_readme_shows_its_three_commands():
    "The page is made from stored outputs; without them it spoke of commands that nobody saw."
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [c for c in ("phantom", "segment", "evaluate") if f"\n$ lesion_seg {c} " not in readme] == []
