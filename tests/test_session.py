"""The state of a reader: hostile input, limits, decisions, and results against what the rest of the package gives."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from lesion_seg.core import InputError, encode_jpeg, encode_png
from lesion_seg.data import read_mask
from lesion_seg.metrics import score_pair
from lesion_seg.phantom import make_phantom
from lesion_seg.session import BORDERS, KEPT, MAPS, Corrected, Limits, Session, looks_like_mask, mask_polygons, plain_name
from lesion_seg.takeaway import INDEX, Desk, is_session, open_session, reviewable, save_session


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


def test_equal_names_stay_apart_and_the_table_joins_them(session, phantom):
    for i in range(3): session.add("a.jpg", encoded(np.roll(phantom.image, 30 * i, 1)))
    session.start_zip(overlays=False)
    for key in session.photographs: session.add_to_zip(key)
    archive = zipfile.ZipFile(io.BytesIO(session.end_zip()))
    masks = [n for n in archive.namelist() if n.endswith("_mask.png")]
    assert len(masks) == 3
    for stem, key in zip(session.stems().values(), session.photographs, strict=True):
        assert np.array_equal(read_mask(archive.read(f"{stem}_mask.png")), session.segment(key).mask)


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
    data = encoded(phantom.image, "PNG") + bytes(700_000)  # trailing bytes do not disturb a PNG
    session = Session(limits=Limits(file_mb=1, total_mb=1))
    session.add("a.png", data)
    with pytest.raises(InputError, match=r"b\.png: does not fit, since a session holds 1 MB"): session.add("b.png", data)


def test_photographs_are_no_masks(phantom):
    assert looks_like_mask(encoded(phantom.mask, "PNG")) and looks_like_mask(encoded(phantom.mask.view(np.uint8) * 255))
    assert not looks_like_mask(encoded(phantom.image)) and not looks_like_mask(encoded(phantom.image.mean(2).astype(np.uint8)))


def test_every_file_ends_somewhere(session, phantom):
    "Photographs, masks of them, masks that wait, and files left out: nothing is given that is nowhere."
    mask, photo = encoded(phantom.mask, "PNG"), encoded(phantom.image)
    given = [("a.jpg", photo), ("a_mask.png", mask), ("a_seg.png", mask), ("alone_mask.png", mask), ("letter.txt", b"Dear doctor,"), ("b.png", photo)]
    for file in given:
        try: session.add(*file)
        except InputError: pass
    photographs = list(session.photographs.values())
    places = len(photographs) + sum(p.truth is not None for p in photographs) + len(session.masks) + len(session.broken)
    assert places == len(given) and [name for name, _ in session.broken] == ["a_seg.png", "letter.txt"]


def test_a_threshold_belongs_to_one_photograph(session):
    keys = [session.add(f"{seed}.jpg", encoded(make_phantom(seed, (150, 200)).image))["key"] for seed in (57, 46, 41)]
    before = [session.segment(k).mask for k in keys]
    session.choose(keys[0], 0.9)
    assert session.segment(keys[0]).mask.sum() < before[0].sum()
    for key, mask in zip(keys[1:], before[1:], strict=True): assert np.array_equal(session.segment(key).mask, mask)
    later = session.add("later.jpg", encoded(make_phantom(41, (150, 200)).image))["key"]
    assert session.summary(later)["threshold"] == session.segmenter("shipped").bundle.threshold
    session.decide(keys[1], "accepted")
    session.choose_for_all(keys[0])
    assert [session.photograph(k).level for k in keys] == [0.9, None, 0.9], "what was reviewed stays"


def test_borders_are_nested(session):
    for seed in range(40, 46):
        borders = session.borders(session.add(f"{seed}.jpg", encoded(make_phantom(seed, (150, 200)).image))["key"])
        masks = [borders[name].mask for name in BORDERS]
        assert not (masks[0] & ~masks[1]).any() and not (masks[1] & ~masks[2]).any()


def test_a_drawn_mask_is_saved_as_it_was_drawn(session, phantom):
    "At the photograph's own resolution, in every file, after a rest as well; and undo leads back to the network's border."
    key = session.add("p.jpg", encoded(phantom.image))["key"]
    network = session.segment(key).mask.copy()
    rng = np.random.default_rng(1)
    editor = session.edit(key)
    drawn = network.copy()
    for _ in range(5):
        y, x = rng.integers(0, 140), rng.integers(0, 190)
        drawn[y:y + 9, x:x + 7] ^= True
        editor.replace(drawn)
    session.photograph(key).rest()
    assert np.array_equal(read_mask(session.download(key, "mask")[1]), drawn)
    record = json.loads(session.download(key, "json")[1])
    assert (record["border"], record["threshold"], record["measures"]["area_px"]) == ("corrected", None, int(drawn.sum()))
    editor = session.edit(key)
    while editor.undo(): pass
    assert np.array_equal(editor.mask, network) and not session.photograph(key).is_corrected
    while editor.redo(): pass
    assert np.array_equal(editor.mask, drawn)


def test_polygons_of_a_mask_enclose_its_area():
    rng = np.random.default_rng(0)
    for _ in range(5):
        mask = np.kron(rng.random((8, 9)) > 0.5, np.ones((16, 16))) > 0
        area = sum(np.sum(r[:-1, 0] * r[1:, 1] - r[1:, 0] * r[:-1, 1]) / 2 for polygon in mask_polygons(mask) for r in polygon)
        assert area == pytest.approx(mask.sum(), rel=0.02)  # corners are cut


def test_a_decision_holds_for_the_border_that_was_seen(session, phantom):
    key = session.add("p.jpg", encoded(phantom.image))["key"]
    for change in (lambda: session.choose(key, "wide"), lambda: session.choose(key, 0.7), lambda: session.edit(key).clear(), lambda: session.discard(key)):
        session.decide(key, "accepted")
        assert session.photograph(key).state in ("accepted", "corrected")
        change()
        assert session.photograph(key).state == "changed"
    session.decide(key, "accepted")
    session.choose(key, 0.7)  # as it is already
    assert session.photograph(key).state == "accepted"


def test_one_job_at_a_time(session):
    with session.working("Reading", total=3):
        with pytest.raises(InputError, match="still at work"), session.working("Archive"): pass
        session.cancel()
        assert session.job.cancelled
    assert session.job is None
    with pytest.raises(ZeroDivisionError), session.working("Reading"): 1 / 0  # noqa: B018
    assert session.job is None


def test_old_predictions_are_forgotten_and_decisions_are_not(session, phantom, monkeypatch):
    monkeypatch.setattr("lesion_seg.session.KEPT", 2)
    keys = [session.add(f"{i}.jpg", encoded(phantom.image))["key"] for i in range(4)]
    session.choose(keys[0], 0.8)
    for key in keys: session.own(key)
    assert KEPT > 2 and [session.photograph(k).prediction is None for k in keys] == [True, True, False, False]
    assert not session.unread() and session.summary(keys[0])["threshold"] == 0.8


def test_a_map_follows_the_border(session, phantom):
    key = session.add("p.jpg", encoded(phantom.image))["key"]
    first = session.layer(key, "sure")
    session.choose(key, 0.9)
    assert session.layer(key, "sure").text != first.text
    with pytest.raises(InputError, match="choose from"): session.layer(key, "nose")
    assert {Image.open(io.BytesIO(session.layer(key, kind).picture)).mode for kind in ("std", "entropy")} == {"RGBA"} and len(MAPS) == 5


def test_corrected_keeps_what_the_network_said(session, phantom):
    key = session.add("p.jpg", encoded(phantom.image))["key"]
    own = session.own(key)
    drawn = Corrected.of(own, phantom.mask)
    assert np.array_equal(drawn.probability, own.probability)
    inside = own.small[drawn.cleaned > 0]
    assert drawn.measure()["mean_probability"] == pytest.approx(float(inside.mean()))


# ---- a session in a file
@pytest.fixture(scope="module")
def saved(phantom):
    session = Session(threads=1)
    key = session.add("p.jpg", encoded(phantom.image))["key"]
    session.edit(key).replace(phantom.mask)
    session.decide(key, "accepted", "note")
    return save_session(session)


def changed(data: bytes, change=None, files=None, index=None) -> bytes:
    "The same archive with something changed."
    old, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == INDEX:
                table = json.loads(content)
                if change: change(table["photographs"][0])
                content = index if index is not None else json.dumps(table).encode()
            content = (files or {}).get(name, content)
            if content is not None: new.writestr(name, content)
    return out.getvalue()


HOSTILE = {
    "a word of another type": lambda e: e.update(name=7),
    "an unknown state": lambda e: e.update(state="root"),
    "an unknown border": lambda e: e.update(border="../x"),
    "a threshold out of range": lambda e: e.update(border="level", level=7),
    "a threshold that is true": lambda e: e.update(border="level", level=True),
    "a level without a threshold": lambda e: e.update(border="level"),
    "a size of a pixel below zero": lambda e: e.update(millimetres=-1),
    "a photograph that is elsewhere": lambda e: e.update(photograph="/etc/passwd"),
    "a photograph that is a list": lambda e: e.update(photograph=["x"]),
    "no photograph": lambda e: e.pop("photograph"),
    "a drawing in the place of the photograph": lambda e: e.update(drawing=e["photograph"])}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_session_is_refused_whole(saved, change):
    session = Session(threads=1)
    with pytest.raises(InputError) as e: open_session("s.zip", changed(saved, change), session)
    assert "\n" not in str(e.value) and not session.photographs


def test_damaged_sessions_are_refused(saved, phantom):
    bomb = encode_png(np.zeros((9000, 9000), np.uint8))
    wrong = [saved[:300], b"", changed(saved, index=b"[]"), changed(saved, index=b"{"), changed(saved, index=b"[" * 100_000), changed(saved, files={"drawings/0000": bomb}),
             changed(saved, files={"drawings/0000": None}), changed(saved, files={"photographs/0000": bytes(3_000_000)}), changed(saved, files={INDEX: None})]
    for data in wrong:
        session = Session(limits=Limits(file_mb=2), threads=1)
        with pytest.raises(InputError): open_session("s.zip", data, session)
        assert not session.photographs
    assert is_session(saved) and not is_session(b"PK\x03\x04") and not is_session(encode_jpeg(phantom.image))


def test_every_cut_and_every_broken_byte_of_a_session_is_a_sentence(saved):
    rng, session = np.random.default_rng(0), Session(threads=1)
    for _ in range(60):
        data = bytearray(saved)
        for at in rng.integers(0, len(data), 8): data[at] = rng.integers(256)
        session.clear()
        try: open_session("s.zip", bytes(data[:rng.integers(len(data) // 2, len(data) + 1)]), session)
        except InputError as e: assert "\n" not in str(e)


def test_a_session_opens_as_it_was_saved(saved, phantom):
    session = Session(threads=1)
    assert open_session("s.zip", saved, session) == []
    photograph, = session.photographs.values()
    assert (photograph.name, photograph.state, photograph.note) == ("p.jpg", "corrected", "note")
    assert np.array_equal(session.segment(photograph.key).mask, phantom.mask)


# ---- a folder
@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for seed in (57, 46): (tmp_path / "in" / f"{seed}.jpg").write_bytes(encoded(make_phantom(seed, (150, 200)).image))
    return tmp_path


def test_a_closed_tab_loses_nothing(folder):
    "After each stroke the files are whole, whatever comes next."
    session = Session(threads=1)
    desk = Desk(session, folder / "in", folder / "out")
    first, second = session.photographs
    editor = session.edit(first)
    for size in (10, 20, 30):
        mask = np.zeros((150, 200), bool)
        mask[:size] = True
        editor.replace(mask)
        again = Session(threads=1)
        Desk(again, folder / "in", folder / "out")
        assert np.array_equal(again.segment([*again.photographs][0]).mask, mask)
        desk.token = (folder / "out" / ".owner").read_text()  # and back to the first tab
    session.choose(second, 0.8)
    session.decide(second, "accepted", "=1+1")
    again = Session(threads=1)
    Desk(again, folder / "in", folder / "out")
    last = [*again.photographs.values()][1]
    assert (last.level, last.state, last.note) == (0.8, "accepted", "=1+1")
    assert not [p for p in (folder / "out").rglob("*") if p.name.startswith(".") and p.name != ".owner"]


def test_a_full_disk_is_said(folder, monkeypatch):
    session = Session(threads=1)
    desk = Desk(session, folder / "in", folder / "out")
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.replace", full)
    session.decide([*session.photographs][0], "accepted")
    assert "cannot be written (No space left on device)" in desk.problem


def test_what_can_be_reviewed(folder):
    (folder / "in" / "57_mask.png").write_bytes(encoded(make_phantom(57, (150, 200)).mask, "PNG"))
    (folder / "in" / "57_overlay.jpg").write_bytes(encoded(make_phantom(57, (150, 200)).image))
    pairs = {p.image.name: p.mask and p.mask.name for p in reviewable(folder / "in")}
    assert pairs == {"57.jpg": "57_mask.png", "46.jpg": None}
    (folder / "t.csv").write_text("image,group\nin/46.jpg,anna\n")
    session = Session(threads=1)
    Desk(session, folder / "t.csv", folder / "out")
    session.decide([*session.photographs][0], "accepted")
    assert "anna" in (folder / "out" / "corrected.csv").read_text()
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no photographs"): reviewable(folder / "empty")
