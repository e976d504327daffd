"""The picture's Python side: what goes to the browser, and what is believed of what comes back."""

import io

import numpy as np
import pytest
import traitlets
from PIL import Image

from lesion_seg.core import encode_jpeg, encode_png, refuses
from lesion_seg.data import read_image
from lesion_seg.mask_editor import MaskEditor, Patch
from lesion_seg.picture import KEYS, MODES, TOOLS, Picture, line, screen_file

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def picture():
    p = Picture(RGB, np.zeros((40, 60), bool))
    p.sent = []
    p.send = lambda content, buffers=None: p.sent.append((content, buffers))
    return p


def stroke(p, patch, epoch=None, cut=10**9):
    "A patch as the browser sends it, in parts of `cut` bytes."
    epoch = p.epoch if epoch is None else epoch
    for at in range(0, len(patch.data), cut):
        p.receive(dict(kind="patch", epoch=epoch, at=at, **patch.place), [memoryview(patch.data[at:at + cut])])


PATCH = Patch(3, 8, np.random.default_rng(1).random((20, 33)) < 0.5)


def test_the_file_itself_goes_to_the_browser_where_it_shows_it_as_we_read_it():
    for data in (encode_jpeg(RGB), encode_png(RGB), encode_png(RGB[..., 0])):
        assert screen_file(data) == (data, (40, 60))


def file(image: Image.Image, kind: str, **options) -> bytes:
    f = io.BytesIO()
    image.save(f, kind, **options)
    return f.getvalue()


TURNED = Image.Exif()
TURNED[274] = 6
RGBA = np.dstack([RGB, np.full((40, 60), 9, np.uint8)])


@pytest.mark.parametrize("data", [file(Image.fromarray(RGB), "TIFF"), file(Image.fromarray(RGB), "BMP"), file(Image.fromarray(RGBA), "PNG"),
                                  file(Image.fromarray(RGB).convert("CMYK"), "JPEG"), file(Image.fromarray(RGB), "PNG", exif=TURNED)])
def test_other_files_are_read_by_us_and_sent_as_png(data):
    png, size = screen_file(data)
    want = read_image(data)
    assert png.startswith(b"\x89PNG") and (read_image(png) == want).all() and size == want.shape[:2]


def test_a_turned_jpeg_is_sent_as_it_is_with_its_upright_size():
    data = file(Image.fromarray(RGB), "JPEG", exif=TURNED)  # browsers turn it, too
    assert screen_file(data) == (data, (60, 40))


def test_a_new_photograph_takes_away_what_belonged_to_the_last(picture):
    picture.layers, picture.overlay, picture.compare_image = [line("a", "A", [], "#ffffff")], b"x", b"y"
    picture.view = dict(scale=3.0, x=1.0, y=2.0)
    old = picture.editor
    picture.show(RGB[:30])
    assert (picture.height, picture.width, picture.editor) == (30, 60, None)
    assert (picture.layers, picture.overlay, picture.compare_image, picture.view) == ([], b"", b"", dict(scale="fit"))
    picture.sent.clear()
    old.apply(PATCH)  # somebody still holds it
    assert picture.sent == []


def test_strokes_reach_the_editor_and_the_callbacks_in_whatever_parts(picture):
    heard = []
    picture.on_patch(heard.append)
    for cut in (1, 7, 10**9):
        stroke(picture, PATCH, cut=cut)
        stroke(picture, PATCH, cut=cut)
    want = np.zeros((40, 60), bool)
    assert (picture.editor.mask == want).all() and len(heard) == 6 and (heard[0].flips == PATCH.flips).all()
    stroke(picture, PATCH)
    want[3:23, 8:41] = PATCH.flips
    assert (picture.editor.mask == want).all()
    assert picture.sent == [], "the browser has drawn it already"
    picture.editor.undo()
    [(content, [data])] = picture.sent
    assert content == dict(kind="patch", epoch=picture.epoch, **PATCH.place) and data == PATCH.data


def test_strokes_on_another_mask_come_too_late(picture):
    epoch = picture.epoch
    picture.set_mask(np.zeros((40, 60), bool))
    stroke(picture, PATCH, epoch)
    assert not picture.editor.mask.any()


def test_drawing_from_nothing():
    p = Picture(RGB)
    assert p.editor is None
    stroke(p, PATCH)
    assert p.editor.mask.sum() == PATCH.flips.sum()


