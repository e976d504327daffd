"""lesion_seg.predict: oracles by hand, properties of the way from file to mask, threads, files, and what is imported."""
import copy
import io
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from lesion_seg.bundle import Bundle, save_bundle
from lesion_seg.contours import ring_area
from lesion_seg.core import InputError, encode_png, unique_stems
from lesion_seg.data import read_image, read_mask, resize_image
from lesion_seg.dicom_seg import photo_to_dicom
from lesion_seg.phantom import make_phantom
from lesion_seg.predict import KINDS, Segmentation, Segmenter, TorchBackend


def blobs(seed, shape=(64, 64), sigma=4):
    "A smooth random probability map, with regions, holes and lesions that run out of the picture."
    z = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (1 / (1 + np.exp(-4 * z / z.std()))).astype(np.float32)


def photo(h, w, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    spot = np.hypot((y / h - .5), (x / w - .4)) < .25
    img = np.where(spot[..., None], [110, 70, 50], [220, 180, 150]) + rng.normal(0, 8, (h, w, 1))
    return img.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    import torch

    from lesion_seg.unet import UNet
    torch.manual_seed(0)
    net = UNet((8, 16), 32, dropout=0.)
    torch.nn.init.normal_(net.head.weight, std=2)   # spread the probabilities of random weights
    return save_bundle(tmp_path_factory.mktemp('b') / 'tiny', net, size=64, threshold=.4, temperature=1.5)


@pytest.fixture(scope='module')
def segmenter(bundle): return Segmenter(bundle.path)


@pytest.mark.parametrize('module', ['contours', 'predict'])
def test_import_is_light(module):
    code = f"import sys, lesion_seg.{module}; print(*sys.modules)"
    loaded = {m.split('.')[0] for m in subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()}
    assert not loaded & {'torch', 'fastai', 'matplotlib', 'pandas', 'albumentations', 'scipy', 'contourpy', 'timm', 'IPython'}


# The map at the photograph's resolution

@pytest.mark.parametrize('size', [(333, 517), (1024, 1024), (97, 301)])
def test_disc_comes_back_in_place(size):
    y, x = np.mgrid[:128, :128] + .5
    small = (1 / (1 + np.exp(-(30 - np.hypot(y - 50, x - 80))))).astype(np.float32)
    m = Segmentation(small, size).measure()
    assert np.allclose(m['centre'], [50 / 128 * size[0], 80 / 128 * size[1]], atol=.4)
    assert m['area_fraction'] == pytest.approx(np.pi * 30 ** 2 / 128 ** 2, rel=.01)


def test_whole_map_is_never_made_for_a_mask():
    s = Segmentation(blobs(0), (900, 700))
    s.mask, s.measure(), s.geojson()
    assert 'probability' not in s.__dict__


# One region without holes

@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(201, 317), (64, 64), (40, 33), (130, 90)]), st.floats(.2, .8))
def test_clean_result_is_one_region_without_holes_at_full_size(seed, size, t):
    small = np.random.default_rng(seed).random((24, 24), dtype=np.float32)   # pixel noise: thin bridges everywhere
    m = Segmentation(small, size, threshold=t, largest=True, fill_holes=True).mask
    assert ndimage.label(m)[1] <= 1
    assert np.array_equal(ndimage.binary_fill_holes(m), m)


def test_cleaning_does_not_move_the_border_of_what_stays():
    small = blobs(3)
    a, b = Segmentation(small, (300, 400)), Segmentation(small, (300, 400), largest=True)
    lab, _ = ndimage.label(a.mask, np.ones((3, 3)))
    keep = lab == np.bincount(lab[b.mask]).argmax()
    assert (keep ^ b.mask).sum() < .01 * keep.sum()


# Polygons

def raster(rings, size):
    "Even-odd filling of rings (x, y) from the corner, by Pillow, at 4 x 4 the size."
    f, out = 4, np.zeros((size[0] * 4, size[1] * 4), bool)
    for r in rings:
        im = Image.new('1', (size[1] * f, size[0] * f))
        ImageDraw.Draw(im).polygon([tuple(p) for p in r * f - .5], fill=1, outline=0)
        out ^= np.array(im)
    return out.reshape(size[0], f, size[1], f).mean((1, 3)) >= .5


