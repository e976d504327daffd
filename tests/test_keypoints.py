"lesion_seg.keypoints against OpenCV on mirrored pictures, transforms that are known, and votes counted by hand."
import subprocess
import sys

import cv2
import numpy as np
import pytest

from lesion_seg import keypoints as d
from lesion_seg.phantom import make_phantom

PHOTO = make_phantom(3, (192, 256), {'hair': .4}).image.mean(2).astype(np.uint8)


def test_import_brings_no_opencv():
    code = 'import sys; import lesion_seg.keypoints; print([m for m in ("cv2", "torch", "scipy", "matplotlib") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_mirrored_descriptors_are_those_of_the_mirrored_picture():
    "Most key points of the mirrored picture are found at the mirrored places, with nearly the same descriptors."
    there, computed = d.find_keypoints(np.ascontiguousarray(PHOTO[:, ::-1])), d.mirrored(d.find_keypoints(PHOTO))
    pairs = d.match_keypoints(computed, there)
    near = np.hypot(*(computed.points[pairs[:, 0]] - there.points[pairs[:, 1]]).T) < 3
    assert len(pairs) > 100 and near.mean() > .9
    a, b = (d.unit_descriptors(k.descriptors[pairs[:, c]]) for c, k in enumerate((computed, there)))
    assert np.median((a * b).sum(1)[near]) > .97
    assert np.array_equal(d.mirrored(computed).descriptors, d.find_keypoints(PHOTO).descriptors)


@pytest.mark.parametrize('angle', [0, 10, -35, 120])
@pytest.mark.parametrize('scale', [1, .7])
@pytest.mark.parametrize('flip', [False, True])
def test_placement_is_the_transform_that_was_used(angle, scale, flip):
    h, w = PHOTO.shape
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), angle, scale)
    copy = cv2.warpAffine(np.ascontiguousarray(PHOTO[:, ::-1]) if flip else PHOTO, matrix, (w, h), borderMode=cv2.BORDER_REFLECT_101)
    placed = d.place(d.find_keypoints(PHOTO), d.find_keypoints(copy))
    assert placed.agreeing > 20 and placed.mirrored == flip
    assert abs(placed.angle - angle) < 1 and abs(placed.scale - scale) < .02
    middle = placed.matrix @ [.5, .5 * h / w, 1]
    assert np.allclose(middle, [.5, .5 * h / w], atol=.015)  # the centre stays


def test_nothing_to_see():
    empty = d.find_keypoints(np.full((40, 60), 120, np.uint8))
    assert len(empty.points) == 0 and len(d.mirrored(empty).points) == 0 and d.place(empty, d.find_keypoints(PHOTO)) is None
    assert d.keypoint_candidates([empty, empty, d.find_keypoints(PHOTO)]).shape == (0, 2)


def test_votes_by_hand():
    "Photographs 0 and 1 share two descriptors; one that all four have counts less; one with too many look-alikes not at all."
    a, b, c = np.eye(3, 128, dtype=np.uint8) * 255
    rows = [(0, a), (1, a), (0, b), (1, b), (2, b), (3, c), (2, c)]
    owner, these = np.array([o for o, _ in rows]), np.stack([x for _, x in rows])
    drawer = np.zeros(len(rows), int)
    pairs, votes = d.count_votes(these, these, owner, drawer, drawer, 1)
    want = {(0, 1): 2 * (1 + .5), (0, 2): 1, (1, 2): 1, (2, 3): 2}
    assert {tuple(p): pytest.approx(v) for p, v in zip(pairs.tolist(), votes, strict=True)} == want
    pairs, votes = d.count_votes(these, these, owner, drawer, drawer, 1, most=1)
    assert {tuple(p): v for p, v in zip(pairs.tolist(), votes, strict=True)} == {(0, 1): 2, (2, 3): 2}
    apart = np.arange(len(rows))  # in drawers of their own they never meet
    assert len(d.count_votes(these, these, owner, apart, apart, len(rows))[0]) == 0
