"""Phantoms: exact masks, determinism, traits, artefacts and the data set on disk."""
import hashlib
import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from lesion_seg.core import InputError
from lesion_seg.data import read_image, read_mask, resize_mask
from lesion_seg.manifest import Manifest
from lesion_seg.phantom import (ARTEFACTS, DRAWN, TRAITS, Artefact, add_artefacts, draw_mask, make_phantom, usual_artefacts,
                                write_phantoms)

FLAT = dict.fromkeys(('colours', 'network', 'globules', 'blotches', 'grain', 'centre', 'veil', 'regression', 'pink', 'streaks'), 0.)
seeds = st.integers(0, 2**40)
sides = st.integers(32, 150)


def jaccard(a, b): return (a & b).sum() / (a | b).sum()


def digest(p): return hashlib.sha256(p.image.tobytes() + p.mask.tobytes() + p.clean.tobytes()).hexdigest()


# --- the mask ---

@settings(max_examples=60, deadline=None)
@given(seeds, sides, sides)
def test_mask_is_the_half_level_of_the_pigment_and_one_region(seed, h, w):
    p = make_phantom(seed, (h, w), artefacts={})
    assert p.image.shape == (h, w, 3) and p.image.dtype == np.uint8
    assert p.mask.shape == p.pigment.shape == (h, w) and p.mask.dtype == bool and p.pigment.dtype == np.float32
    assert 0 <= p.pigment.min() and p.pigment.max() <= 1
    assert np.array_equal(p.mask, ~(p.pigment < 0.5))
    assert ndimage.label(p.mask)[1] == 1
    assert np.array_equal(ndimage.binary_fill_holes(p.mask), p.mask)
    assert p.meta['area'] == pytest.approx(np.count_nonzero(p.mask) / (h * w)) and 0 < p.meta['area'] < 0.95


@pytest.mark.parametrize('edge', [0., .5, 1.])
@pytest.mark.parametrize('seed', [3, 11, 29])
def test_mask_is_where_the_picture_reaches_half_its_contrast(seed, edge):
    "Oracle from pixels alone: two pictures of one lesion that differ in nothing but the density of its pigment, which Beer and Lambert give back."
    pale, dark = (make_phantom(seed, 256, {}, traits=FLAT | dict(contrast=c, edge=edge, size=.5, skin=2)) for c in (.1, .35))
    floor = 22 # what black pigment reflects in the blue channel
    density = ndimage.gaussian_filter(np.log((pale.clean[..., 2] - floor) / (dark.clean[..., 2] - floor)), 1)
    inside = pale.pigment > .95
    assert inside.any() and jaccard(density >= np.median(density[inside]) / 2, pale.mask) > 0.94


def test_areas_run_from_dots_to_lesions_that_touch_the_frame():
    masks = [make_phantom(s, 64, {}).mask for s in range(150)]
    areas = np.array([m.mean() for m in masks])
    assert areas.min() > .004 and areas.max() < .9
    assert (areas < .03).any() and (areas > .5).any() and .08 < np.median(areas) < .3
    touching = [m[[0, -1]].any() or m[:, [0, -1]].any() for m in masks]
    assert .05 < np.mean(touching) < .5


def test_size_sets_the_area():
    areas = [make_phantom(1, 128, {}, traits=dict(size=s, lobes=1)).mask.mean() for s in (0, .25, .5, .75, 1)]
    assert areas == sorted(areas)
    radius = .06 + .42 * .5 ** 1.3
    assert areas[2] == pytest.approx(np.pi * radius**2, rel=.15)


@pytest.mark.parametrize('size', [(32, 32), (64, 96), (256, 256), (700, 500)])
def test_the_scene_does_not_depend_on_the_resolution(size):
    a, b = make_phantom(12, size, {}), make_phantom(12, tuple(2 * s for s in size), {})
    assert jaccard(resize_mask(b.mask, size), a.mask) > (.93 if min(size) < 100 else .98)
    small = np.asarray(Image.fromarray(b.clean).resize(size[::-1], Image.Resampling.BOX)).astype(int)
    assert np.abs(small - a.clean).mean() < 4


def test_large_pictures():
    p = make_phantom(0, (1100, 1400), dict.fromkeys(ARTEFACTS, .5))
    assert p.image.shape == (1100, 1400, 3) and ndimage.label(p.mask)[1] == 1


# --- determinism ---

def test_same_seed_same_bytes_here_and_in_another_process():
    code = ("import sys, hashlib; from lesion_seg.phantom import make_phantom; p = make_phantom(77, (120, 160)); "
            "print(hashlib.sha256(p.image.tobytes() + p.mask.tobytes() + p.clean.tobytes()).hexdigest())")
    there = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                           env=os.environ | {'PYTHONHASHSEED': '5', 'OMP_NUM_THREADS': '2'})
    np.random.seed(1)
    first = digest(make_phantom(77, (120, 160)))
    np.random.seed(2)
    assert digest(make_phantom(77, (120, 160))) == first == there.stdout.strip()
    assert digest(make_phantom(78, (120, 160))) != first


