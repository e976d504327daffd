"""lesion_seg.augment: presets, independent seeds, and masks that stay with their images."""
import pickle
from collections import Counter

import albumentations as A
import numpy as np
import pytest

from lesion_seg.augment import (
    PRESETS, AlbumentationsTransform, all_transforms, apply_augs, retone, robust, seed_augs, skin_around, strict_pipeline, train_augs,
    typology_angle, valid_augs)
from lesion_seg.core import InputError
from lesion_seg.phantom import make_phantom, skin_tone

PHANTOM = make_phantom(21, 96, artefacts={"hair": 0.3})
IMAGE, MASK = PHANTOM.image, PHANTOM.mask
each = pytest.mark.parametrize("preset", PRESETS)


@each
def test_shapes_and_types(preset):
    augs = train_augs(96, preset)
    for i in range(8):
        x, y = apply_augs(augs, IMAGE, MASK, (2, i))
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((96, 96, 3), np.uint8, (96, 96), np.bool_)


@each
def test_a_seed_decides_whatever_came_before_and_in_another_process(preset):
    one, two = train_augs(96, preset), pickle.loads(pickle.dumps(train_augs(96, preset))) # noqa: S301
    first = [apply_augs(one, IMAGE, MASK, (3, i)) for i in range(4)]
    again = [apply_augs(two, IMAGE, MASK, (3, i)) for i in (3, 2, 1, 0)][::-1]
    for a, b in zip(first, again, strict=True): assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    differ = [not np.array_equal(first[0][0], f[0]) for f in first[1:]]
    assert not any(differ) if preset == "none" else all(differ)


def test_what_goes_in_is_left_alone():
    before = IMAGE.copy(), MASK.copy()
    for i in range(10): apply_augs(train_augs(96, "robust"), IMAGE, MASK, i)
    assert np.array_equal(before[0], IMAGE) and np.array_equal(before[1], MASK)


def test_flips_are_independent():
    "With one seed for all transforms only two of the four outcomes occur."
    corner = np.array([[0, 1], [2, 3]], np.uint8)
    coins = seed_augs(A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]), 0)
    counts = Counter(coins(image=corner)["image"].tobytes() for _ in range(400))
    assert len(counts) == 4 and all(65 <= n <= 135 for n in counts.values())


def test_every_transform_has_a_stream_of_its_own():
    augs = seed_augs(strict_pipeline(robust(96)), 5)
    draws = {t.py_random.random() for t in all_transforms(augs)}
    assert len(draws) == len(all_transforms(augs)) == 16  # the pipeline, eleven transforms, four in the last of them


@pytest.mark.parametrize("preset, values, says", [
    ("medium", {}, "preset 'medium': is not known; choose one of strong, robust, reference, none"),
    ("strong", dict(rotation_limit=10), "does not take.*rotation_limit"),
    ("robust", dict(zoom=2), "preset 'robust': does not take.*zoom"), ("none", dict(scale=1), "does not take.*scale")])
def test_refusals(preset, values, says):
    with pytest.raises(InputError, match=says): train_augs(96, preset, **values)


def test_an_argument_that_albumentations_does_not_know_is_an_error():
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="limits"): strict_pipeline([A.Rotate(limits=30)])


def test_different_sizes_are_refused():
    with pytest.raises(InputError, match=r"image \(96, 96\) and mask \(50, 96\): differ in size"): apply_augs(valid_augs(), IMAGE, MASK[:50])


def test_values_reach_the_transforms():
    tame = train_augs(96, "reference", rotation_limit=10, horizontal_flip=False, elastic=(60, 4), brightness_contrast=(0.1, 0.3), crop=(0.5, 0.9)).transforms
    assert (tame[0].limit, tame[1].p, tame[3].alpha, tame[3].sigma) == ((-10, 10), 0, 60, 4)
    assert (tame[5].brightness_limit, tame[5].contrast_limit, tame[6].scale, tame[6].size) == ((-0.1, 0.1), (-0.3, 0.3), (0.5, 0.9), (96, 96))
    wide = train_augs(96, "robust", scale=(0.5, 2.2), artefacts=0.25).transforms
    assert (wide[0].p, wide[2].scale["x"]) == (0.25, (0.5, 2.2))


def test_a_grey_photograph_is_grey():
    grey = next(t for t in robust(96) if isinstance(t, A.ToGray))
    grey.p = 1
    assert np.ptp(strict_pipeline([grey], 0)(image=IMAGE)["image"], axis=2).max() == 0


def test_a_fastai_transform_acts_on_the_training_set_only():
    turn = AlbumentationsTransform(strict_pipeline([A.HorizontalFlip(p=1.0)]))
    x, y, name = turn((IMAGE, MASK, "a.jpg"), split_idx=0)
    assert np.array_equal(x, IMAGE[:, ::-1]) and np.array_equal(y, MASK[:, ::-1]) and name == "a.jpg"
    assert turn((IMAGE, MASK, "a.jpg"), split_idx=1)[0] is IMAGE


def cielab(rgb):
    "CIELAB (D65) of sRGB in [0, 1], by the formulas of CIE 15 and IEC 61966-2-1."
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[.4124, .2126, .0193], [.3576, .7152, .1192], [.1805, .0722, .9505]]) / [.9505, 1, 1.089]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


@pytest.mark.parametrize("skin", [1, 2.5, 4, 6])
def test_another_skin_has_the_angle_of_its_type(skin):
    phantom = make_phantom(5, 160, {}, traits={"skin": 2})
    toned = retone(phantom.image, phantom.mask, skin)
    L, _, b = cielab(skin_tone(skin) / 255)
    assert typology_angle(toned, phantom.mask) == pytest.approx(np.degrees(np.arctan2(L - 50, b)), abs=4)
    if skin < 2: return
    before, after = (cielab(i / 255)[..., 0] for i in (phantom.image, toned))
    skin_mask = skin_around(phantom.mask)
    ratio = [np.median(v[phantom.mask]) / np.median(v[skin_mask]) for v in (before, after)]
    assert ratio[1] == pytest.approx(ratio[0], abs=0.03)


def test_no_skin_in_view_changes_nothing():
    image = np.full((40, 40, 3), 90, np.uint8)
    everywhere = np.ones((40, 40), bool)
    assert retone(image, everywhere, 6) is image and np.isnan(typology_angle(image, everywhere))
