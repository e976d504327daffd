"""The drop zone's Python side: files in parts, from a page that may do anything."""

import pytest

from lesion_seg.core import InputError
from lesion_seg.dropzone import OPEN, DropZone, plain_path


@pytest.fixture
def zone():
    z = DropZone(max_file_bytes=1000)
    z.sent, z.files, z.events = [], [], []
    z.send = lambda content, buffers=None: z.sent.append(content)
    z.on_file(lambda name, data: z.files.append((name, data)))
    z.on_event(lambda event, payload: z.events.append((event, payload)))
    return z


def begin(z, number="a", name="mole.jpg", size=5): z.receive(dict(kind="file", id=number, name=name, size=size), [])
def part(z, at, data, number="a"): z.receive(dict(kind="part", id=number, at=at), [memoryview(data)] if data is not None else [])


def test_a_file_in_parts(zone):
    begin(zone, name="set/mole.jpg")
    part(zone, 0, b"ab")
    assert zone.files == []
    part(zone, 2, b"cde")
    assert zone.files == [("set/mole.jpg", b"abcde")] and type(zone.files[0][1]) is bytes and zone.arriving == {}
    assert zone.sent == [dict(kind="go_on", id="a", at=0), dict(kind="go_on", id="a", at=2), dict(kind="done", id="a")]


@pytest.mark.parametrize("at, data", [(1, b"ab"), ("0", b"ab"), (None, b"ab"), (0, b""), (0, None), (0, b"abcdef"), (-1, b"ab")])
def test_parts_out_of_order_or_size_are_refused(zone, at, data):
    begin(zone)
    part(zone, at, data)
    assert zone.sent[-1] == dict(kind="refused", id="a", why="mole.jpg: came in the wrong order; choose it again")
    assert zone.arriving == {} and zone.files == [] and zone.events == [("left_out", dict(name="mole.jpg", why=zone.sent[-1]["why"]))]
    part(zone, 0, b"abcde")  # it is not taken up again
    assert zone.files == []


@pytest.mark.parametrize("size, why", [(0, "is empty"), (1001, "the limit is"), (-1, "has no size"), ("5", "has no size"), (True, "has no size"),
                                       (5.0, "has no size"), (None, "has no size"), (10**15, "the limit is")])
def test_sizes(zone, size, why):
    begin(zone, size=size)
    assert why in zone.sent[-1]["why"] and zone.arriving == {}


def test_pages_that_were_closed_half_way_hold_no_memory(zone):
    for i in range(50):
        begin(zone, str(i))
        part(zone, 0, b"abc", str(i))
    assert list(zone.arriving) == [str(i) for i in range(50 - OPEN, 50)]
    zone.receive(dict(kind="stop", id="49"), [])
    zone.receive(dict(kind="stop", id="never"), [])
    assert len(zone.arriving) == OPEN - 1


def test_a_sentence_of_the_callback_is_the_answer(zone):
    def refuse(name, data): raise InputError(name, "is a mask", "add its photograph")
    zone.on_file(refuse)
    begin(zone)
    part(zone, 0, b"abcde")
    assert zone.sent[-1] == dict(kind="refused", id="a", why="mole.jpg: is a mask; add its photograph")
    assert zone.events == [("left_out", dict(name="mole.jpg", why="mole.jpg: is a mask; add its photograph"))]


def test_a_failure_of_the_program_does_not_stop_the_queue(zone, caplog):
    def fail(name, data): raise ZeroDivisionError
    zone.on_file(fail)
    begin(zone)
    part(zone, 0, b"abcde")
    assert zone.sent[-1]["kind"] == "refused" and "went wrong" in zone.sent[-1]["why"] and "ZeroDivisionError" in caplog.text


def test_what_happens_to_a_drop(zone):
    zone.receive(dict(kind="begun", files=3), [])
    zone.receive(dict(kind="left_out", files=[dict(name="a/../b.txt", why="is not a photograph"), 7, dict(name=None)]), [])
    zone.receive(dict(kind="finished"), [])
    assert zone.events == [("begun", dict(files=3)), ("left_out", dict(name="a/b.txt", why="is not a photograph")),
                           ("left_out", dict(name="None", why="None")), ("finished", {})]
    assert zone.sent == []


@pytest.mark.parametrize("content", [None, 7, [], {}, dict(kind=[]), dict(kind="act"), dict(kind="part", id="a", at=0), dict(kind="file")])
def test_what_cannot_be_right_is_refused(zone, content):
    zone.receive(content, [])
    assert zone.sent[-1]["kind"] == "refused" and zone.files == [] and zone.arriving == {}


@pytest.mark.parametrize("content", [dict(kind="begun", files="many"), dict(kind="left_out", files=7), dict(kind="left_out")])
def test_odd_news_do_no_harm(zone, content):
    zone.receive(content, [])
    assert zone.sent == [] and all(payload in ({}, dict(files=0)) for _, payload in zone.events)


@pytest.mark.parametrize("name, plain", [("a.jpg", "a.jpg"), ("/etc/passwd", "etc/passwd"), ("../../x.jpg", "x.jpg"), ("a\\b.jpg", "a/b.jpg"),
                                         ("a//./b.jpg", "a/b.jpg"), ("x\u202egpj.exe", "xgpj.exe"), ("\x00\n", "file"), ("", "file"), (None, "None"),
                                         ("y/" * 200 + "z.jpg", ("y/" * 200 + "z.jpg")[-199:]),
                                         ("x" * 9 + "../" + "y" * 198, "y" * 198)])
def test_names(name, plain): assert plain_path(name) == plain