def dice(a, b): return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('size', [(480, 640), (301, 299)])
def test_polygons_cover_the_mask(seed, size):
    s = Segmentation(blobs(seed, sigma=6), size, fill_holes=bool(seed % 2))
    rings = [r for p in s.polygons for r in p]
    assert sum(map(ring_area, rings)) == pytest.approx(s.mask.sum(), rel=.01)
    assert dice(raster(rings, size), s.mask) >= .99
    flat = [np.array(r).reshape(-1, 2) for r in s.coco()['segmentation']]
    assert sum(ring_area(np.r_[r, r[:1]]) for r in flat) == pytest.approx(s.mask.sum(), rel=.01)
    assert dice(raster(flat, size), s.mask) >= .99
    for c, r in zip(s.contour(), rings, strict=True): assert np.array_equal(c, r[:, ::-1])


@pytest.mark.parametrize('seed', range(12))
def test_geojson_rings(seed):
    g = Segmentation(blobs(seed), (200, 300)).geojson()['geometry']
    polygons = g['coordinates'] if g['type'] == 'MultiPolygon' else [g['coordinates']]
    for outer, *holes in polygons:
        assert outer[0] == outer[-1] and len(outer) >= 4 and ring_area(np.array(outer)) > 0
        for h in holes: assert h[0] == h[-1] and ring_area(np.array(h)) < 0
        assert np.array(outer).min() >= 0 and (np.array(outer).max(0) <= [300, 200]).all()


def test_cleaned_polygons_are_one_ring():
    for seed in range(30):
        s = Segmentation(np.random.default_rng(seed).random((24, 24), dtype=np.float32), (100, 100), largest=True, fill_holes=True)
        assert [len(p) for p in s.polygons] == [1]


# Measures

@pytest.mark.parametrize('r', [20, 45, 60])
def test_disc_measures(r):
    y, x = np.mgrid[:160, :160] + .5
    s = Segmentation((1 / (1 + np.exp(-(r - np.hypot(y - 80, x - 80))))).astype(np.float32), (800, 800), spacing=(.01, .01))
    m = s.measure()
    assert m['perimeter_px'] == pytest.approx(2 * np.pi * 5 * r, rel=.02)
    assert m['major_diameter_px'] == pytest.approx(10 * r, rel=.02)
    assert m['equivalent_diameter_mm'] == pytest.approx(.1 * r, rel=.01)
    assert m['area_mm2'] == pytest.approx(np.pi * (.05 * r) ** 2, rel=.01)
    json.dumps(m, allow_nan=False)


def test_mean_probability_is_inside_the_border():
    small = np.full((32, 32), .1, np.float32)
    small[8:24, 8:24] = .8
    small[8:16, 8:24] = .6
    assert Segmentation(small, (320, 320)).measure()['mean_probability'] == pytest.approx(.7)


def test_anisotropic_millimetres():
    small = np.zeros((40, 40), np.float32)
    small[10:30, 15:25] = 1
    m = Segmentation(small, (40, 40), spacing=(.5, 2.)).measure()   # 20 rows = 10 mm, 10 columns = 20 mm
    assert m['area_mm2'] == 200
    assert m['perimeter_mm'] == pytest.approx(60, rel=.05)
    assert m['major_diameter_mm'] == pytest.approx(np.hypot(10, 20), rel=.06)


def test_boxes_of_a_rectangle():
    small = np.zeros((40, 40), np.float32)
    small[10:30, 15:22] = 1
    s = Segmentation(small, (40, 40))
    assert s.measure()['bbox'] == [10, 15, 30, 22]   # top, left, bottom, right
    assert s.coco()['bbox'] == [15, 10, 7, 20]   # left, top, width, height


def test_empty_and_full():
    e = Segmentation(np.zeros((32, 32), np.float32), (45, 70), largest=True, fill_holes=True, spacing=(1, 1))
    assert e.measure()['area_mm2'] == 0 and e.measure()['centre'] is None and e.contour() == [] and e._repr_jpeg_()
    f = Segmentation(np.ones((32, 32), np.float32), (45, 70), fill_holes=True).measure()
    assert (f['area_px'], f['bbox'], f['centre'], f['perimeter_px']) == (3150, [0, 0, 45, 70], [22.5, 35], 230)
    level = Segmentation(np.full((32, 32), .3, np.float32), (32, 32), threshold=.3)   # equal to the threshold is lesion, for mask and polygon
    assert level.mask.all() and ring_area(level.polygons[0][0]) == 32 * 32


# The network

def test_matches_the_formula(bundle, segmenter):
    import torch
    x = np.stack([resize_image(photo(64, 64, i), 64) for i in range(3)])
    t = (torch.tensor(x).permute(0, 3, 1, 2) / 255 - .5) / .5
    with torch.no_grad(): want = torch.sigmoid(bundle.model()(t) / 1.5).numpy()
    assert np.allclose(segmenter.backend.probabilities(x), want, atol=1e-5)
    assert want.max() - want.min() > .2


