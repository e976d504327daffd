"""The page without a browser: what a reader presses, what it says then, and what a hostile browser may send."""

import io
import re

import ipywidgets as widgets
import numpy as np
import pytest
import traitlets
from PIL import Image

from lesion_seg.app import TABS, WEB, LesionApp, number_texts, words
from lesion_seg.core import InputError
from lesion_seg.phantom import make_phantom
from lesion_seg.session import BORDERS, EXAMPLES, Limits, Session


def encoded(a, fmt="JPEG"):
    f = io.BytesIO()
    Image.fromarray(a).save(f, fmt)
    return f.getvalue()


@pytest.fixture(scope="module")
def phantom(): return make_phantom(57, (150, 200))


@pytest.fixture
def app(): return LesionApp(Session(threads=1), wait=True)


@pytest.fixture
def three(app):
    for seed in (57, 46, 41): app.take_file(f"{seed}.jpg", encoded(make_phantom(seed, (150, 200)).image))
    return app


def test_the_start_page_offers_the_examples(app):
    for title, *_ in EXAMPLES.values(): assert title in words(app)
    assert words(app).count("not a medical device") == 1 and app.work.layout.display == "none"


def test_the_threshold_of_one_photograph_is_not_that_of_the_others(three):
    reader = three.reader
    keys = reader.session.queue()
    reader.act(reader.open, keys[0])
    three.choose.level.value = 0.9
    assert [reader.session.photograph(k).level for k in keys] == [0.9, None, None]
    assert "threshold 0.900" in dict(map(reversed, three.queue.list.options))[keys[0]]
    reader.act(reader.open, keys[1])
    assert three.choose.level.value == pytest.approx(reader.session.segmenter("shipped").bundle.threshold)
    three.choose.border.value = "wide"
    three.choose.for_all.click()
    assert [reader.session.photograph(k).border for k in keys] == ["wide"] * 3 and "2 other photographs" in words(three.news)


def test_every_number_follows_the_border(three):
    "Captions, maps and scores are those of the border that is shown, at every step."
    reader = three.reader
    mask = encoded(make_phantom(57, (150, 200)).mask, "PNG")
    three.take_file("57_mask.png", mask)
    key = next(k for k in reader.session.photographs if reader.session.photograph(k).name == "57.jpg")
    reader.act(reader.open, key)
    three.tabs.tab.value = "Compare"
    parts = {name: part for name, part in three.tabs.parts.items()}
    parts["Compare"].other.value = "truth"
    parts["Maps"].kind.value = "sure"
    seen = set()
    for border in (*BORDERS, 0.3, 0.8):
        if isinstance(border, str): three.choose.border.value = border
        else: three.choose.level.value = border
        summary = reader.session.summary(key)
        for text in number_texts(summary).values(): assert text in words(three.numbers)
        assert f"{summary['dice']:.3f}" in words(parts["Compare"])
        assert reader.layer.text == reader.session.layer(key, "sure").text
        seen.add(words(three.numbers))
    assert len(seen) == 5


def test_reviewing_by_keys(three):
    reader, picture = three.reader, three.stage.picture
    first, second, third = reader.session.queue()
    reader.act(reader.open, first)
    def press(action): picture.receive(dict(kind="key", action=action), [])
    press("accept")
    assert (reader.key, reader.session.photograph(first).state) == (second, "accepted")
    press("tight")
    press("accept")
    assert (reader.key, reader.session.photograph(second).border) == (third, "tight")
    press("skip")
    assert "Everything was reviewed" in words(three.news) and three.reader.session.progress()["waiting"] == 0
    press("previous")
    assert reader.key == second
    press("help")
    assert "fill holes" in words(three.header)
    press("nonsense")
    assert reader.key == second


def test_drawing_and_the_way_back(three):
    reader, picture = three.reader, three.stage.picture
    key = reader.session.queue()[0]
    reader.act(reader.open, key)
    before = reader.session.segment(key).mask.copy()
    three.correct.tool.value = "brush"
    assert picture.tool == "brush" and picture.editor is reader.photograph.editor
    assert not reader.photograph.is_corrected, "to take the brush is no correction"
    picture.receive(dict(kind="patch", epoch=picture.epoch, y=0, x=0, h=4, w=8, at=0), [bytes([255] * 4)])
    assert reader.facts["border"] == "corrected" and "drawn" in dict(map(reversed, three.queue.list.options))[key]
    drawn = before.copy()
    drawn[:4, :8] ^= True
    assert np.array_equal(reader.session.segment(key).mask, drawn) and f"{drawn.sum():,}" in words(three.numbers)
    three.correct.undo.click()
    assert np.array_equal(reader.session.segment(key).mask, before) and reader.facts["border"] == "middle"
    three.correct.redo.click()
    reader.act(reader.go, 1)
    reader.act(reader.go, -1)
    assert np.array_equal(picture.editor.mask, drawn)
    three.correct.discarding.click()
    assert reader.facts["border"] == "middle" and picture.editor is None


