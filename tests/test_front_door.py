"""`from lesion_seg import Segmenter`: the names are there, cost nothing before they are used, and survive an export of the notebooks."""
import ast
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lesion_seg
from lesion_seg.core import InputError

NAMES = {'Bundle': 'bundle', 'InputError': 'core', 'Manifest': 'manifest', 'Segmentation': 'predict', 'Segmenter': 'predict',
         'make_phantom': 'phantom', 'read_image': 'data', 'read_mask': 'data'}


def run(code): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize('name', NAMES)
def test_each_name_is_the_one_of_its_module(name):
    assert getattr(lesion_seg, name) is getattr(__import__(f'lesion_seg.{NAMES[name]}', fromlist=['x']), name)


def test_what_is_listed():
    assert set(lesion_seg.__all__) == set(NAMES) <= set(dir(lesion_seg))
    listed = {n for n in dir(lesion_seg) if not n.startswith('__')}
    modules = {p.stem for p in Path(lesion_seg.__file__).parent.glob('*.py') if not p.stem.startswith('_')}
    assert listed == set(NAMES) | modules | ({'clinic'} & listed), "no machinery such as import_module"
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


IMAGE = np.full((40, 50, 3), 90, np.uint8)


@pytest.fixture(scope='module')
def segmenter():
    from lesion_seg import Segmenter
    return Segmenter(threads=1)


@pytest.mark.parametrize('options,words', [
    (dict(threshold='a'), "threshold 'a': is not a number"), (dict(threshold=True), 'threshold True: is not a number'),
    (dict(tta='yes'), "tta 'yes': is not True or False"), (dict(largest=1), 'largest 1: is not True or False'),
    (dict(fill_holes='no'), "fill_holes 'no'"), (dict(review=2), 'review 2'), (dict(spacing=.02), 'spacing 0.02: is not two'),
    (dict(spacing=('a', 1)), "spacing 'a': is not a number"), (dict(frame=1), 'is not a path')])
def test_wrong_options_of_a_prediction(segmenter, options, words):
    with pytest.raises(InputError) as e: segmenter.predict(IMAGE, **options)
    assert words in str(e.value)


@pytest.mark.parametrize('sources', [None, 3, 'mole.jpg', Path('mole.jpg'), IMAGE, b'BM'], ids=lambda s: type(s).__name__)
def test_what_is_not_many_photographs(segmenter, sources):
    with pytest.raises(InputError, match='^the photographs: are '): list(segmenter.predict_many(sources))


@pytest.mark.parametrize('name,call', [
    ('Manifest', lambda f: f.load(7)), ('Manifest', lambda f: f.load('')), ('Manifest', lambda f: f().save('x.jpg')),
    ('Manifest', lambda f: f().save(7)), ('Manifest', lambda f: f().split(seed='a')), ('Manifest', lambda f: f().split('abc')),
    ('Segmenter', lambda f: f(IMAGE)), ('Segmenter', lambda f: f('')), ('Bundle', lambda f: f.open(3.5)),
    ('make_phantom', lambda f: f('a')), ('make_phantom', lambda f: f(1, 'x')), ('make_phantom', lambda f: f(1, (64, 64.5))),
    ('make_phantom', lambda f: f(True)), ('read_image', lambda f: f(7))])
def test_wrong_kinds_of_arguments(name, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as e: call(getattr(lesion_seg, name))
    assert e.value.problem and e.value.remedy and not list(tmp_path.iterdir())