def test_threads_share_one_segmenter(segmenter):
    photos = [photo(90 + i, 120, i) for i in range(12)]
    want = [segmenter(p) for p in photos]
    with ThreadPoolExecutor(8) as pool: got = list(pool.map(lambda p: segmenter(p), photos * 6))
    for g, w in zip(got, want * 6, strict=True): assert np.array_equal(g.mask, w.mask) and np.allclose(g.small, w.small, atol=1e-6)


@pytest.mark.parametrize('k', [1, 2, 3])
def test_tta_is_equivariant(segmenter, k):
    x = photo(64, 64, 5)
    p, q = segmenter.predict(x, tta=True).small, segmenter.predict(np.rot90(x, k).copy(), tta=True).small
    assert np.allclose(np.rot90(p, k), q, atol=1e-5)
    assert np.allclose(p[:, ::-1], segmenter.predict(x[:, ::-1].copy(), tta=True).small, atol=1e-5)
    assert not np.allclose(np.rot90(segmenter.predict(x).small, k), segmenter.predict(np.rot90(x, k).copy()).small, atol=1e-3)


def test_review_leaves_the_map_as_it_is(bundle):
    rule = dict(score='disagreement', threshold=.1)
    s, x = Segmenter(Bundle(bundle.path, bundle.info | dict(review=rule))), photo(64, 64, 5)
    plain, asked = s(x), s(x, review=True)
    assert np.allclose(asked.small, plain.small, atol=1e-5) and not np.allclose(plain.small, plain.small[:, ::-1], atol=1e-3)
    assert plain.needs_review is None and asked.disagreement > 0 and asked.review_above == .1


@pytest.mark.parametrize('disagreement,limit,review', [(.2, .2, False), (.21, .2, True), (.1, .2, False), (None, .2, None), (.2, None, None)])
def test_a_larger_disagreement_is_for_a_person(disagreement, limit, review):
    assert Segmentation(blobs(1), (64, 64), disagreement=disagreement, review_above=limit).needs_review is review


# Files in

def test_exif_orientation_reaches_size_and_mask(segmenter, tmp_path):
    im, exif = Image.fromarray(photo(200, 300)), Image.Exif()
    exif[274] = 6
    im.save(tmp_path / 'turned.jpg', quality=95, exif=exif)
    s = segmenter(tmp_path / 'turned.jpg')
    assert s.size == (300, 200) and s.mask.shape == (300, 200) and s.image.shape == (300, 200, 3)


def test_draft_mode_changes_little(segmenter, tmp_path):
    Image.fromarray(photo(1500, 2100)).save(tmp_path / 'big.jpg', quality=92)
    full = segmenter(read_image(tmp_path / 'big.jpg'))
    s = segmenter(tmp_path / 'big.jpg')
    assert s.size == (1500, 2100) and np.abs(s.small - full.small).mean() < .03


def test_predict_many_in_order_with_errors(segmenter, tmp_path):
    srcs = []
    for i in range(11):
        p = tmp_path / f'{i}.png'
        if i % 4 == 2: p.write_bytes(b'\x89PNG\r\n\x1a\nrubbish')
        else: Image.fromarray(photo(40 + i, 50, i)).save(p)
        srcs.append(p)
    got = list(segmenter.predict_many(srcs, batch_size=3, largest=True, threshold=.6))
    assert [isinstance(g, InputError) for g in got] == [i % 4 == 2 for i in range(11)]
    for i, g in enumerate(got):
        if i % 4 == 2: assert f'{i}.png' in str(g)
        else:
            assert (g.name, g.size, g.threshold, g.largest) == (f'{i}.png', (40 + i, 50), .6, True)
            assert np.allclose(g.small, segmenter(srcs[i]).small, atol=1e-5)


def test_predict_many_passes_on_what_is_no_users_mistake(segmenter):
    class Odd:
        def read(self): raise RuntimeError('disk on fire')
    with pytest.raises(RuntimeError, match='disk on fire'): list(segmenter.predict_many([Odd()]))


@pytest.mark.parametrize('content,words', [(b'', 'empty'), (b'GIF89a' + b'0' * 50, 'GIF'), (b'\xff\xd8\xff\xe0' + b'0' * 200, 'damaged')])
def test_broken_files(segmenter, tmp_path, content, words):
    (tmp_path / 'x.jpg').write_bytes(content)
    with pytest.raises(InputError, match=words): segmenter(tmp_path / 'x.jpg')


