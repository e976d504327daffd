"lesion_seg.polygons against matplotlib's and COCO's own rules, and files written as the four tools write them."
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from lesion_seg import polygons as d
from lesion_seg.core import InputError

corner = st.tuples(st.floats(-20, 60).map(lambda v: round(v, 2) + .003), st.floats(-20, 60).map(lambda v: round(v, 2) + .003))


@given(st.lists(corner, min_size=3, max_size=9))
@settings(max_examples=150, deadline=None)
def test_a_pixel_is_inside_when_its_centre_is(corners):
    "Oracle: the parity of crossings at each centre, counted edge by edge in plain Python."
    h, w = 12, 16
    mask = d.fill_polygon(np.array(corners), (h, w))
    for y in range(h):
        for x in range(w):
            cx, cy, inside = x + .5, y + .5, False
            for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y0 <= cy) != (y1 <= cy):
                    at = x0 + (cy - y0) / (y1 - y0) * (x1 - x0)
                    if abs(at - cx) < 1e-9: return
                    inside ^= at > cx
            assert mask[y, x] == inside


def test_convex_outlines_as_matplotlib_has_them():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :80]
    centres = np.stack([x.ravel(), y.ravel()], 1) + .5
    for _ in range(20):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        corners = np.stack([40 + 30 * np.cos(angle), 30 + 25 * np.sin(angle)], 1)
        assert np.array_equal(d.fill_polygon(corners, (60, 80)).ravel(), Outline(corners).contains_points(centres))


def test_run_lengths_as_pycocotools_packs_them():
    coco = pytest.importorskip('pycocotools.mask')
    rng = np.random.default_rng(1)
    for shape in ((7, 9), (40, 31), (200, 150)):
        mask = rng.random(shape) < .3
        mask[: shape[0] // 2] = True
        packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))['counts'].decode()
        assert np.array_equal(d.fill_runs(d.decode_counts(packed), shape), mask)
    with pytest.raises(InputError, match='cover 5 of 2 x 3'): d.fill_runs([2, 3], (2, 3))


def square(label='lesion'): return dict(label=label, points=[[2, 1], [6, 1], [6, 5], [2, 5]])


WANT = np.pad(np.ones((4, 4), bool), ((1, 3), (2, 4)))


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_coco_with_runs_and_labels(tmp_path):
    flat = [2, 1, 6, 1, 6, 5, 2, 5]
    counts = [17, 4, 4, 4, 4, 4, 4, 4, 35]
    data = dict(images=[dict(id=7, file_name='d/a.jpg', width=10, height=8), dict(id=8, file_name='b.jpg')],
                categories=[dict(id=1, name='hair'), dict(id=2, name='Lesion')],
                annotations=[dict(image_id=7, category_id=2, segmentation=[flat]), dict(image_id=7, category_id=1, segmentation=[[0, 0, 9, 0, 9, 1]]),
                             dict(image_id=8, category_id=2, segmentation=dict(size=[8, 10], counts=counts)),
                             dict(image_id=8, category_id=2, bbox=[0, 0, 1, 1]), dict(image_id=99, category_id=2, segmentation=[flat])])
    a, b = d.read_outlines(write(tmp_path / 'c.json', data))
    label = d.lesion_label([a, b])
    assert (a.image, a.size, b.size, b.left_out, label) == ('a.jpg', (8, 10), None, ['box'], 'Lesion')
    assert np.array_equal(a.mask((8, 10), label), WANT) and np.array_equal(b.mask((8, 10), label), WANT)
    assert a.mask((8, 10)).sum() > 16  # without a label, the hair as well