def test_global_random_state_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    make_phantom(1, 64)
    assert np.array_equal(np.random.get_state()[1], before)


def test_other_artefacts_same_mask_same_clean_picture():
    a, b = make_phantom(5, 96, {}), make_phantom(5, 96, dict.fromkeys(ARTEFACTS, 1.))
    assert np.array_equal(a.mask, b.mask) and np.array_equal(a.clean, b.clean) and np.array_equal(a.image, a.clean)
    assert not np.array_equal(b.image, b.clean)
    assert np.array_equal(b.image, add_artefacts(b.clean, b.mask, 5, **dict.fromkeys(ARTEFACTS, 1.)))


# --- patients and traits ---

def test_images_of_one_patient_share_skin_and_differ():
    mine = [make_phantom(s, 64, patient='P0003') for s in range(8)]
    for k in ('skin', 'redness', 'texture', 'freckles'): assert len({p.meta[k] for p in mine}) == 1
    assert len({digest(p) for p in mine}) == 8 and len({p.mask.tobytes() for p in mine}) == 8
    assert {p.patient for p in mine} == {'P0003'} and make_phantom(3, 64).patient == 'P0003'
    assert len({make_phantom(s, 32).meta['skin'] for s in range(8)}) == 8


def test_artefacts_of_one_patient_are_alike():
    "Two images of one patient agree about who has hair, corners and so on more often than images of two patients."
    mix = [[make_phantom(10 * i + j, 32, patient=f'P{i}').meta['artefacts'] for j in range(2)] for i in range(60)]
    has = np.array([[[k in m for k in ARTEFACTS] for m in two] for two in mix])
    assert (has[:, 0] == has[:, 1]).mean() > .8 > (has[:-1, 0] == has[1:, 1]).mean()


def test_meta_is_json_and_rebuilds_the_phantom():
    p = make_phantom(9, 64)
    meta = json.loads(json.dumps(p.meta))
    q = make_phantom(meta['seed'], 64, meta['artefacts'], traits={k: meta[k] for k in TRAITS})
    assert digest(p) == digest(q) and 'Phantom 9' in repr(p)


@pytest.mark.parametrize('name', [k for k in TRAITS if k not in ('edge', 'contrast', 'size')])
def test_every_trait_changes_the_picture(name):
    lo, hi = TRAITS[name]
    calm = dict.fromkeys(TRAITS, 0.) | dict(skin=2, size=.5, lobes=1, contrast=.5, edge=.3)
    a, b = (make_phantom(4, 96, {}, traits=calm | {name: v}) for v in (lo, hi))
    assert np.abs(a.clean.astype(int) - b.clean)[a.mask].mean() > (.5 if name != 'freckles' else 0)
    border = name in ('elongation', 'spiky', 'lobes', 'streaks')
    assert np.array_equal(a.mask, b.mask) != border


def test_traits_mean_what_they_say():
    calm = dict.fromkeys(TRAITS, 0.) | dict(skin=2, size=.6, lobes=1, contrast=.5, edge=.3)
    def draw(**t): return make_phantom(4, 128, {}, traits=calm | t)
    def ragged(p): return (p.mask ^ ndimage.binary_erosion(p.mask)).sum() / np.sqrt(p.mask.sum())
    def soft(p): return ((p.pigment > .1) & (p.pigment < .9)).sum()
    def contrast(p): return np.median(p.clean[p.pigment < .01]) - np.median(p.clean[p.pigment > .9])
    assert ragged(draw(spiky=1)) > 1.1 * ragged(draw(spiky=0))
    assert soft(draw(edge=1)) > 3 * soft(draw(edge=0))
    assert contrast(draw(contrast=1)) > contrast(draw(contrast=.5)) > contrast(draw(contrast=.2)) > 0
    bright = [draw(skin=s).clean.mean() for s in range(1, 7)]
    assert bright == sorted(bright, reverse=True)
    rose = draw(pink=1).clean[draw().pigment > .9].mean(0)
    assert rose[2] > draw().clean[draw().pigment > .9].mean(0)[2]


def test_lesions_show_on_every_skin():
    for skin in range(1, 7):
        for s in range(10):
            p = make_phantom(s, 96, {}, traits=dict(skin=skin, pink=0, regression=0))
            apart = np.median(p.clean[p.pigment < .02].astype(int), 0) - np.median(p.clean[p.pigment > .5], 0)
            assert apart.sum() > 12, (skin, s)


# --- artefacts ---

