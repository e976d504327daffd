"""lesion_seg.predict: oracles by hand, properties of the way from file to mask, threads, files, and what is imported."""
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from lesion_seg.bundle import save_bundle
from lesion_seg.core import InputError
from lesion_seg.data import read_image, read_mask, resize_image
from lesion_seg.core import unique_stems
from lesion_seg.predict import KINDS, Segmentation, Segmenter
from lesion_seg.contours import ring_area


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
    with torch.no_grad(): want = torch.sigmoid(bundle.model()(t)[:, 0] / 1.5).numpy()
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
