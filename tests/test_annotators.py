"""lesion_seg.annotators against SimpleITK's STAPLE, a case worked out by hand, and masks whose agreement is known."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lesion_seg import annotators as A
from lesion_seg import metrics as M
from lesion_seg.core import InputError, encode_png
from lesion_seg.manifest import LesionPair, Manifest


def square(top, left, side=12, shape=(40, 60)):
    m = np.zeros(shape, bool)
    m[top:top + side, left:left + side] = True
    return m


def opinions(seed, n=3, shape=(60, 80)):
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 8)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 3) for _ in range(n)]
    return [base / base.std() + .4 * x / x.std() > .5 + .2 * k for k, x in enumerate(noise)]


# Consensus

@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_staple_equals_simpleitk(n, seed):
    sitk = pytest.importorskip("SimpleITK")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    masks = opinions(seed, n)
    f = sitk.STAPLEImageFilter()
    f.SetMaximumIterations(500)
    want = sitk.GetArrayFromImage(f.Execute([sitk.GetImageFromArray(m.astype(np.uint8)) for m in masks]))
    found = A.staple(masks, rounds=500)
    assert found.probability == pytest.approx(want, abs=2e-4)
    assert found.sensitivity == pytest.approx(f.GetSensitivity(), abs=2e-4)
    assert found.specificity == pytest.approx(f.GetSpecificity(), abs=2e-4)


def test_one_round_of_staple_by_hand():
    "Two annotators, four pixels: both, only the first, neither, neither; prior 3/8."
    one, two = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 0, 0]], bool)
    e, g = 1e-5, 3 / 8
    # with p = q = 1 - e the second pixel has the odds g e (1 - e) : (1 - g) e (1 - e), so the probability g
    w = np.array([1, g, 0, 0])
    found = A.staple([one, two], rounds=1)
    assert found.probability == pytest.approx(w[None], abs=1e-4)
    assert found.sensitivity == pytest.approx([1, 1 / (1 + g)], abs=1e-4)
    assert found.specificity == pytest.approx([2 / (3 - g), 1], abs=1e-4) and e < 1e-4


def test_staple_finds_who_is_careless():
    truth = square(10, 10, 20)
    rng = np.random.default_rng(0)
    def flips(p, q): return np.where(truth, rng.random(truth.shape) < p, rng.random(truth.shape) >= q)
    found = A.staple([flips(.95, .99), flips(.9, .98), flips(.6, .9)])
    assert found.sensitivity == pytest.approx([.95, .9, .6], abs=.05) and found.specificity == pytest.approx([.99, .98, .9], abs=.02)
    assert M.dice(found.mask, truth) > .95


@given(st.integers(2, 5), st.integers(0, 5))
def test_equal_masks_are_their_own_consensus(n, seed):
    mask = opinions(seed, 1)[0]
    assert (A.majority([mask] * n) == mask).all() and (A.staple([mask] * n).mask == mask).all()


@pytest.mark.parametrize("mask", [np.zeros((5, 5), bool), np.ones((5, 5), bool)])
def test_nothing_and_everything(mask):
    assert (A.staple([mask, mask]).mask == mask).all() and (A.majority([mask, mask]) == mask).all()


def test_majority_counts_votes():
    a, b, c = square(0, 0), square(0, 6), square(0, 30)
    assert (A.majority([a, b]) == (a & b)).all() and (A.majority([a, b, c]) == (a & b)).all()
    votes = sum(m.astype(int) for m in opinions(0, 4))
    assert (A.majority(opinions(0, 4)) == (votes >= 3)).all()


@pytest.mark.parametrize("masks, words", [([square(0, 0)], "are 1"), ([square(0, 0), square(0, 0)[1:]], "have the shapes"),
                                          ([square(0, 0) * .5] * 2, "floating")])
def test_refusals(masks, words):
    for f in (A.majority, A.staple):
        with pytest.raises(InputError, match=words): f(masks)


# Scores

def manifest(tmp_path, n=3, names=True):
    pairs = []
    for i in range(n):
        files = []
        for k, mask in enumerate((square(10, 10), square(10, 12), square(10, 22))):
            path = tmp_path / f"{i}_{k}.png"
            path.write_bytes(encode_png(mask.astype(np.uint8) * 255))
            files.append(path)
        meta = dict(mask_2=str(files[1]), mask_3=str(files[2]))
        if names: meta |= dict(annotator="ada", annotator_2="bo", annotator_3="ada" if i == 0 else "cy")
        pairs.append(LesionPair(tmp_path / f"{i}.png", files[0], str(i), f"p{i // 2}", meta=meta))
    pairs.append(LesionPair(tmp_path / "alone.png", tmp_path / "0_0.png", "alone"))
    return Manifest(pairs)


def test_scores_of_squares(tmp_path):
    t = A.score_annotators(manifest(tmp_path), lambda p: square(10, 10)).set_index(["id", "against"])
    # squares of 12 x 12 that lie 2, 10 and 12 columns apart
    assert t.dice["1", "ada"] == 1 and t.dice["1", "bo"] == pytest.approx(10 / 12) and t.dice["1", "cy"] == 0
    assert t.dice["1", "bo and cy"] == pytest.approx(2 / 12) and t.jaccard["1", "ada and bo"] == pytest.approx(10 / 14)
    assert t.dice["1", "majority"] == pytest.approx(M.dice(square(10, 10), A.majority([square(10, c) for c in (10, 12, 22)])))
    # 0.017 of the diagonal are 1.2 pixels: the two columns that moved are beyond, the rows are within
    diagonal = np.hypot(40, 60)
    assert t.nsd["1", "ada and bo"] == pytest.approx(M.nsd(square(10, 10), square(10, 12), .017 * diagonal)) and .017 * diagonal < 2
    assert t.assd["1", "ada and cy"] == pytest.approx(M.assd(square(10, 10), square(10, 22)) / diagonal)
    assert set(t.loc["0"].index) >= {"ada", "bo", "ada (mask_3)"} and "alone" not in t.index


def test_names_of_columns_where_nobody_is_named(tmp_path):
    assert list(A.annotator_masks(manifest(tmp_path, names=False)[0])) == ["mask", "mask_2", "mask_3"]


def test_summary_and_its_difference(tmp_path):
    t = A.score_annotators(manifest(tmp_path), lambda p: square(10, 10))
    s = A.summarise_annotators(t)
    each, between = np.mean([1, 10 / 12, 0]), np.mean([10 / 12, 0, 2 / 12])
    assert s["agreement"]["each annotator"]["dice"]["mean"] == pytest.approx(each)
    assert s["difference"]["dice"]["mean"] == pytest.approx(each - between) and (s["n"], s["groups"]) == (3, 2)
    assert s["agreement"]["cy"]["n"] == 2 and s["tolerance"] == .017
    assert json.loads(json.dumps(s, allow_nan=False)) == s
    text = A.annotators_text(s)
    assert "tolerance of 0.017 of the diagonal" in text and text.splitlines()[-1].startswith("each annotator less between annotators: dice +0.2778")


def test_images_weigh_the_same_whatever_the_number_of_annotators():
    rows = [dict(id="a", group="a", kind=A.BETWEEN, against=f"{k}", dice=1., jaccard=1., nsd=1., assd=0.) for k in range(10)]
    rows += [dict(id="b", group="b", kind=A.BETWEEN, against="0", dice=0., jaccard=0., nsd=0., assd=1.)]
    assert A.summarise_annotators(pd.DataFrame(rows))["agreement"][A.BETWEEN]["dice"]["mean"] == .5


def test_nobody_drew_twice(tmp_path):
    with pytest.raises(InputError, match="names a second mask for no photograph"): A.score_annotators(manifest(tmp_path)[3:])


def test_masks_of_two_sizes_are_named(tmp_path):
    m = manifest(tmp_path)
    (tmp_path / "1_1.png").write_bytes(encode_png(square(0, 0, 5, (20, 20)).astype(np.uint8) * 255))
    with pytest.raises(InputError, match=r"1_1.png: is .20, 20. and the first mask .40, 60."): A.score_annotators(m)
