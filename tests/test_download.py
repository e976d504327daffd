"lesion_seg.download against a real HTTP server on the loopback host."
import contextlib
import errno
import hashlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from isic_server import FAULTS, IsicServer

from lesion_seg import download as dl
from lesion_seg.core import InputError, refuses


def quick(s, **kw): return dl.Patience(**{'pause': .005, 'timeout': (2, 2), **kw})


def sha(b): return hashlib.sha256(b).hexdigest()


@pytest.fixture(scope='module')
def blobs(): return {f'b/{i:03}.bin': random.Random(i).randbytes(40_000 + i) for i in range(60)}


def items(s, blobs, **kw): return [dl.Item(k, (f'{s.url}/{k}',), **{a: f(v) for a, f in kw.items()} if kw else {}) for k, v in blobs.items()]


def held(folder, blobs): return {k: (folder / k).read_bytes() for k in blobs if (folder / k).exists()}


def leftovers(folder): return [p.name for p in folder.rglob('.*')]


@pytest.fixture
def busy(monkeypatch):
    "How many downloads were under way whenever one began."
    fetch, lock, under_way, seen = dl.Download.fetch, threading.Lock(), [0], []
    def counted(self):
        with lock:
            under_way[0] += 1
            seen.append(under_way[0])
        try: return fetch(self)
        finally:
            with lock: under_way[0] -= 1
    monkeypatch.setattr(dl.Download, 'fetch', counted)
    return seen


# ---- the promise: a fifth of the requests fail

@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('known', [dict(sha256=sha), dict(size=len, md5=lambda b: hashlib.md5(b).hexdigest()), {}], ids=['sha256', 'size, md5', 'nothing'])
def test_nothing_missing_and_nothing_corrupt_with_a_fifth_of_failures(tmp_path, blobs, seed, known, busy):
    with IsicServer(blobs, share=.2, seed=seed) as s:
        dl.download_files(items(s, blobs, **known), tmp_path, quick(s))
    assert 1 < max(busy) <= dl.Patience.workers
    assert held(tmp_path, blobs) == blobs
    assert not leftovers(tmp_path)
    assert len(s.faults) >= 5 and .1 < sum(s.faults.values()) / sum(s.asked.values()) < .3 # it did fail, in many ways
    assert {k: v['sha256'] for k, v in json.loads((tmp_path / 'checksums.json').read_text()).items()} == {k: sha(v) for k, v in blobs.items()}


@pytest.mark.parametrize('fault', [*FAULTS, '408', '425', '502', '504'])
def test_every_kind_of_failure_passes(tmp_path, fault):
    data = random.Random(1).randbytes(200_000)
    with IsicServer({'a': data}, stall=1.5) as s:
        s.plan['a'] = ['', fault, fault] if fault != 'corrupt' else ['', fault] # the first request is HEAD
        dl.download_files([dl.Item('a', (f'{s.url}/a',))], tmp_path, quick(s, timeout=(2, .5)))
        assert len(s.log) >= 3
    assert (tmp_path / 'a').read_bytes() == data


@pytest.mark.parametrize('code', ['400', '401', '403', '404', '405', '410', '451'])
def test_answers_that_stay_are_not_repeated(tmp_path, code):
    with IsicServer({'a': b'1'}) as s:
        s.plan['a'] = [code] * 9
        with pytest.raises(InputError, match=f'answer {code}'): dl.download_files([dl.Item('a', (f'{s.url}/a',), 1)], tmp_path, quick(s))
        assert len(s.log) == 1


# ---- resuming

def test_an_interrupted_download_goes_on_from_its_last_byte(tmp_path):
    data = random.Random(2).randbytes(1 << 20)
    with IsicServer({'a': data}) as s:
        s.plan['a'] = ['', 'cut', '500', '500']
        item = dl.Item('a', (f'{s.url}/a',))
        with pytest.raises(InputError, match='3 attempts in a row'): dl.download_files([item], tmp_path, quick(s, attempts=3))
        assert sorted(leftovers(tmp_path)) == ['.a.etag', '.a.part'] and not (tmp_path / 'a').exists()
        dl.download_files([item], tmp_path, quick(s))
        assert s.log[-1][2:] == ('bytes=524288-', 206)
    assert (tmp_path / 'a').read_bytes() == data and not leftovers(tmp_path)


