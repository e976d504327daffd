"""The session behind the web app: hostile input, limits, and results against what the rest of the package gives."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from lesion_seg.app import LesionApp
from lesion_seg.core import InputError
from lesion_seg.metrics import score_pair
from lesion_seg.phantom import make_phantom
from lesion_seg.session import EXAMPLES, Limits, Session, looks_like_mask, plain_name


def encoded(a, fmt="JPEG", **kw):
    f = io.BytesIO()
    Image.fromarray(a).save(f, fmt, **kw)
    return f.getvalue()


@pytest.fixture(scope="module")
def phantom(): return make_phantom(57, (150, 200))


@pytest.fixture
def session(): return Session(threads=1)


NAMES = ["../../../etc/passwd.jpg", "C:\\Windows\\a.jpg", "a/b\x00c.jpg", "<img src=x onerror=alert(1)>.jpg", "\u202egpj.exe", "=1+1.jpg", "CON.jpg",
         "." * 300, "", "   ", "名前.jpg", "x" * 400 + ".jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_reaches_outside_an_archive(session, phantom, name):
    assert 0 < len(plain_name(name)) <= 120 and not set(plain_name(name)) & set("/\\\x00\r\n\u202e")
    key = session.add(name, encoded(phantom.image))["key"]
    session.start_zip()
    session.add_to_zip(key)
    members = zipfile.ZipFile(io.BytesIO(session.end_zip())).namelist()
    assert len(members) == 4
    assert all(m == m.strip() and not m.startswith((".", "/", "-", "=")) and not set(m) & set('/\\:*?"<>|') for m in members), members


def test_equal_names_stay_apart(session, phantom):
    for i in range(3): session.add("a.jpg", encoded(np.roll(phantom.image, 30 * i, 1)))
    session.start_zip(overlays=False)
    for key in session.photographs: session.add_to_zip(key)
    archive = zipfile.ZipFile(io.BytesIO(session.end_zip()))
    masks = [n for n in archive.namelist() if n.endswith("_mask.png")]
    assert len(masks) == 3
    read = [np.asarray(Image.open(archive.open(n))) > 0 for n in masks]
    for mask, key in zip(read, session.photographs, strict=True): assert np.array_equal(mask, session.segment(key).mask)


def test_scores_are_those_of_the_metrics(session, phantom):
    key = session.add("p.jpg", encoded(phantom.image))["key"]
    assert session.add("p_segmentation.png", encoded(phantom.mask, "PNG"))["partner"] == key
    told, expected = session.summary(key), score_pair(session.segment(key).mask, phantom.mask)
    assert (told["dice"], told["jaccard"]) == (expected["dice"], expected["jaccard"])


STRANGE = [b"", b"PK\x03\x04" + bytes(100), b"GIF89a" + bytes(100), b"<!doctype html>", b"\x89PNG\r\n\x1a\n" + bytes(50), bytes(128) + b"DICM" + bytes(64),
           b"\xff\xd8\xff" + bytes(1000)]


@pytest.mark.parametrize("data", STRANGE)
def test_strange_bytes_are_one_sentence_with_the_files_name(session, data):
    with pytest.raises(InputError, match=r"strange\.jpg") as e:
        session.segment(session.add("strange.jpg", data)["key"])
    assert "\n" not in str(e.value) and "the given image" not in str(e.value)
    assert not session.photographs and session.broken[0][0] == "strange.jpg"


def test_a_picture_that_claims_too_many_pixels_is_not_decoded(session):
    for side in (11_000, 30_000):  # above the app's limit, and above the library's
        bomb = io.BytesIO()
        Image.new("1", (side, side)).save(bomb, "PNG")
        with pytest.raises(InputError, match=rf"bomb\.png: has {side} x {side} pixels, more than"): session.add("bomb.png", bomb.getvalue())


def test_the_session_as_a_whole_is_limited(phantom):
    data = encoded(phantom.image, "PNG") + bytes(600_000)  # trailing bytes do not disturb a PNG
    session = Session(limits=Limits(file_mb=1, total_mb=1))
    session.add("a.png", data)
    with pytest.raises(InputError, match=r"b\.png: does not fit, since a session holds 1 MB"): session.add("b.png", data)


def test_photographs_are_no_masks(phantom):
    assert looks_like_mask(encoded(phantom.mask, "PNG")) and looks_like_mask(encoded(phantom.mask.view(np.uint8) * 255))
    assert not looks_like_mask(encoded(phantom.image)) and not looks_like_mask(encoded(phantom.image.mean(2).astype(np.uint8)))


def test_every_message_gets_an_answer(phantom):
    "Whatever a page sends, the answer is a reply or a sentence, and the widget lives on."
    app = LesionApp(Session(threads=1))
    data = encoded(phantom.image)
    def put(): return app.answer(dict(id=1, do="put", name="a.jpg", size=len(data), at=0), [data])[0]["key"]
    key = put()
    strange = [None, 3, "x", [], {}, dict(id=1), dict(id=1, do="__init__"), dict(id=1, do="answer")]
    strange += [dict(id=1, do=what) for what in app.questions()]
    wrong = dict(key=[], threshold="x", name={}, kind=7, size=-1, at=-1, part=-1, token=3, bundle=[])
    strange += [dict(id=1, do=what, **wrong) for what in app.questions()]
    for message in strange:
        reply, buffers = app.answer(message, [])
        assert isinstance(reply, dict) and isinstance(buffers, list) and "Traceback" not in json.dumps(reply)
    key = key if key in app.session.photographs else put()  # one of the messages was 'clear'
    assert app.answer(dict(id=2, do="show", key=key), [])[0]["result"]["name"] == "a.jpg"


def test_the_examples_are_the_ones_of_the_page():
    app = LesionApp(Session(threads=1))
    assert [e["name"] for e in app.setup["examples"]] == list(EXAMPLES) and len(app.thumbs) == len(EXAMPLES)
    assert all(Image.open(io.BytesIO(t)).size == (240, 180) for t in app.thumbs)


def test_strange_questions_are_not_program_errors(caplog):
    "A question of the wrong type is the page's mistake, or an attacker's: it gets a sentence and is not logged as a fault of ours."
    app = LesionApp(Session(threads=1))
    for what in app.questions():
        for value in (None, [], {}, -1, 1e300, float("nan"), "x" * 1000, True):
            app.answer(dict(id=1, do=what, key=value, threshold=value, name=value, kind=value, size=value, at=value, part=value, token=value, bundle=value), [])
    assert not caplog.records


def test_half_an_upload_counts_against_the_memory():
    app = LesionApp(Session(limits=Limits(file_mb=1, total_mb=2), threads=1))
    for i in range(2): assert "token" in app.answer(dict(id=i, do="put", name=f"{i}.png", size=1_000_000, at=0), [bytes(900_000)])[0]
    assert "does not fit" in app.answer(dict(id=3, do="put", name="c.png", size=900_000, at=0), [b"x"])[0]["error"]