def test_an_editor_can_be_held_elsewhere(picture):
    editor = MaskEditor(np.ones((40, 60), bool))
    picture.edit(editor)
    assert picture.sent[-1] == (dict(kind="mask", epoch=picture.epoch, to="", h=40, w=60), [np.packbits(editor.mask, axis=1).tobytes()])
    editor.clear()
    assert picture.sent[-1][0]["kind"] == "patch"
    picture.receive(dict(kind="ready", page="p7"), [])  # a page that was opened later
    assert picture.sent[-1] == (dict(kind="mask", epoch=picture.epoch, to="p7", h=40, w=60), [bytes(8 * 40)])
    assert refuses(picture.edit, MaskEditor(np.ones((4, 6), bool))) == "the mask of 6 x 4 pixels: does not fit; the photograph has 60 x 40 pixels"


@pytest.mark.parametrize("content", [
    None, 7, [], {}, dict(kind=[]), dict(kind="receive"), dict(kind="patch"), dict(kind="measure", a=[1, 2], b=[1]), dict(kind="measure", a=[1, 2], b=[1, "x"]),
    dict(kind="measure", a=[1, 2], b=[61, 2]), dict(kind="measure", a=[1, float("nan")], b=[1, 2]), dict(kind="pick", at=[True, 2]),
    dict(kind="pick", at=[-1, 2]), dict(kind="key", action="quit"), dict(kind="key", action=[]), dict(kind="key")])
def test_what_cannot_be_right_changes_nothing(picture, content, caplog):
    heard = []
    picture.on_event(lambda *args: heard.append(args))
    picture.receive(content, [])
    assert heard == [] and not picture.editor.mask.any()


@pytest.mark.parametrize("change, data", [(dict(at=1), PATCH.data), (dict(at="0"), PATCH.data), (dict(h=10**9), PATCH.data), (dict(), PATCH.data + b"x"),
                                          (dict(), b""), (dict(w=60), PATCH.data), (dict(y=30), PATCH.data), (dict(x=1), PATCH.data)])
def test_a_hostile_patch_changes_nothing_and_holds_no_memory(picture, change, data, caplog):
    content = dict(kind="patch", epoch=picture.epoch, at=0, **PATCH.place)
    picture.receive({**content, **change}, [data])
    assert not picture.editor.mask.any() and len(picture.bands) <= 40 * 8
    assert "again" in caplog.text
    stroke(picture, PATCH)
    assert picture.editor.mask.sum() == PATCH.flips.sum(), "the next one is whole"


def test_events(picture):
    heard = []
    picture.on_event(lambda name, payload: heard.append((name, payload)))
    picture.receive(dict(kind="measure", a=[10, 20], b=[13, 24.0]), [])
    picture.millimetres = 0.1
    picture.receive(dict(kind="measure", a=[10, 20], b=[13, 24]), [])
    picture.receive(dict(kind="pick", at=[60, 39.9]), [])
    picture.receive(dict(kind="key", action="next"), [])
    assert heard == [("measure", dict(a=(10.0, 20.0), b=(13.0, 24.0), pixels=5.0, millimetres=None)),
                     ("measure", dict(a=(10.0, 20.0), b=(13.0, 24.0), pixels=5.0, millimetres=0.5)),
                     ("pick", dict(y=39, x=59)), ("key", dict(key="next"))]


def test_words_that_do_not_exist_are_refused(picture):
    for name, value in (("tool", "hammer"), ("mode", "both"), ("radius", 0)):
        with pytest.raises(traitlets.TraitError): setattr(picture, name, value)
    assert set(TOOLS) - set(KEYS.values()) == set() and MODES[0] == picture.mode


def test_a_line_has_its_rings_one_after_the_other():
    ring, hole = np.array([[0, 0], [9, 0], [9, 9]]), np.array([[2, 1], [3, 1], [3, 2.123]])
    assert line("m", "Model", [[ring, hole]], "#00e6ff", dash=(4, 2), pane=1) == dict(
        name="m", label="Model", colour="#00e6ff", dash=[4, 2], width=2, pane=1, shown=True,
        polygons=[[[0, 0], [9, 0], [9, 9]], [[2, 1], [3, 1], [3, 2.12]]])