@pytest.mark.parametrize('server', [dict(ranges=False), dict(etag=''), dict(etag='W/"weak"')], ids=str)
@pytest.mark.parametrize('change', [False, True], ids=['same', 'changed'])
def test_versions_are_never_glued_together(tmp_path, server, change):
    old, new = random.Random(3).randbytes(300_000), random.Random(4).randbytes(300_000)
    with IsicServer({'a': old}, **server) as s:
        s.plan['a'] = ['', 'cut', '500']
        with pytest.raises(InputError): dl.download_files([dl.Item('a', (f'{s.url}/a',))], tmp_path, quick(s, attempts=2))
        if change: s.files['a'] = new
        dl.download_files([dl.Item('a', (f'{s.url}/a',))], tmp_path, quick(s))
    assert (tmp_path / 'a').read_bytes() == (new if change else old)


def test_a_part_longer_than_the_file_is_begun_anew(tmp_path):
    (tmp_path / '.a.part').write_bytes(bytes(9))
    (tmp_path / '.a.etag').write_text('"900150983cd24fb0d6963f7d28e17f72"')
    with IsicServer({'a': b'abc'}) as s:
        dl.download_files([dl.Item('a', (f'{s.url}/a',))], tmp_path, quick(s))
        assert [c for *_, c in s.log] == [200, 416, 200]
    assert (tmp_path / 'a').read_bytes() == b'abc'


def test_a_whole_part_is_checked_and_taken_without_a_request(tmp_path):
    (tmp_path / '.a.part').write_bytes(b'abc')
    dl.download_files([dl.Item('a', ('http://127.0.0.1:9/a',), 3, sha(b'abc'))], tmp_path)
    assert (tmp_path / 'a').read_bytes() == b'abc'


# ---- waiting

def test_retry_after_is_honoured_by_all_workers(tmp_path):
    blobs = {k: k.encode() for k in 'abcdef'}
    with IsicServer(blobs) as s:
        s.plan['a'], s.retry_after = ['429'], '1'
        t = time.monotonic()
        dl.download_files(items(s, blobs, size=len), tmp_path, quick(s, workers=1))
        assert time.monotonic() - t > .95
    assert held(tmp_path, blobs) == blobs


def test_a_server_that_wants_an_hour_is_left_alone(tmp_path):
    with IsicServer({'a': b'1'}) as s:
        s.plan['a'], s.retry_after = ['429'] * 9, '3600'
        with pytest.raises(InputError, match='asks to wait 3600 s'): dl.download_files([dl.Item('a', (f'{s.url}/a',), 1)], tmp_path, quick(s))
        assert len(s.log) == 1


# ---- checks and failures

def test_wrong_hash_is_not_accepted_and_every_failure_is_listed(tmp_path):
    blobs = {k: k.encode() * 9 for k in 'abcd'}
    with IsicServer(blobs) as s:
        todo = items(s, blobs)
        todo[1], todo[2] = replace(todo[1], sha256='f' * 64), replace(todo[2], urls=(f'{s.url}/gone',))
        with pytest.raises(InputError) as e: dl.download_files(todo, tmp_path, quick(s))
    assert [(p.id, p.kind) for p in e.value.problems] == [('b', 'not fetched'), ('c', 'not fetched')]
    assert 'b: has the sha256' in str(e.value) and 'gone: is not there (answer 404)' in str(e.value) and str(e.value).startswith('2 of 4 files: ')
    assert sorted(held(tmp_path, blobs)) == ['a', 'd'] and not leftovers(tmp_path)


@pytest.mark.parametrize('size, most, match', [(2, 10, 'offers 3 bytes instead of 2'), (None, 2, 'offers 3 bytes instead of at most 2')])
def test_more_bytes_than_promised_are_refused(tmp_path, size, most, match):
    with IsicServer({'a': b'abc'}) as s, pytest.raises(InputError, match=match):
        dl.download_files([dl.Item('a', (f'{s.url}/a',), size, most=most)], tmp_path, quick(s, attempts=2))
    assert not (tmp_path / 'a').exists()