# Files out

def test_save_round_trip(segmenter, tmp_path):
    p = tmp_path / 'my mole.png'
    Image.fromarray(photo(121, 203)).save(p)
    s = segmenter.predict(p, spacing=(.05, .05))
    paths = s.save(tmp_path / 'out', kinds=KINDS)
    assert sorted(q.name for q in (tmp_path / 'out').iterdir()) == sorted(q.name for q in paths.values())
    assert paths['mask'].name == 'my_mole_mask.png'
    with Image.open(paths['mask']) as im: assert im.mode == 'L' and np.array_equal(np.array(im), np.where(s.mask, 255, 0))
    assert np.array_equal(read_mask(paths['mask']), s.mask)
    with Image.open(paths['probability']) as im: assert np.abs(np.array(im) / 255 - s.probability).max() <= .501 / 255
    assert read_image(paths['overlay']).shape == (121, 203, 3)
    record = json.loads(paths['json'].read_text())
    assert record['measures'] == s.measure() and record['model']['weights_sha256'] == segmenter.bundle.info['weights_sha256']
    assert json.loads(paths['geojson'].read_text()) == s.geojson()
    coco = json.loads(paths['coco'].read_text())
    assert coco['images'][0] == {'id': 1, 'file_name': 'my mole.png', 'height': 121, 'width': 203}
    assert coco['annotations'][0]['image_id'] == 1 and coco['categories'][0]['id'] == coco['annotations'][0]['category_id']


def test_save_refuses_before_it_writes(segmenter, tmp_path):
    s = segmenter(photo(30, 30))
    with pytest.raises(InputError, match='choose from mask, overlay, json, geojson, coco, probability'): s.save(tmp_path / 'o', kinds=['mask', 'tiff'])
    assert not (tmp_path / 'o').exists()
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError): s.save(tmp_path / 'file')


def test_input_is_never_overwritten(segmenter, tmp_path):
    p = tmp_path / 'a_overlay.jpg'
    Image.fromarray(photo(40, 40)).save(p)
    before = p.read_bytes()
    with pytest.raises(InputError, match='not overwritten'): segmenter(p).save(tmp_path, 'a', kinds=['mask', 'overlay'])
    assert p.read_bytes() == before and not (tmp_path / 'a_mask.png').exists()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from('aAb'), st.sampled_from(['', '_png', '_2', '_png_2']), st.sampled_from(['.png', '.jpg', ''])), max_size=12))
def test_unique_stems_never_collide(parts):
    stems = unique_stems([''.join(p) for p in parts])
    assert len({s.casefold() for s in stems}) == len(parts)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from('aAb'), st.lists(st.sampled_from(['_coco', '_COCO', '_jpg', '_2', '_mask']), max_size=3),
                          st.sampled_from(['.png', '.jpg', '', '.coco'])), max_size=10))
def test_files_of_one_run_never_collide(parts):
    "Not only the stems: `a_coco.jpg` and `a.jpg` would both write a_coco.json."
    endings = [k.ending for k in KINDS.values()]
    stems = unique_stems([a + ''.join(b) + c for a, b, c in parts], endings)
    assert len({(s + e).casefold() for s in stems for e in endings}) == len(parts) * len(endings)


def test_two_photographs_of_one_run_are_both_there(segmenter, tmp_path):
    files = [tmp_path / 'a.jpg', tmp_path / 'a_coco.jpg']
    for i, f in enumerate(files): Image.fromarray(photo(60, 60 + i, i)).save(f)
    for f, stem in zip(files, unique_stems(files, [k.ending for k in KINDS.values()]), strict=True): segmenter(f).save(tmp_path / 'out', stem)
    assert len(list((tmp_path / 'out').iterdir())) == 12
    assert json.loads((tmp_path / 'out' / 'a_coco.json').read_text())['images'][0]['file_name'] == 'a.jpg'


def test_encoded_png_is_read_by_others():
    a = np.random.default_rng(0).integers(0, 256, (37, 1), np.uint8)
    for x in (a, a.T.copy(), np.tile(a, (1, 50))):
        Image.open(io.BytesIO(encode_png(x))).verify()
        assert np.array_equal(np.array(Image.open(io.BytesIO(encode_png(x)))), x)


# What has to be known about a result