@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(list(ARTEFACTS)), st.booleans())
def test_severity_0_changes_nothing_and_more_is_more(seed, name, noise):
    image = np.random.default_rng(seed).integers(0, 256, (72, 96, 3), np.uint8) if noise else make_phantom(seed, (72, 96), {}).clean
    kept = image.copy()
    moved = [np.abs(add_artefacts(image, None, seed, **{name: g}).astype(int) - image).mean() for g in (0, .25, .5, .75, 1)]
    assert moved[0] == 0 and moved == sorted(moved) and moved[-1] > 0
    assert np.array_equal(image, kept)


def test_one_artefact_does_not_move_another():
    image = make_phantom(2, 128, {}).clean
    ruler, both = add_artefacts(image, None, 3, ruler=1), add_artefacts(image, None, 3, ruler=1, gel=.5)
    gel = add_artefacts(image, None, 3, gel=.5)
    free = (ruler == image).all(-1)
    assert free.mean() > .5 and np.array_equal(both[free], gel[free])


def test_ink_begins_outside_the_lesion():
    mask = np.ones((128, 128), bool)
    mask[:, :40] = False
    hit = np.mean([(add_artefacts(np.full((128, 128, 3), 200, np.uint8), mask, s, ink=1)[..., 0] < 190)[mask].mean() for s in range(20)])
    anywhere = np.mean([(add_artefacts(np.full((128, 128, 3), 200, np.uint8), ~mask, s, ink=1)[..., 0] < 190)[mask].mean() for s in range(20)])
    assert hit < .5 * anywhere


@pytest.mark.parametrize('shape', [(1, 1), (7, 9), (900, 20)])
def test_artefacts_take_any_photograph(shape):
    image = np.full((*shape, 3), 180, np.uint8)
    assert add_artefacts(image, None, 0, **dict.fromkeys(ARTEFACTS, 1.)).shape == image.shape


@pytest.mark.parametrize('first', [True, False])
def test_a_new_artefact_changes_no_phantom_but_where_it_lies_on_top(monkeypatch, first):
    "Add a tenth one, before or behind all others: the nine decide and look as before."
    before = [make_phantom(s, 48, patient=f'P{s // 2}') for s in range(40)]
    def add_dust(image, mask, rng, severity): return np.where(np.indices(mask.shape).sum(0)[..., None] % 7, image, 0).astype(np.uint8)
    names = [*ARTEFACTS]
    table = dict(ARTEFACTS, dust=Artefact(add_dust, .5, 1.))
    if first: table = {'dust': table.pop('dust'), **table}
    monkeypatch.setattr('lesion_seg.phantom.ARTEFACTS', table)
    dusty = 0
    for s, p in enumerate(before):
        q = make_phantom(s, 48, patient=f'P{s // 2}')
        severities = q.meta['artefacts'].copy()
        has = severities.pop('dust', 0)
        assert severities == p.meta['artefacts'] and np.array_equal(q.clean, p.clean)
        assert list(severities) == [n for n in names if n in severities]
        assert np.array_equal(q.image, p.image) != bool(has)
        assert np.array_equal(make_phantom(s, 48, severities, patient=f'P{s // 2}').image, p.image)
        dusty += bool(has)
    assert 10 < dusty < 30


def test_usual_artefacts_by_hand():
    "One decision from its three draws, so that a seed stays what it is from release to release."
    def rng(*key): return np.random.default_rng([zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key])
    for seed, patient in ((0, 'P0000'), (7, 'P0003'), (123, 'x')):
        want = {}
        for name, (_, odds, worst) in ARTEFACTS.items():
            usual = rng('camera', patient, name).random() < odds
            shot = rng(seed, 'shot', name)
            if usual != (shot.random() < .08): want[name] = round(worst * shot.beta(1.5, 2), 3)
        assert usual_artefacts(seed, patient) == want


# --- mistakes ---

@pytest.mark.parametrize(('call', 'words'), [
    (lambda: make_phantom(0, 31), 'sides from 32 to 8192'), (lambda: make_phantom(0, (64, 9000)), 'sides from 32 to 8192'),
    (lambda: make_phantom(-1), 'seed -1: is negative'), (lambda: make_phantom(0, 64, {'hairs': 1}), "artefact 'hairs': does not exist"),
    (lambda: make_phantom(0, 64, {'hair': 2}), 'severity of hair 2: is out of range'),
    (lambda: make_phantom(0, 64, traits={'tone': 1}), "trait 'tone': does not exist"),
    (lambda: make_phantom(0, 64, {'hair': float('nan')}), 'severity of hair nan'),
    (lambda: make_phantom(0, 64, traits={'skin': 0}), 'trait skin 0: is out of range'),
    (lambda: add_artefacts(np.zeros((4, 4)), None, 0), 'give uint8'),
    (lambda: add_artefacts(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), bool), 0), 'resize one of them'),
    (lambda: add_artefacts(np.zeros((4, 4, 3), np.uint8), None, -2), 'seed -2: is negative')])