def test_a_job_is_alone(three):
    reader = three.reader
    given = []
    reader.save = lambda name, data, mime: given.append(name)
    with reader.session.working("Reading", total=3):
        reader.refresh()
        assert three.tabs.parts["Take away"].zip.disabled and three.tabs.parts["About"].model.disabled
        reader.act(reader.archive)
        assert reader.is_alert and "still at work" in reader.says
        reader.act(reader.use_model, "shipped")
        assert "still at work" in reader.says
    assert not given
    reader.act(reader.archive)
    assert given == ["lesion_seg_results.zip"]


def test_start_over_asks_first(three):
    three.header.over.click()
    assert len(three.reader.session.photographs) == 3 and "Forget all photographs and decisions?" in words(three)
    keep = three.header.sure.children[2]
    keep.click()
    assert "Forget all photographs and decisions?" not in words(three)
    three.header.over.click()
    three.header.sure.children[1].click()
    assert not three.reader.session.photographs and three.work.layout.display == "none"


def test_leaving_asks_where_work_would_be_lost(three):
    assert three.zone.unsaved
    three.reader.save = lambda *_: None
    three.reader.act(three.reader.save_session)
    assert not three.zone.unsaved
    three.reader.act(three.reader.decide, "accepted")
    assert three.zone.unsaved


def test_files_left_out_are_listed(app, phantom):
    for name, data in (("letter.txt", b"Dear doctor,"), ("<b>x</b>_mask.png", encoded(phantom.mask, "PNG")), ("empty.jpg", b"")):
        try: app.take_file(name, data)
        except InputError: pass
    app.heard("left_out", dict(name="big.tif", why="has 300 MB; the limit is 200 MB a file"))
    text = words(app.news)
    assert "4 files left out" in text and all(name in text for name in ("letter.txt", "b>_mask.png" if "b>_mask.png" in text else "x", "empty.jpg", "big.tif"))
    assert "<b>x" not in app.news.left_out.value


def test_names_are_text(app, phantom):
    app.take_file("<img src=x onerror=alert(1)>.jpg", encoded(phantom.image))
    def values(widget):
        yield getattr(widget, "value", "") if isinstance(widget, widgets.HTML) else ""
        for child in getattr(widget, "children", ()): yield from values(child)
    assert not [v for v in values(app) if "<img src=x" in v] and "&lt;img" in app.review.head.value


def test_whatever_a_browser_writes_into_a_widget(three, caplog):
    "Values of another type are refused by their traits; strange ones of the right type are a sentence at most."
    reader = three.reader
    reader.act(reader.open, reader.session.queue()[0])
    def every(widget):
        yield widget
        for child in getattr(widget, "children", ()): yield from every(child)
    for widget in every(three):
        for name in widget.traits(sync=True):
            if name.startswith("_") or name in ("layout", "style", "children", "comm", "options"): continue
            for value in (None, [], {}, -1, 1e300, float("nan"), "x" * 1000, True, 10**9):
                try: widget.set_state({name: value})
                except (traitlets.TraitError, TypeError, ValueError, KeyError, AttributeError, OverflowError): pass
    assert "went wrong" not in reader.says and not [r for r in caplog.records if r.name == "lesion_seg.app"]


def test_messages_that_are_not_ours(three):
    for content in (None, 3, "x", [], {}, dict(kind=[]), dict(kind="file"), dict(kind="key", action=[]), dict(kind="pick", at=[1e9, 1]), dict(kind="pick", at="xy"),
                    dict(kind="patch", epoch=three.stage.picture.epoch, y=-1, x=0, h=9, w=8, at=0), dict(kind="here")):
        three.stage.picture.receive(content, [b"xx"])
        three.zone.receive(content, [b"xx"])
    assert three.reader.photograph is not None


def test_limits_are_said(phantom):
    app = LesionApp(Session(limits=Limits(file_mb=1, files=1), threads=1), wait=True)
    app.take_file("a.jpg", encoded(phantom.image))
    with pytest.raises(InputError, match="holds 1 photograph;"): app.take_file("b.jpg", encoded(phantom.image))
    assert "1 file left out" in words(app.news) and (app.zone.max_files, app.zone.max_file_bytes) == (1, 2 ** 20)


def test_a_session_is_opened_from_the_page(three):
    given = {}
    three.reader.save = lambda name, data, mime: given.update({name: data})
    three.reader.act(three.reader.decide, "accepted")
    three.tabs.parts["Take away"].keep.click()
    again = LesionApp(Session(threads=1), wait=True)
    again.take_file("session.zip", given["lesion_seg_session.zip"])
    assert [p.state for p in again.reader.session.photographs.values()].count("accepted") == 1 and again.reader.photograph is not None


def test_the_style_is_for_the_page_alone():
    css = (WEB / "app.css").read_text(encoding="utf-8")
    assert not re.search(r":root|(?<![\w-])(html|body)\b|#main|@import|url\(", css)
    assert len(TABS) == 5