def test_a_recorded_hash_is_checked_ever_after(tmp_path):
    with IsicServer({'a': b'abc'}) as s:
        todo = [dl.Item('a', (f'{s.url}/a',))]
        dl.download_files(todo, tmp_path, quick(s))
        (tmp_path / 'a').write_bytes(b'abX')
        dl.download_files(todo, tmp_path, quick(s))
        assert (tmp_path / 'a').read_bytes() == b'abc'
        (tmp_path / 'a').unlink()
        s.files['a'] = b'abd'
        with pytest.raises(InputError, match='published file is another one'): dl.download_files(todo, tmp_path, quick(s))
    assert not (tmp_path / 'a').exists()


def test_a_full_disk_stops_everything_with_one_sentence(tmp_path, monkeypatch, blobs):
    def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')
    with IsicServer(blobs) as s:
        monkeypatch.setattr(dl.os, 'replace', full)
        with pytest.raises(InputError, match='No space left'): dl.download_files(items(s, blobs, size=len), tmp_path, quick(s))
        assert len(s.log) < len(blobs)


def test_the_disk_is_asked_before_the_first_byte(tmp_path, monkeypatch):
    usage = type(dl.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(dl.shutil, 'disk_usage', lambda _: usage(10**9, 10**9 - 10**8 - 10, 10**8 + 10))
    with IsicServer({'a': bytes(11), 'b': bytes(10)}) as s:
        with pytest.raises(InputError, match='1 files need'): dl.download_files([dl.Item('a', (f'{s.url}/a',))], tmp_path, quick(s))
        assert [m for m, *_ in s.log] == ['HEAD']
        dl.download_files([dl.Item('b', (f'{s.url}/b',))], tmp_path, quick(s))


def test_an_interruption_ends_the_workers_and_keeps_the_notes(tmp_path, blobs):
    def report(done, total):
        if done: raise KeyboardInterrupt
    before = threading.active_count()
    with IsicServer(blobs, share=1, kinds=('cut',)) as s:
        with pytest.raises(KeyboardInterrupt): dl.download_files(items(s, blobs, size=len), tmp_path, quick(s, workers=2), report)
        time.sleep(.2)
        n = len(s.log)
        time.sleep(.2)
        assert len(s.log) == n < len(blobs) * 3
    assert threading.active_count() <= before + 1 and (tmp_path / 'checksums.json').exists()


@pytest.mark.parametrize('path', ['../a', '/tmp/a', 'a/../../b', 'c:\\a', ''])
def test_files_stay_in_the_folder(tmp_path, path):
    with pytest.raises(InputError, match='not a place in the folder'): dl.download_files([dl.Item(path, ('https://a.org/a',))], tmp_path)


# ---- addresses

HOME = 'http://127.0.0.1:80/api'


@pytest.mark.parametrize('url', ['https://a.org/a.jpg?Key=1', 'http://127.0.0.1:99/b.jpg'])
def test_addresses_that_are_followed(url): assert dl.check_address(url, HOME) == url


@pytest.mark.parametrize('url', ['http://a.org/a.jpg', 'http://localhost/b.jpg', 'file:///etc/passwd', 'ftp://a/b',
                                 'https://me@a.org/', 'https:///a', '//a', 'http://[', ''])
def test_addresses_that_are_not_followed(url): assert 'give one that begins with https://' in refuses(dl.check_address, url, HOME)


def test_nobody_outside_sends_us_to_our_own_machine():
    assert '127.0.0.1:80/api' in refuses(dl.check_address, HOME, 'https://api.isic-archive.com')


def test_an_address_in_a_sentence_is_safe():
    assert dl.shown_address('https://a.org/b.jpg?Signature=secret#x') == 'https://a.org/b.jpg'
    assert dl.shown_address('a\x1b[2Jb\nc') == 'a?[2Jb?c'


def ask(network, url, base):
    with network.ask(url, base) as reply:
        network.accept(reply, url)
        return b''.join(network.chunks(reply))


def test_redirects_are_followed_with_care():
    with IsicServer({'a': b'abc'}) as s, dl.Network(quick(s)) as network:
        s.redirect |= {'b': '/a', 'c': 'http://example.com/', 'd': 'd'}
        assert ask(network, f'{s.url}/b', s.url) == b'abc'
        assert 'example.com/: given by' in refuses(ask, network, f'{s.url}/c', s.url)
        assert 'redirects without end' in refuses(ask, network, f'{s.url}/d', s.url)
        with pytest.raises(dl.NotThere, match='answer 404'): ask(network, f'{s.url}/e', s.url)


def test_the_whole_run_is_calm_when_one_worker_is_told_to_slow_down():
    with IsicServer({'a': b'abc'}) as s, dl.Network(dl.Patience()) as network:
        s.plan, s.retry_after = {'a': ['429']}, '9'
        with pytest.raises(dl.Transient, match='the server answers 429') as e: ask(network, f'{s.url}/a', s.url)
        assert e.value.seconds == 9 and 8 < network.calm - time.monotonic() <= 9
        network.stop.set()
        with pytest.raises(dl.Stopped): network.rest(99) # unless all is over


def attempted(failures, seconds=0.0, gains=()):
    "How often an attempt is made that fails so many times."
    calls = []
    def attempt():
        calls.append(1)
        if len(calls) <= failures: raise dl.Transient('no luck', seconds)
        return len(calls)
    with dl.Network(dl.Patience(pause=.001, longest=.01, attempts=4)) as network:
        return network.patiently('a.jpg', attempt, lambda: len(calls) in gains)


def test_attempts_are_counted_since_the_last_gain():
    assert [attempted(0), attempted(3), attempted(6, gains=(4,))] == [1, 4, 7]
    assert refuses(attempted, 4) == 'a.jpg: no luck (4 attempts in a row); try again later'
    assert 'asks to wait 60 s' in refuses(attempted, 1, 60)


# ---- a part

def test_a_part_is_continued_only_where_that_is_safe(tmp_path):
    part = dl.Part(tmp_path / 'mole.jpg')
    def asked(have, tag='', **known):
        part.path.write_bytes(bytes(have))
        part.tag.write_text(tag)
        return part.headers(dl.Item('mole.jpg', (), 10, **known))
    assert (part.path.name, part.tag.name) == ('.mole.jpg.part', '.mole.jpg.etag')
    assert asked(4, '"e"') == {'Range': 'bytes=4-', 'If-Range': '"e"'}
    assert asked(4, sha256='0') == {'Range': 'bytes=4-'}
    assert asked(4) == asked(11, '"e"', sha256='0') == asked(0, sha256='0') == {}
    assert asked(4) == {} and part.size == 0 and not list(tmp_path.iterdir())


class Reply:
    def __init__(self, status, **headers):
        self.status_code, self.headers = status, {k.replace('_', '-'): v for k, v in headers.items()}


def test_where_an_answer_belongs(tmp_path):
    part = dl.Part(tmp_path / 'mole.jpg')
    part.path.write_bytes(bytes(4))
    assert part.place(Reply(200, Content_Length='9')) == (0, 9)
    assert part.place(Reply(200)) == (0, None)
    assert part.place(Reply(206, Content_Range='bytes 4-8/9')) == (4, 9)
    for span in ('bytes 3-8/9', '', 'bytes 4-8/*', 'bytes 4-' + '9' * 99 + '/9'):
        with pytest.raises(dl.Transient, match='another piece'): part.place(Reply(206, Content_Range=span))


def test_an_etag_is_the_md5_until_proved_otherwise(tmp_path):
    data = random.Random(7).randbytes(1 << 18)
    for etag, plan, answers in ((None, ['', 'corrupt'], [200, 200, 200]), ('"' + 'a' * 32 + '"', ['', '', 'cut'], [200, 200, 200, 206])):
        with IsicServer({'a': data}, etag=etag) as s:
            s.plan['a'] = plan
            dl.download_files([dl.Item('a', (f'{s.url}/a',))], tmp_path, quick(s))
            assert [code for *_, code in s.log] == answers
        assert (tmp_path / 'a').read_bytes() == data
        for p in list(tmp_path.iterdir()): p.unlink()


def test_the_next_address_is_asked_for_what_the_first_does_not_have(tmp_path):
    data = random.Random(8).randbytes(1 << 18)
    with IsicServer({'a': data}) as s:
        s.plan['a'] = ['cut', '429', 'cut']
        dl.download_files([dl.Item('a', (f'{s.url}/gone', f'{s.url}/a'), len(data), sha(data))], tmp_path, quick(s))
        assert [code for *_, code in s.log] == [404, 200, 429, 206, 206]


@pytest.mark.parametrize('text', ['[]', '{"a": 1}', '{"a":', '{"a": {"size": 3}}', '[' * 10**5, ''])
def test_a_damaged_list_of_digests_is_named(tmp_path, text):
    (tmp_path / 'checksums.json').write_text(text)
    assert 'checksums.json: is damaged; delete it' in refuses(dl.Checksums, tmp_path)


def test_progress_only_rises(tmp_path, blobs):
    reports = []
    with IsicServer(blobs) as s: dl.download_files(items(s, blobs, size=len), tmp_path, quick(s), lambda *a: reports.append(a))
    total = sum(map(len, blobs.values()))
    assert reports == sorted(reports) and reports[-1] == (total, total)


def test_the_module_is_light():
    code = "import sys, lesion_seg.download; print([m for m in ('torch', 'fastai', 'pandas', 'requests', 'matplotlib', 'fastprogress') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


class RecordedBar:
    "What the bar of fastprogress is told."
    def __init__(self, gen, leave): self.shown, self.total, RecordedBar.last = [], None, self
    def update(self, done): self.shown.append((done, self.total))


def test_the_bar_takes_any_course(monkeypatch):
    monkeypatch.setattr('fastprogress.fastprogress.progress_bar', RecordedBar)
    report = dl.show_bar('MB')
    for done, total in ((0, 0), (0, 10**7), (10**6, 10**7), (5 * 10**5, 2 * 10**7), (3 * 10**7, 2 * 10**7)): report(done, total)
    assert RecordedBar.last.comment == 'MB'
    assert RecordedBar.last.shown == [(0, 1), (0, 10), (1, 10), (0, 20), (20, 20)] # never beyond its end


# ---- servers that waste time

class Waste(threading.Thread):
    "A server that says a few bytes at a time, for as long as somebody listens: `first`, then `again` every `pause` seconds."
    def __init__(self, first, again, pause):
        super().__init__(daemon=True)
        self.first, self.again, self.pause, self.left, self.over = first, again, pause, 0, threading.Event()
        self.door = socket.create_server(('127.0.0.1', 0))
        self.url = f'http://127.0.0.1:{self.door.getsockname()[1]}'

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                visitor = self.door.accept()[0]
                threading.Thread(target=self.talk, args=(visitor,), daemon=True).start()

    def talk(self, visitor):
        with contextlib.suppress(OSError), visitor:
            visitor.recv(9999)
            visitor.sendall(self.first)
            while not self.over.wait(self.pause): visitor.sendall(self.again)
        self.left += 1 # the visitor has hung up

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.door.close()


WASTE = {'a body that drips': (b'HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n', b'.'), 'a body without a length': (b'HTTP/1.1 200 OK\r\n\r\n', b'.'),
         'chunks that drip': (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', b'1\r\n.\r\n'),
         'a status that drips': (b'H', b'T'), 'headers that drip': (b'HTTP/1.1 200 OK\r\nX: ', b'x'),
         'endless interim answers': (b'', b'HTTP/1.1 100 Continue\r\n\r\n'), 'silence': (b'', b'')}


@pytest.mark.parametrize('kind', WASTE)
def test_a_server_that_wastes_time_is_given_up(tmp_path, kind):
    with Waste(*WASTE[kind], pause=.01) as s:
        began = time.monotonic()
        item = dl.Item('a', (f'{s.url}/a',), 99_999)
        says = refuses(dl.download_files, [item], tmp_path, dl.Patience(pause=.01, attempts=2, timeout=(5, 5), window=.4, slowest=10_000, deadline=30))
        assert time.monotonic() - began < 3
    assert 'a: the server sends less than 10000 bytes a second (2 attempts in a row); try again later' in says
    assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize('size', [100, None])
@pytest.mark.parametrize('kind', ['chunked', 'without a length'])
def test_a_body_that_does_not_say_how_long_it_is_has_an_end(tmp_path, kind, size):
    "The server sends for ever, and fast; nothing but the limit on the file's size stops it."
    head, drop = {'chunked': (b'Transfer-Encoding: chunked\r\n', b'20\r\n' + b'x' * 32 + b'\r\n'), 'without a length': (b'', b'x' * 32)}[kind]
    with Waste(b'HTTP/1.1 200 OK\r\n' + head + b'\r\n', drop, pause=.001) as s:
        patience = dl.Patience(pause=.01, attempts=2, deadline=20)
        says = refuses(dl.download_files, [dl.Item('a', (f'{s.url}/a',), size, most=100)], tmp_path, patience)
    assert 'a: the server sends more than 100 bytes (2 attempts in a row)' in says and not (tmp_path / 'a').exists()


def test_an_answer_that_is_fast_enough_is_not_cut(tmp_path):
    body = random.Random(5).randbytes(60_000)
    with Waste(b'HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n', b'', pause=.05) as s:
        pieces = [body[i:i + 2000] for i in range(0, 60_000, 2000)]
        def talk(visitor):
            visitor.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            visitor.recv(9999)
            visitor.sendall(s.first)
            for p in pieces:
                visitor.sendall(p)
                time.sleep(.04)
        s.talk = talk
        dl.download_files([dl.Item('a', (f'{s.url}/a',), 60_000)], tmp_path, dl.Patience(attempts=1, window=.8, slowest=10_000)) # it brings some 40,000
    assert (tmp_path / 'a').read_bytes() == body


@pytest.mark.parametrize('kind', ['a body that drips', 'endless interim answers'])
def test_a_run_has_a_deadline(tmp_path, kind):
    "One sentence, however many files wait, and what arrived before stays."
    with IsicServer({'good': b'abc'}) as good, Waste(*WASTE[kind], pause=.01) as s:
        todo = [dl.Item('good', (f'{good.url}/good',), 3), *(dl.Item(f'{i}', (f'{s.url}/{i}',), 99_999) for i in range(9))]
        began = time.monotonic()
        says = refuses(dl.download_files, todo, tmp_path, dl.Patience(workers=3, deadline=.7))
        assert time.monotonic() - began < 3
    assert says.startswith('9 of 10 files: could not be fetched') and says.count('the download: has taken 0.7 s, its deadline; do the same again') == 1
    assert (tmp_path / 'good').read_bytes() == b'abc'


def test_what_is_hung_up_is_closed(tmp_path):
    with Waste(*WASTE['a body that drips'], pause=.01) as s:
        refuses(dl.download_files, [dl.Item('a', (f'{s.url}/a',), 99_999)], tmp_path, dl.Patience(pause=.01, attempts=3, window=.3))
        time.sleep(.3)
        assert s.left == 3


def test_no_socket_is_left_open(tmp_path):
    files = len(os.listdir('/proc/self/fd')) if os.path.exists('/proc/self/fd') else pytest.skip('no /proc')
    blobs = {f'{i}': b'abc' for i in range(40)}
    with IsicServer(blobs, share=.5, kinds=('cut', 'drop', 'html')) as s: dl.download_files(items(s, blobs, size=len), tmp_path, quick(s, attempts=20))
    time.sleep(.1)
    assert len(os.listdir('/proc/self/fd')) <= files + 2


@pytest.mark.parametrize('length', ['²', '', '-1', '9' * 5000, '1e3', 'x'])
def test_a_length_that_is_not_a_number_is_none(length): assert dl.content_length(Reply(200, Content_Length=length)) is None


@pytest.mark.parametrize('place', ['http://[', 'http://a' + 'b' * 70 + '.org/', 'https://', 'http://127.0.0.1:99999/', '\x1b[2J', 'ftp://a', '//\xff', 'http://127.0.0.1:x/'])
def test_a_redirect_to_anything_is_a_sentence(place):
    with IsicServer() as s, dl.Network(quick(s)) as network:
        s.redirect['a'] = place
        says = refuses(ask, network, f'{s.url}/a', f'{s.url}')
        assert re.search('is not followed|is not an address|cannot be asked|redirects without end|answer 404', says) and says.isprintable()


def test_a_packed_answer_is_refused():
    with dl.Network(dl.Patience()) as network:
        says = refuses(network.accept, Reply(200, Content_Encoding='gzip'), 'https://a.org/a')
        assert says == 'https://a.org/a: comes packed, which was not asked for; try again later'
        network.accept(Reply(200, Content_Encoding='identity'), 'https://a.org/a')


@pytest.mark.parametrize('setting', [dict(window=0), dict(deadline=-1)])
def test_no_time_is_refused(setting): assert 'leave no time; give more than 0 of each' in refuses(dl.Patience, **setting)