def test_mistakes_are_told_plainly(call, words):
    with pytest.raises(InputError, match=words): call()


# --- on disk ---

def files(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def test_write_phantoms_is_a_data_set(tmp_path):
    m = write_phantoms(tmp_path / 'a', n=7, size=(64, 80), seed=1, images_per_patient=3)
    assert [p.id for p in m] == [f'P{10000 + i // 3}_{i % 3 + 1}' for i in range(7)]
    assert [p.group for p in m] == [f'P{10000 + i // 3}' for i in range(7)]
    assert m.check(full=True) == [] and m == Manifest.load(tmp_path / 'a') == Manifest.load(tmp_path / 'a' / 'manifest.csv')
    p = make_phantom(1_000_002, (64, 80), patient='P10000')
    assert np.array_equal(read_mask(m[2].mask), p.mask) and m[2].meta['seed'] == '1000002'
    assert 0 < np.abs(read_image(m[2].image).astype(int) - p.image).mean() < 8
    assert set(m.split((.5, .25, .25), seed=0).frame()['split']) == {'train', 'valid', 'test'}


def test_write_phantoms_repeats_and_sets_of_other_seeds_share_no_patient(tmp_path):
    a, _, c = (write_phantoms(tmp_path / k, n=4, size=range(40, 60), seed=s) for k, s in (('a', 0), ('b', 0), ('c', 1)))
    assert files(tmp_path / 'a') == files(tmp_path / 'b') and len(files(tmp_path / 'a')) == 9
    assert not {p.group for p in a} & {p.group for p in c}
    assert all(40 <= side < 60 for p in a for side in read_mask(p.mask).shape)
    with pytest.raises(InputError, match='1 or more'): write_phantoms(tmp_path, n=0)
    with pytest.raises(InputError, match='seed -1'): write_phantoms(tmp_path, seed=-1)


def test_write_phantoms_passes_artefacts_and_progress_on(tmp_path):
    seen = []
    m = write_phantoms(tmp_path, n=3, size=48, artefacts={}, progress=lambda it: (seen.append(i) or i for i in it))
    clean = make_phantom(1, 48, {}, patient='P0000').clean.astype(int)
    assert seen == [0, 1, 2] and np.abs(read_image(m[1].image) - clean).mean() < 8


@pytest.mark.parametrize('style', DRAWN)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_drawn_masks_are_one_region_near_the_exact_one(style, seed):
    exact = make_phantom(seed, 96, {})
    drawn = make_phantom(seed, 96, {}, style=style)
    assert ndimage.label(drawn.mask)[1] == 1 and ndimage.binary_fill_holes(drawn.mask).sum() == drawn.mask.sum()
    assert (drawn.image == exact.image).all() and (drawn.pigment == exact.pigment).all() and jaccard(drawn.mask, exact.mask) > .5
    assert drawn.meta == exact.meta | dict(style=style, area=float(drawn.mask.mean()))


def test_styles_lie_where_they_should():
    "Polygons outside, automatic borders inside, grown regions on both sides; areas of twelve lesions."
    ratios = {style: [] for style in DRAWN}
    for seed in range(12):
        exact = make_phantom(seed, 256, {}).mask
        for style, found in ratios.items(): found.append(draw_mask(exact, style, seed).sum() / exact.sum())
    mean = {style: np.mean(found) for style, found in ratios.items()}
    assert 1.05 < mean['polygon'] < 1.35 and abs(mean['grown'] - 1) < .05 and .8 < mean['automatic'] < .97, mean


def test_a_polygon_is_the_same_scene_at_another_size():
    small, large = (draw_mask(make_phantom(8, s, {}).mask, 'polygon', 8) for s in (256, 768))
    assert jaccard(resize_mask(large, 256), small) > .93


def test_styles_of_a_data_set(tmp_path):
    one, two = (write_phantoms(tmp_path / name, 5, 64, seed=3, styles=['grown', 'polygon']) for name in 'ab')
    assert [p.meta['style'] for p in one] == [p.meta['style'] for p in two]
    assert {p.meta['style'] for p in one} <= {'grown', 'polygon'}
    for i, p in enumerate(one):
        exact = make_phantom(3_000_000 + i, 64, patient=p.group)
        assert (read_mask(p.mask) == draw_mask(exact.mask, p.meta['style'], 3_000_000 + i)).all()
    with pytest.raises(InputError, match="style 'freehand': does not exist; use one of polygon, grown, automatic"):
        write_phantoms(tmp_path / 'c', 1, 64, styles=['freehand'])
