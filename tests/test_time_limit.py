"""Time limits: what takes for ever, dies or fails in another process costs one sentence, and the next call finds a worker again."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lesion_seg.core import InputError, encode_jpeg
from lesion_seg.phantom import make_phantom
from lesion_seg.time_limit import TimeLimited, check_time, decode_once


@pytest.fixture
def limited():
    made = []
    def make(*args):
        made.append(TimeLimited(*args))
        return made[-1]
    yield make
    for one in made: one.close()


def gone(pid):
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_one_worker_serves_all_calls_until_one_takes_too_long(limited):
    pid = limited(os.getpid, 20)
    assert pid() == pid() != os.getpid()
    sleep = limited(time.sleep, 0.5)
    sleep(0)
    first = sleep.process.pid
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"mole.tif: took longer than 0.5 seconds; save it again, or leave it out"): sleep(1000, about="mole.tif")
    assert time.monotonic() - begin < 20 and gone(first)
    sleep(0)
    assert sleep.process.pid != first


def test_a_decoder_that_hangs_in_c_is_ended(limited):
    "No signal reaches it there, as none reaches a loop in libjpeg: this one holds the interpreter's lock for ever."
    power = limited(pow, 1)
    with pytest.raises(InputError, match="took longer than 1 seconds"): power(7, 10**9)
    assert power(2, 10) == 1024


def test_what_dies_and_what_fails(limited):
    leave = limited(os._exit, 20)
    with pytest.raises(InputError, match="the file: ended the process that was to read it"): leave(1)
    with pytest.raises(InputError, match="mole.jpg: ended the process"): leave(0, about="mole.jpg")
    number = limited(int, 20)
    with pytest.raises(ValueError, match="invalid literal"): number("x")
    assert number("7") == 7
    unsendable = limited(open, 20)
    with pytest.raises(TypeError, match="a TextIOWrapper cannot be sent"): unsendable(os.devnull)
    assert unsendable.process.is_alive()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_limit_that_is_none(seconds):
    with pytest.raises(InputError, match="is not a time"): TimeLimited(time.sleep, seconds)


def test_several_threads_take_turns(limited):
    absolute, results = limited(abs, 20), []
    threads = [threading.Thread(target=lambda i=i: results.append((i, absolute(-i)))) for i in range(20)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert sorted(results) == [(i, i) for i in range(20)]


def test_photographs(limited):
    photo = encode_jpeg(make_phantom(3, (64, 96)).image)
    assert decode_once(photo) == (64, 96) and decode_once(b"no picture") is None and decode_once(b"") is None
    decoder = limited(decode_once, 60)
    check_time(photo, "mole.jpg", decoder)
    check_time(photo[:200], "mole.jpg", decoder)  # damage is said elsewhere
    large = encode_jpeg(np.zeros((4000, 6000, 3), np.uint8))
    decoder.seconds = 0.001
    with pytest.raises(InputError, match="mole.jpg: took longer than 0.001 seconds"): check_time(large, "mole.jpg", decoder)


def test_the_worker_ends_with_its_program():
    code = "import os, time\nfrom lesion_seg.time_limit import TimeLimited\npid = TimeLimited(os.getpid, 20)\nprint(pid(), flush=True)\nos._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    for _ in range(100):
        if gone(int(done.stdout)): return
        time.sleep(0.1)
    raise AssertionError("the worker is still there")


def test_a_file_that_takes_for_ever_costs_the_page_one_sentence(monkeypatch):
    from lesion_seg import session

    def too_slow(data, name): raise InputError(name, "took longer than 60 seconds", "save it again, or leave it out")
    page, photo = session.Session(threads=1), encode_jpeg(make_phantom(3, (64, 96)).image)
    with monkeypatch.context() as m:
        m.setattr(session, "check_time", too_slow)
        with pytest.raises(InputError, match="slow.jpg: took longer than 60 seconds"): page.add("slow.jpg", photo)
    assert not page.photographs and page.broken[0][0] == "slow.jpg"
    assert page.add("mole.jpg", photo)["kind"] == "photograph"