def test_labelme_shapes(tmp_path):
    shapes = [square() | dict(shape_type='polygon'), dict(label='lesion', shape_type='rectangle', points=[[6, 5], [9, 7]]),
              dict(label='lesion', shape_type='circle', points=[[5, 4], [5, 7]]), dict(label='lesion', shape_type='line', points=[[0, 0], [1, 1]])]
    def one(k): return d.read_outlines(write(tmp_path / 'a.json', dict(imagePath='x\\a.jpg', imageWidth=10, imageHeight=8, shapes=[shapes[k]])))[0]
    assert np.array_equal(one(0).mask((8, 10)), WANT) and one(0).image == 'a.jpg'
    assert one(1).mask((8, 10)).sum() == 6 and one(3).left_out == ['line'] and one(3).shapes == []
    assert one(2).mask((80, 100)).sum() == 32  # half-integer points within 3 of the origin, counted by hand


def test_label_studio_counts_in_per_cent(tmp_path):
    result = dict(type='polygonlabels', original_width=10, original_height=8, value=dict(points=[[20, 12.5], [60, 12.5], [60, 62.5], [20, 62.5]],
                                                                                            polygonlabels=['lesion']))
    tasks = [dict(data=dict(image='/data/upload/3/0a1b2c3d-mole 1.jpg'), annotations=[dict(result=[result, dict(type='brushlabels')])]),
             dict(data=dict(image='s3://bucket/b.jpg'), annotations=[dict(was_cancelled=True, result=[result])])]
    a, b = d.read_outlines(write(tmp_path / 'ls.json', tasks))
    assert (a.image, a.left_out, b.image, b.shapes) == ('mole 1.jpg', ['brushlabels'], 'b.jpg', [])
    assert np.array_equal(a.mask((8, 10)), WANT)


def test_cvat(tmp_path):
    text = ('<?xml version="1.0"?><annotations><version>1.1</version><image id="0" name="s/a.jpg" width="10" height="8">'
            '<polygon label="lesion" points="2,1;6,1;6,5;2,5"/></image><image id="1" name="b.jpg" width="10" height="8">'
            '<mask label="lesion" rle="0, 16" left="2" top="1" width="4" height="4"/><points label="x" points="1,1"/></image>'
            '<image id="2" name="c.jpg" width="10" height="8"><box label="lesion" xtl="2" ytl="1" xbr="6" ybr="5"/></image></annotations>')
    photographs = d.read_outlines(write(tmp_path / 'a.xml', text))
    assert [o.image for o in photographs] == ['a.jpg', 'b.jpg', 'c.jpg'] and photographs[1].left_out == ['points']
    for o in photographs: assert np.array_equal(o.mask(o.size), WANT)


@pytest.mark.parametrize(('name', 'text', 'words'), [
    ('a.json', '{"images": [', 'is damaged'), ('a.json', '{"images": [{"id": 1}], "annotations": []}', 'is damaged'),
    ('a.json', '[' * 100000, 'is damaged'), ('a.xml', '<annotations><image', 'is damaged'),
    ('a.xml', '<!DOCTYPE x [<!ENTITY a "b">]><annotations><image name="&a;" width="1" height="1"/></annotations>', 'declares entities'),
    ('a.json', '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "segmentation": {"size": [2, 2], "counts": [1]}}]}',
     'cover 1 of 2 x 2')])
def test_damaged_files_are_named(tmp_path, name, text, words):
    with pytest.raises(InputError, match=words) as e: d.read_outlines(write(tmp_path / name, text))
    assert str(e.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize('text', ['{}', '[]', '[1]', '{"type": "FeatureCollection"}', '<svg></svg>', '3'])
def test_other_files_are_none(tmp_path, text):
    assert d.read_outlines(write(tmp_path / 'a.json', text)) is None


def test_two_labels_need_an_answer():
    o = [d.Outlines('a.jpg', None, [('mole', WANT), ('ruler', WANT)])]
    with pytest.raises(InputError, match='has the labels mole, ruler; say which'): d.lesion_label(o)
    with pytest.raises(InputError, match=r'has no label x \(it has mole, ruler\)'): d.lesion_label(o, 'x')
    assert d.lesion_label(o, 'mole') == 'mole' and d.lesion_label([]) is None