@pytest.mark.parametrize('at,touches', [((.5, .5), False), ((.5, .95), True), ((.02, .5), True), ((.9, .9), True)])
def test_a_lesion_that_leaves_the_frame_is_named(at, touches):
    y, x = np.mgrid[:96, :96] + .5
    small = (1 / (1 + np.exp(np.hypot(y - at[0] * 96, x - at[1] * 96) - 15))).astype(np.float32)
    s = Segmentation(small, (200, 300), spacing=(.05, .05))
    assert s.measure()['touches_frame'] is touches
    assert s.record()['measures']['touches_frame'] is touches
    assert ('lower bounds' in repr(s)) is touches and ('at least' in s.headline()) is touches
    assert s.preview().height == 480 * 200 // 300 + (40 if touches else 20)


@pytest.mark.parametrize('image,reason', [(np.zeros((90, 90, 3), np.uint8), 'is black everywhere'), (np.full((90, 90, 3), 200, np.uint8), 'the same colour'),
                                          (photo(9, 9), 'only 9 x 9 pixels')])
def test_a_picture_that_cannot_hold_skin_is_named(segmenter, image, reason, tmp_path):
    Image.fromarray(image).save(tmp_path / 'x.png')
    for s in (segmenter(image), segmenter(tmp_path / 'x.png'), next(segmenter.predict_many([image]))):
        [warning] = s.warnings
        assert reason in warning and warning in repr(s) and warning in s.notes()
        told = json.loads(s.save(tmp_path / 'o', kinds='json')['json'].read_text())['warnings']
        assert [w for w in told if 'lower bounds' not in w] == [warning]
        assert s.with_threshold(.7).warnings == [warning]


def test_nothing_is_said_about_a_photograph(segmenter):
    s = segmenter(make_phantom(3, 96).image)
    touches = s.mask[[0, -1]].any() or s.mask[:, [0, -1]].any()
    assert s.warnings == [] and len(s.record()['warnings']) == touches # of the mask, not of the photograph


def test_json_tells_photographs_of_two_folders_apart(segmenter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in 'ab':
        (tmp_path / folder).mkdir()
        Image.fromarray(photo(40, 40)).save(tmp_path / folder / 'x.png')
    assert [segmenter(f'{f}/x.png').record()['source'] for f in 'ab'] == ['a/x.png', 'b/x.png']   # as it was typed
    assert segmenter(tmp_path / 'a' / 'x.png').record()['source'] == str(tmp_path / 'a' / 'x.png')
    assert [segmenter(s).record()['source'] for s in (photo(9, 9), (tmp_path / 'a' / 'x.png').read_bytes())] == [None, None]


def test_control_characters_do_not_reach_the_terminal(segmenter, tmp_path):
    for name in ('\x1b[31mred.png', 'two\nlines.png', 'a\u202eb.png'):
        Image.fromarray(photo(40, 40)).save(tmp_path / name)
        s = segmenter(tmp_path / name)
        assert repr(s).isprintable() and s._repr_jpeg_()
        assert json.loads(s.save(tmp_path / 'o', kinds='json')['json'].read_text())['name'] == name   # but the record is exact


@pytest.mark.parametrize('spoil,words', [
    (lambda m: np.where(np.arange(m.size).reshape(m.shape) < 3, np.nan, m), 'holds NaN or infinity in 3 of 4096 pixels; use another model'),
    (lambda m: np.where(m > .5, np.inf, m), 'holds NaN or infinity in'),
    (lambda m: m - 2, 'holds values from -2 to -1'), (lambda m: m[None], r'has the shape \(1, 64, 64\)'),
    (lambda m: m[:0], r'has the shape \(0, 64\)')])
def test_what_is_wrong_with_a_map_is_said(spoil, words):
    small = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    with pytest.raises(InputError, match=f'the map for mole.jpg: {words}'): Segmentation(spoil(small), (90, 90), name='mole.jpg')


def test_the_threshold_itself_is_lesion():
    small = np.round(blobs(2) * 255).astype(np.float32) / 255
    for t in (1 / 255, 100 / 255, .5, 128 / 255):
        s = Segmentation(small, (64, 64), threshold=float(np.float32(t)))
        assert np.array_equal(s.mask, small >= np.float32(t))
        assert s.measure()['mean_probability'] == pytest.approx(small[s.mask].mean(), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 16, 255]), st.sampled_from([(64, 64), (300, 200), (20, 9), (3, 64)]))
