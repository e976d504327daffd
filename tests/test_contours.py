"""lesion_seg.contours: oracles by hand and by scipy, properties of the way from a map to mask, border and measures."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist

from lesion_seg import contours as S


def blobs(seed, shape=(64, 64), sigma=4):
    "A smooth random probability map, with regions, holes and lesions that run out of the picture."
    z = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (1 / (1 + np.exp(-4 * z / z.std()))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 400), st.integers(1, 90), st.integers(0, 99), st.floats(.05, .95))
def test_mask_is_the_thresholded_probability(h, w, H, W, seed, t):
    small = np.random.default_rng(seed).random((h, w), dtype=np.float32)
    p = S.resize_probability(small, (H, W))
    assert p.dtype == np.float32 and p.shape == (H, W) and 0 <= p.min() <= p.max() <= 1
    assert np.array_equal(S.resize_threshold(small, (H, W), t), p >= np.float32(t))


@pytest.mark.parametrize('size', [(480, 641), (1001, 333), (64, 64), (40, 50)])
@pytest.mark.parametrize('axis', [0, 1])
def test_linear_ramp_keeps_its_place(size, axis):
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    small = np.tile(ramp, (64, 1)) if axis else np.tile(ramp[:, None], (1, 64))
    n = size[axis]
    want = ((np.arange(n) + .5) * 64 / n - .5) / 63
    got = S.resize_probability(small, size).take(size[1 - axis] // 2, axis=1 - axis)
    inner = slice(n // 32, -(n // 32))
    assert np.allclose(got[inner], want[inner], atol=1e-4 if n >= 64 else 2e-3)   # shrinking, Pillow's filter has few taps


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_clean_mask_agrees_with_scipy(seed):
    m = blobs(seed, (40, 50), 2) > .5
    assert np.array_equal(S.clean_mask(m, largest=False), ndimage.binary_fill_holes(m))
    lab, n = ndimage.label(m)
    got = S.clean_mask(m, fill_holes=False)
    assert got.sum() == max((lab == i).sum() for i in range(1, n + 1)) and not (got & ~m).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_feret_equals_the_largest_pair_distance(seed):
    pts = np.random.default_rng(seed).normal(size=(60, 2)) * [30, 5]
    assert S.feret_diameter(pts) == pytest.approx(pdist(pts).max(), rel=5e-6)


def soft_disc(h, w, r, y0, x0):
    y, x = np.mgrid[:h, :w] + .5
    return (1 / (1 + np.exp(np.hypot(y - y0, x - x0) - r))).astype(np.float32)


@pytest.mark.parametrize('size', [(64, 64), (301, 299)])
def test_polygons_have_the_area_of_the_mask(size):
    for seed in range(6):
        small = blobs(seed, sigma=6)
        rings = [r for p in S.find_polygons(small, .5, size) for r in p]
        assert sum(map(S.ring_area, rings)) == pytest.approx(S.resize_threshold(small, size, .5).sum(), rel=.02)


def test_perimeter_and_diameter_of_a_disc():
    (ring,), = S.find_polygons(soft_disc(160, 160, 45, 80, 70), .5, (800, 800))
    assert S.perimeter([ring]) == pytest.approx(2 * np.pi * 225, rel=.01)
    assert S.feret_diameter(ring) == pytest.approx(450, rel=.01)
    assert np.allclose((ring.min(0) + ring.max(0)) / 2, [350, 400], atol=.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_box_and_centre_agree_with_scipy(seed):
    m = blobs(seed, (31, 47), 2) > .8
    if not m.any(): return
    assert S.bounding_box(m) == ndimage.find_objects(m.astype(int))[0]
    assert np.allclose(S.centre_of_area(m), np.array(ndimage.center_of_mass(m)) + .5)


@pytest.mark.parametrize('seed', range(8))
def test_keyhole_keeps_the_area_and_all_points(seed):
    for rings in S.find_polygons(blobs(seed), .4, (200, 300)):
        one = S.keyhole(rings)
        assert S.ring_area(one) == pytest.approx(sum(map(S.ring_area, rings)), abs=1e-6)
        assert (one[0] == one[-1]).all() and {tuple(p) for r in rings for p in r} == {tuple(p) for p in one}


def quantised(seed, n, sigma, levels):
    "A map of few values, as an int8 network gives it, and one of its values."
    rng = np.random.default_rng(seed)
    small = (np.round(blobs(seed, (n, n), sigma) * levels) / levels).astype(np.float32)
    inside = np.unique(small[(small > 0) & (small < 1)])
    return small, float(rng.choice(inside)) if len(inside) else .5


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([12, 24, 40]), st.sampled_from([.3, .7, 1.5, 4]), st.sampled_from([2, 4, 16, 255]),
       st.sampled_from([(24, 24), (171, 123), (1000, 1500)]))
def test_polygons_of_8_bit_maps_pass_no_point_twice(seed, n, sigma, levels, size):
    "A pixel of exactly the threshold is lesion; two parts that meet in it must not meet in a point."
    small, t = quantised(seed, n, sigma, levels)
    for polygon in S.find_polygons(small, t, size):
        points = np.concatenate([ring[:-1] for ring in polygon])
        assert len(np.unique(points, axis=0)) == len(points)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([12, 24, 40]), st.sampled_from([.3, .7, 1.5, 4]), st.sampled_from([2, 4, 16, 255]),
       st.sampled_from([(24, 24), (171, 123), (1000, 1500), (9, 7)]))
def test_polygons_of_8_bit_maps_are_valid(seed, n, sigma, levels, size):
    shapely = pytest.importorskip('shapely')
    small, t = quantised(seed, n, sigma, levels)
    polygons = [shapely.Polygon(outer, holes) for outer, *holes in S.find_polygons(small, t, size)]
    assert all(p.is_valid for p in polygons), [shapely.is_valid_reason(p) for p in polygons]
    for a, b in zip(polygons[:-1], polygons[1:], strict=True): assert a.intersection(b).area == 0


def test_the_margin_moves_the_border_by_little():
    "Where a probability is near the threshold the border moves, by less than a thousandth over the slope there."
    ramp = np.tile(np.linspace(0, 1, 41, dtype=np.float32), (20, 1))   # a fortieth for each pixel; .5 is the value of column 20
    (ring,), = S.find_polygons(ramp, .5, (20, 41))
    left = ring[:, 0].min()
    assert 20 < left <= 20.5 and 20.5 - left == pytest.approx(40 * S.MARGIN / (1 + 40 * S.MARGIN), rel=1e-3)


def test_the_threshold_itself_is_lesion_everywhere():
    for t in (.1, .3, .5, .7, 1 / 255, 128 / 255):
        small = np.full((8, 8), .05 * t, np.float32)
        small[2:5, 3:6] = np.float32(t)
        assert S.resize_threshold(small, (8, 8), t).sum() == 9
        assert (S.clean_map(small, t, True, True) >= np.float32(t)).sum() == 9
        (ring,), = S.find_polygons(small, t, (8, 8))
        assert S.ring_area(ring) > 4   # around the nine centres, not through them


@pytest.mark.parametrize('scale', [(1., 1.), (.02, .02), (2., .5)])
def test_measures_of_polygons_by_scaled_points(scale):
    polygons = S.find_polygons(blobs(4, sigma=6), .5, (200, 300))
    scaled = [r * scale[::-1] for p in polygons for r in p]
    measures = S.measure_polygons(polygons, scale)
    assert measures['area'] == pytest.approx(sum(map(S.ring_area, scaled)))
    assert measures['area'] == pytest.approx(scale[0] * scale[1] * S.measure_polygons(polygons)['area'])
    assert measures['perimeter'] == pytest.approx(sum(np.hypot(*np.diff(r, axis=0).T).sum() for r in scaled))
    assert measures['major_diameter'] == pytest.approx(pdist(np.concatenate(scaled)).max(), rel=5e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_regions_agree_with_scipy(seed):
    m = blobs(seed, (30, 40), 1) > .5
    labels, areas = S.find_regions(m)
    expected, n = ndimage.label(m)
    assert len(areas) == n + 1 and np.array_equal(labels, expected) and np.array_equal(areas, np.bincount(expected.ravel(), minlength=n + 1))


def test_what_touches_the_frame():
    for shape in ((1, 1), (1, 9), (7, 5)):
        inner = np.zeros(shape, bool)
        assert not S.touches_frame(inner)
        for place in np.ndindex(shape):
            m = inner.copy()
            m[place] = True
            assert S.touches_frame(m) == (place[0] in (0, shape[0] - 1) or place[1] in (0, shape[1] - 1))
