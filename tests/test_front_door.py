"""`from lesion_seg import Segmenter`: the names are there, cost nothing before they are used, and survive an export of the notebooks."""
import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lesion_seg

NAMES = {'Bundle': 'bundle', 'InputError': 'core', 'Manifest': 'manifest', 'Segmentation': 'predict', 'Segmenter': 'predict',
         'make_phantom': 'phantom', 'read_image': 'data', 'read_mask': 'data'}


def run(code): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize('name', NAMES)
def test_each_name_is_the_one_of_its_module(name):
    assert getattr(lesion_seg, name) is getattr(__import__(f'lesion_seg.{NAMES[name]}', fromlist=['x']), name)


def test_what_is_listed():
    assert set(lesion_seg.__all__) == set(NAMES) <= set(dir(lesion_seg))
    with pytest.raises(AttributeError, match='Segmentor'): lesion_seg.Segmentor  # noqa: B018


def test_type_checkers_see_the_names():
    "Not at run time but in the source: an import of each name under TYPE_CHECKING."
    tree = ast.parse(Path(lesion_seg.__file__).read_text())
    [block] = [n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name) and n.test.id == 'TYPE_CHECKING']
    assert {a.name: n.module.removeprefix('lesion_seg.') for n in block.body for a in n.names} == NAMES


def test_the_import_is_light():
    loaded = run('import sys; before = set(sys.modules); import lesion_seg; print(*sys.modules.keys() - before)')
    assert not {m.split('.')[0] for m in loaded} & {'numpy', 'PIL', 'torch', 'fastai', 'pandas', 'onnxruntime'}
    code = 'import time; t = time.perf_counter(); import lesion_seg; print(time.perf_counter() - t)'
    assert min(float(run(code)[0]) for _ in range(3)) < .1


def test_predicting_by_the_front_door_needs_no_pytorch():
    code = 'import sys; from lesion_seg import Segmenter, make_phantom; Segmenter()(make_phantom(3, 64).image).mask; print("torch" in sys.modules)'
    assert run(code) == ['False']


def test_an_export_keeps_it(tmp_path):
    "nbdev writes the version into the file; the rest stays."
    from nbdev.config import update_version
    source = Path(lesion_seg.__file__).read_text()
    (tmp_path / '__init__.py').write_text(source.replace(lesion_seg.__version__, '0.0.0'))
    update_version(tmp_path)
    assert (tmp_path / '__init__.py').read_text() == source


def test_it_is_quick_again():
    "The second look at a name is a plain attribute."
    lesion_seg.InputError  # noqa: B018
    start = time.perf_counter()
    for _ in range(1000): lesion_seg.InputError  # noqa: B018
    assert time.perf_counter() - start < .05