def test_polygons_stay_valid_in_files(seed, levels, size):
    "After rounding, too, and where the photograph is smaller than the map."
    shapely = pytest.importorskip('shapely')
    small = (np.round(blobs(seed, sigma=.8) * levels) / levels).astype(np.float32)
    t = float(np.random.default_rng(seed).choice(small[(small > 0) & (small < 1)]))
    geometry = Segmentation(small, size, threshold=t).geojson()['geometry']
    if geometry is None: return
    parts = geometry['coordinates'] if geometry['type'] == 'MultiPolygon' else [geometry['coordinates']]
    for outer, *holes in parts:
        polygon = shapely.Polygon(outer, holes)
        assert polygon.is_valid, shapely.is_valid_reason(polygon)


# DICOM brings its millimetres

def test_a_dicom_file_brings_its_millimetres(segmenter, tmp_path):
    import pydicom
    dcm = photo_to_dicom(photo(80, 100), tmp_path / 'a.dcm', spacing=(.02, .03))
    data_set = pydicom.dcmread(dcm)
    os.rename(dcm, tmp_path / 'IM_0001')   # a suffix is not needed
    with open(tmp_path / 'IM_0001', 'rb') as f:
        for src in (tmp_path / 'IM_0001', str(tmp_path / 'IM_0001'), (tmp_path / 'IM_0001').read_bytes(), f, data_set):
            s = segmenter(src)
            assert s.spacing == (.02, .03) and s.measure()['area_mm2'] == pytest.approx(s.measure()['area_px'] * .0006)
            assert s.overlay().shape == (80, 100, 3)
    assert [s.spacing for s in segmenter.predict_many([tmp_path / 'IM_0001', data_set, photo(9, 9)])] == [(.02, .03), (.02, .03), None]
    assert segmenter(data_set, spacing=(1, 2)).spacing == (1, 2)   # what the caller says counts more
    assert segmenter(photo_to_dicom(photo(80, 100), tmp_path / 'b.dcm')).spacing is None
    assert segmenter(photo(40, 40)).spacing is None and segmenter(Image.fromarray(photo(40, 40))).spacing is None


# Copies, and other processes

def test_a_copy_predicts_the_same(bundle):
    s = Segmenter(bundle.path, threads=1)
    for twin in (copy.copy(s), copy.deepcopy(s), pickle.loads(pickle.dumps(s))):  # noqa: S301
        assert (twin.threads, twin.runtime, twin.precision, twin.metadata) == (1, 'torch', 'float32', s.metadata)
        assert np.array_equal(twin(photo(64, 64)).small, s(photo(64, 64)).small)


def test_a_copy_keeps_what_was_changed_and_finds_its_bundle(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(bundle.path.parent)
    changed = Bundle(bundle.path.relative_to(bundle.path.parent), bundle.info | dict(threshold=.7))
    packed = pickle.dumps(Segmenter(changed))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(packed).bundle.threshold == .7  # noqa: S301
    assert len(packed) < 5000   # a path and options, no weights


PARALLEL = """
import multiprocessing, sys
import numpy as np
from lesion_seg import Segmenter

def work(segmenter, image, queue): queue.put(segmenter(image).small)

if __name__ == '__main__':
    _, method, runtime, folder = sys.argv
    segmenter, image = Segmenter(folder, threads=2, runtime=runtime), np.load('photo.npy')
    here = segmenter(image).small
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=work, args=(segmenter, image, queue), daemon=True)
    process.start()
    there = queue.get(timeout=200)
    print(float(np.abs(here - there).max()))
"""


SLOW = pytest.mark.slow   # each process imports PyTorch


@pytest.mark.parametrize('runtime,method', [('torch', 'fork'), pytest.param('torch', 'spawn', marks=SLOW), pytest.param('torch', 'forkserver', marks=SLOW),
                                            ('onnxruntime', 'fork'), ('onnxruntime', 'spawn'), ('onnxruntime', 'forkserver')])
def test_another_process_gets_a_segmenter(method, runtime, bundle, tmp_path):
    "A fork of a process in which PyTorch has worked waited for ever for threads that are not there."
    (tmp_path / 'work.py').write_text(PARALLEL)
    folder = bundle.path if runtime == 'torch' else 'shipped'
    np.save(tmp_path / 'photo.npy', photo(224, 224))
    done = subprocess.run([sys.executable, 'work.py', method, runtime, folder], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


def test_threads_are_left_alone_in_the_first_process(bundle):
    import torch
    before = torch.get_num_threads()
    Segmenter(bundle, runtime='torch')(photo(40, 40))
    assert TorchBackend.process == os.getpid() and torch.get_num_threads() == before
