"""Changes of a mask: any series of them followed by as many undos gives the first mask; what comes from a page is not trusted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lesion_seg.core import InputError, refuses
from lesion_seg.mask_editor import MaskEditor, Patch, rectangle

SHAPE = (23, 37)
masks = arrays(bool, SHAPE)


@st.composite
def patches(draw):
    y, x = draw(st.integers(0, SHAPE[0] - 1)), 8 * draw(st.integers(0, (SHAPE[1] - 1) // 8))
    size = draw(st.integers(1, SHAPE[0] - y)), draw(st.integers(1, SHAPE[1] - x))
    return Patch(y, x, draw(arrays(bool, size)))


def acts(editor, act):
    "One thing that a reader does."
    if isinstance(act, Patch): return editor.apply(act)
    if isinstance(act, np.ndarray): return editor.replace(act)
    if isinstance(act, tuple): return editor.take_region(*act) if editor.mask[act] else None
    return getattr(editor, act)()


something = st.one_of(patches(), masks, st.sampled_from(["clear", "fill_holes"]), st.tuples(st.integers(0, 22), st.integers(0, 36)))


@settings(max_examples=60, deadline=None)
@given(masks, st.lists(something, max_size=8))
def test_as_many_undos_give_the_first_mask_and_as_many_redos_the_last(first, series):
    editor = MaskEditor(first)
    states = [first.copy()]
    for act in series:
        count = len(editor.done)
        acts(editor, act)
        if len(editor.done) > count: states.append(editor.mask.copy())
    assert len(editor.done) == len(states) - 1
    for state in states[-2::-1]:
        editor.undo()
        assert (editor.mask == state).all()
    assert editor.undo() is None and (editor.mask == first).all()
    for state in states[1:]:
        editor.redo()
        assert (editor.mask == state).all()
    assert editor.redo() is None


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_a_patch_is_the_difference_and_travels_unchanged(before, after):
    patch = Patch.between(before, after)
    if patch is None:
        assert (before == after).all()
        return
    again = Patch.of(patch.place, patch.data, SHAPE)
    assert (again.y, again.x) == (patch.y, patch.x) and (again.flips == patch.flips).all()
    rows, columns = np.nonzero(before != after)  # as small as it can be, but for the whole byte at its left
    assert (patch.y, patch.y + patch.flips.shape[0]) == (rows.min(), rows.max() + 1)
    assert patch.x == columns.min() // 8 * 8 and patch.x + patch.flips.shape[1] == columns.max() + 1
    editor = MaskEditor(before)
    editor.apply(again)
    assert (editor.mask == after).all()


@settings(max_examples=40, deadline=None)
@given(masks, st.lists(patches(), min_size=2, max_size=6), st.randoms())
def test_the_order_of_changes_does_not_matter(first, series, random):
    one, other = MaskEditor(first), MaskEditor(first)
    for patch in series: one.apply(patch)
    random.shuffle(series)
    for patch in series: other.apply(patch)
    assert (one.mask == other.mask).all()


@settings(max_examples=40, deadline=None)
@given(masks)
def test_holes_and_regions_as_scipy_sees_them(mask):
    editor = MaskEditor(mask)
    editor.fill_holes()
    # The background is 4-connected as the mask is, so a hole may touch the outside at a corner.
    labels, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    assert (editor.mask == (labels != labels[0, 0])[1:-1, 1:-1]).all()
    regions, count = ndimage.label(mask)
    for label in range(1, min(count, 3) + 1):
        y, x = np.argwhere(regions == label)[0]
        editor = MaskEditor(np.zeros(SHAPE, bool))
        editor.take_region(int(y), int(x), mask)
        assert (editor.mask == (regions == label)).all()


def test_the_given_mask_is_left_alone():
    mask = np.zeros(SHAPE, bool)
    MaskEditor(mask).apply(Patch(0, 0, np.ones((2, 2), bool)))
    assert not mask.any()


def test_a_change_after_an_undo_forgets_the_rest():
    editor = MaskEditor(np.zeros(SHAPE, bool))
    for y in range(3): editor.apply(Patch(y, 0, np.ones((1, 1), bool)))
    editor.undo()
    editor.apply(Patch(9, 8, np.ones((1, 1), bool)))
    assert editor.redo() is None and [len(editor.done), len(editor.undone)] == [3, 0]
    assert np.argwhere(editor.mask).tolist() == [[0, 0], [1, 0], [9, 8]]


def test_nothing_changed_is_no_change():
    editor = MaskEditor(np.zeros(SHAPE, bool))
    assert [editor.clear(), editor.fill_holes(), editor.replace(np.zeros(SHAPE, bool))] == [None] * 3 and not editor.done


def test_watchers_hear_of_everything_but_their_own_changes():
    editor, heard, other = MaskEditor(np.zeros(SHAPE, bool)), [], []
    editor.watch(heard.append)
    editor.watch(other.append)
    patch = Patch(1, 8, np.ones((2, 3), bool))
    editor.apply(patch, by=heard.append)
    assert (heard, other) == ([], [patch])
    editor.undo()
    assert [len(heard), len(other)] == [1, 2] and (heard[0].flips == patch.flips).all()
    editor.unwatch(heard.append)
    editor.redo()
    assert [len(heard), len(other)] == [1, 3]


GOOD = dict(y=3, x=8, h=4, w=5)


@pytest.mark.parametrize("change", [dict(y=-1), dict(x=-8), dict(y=20), dict(h=0), dict(w=-1), dict(w=30), dict(h=10**12), dict(x=4),
                                    dict(y=3.0), dict(y="3"), dict(h=True), dict(w=None), dict(x=float("nan"))])
def test_a_rectangle_that_cannot_be_is_refused(change):
    assert rectangle(GOOD, SHAPE) == (3, 8, 4, 5)
    with pytest.raises(InputError, match="draw it again"): rectangle({**GOOD, **change}, SHAPE)


@pytest.mark.parametrize("place", [None, [], "yxhw", {}, 7])
def test_a_message_without_a_place_is_refused(place):
    assert "has no place" in refuses(rectangle, place, SHAPE)


@pytest.mark.parametrize("size", [0, 3, 5, 4000])
def test_too_few_or_too_many_bytes_are_refused(size):
    assert refuses(Patch.of, GOOD, bytes(size), SHAPE) == f"the change: has {size} bytes instead of 4; draw it again"


def test_bits_beyond_the_row_change_nothing():
    patch = Patch.of(GOOD, b"\xff" * 4, SHAPE)
    editor = MaskEditor(np.zeros(SHAPE, bool))
    editor.apply(patch)
    assert editor.mask.sum() == 20 and editor.mask[3:7, 8:13].all()


def test_a_thousand_strokes_are_small():
    editor = MaskEditor(np.zeros((4000, 6000), bool))
    disc = np.hypot(*np.mgrid[-60:61, -60:61]) <= 60
    for i in range(1000): editor.apply(Patch(3 * i, 8 * (i % 700), disc))
    assert editor.held < 400_000
