"lesion_seg.isic against a real HTTP server on the loopback host."
import errno
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isic_server import FAULTS, IsicServer, challenge_files, phantom_files, zipped

from lesion_seg import isic
from lesion_seg.core import InputError
from lesion_seg.manifest import Manifest


def quick(s, **kw): return isic.ISIC(s.api, (s.url,), **{'pause': .005, 'timeout': (2, 2), **kw})


def sha(b): return hashlib.sha256(b).hexdigest()


@pytest.fixture(scope='module')
def phantoms(): return phantom_files(12)


@pytest.fixture(scope='module')
def blobs(): return {f'b/{i:03}.bin': random.Random(i).randbytes(40_000 + i) for i in range(60)}


def items(s, blobs, **kw): return [isic.Item(k, (f'{s.url}/{k}',), **{a: f(v) for a, f in kw.items()} if kw else {}) for k, v in blobs.items()]


def held(folder, blobs): return {k: (folder / k).read_bytes() for k in blobs if (folder / k).exists()}


def leftovers(folder): return [p.name for p in folder.rglob('.*')]


# ---- the promise: a fifth of the requests fail

@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('known', [dict(sha256=sha), dict(size=len, md5=lambda b: hashlib.md5(b).hexdigest()), {}], ids=['sha256', 'size, md5', 'nothing'])
def test_nothing_missing_and_nothing_corrupt_with_a_fifth_of_failures(tmp_path, blobs, seed, known):
    with IsicServer(blobs, share=.2, seed=seed) as s:
        isic.download(items(s, blobs, **known), tmp_path, quick(s))
        assert s.most_active <= isic.ISIC.workers
    assert held(tmp_path, blobs) == blobs
    assert not leftovers(tmp_path)
    assert len(s.faults) >= 5 and .1 < sum(s.faults.values()) / sum(s.asked.values()) < .3 # it did fail, in many ways
    assert {k: v['sha256'] for k, v in json.loads((tmp_path / 'checksums.json').read_text()).items()} == {k: sha(v) for k, v in blobs.items()}


def test_challenge_and_archive_with_a_fifth_of_failures(tmp_path, phantoms):
    photographs, masks = phantoms
    files, rows = challenge_files(2017, photographs, masks)
    (tmp_path / 'c.json').write_text(json.dumps({'isic2017': dict(licence='CC-0', attribution='Me', page='p', files=rows)}))
    with IsicServer(files, photographs, share=.2, seed=9) as s:
        m = isic.fetch_challenge('isic2017', tmp_path / 'c', isic=quick(s), catalogue=tmp_path / 'c.json')
        a = isic.fetch_archive(isic.search_archive(isic=quick(s)), tmp_path / 'a', quick(s))
    assert {p.id: p.image.read_bytes() for p in m} == {p.id: p.image.read_bytes() for p in a} == photographs
    assert {p.id: p.mask.read_bytes() for p in m} == masks
    assert {(p.meta['licence'], p.meta['attribution'], p.meta['official_split']) for p in m} == {('CC-0', 'Me', 'train')}
    assert not list((tmp_path / 'c').rglob('*superpixels*')) + list((tmp_path / 'c').glob('*.zip'))
    assert [p.id for p in Manifest.from_folder(tmp_path / 'c')] == [p.id for p in m] and m.check(full=True, strict=False) == []


@pytest.mark.parametrize('fault', [*FAULTS, '408', '425', '502', '504'])
def test_every_kind_of_failure_passes(tmp_path, fault):
    data = random.Random(1).randbytes(200_000)
    with IsicServer({'a': data}, stall=1.5) as s:
        s.plan['a'] = ['', fault, fault] if fault != 'corrupt' else ['', fault] # the first request is HEAD
        isic.download([isic.Item('a', (f'{s.url}/a',))], tmp_path, quick(s, timeout=(2, .5)))
        assert len(s.log) >= 3
    assert (tmp_path / 'a').read_bytes() == data


@pytest.mark.parametrize('code', ['400', '401', '403', '404', '405', '410', '451'])
def test_answers_that_stay_are_not_repeated(tmp_path, code):
    with IsicServer({'a': b'1'}) as s:
        s.plan['a'] = [code] * 9
        with pytest.raises(InputError, match=f'answer {code}'): isic.download([isic.Item('a', (f'{s.url}/a',), 1)], tmp_path, quick(s))
        assert len(s.log) == 1


# ---- resuming

def test_an_interrupted_download_goes_on_from_its_last_byte(tmp_path):
    data = random.Random(2).randbytes(1 << 20)
    with IsicServer({'a': data}) as s:
        s.plan['a'] = ['', 'cut', '500', '500']
        item = isic.Item('a', (f'{s.url}/a',))
        with pytest.raises(InputError, match='3 attempts in a row'): isic.download([item], tmp_path, quick(s, attempts=3))
        assert sorted(leftovers(tmp_path)) == ['.a.etag', '.a.part'] and not (tmp_path / 'a').exists()
        isic.download([item], tmp_path, quick(s))
        assert s.log[-1][2:] == ('bytes=524288-', 206)
    assert (tmp_path / 'a').read_bytes() == data and not leftovers(tmp_path)


@pytest.mark.parametrize('server', [dict(ranges=False), dict(etag=''), dict(etag='W/"weak"')], ids=str)
@pytest.mark.parametrize('change', [False, True], ids=['same', 'changed'])
def test_versions_are_never_glued_together(tmp_path, server, change):
    old, new = random.Random(3).randbytes(300_000), random.Random(4).randbytes(300_000)
    with IsicServer({'a': old}, **server) as s:
        s.plan['a'] = ['', 'cut', '500']
        with pytest.raises(InputError): isic.download([isic.Item('a', (f'{s.url}/a',))], tmp_path, quick(s, attempts=2))
        if change: s.files['a'] = new
        isic.download([isic.Item('a', (f'{s.url}/a',))], tmp_path, quick(s))
    assert (tmp_path / 'a').read_bytes() == (new if change else old)


def test_a_part_longer_than_the_file_is_begun_anew(tmp_path):
    (tmp_path / '.a.part').write_bytes(bytes(9))
    (tmp_path / '.a.etag').write_text('"900150983cd24fb0d6963f7d28e17f72"')
    with IsicServer({'a': b'abc'}) as s:
        isic.download([isic.Item('a', (f'{s.url}/a',))], tmp_path, quick(s))
        assert [c for *_, c in s.log] == [200, 416, 200]
    assert (tmp_path / 'a').read_bytes() == b'abc'


def test_a_whole_part_is_checked_and_taken_without_a_request(tmp_path):
    (tmp_path / '.a.part').write_bytes(b'abc')
    isic.download([isic.Item('a', ('http://127.0.0.1:9/a',), 3, sha(b'abc'))], tmp_path, isic.ISIC('http://127.0.0.1:9', ('http://127.0.0.1:9',)))
    assert (tmp_path / 'a').read_bytes() == b'abc'


# ---- waiting

def test_retry_after_is_honoured_by_all_workers(tmp_path):
    blobs = {k: k.encode() for k in 'abcdef'}
    with IsicServer(blobs) as s:
        s.plan['a'], s.retry_after = ['429'], '1'
        t = time.monotonic()
        isic.download(items(s, blobs, size=len), tmp_path, quick(s, workers=1))
        assert time.monotonic() - t > .95
    assert held(tmp_path, blobs) == blobs


def test_a_server_that_wants_an_hour_is_left_alone(tmp_path):
    with IsicServer({'a': b'1'}) as s:
        s.plan['a'], s.retry_after = ['429'] * 9, '3600'
        with pytest.raises(InputError, match='asks to wait 3600 s'): isic.download([isic.Item('a', (f'{s.url}/a',), 1)], tmp_path, quick(s))
        assert len(s.log) == 1


def test_no_server_at_all_is_one_sentence(tmp_path):
    with IsicServer() as s: pass
    with pytest.raises(InputError, match='2 attempts in a row; try again later'):
        isic.search_archive(isic=quick(s, attempts=2))


# ---- checks and failures

def test_wrong_hash_is_not_accepted_and_every_failure_is_listed(tmp_path):
    blobs = {k: k.encode() * 9 for k in 'abcd'}
    with IsicServer(blobs) as s:
        todo = items(s, blobs)
        todo[1], todo[2] = replace(todo[1], sha256='f' * 64), replace(todo[2], urls=(f'{s.url}/gone',))
        with pytest.raises(InputError) as e: isic.download(todo, tmp_path, quick(s))
    assert [(p.id, p.kind) for p in e.value.problems] == [('b', 'not fetched'), ('c', 'not fetched')]
    assert 'b has the sha256' in str(e.value) and 'gone cannot be had (answer 404)' in str(e.value) and str(e.value).startswith('2 of 4 files')
    assert sorted(held(tmp_path, blobs)) == ['a', 'd'] and not leftovers(tmp_path)


@pytest.mark.parametrize('size, most, match', [(2, 10, 'offers 3 bytes instead of 2'), (None, 2, 'offers 3 bytes instead of at most 2')])
def test_more_bytes_than_promised_are_refused(tmp_path, size, most, match):
    with IsicServer({'a': b'abc'}) as s, pytest.raises(InputError, match=match):
        isic.download([isic.Item('a', (f'{s.url}/a',), size, most=most)], tmp_path, quick(s, attempts=2))
    assert not (tmp_path / 'a').exists()


def test_a_recorded_hash_is_checked_ever_after(tmp_path):
    with IsicServer({'a': b'abc'}) as s:
        todo = [isic.Item('a', (f'{s.url}/a',))]
        isic.download(todo, tmp_path, quick(s))
        (tmp_path / 'a').write_bytes(b'abX')
        isic.download(todo, tmp_path, quick(s))
        assert (tmp_path / 'a').read_bytes() == b'abc'
        (tmp_path / 'a').unlink()
        s.files['a'] = b'abd'
        with pytest.raises(InputError, match='published file is another one'): isic.download(todo, tmp_path, quick(s))
    assert not (tmp_path / 'a').exists()


def test_a_full_disk_stops_everything_with_one_sentence(tmp_path, monkeypatch, blobs):
    def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')
    with IsicServer(blobs) as s:
        monkeypatch.setattr(isic.os, 'replace', full)
        with pytest.raises(InputError, match='No space left'): isic.download(items(s, blobs, size=len), tmp_path, quick(s))
        assert len(s.log) < len(blobs)


def test_the_disk_is_asked_before_the_first_byte(tmp_path, monkeypatch):
    usage = type(isic.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(isic.shutil, 'disk_usage', lambda _: usage(10**9, 10**9 - 10**8 - 10, 10**8 + 10))
    with IsicServer({'a': bytes(11), 'b': bytes(10)}) as s:
        with pytest.raises(InputError, match='1 files need'): isic.download([isic.Item('a', (f'{s.url}/a',))], tmp_path, quick(s))
        assert [m for m, *_ in s.log] == ['HEAD']
        isic.download([isic.Item('b', (f'{s.url}/b',))], tmp_path, quick(s))


def test_an_interruption_ends_the_workers_and_keeps_the_notes(tmp_path, blobs):
    def report(done, total):
        if done: raise KeyboardInterrupt
    before = threading.active_count()
    with IsicServer(blobs, share=1, kinds=('cut',)) as s:
        with pytest.raises(KeyboardInterrupt): isic.download(items(s, blobs, size=len), tmp_path, quick(s, workers=2), report)
        time.sleep(.2)
        n = len(s.log)
        time.sleep(.2)
        assert len(s.log) == n < len(blobs) * 3
    assert threading.active_count() <= before + 1 and (tmp_path / 'checksums.json').exists()


@pytest.mark.parametrize('path', ['../a', '/tmp/a', 'a/../../b', 'c:\\a', ''])
def test_files_stay_in_the_folder(tmp_path, path):
    with pytest.raises(InputError, match='no place in the folder'): isic.download([isic.Item(path, ('https://a.org/a',))], tmp_path)


# ---- the archive

def test_every_page_is_read_and_the_query_is_sent_as_given():
    with IsicServer(images={f'ISIC_{i:07d}': b'1' for i in range(205)}) as s:
        found = isic.search_archive('diagnosis_3:"Nevus" AND sex:female', [61, '74'], isic=quick(s))
        assert [i.id for i in found] == [f'ISIC_{i:07d}' for i in range(205)]
        assert [re.sub('.*search/', '', p) for _, p, *_ in s.log] == [
            '?query=diagnosis_3%3A%22Nevus%22+AND+sex%3Afemale&collections=61%2C74&limit=100', '?cursor=MTAw&limit=100', '?cursor=MjAw&limit=100']


def test_a_limit_reads_no_more_pages_than_needed():
    with IsicServer(images={f'ISIC_{i:07d}': b'1' for i in range(500)}) as s:
        found = isic.search_archive(licence='CC-0,cc-by', limit=70, isic=quick(s))
        assert len(found) == 70 and {i.licence for i in found} == {'CC-0', 'CC-BY'} and len(s.log) == 2


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                           lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=9), x, max_size=3), max_leaves=6)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=json_values, where=st.sampled_from(['isic_id', 'copyright_license', 'attribution', 'files', 'metadata', 'url', 'size', 'clinical', 'all']))
def test_any_other_form_of_an_image_is_a_sentence_or_harmless(value, where):
    with_images = IsicServer(images={'ISIC_0000000': b'1'})
    with_images.url = 'https://a.org'
    d = with_images.record(0)
    target = d['files']['full'] if where in ('url', 'size') else d['metadata'] if where == 'clinical' else d
    if where == 'all': d = value
    else: target[where] = value
    try: image = isic._image(d, 'https://a.org')
    except InputError as e: assert len(str(e)) < 500
    else:
        assert re.fullmatch('ISIC_[0-9]+', image.id) and image.url.startswith('https://') and 0 < image.size <= isic.Item.most
        assert all(re.fullmatch(r'\w+', k) and isinstance(v, (str, int, float)) for k, v in image.facts.items())


def test_two_downloads_into_one_folder_add_up(tmp_path, phantoms):
    with IsicServer(images=phantoms[0]) as s:
        first = isic.fetch_archive(isic.search_archive(licence='cc0', isic=quick(s)), tmp_path, quick(s))
        first.split().save(tmp_path / 'manifest.csv')
        both = isic.fetch_archive(isic.search_archive(licence='ccby', isic=quick(s)), tmp_path, quick(s))
    assert (len(first), len(both)) == (4, 8)
    table = Manifest.load(tmp_path / 'manifest.csv')
    assert {p.id: p.meta['licence'] for p in table} == {i: ('CC-0' if int(i[5:]) % 3 == 0 else 'CC-BY') for i in (p.id for p in both)}
    assert sum(p.split != '' for p in table) == 4 # a split that was stored is kept
    assert (tmp_path / 'licences.csv').read_text().count('\n') == 9


def test_a_photograph_without_hash_is_decoded(tmp_path, phantoms):
    with IsicServer(images={'ISIC_0000000': phantoms[0]['ISIC_0000000'][:-700] + bytes(700)}, etag='') as s:
        with pytest.raises(InputError, match='wrong content'): isic.fetch_archive(isic.search_archive(isic=quick(s)), tmp_path, quick(s))
    assert not list((tmp_path / 'images').glob('*.jpg'))


# ---- ZIP files

def test_a_bomb_with_overlapping_files_is_refused(tmp_path):
    whole = bytearray(zipped({'a.jpg': os.urandom(5000)}))
    at = whole.index(b'PK\1\2')
    entry, end = whole[at:whole.index(b'PK\5\6')], whole[whole.index(b'PK\5\6'):]
    twice = entry + entry.replace(b'a.jpg', b'b.jpg')
    end[8:10] = end[10:12] = (2).to_bytes(2, 'little')
    end[12:16] = len(twice).to_bytes(4, 'little')
    (tmp_path / 'x.zip').write_bytes(whole[:at] + twice + end)
    assert zipfile.ZipFile(tmp_path / 'x.zip').namelist() == ['a.jpg', 'b.jpg']
    with pytest.raises(InputError, match='overlap'): isic.safe_unzip(tmp_path / 'x.zip', tmp_path / 'out')


def test_an_encrypted_zip_is_refused(tmp_path):
    whole = bytearray(zipped({'a.jpg': b'123'}))
    whole[whole.index(b'PK\1\2') + 8] |= 1
    (tmp_path / 'x.zip').write_bytes(whole)
    with pytest.raises(InputError, match='is encrypted'): isic.safe_unzip(tmp_path / 'x.zip', tmp_path / 'out')


names = st.text(st.sampled_from('ab./\\:-_ \n~é'), min_size=1, max_size=12).map(lambda n: n + '.jpg')


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names, min_size=1, max_size=3, unique=True))
def test_no_name_leads_out_of_the_folder(tmp_path, found):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w') as z:
        for n in found: z.writestr(n, b'x')
    (tmp_path / 'in').mkdir(exist_ok=True)
    (tmp_path / 'in/x.zip').write_bytes(f.getvalue())
    try: isic.safe_unzip(tmp_path / 'in/x.zip', tmp_path / 'in/out')
    except InputError: pass
    outside = [p for p in tmp_path.rglob('*') if p.is_file() and p.parent != tmp_path / 'in/out' and p.name != 'x.zip']
    assert not outside


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 700), value=st.integers(0, 255))
def test_a_changed_byte_never_gives_a_wrong_file(tmp_path, at, value):
    data = {'a.jpg': b'hello' * 60, 'b.png': bytes(range(200))}
    whole = bytearray(zipped(data))
    whole[at % len(whole)] = value
    (tmp_path / 'x.zip').write_bytes(whole)
    for p in (tmp_path / 'o').glob('*'): p.unlink()
    try: isic.safe_unzip(tmp_path / 'x.zip', tmp_path / 'o')
    except InputError: pass
    assert {p.read_bytes() for p in (tmp_path / 'o').glob('*') if p.name != 'x.zip'} <= set(data.values())


def test_a_damaged_zip_of_unknown_hash_does_not_stay(tmp_path, phantoms):
    files, rows = challenge_files(2018, *phantoms)
    bad = {k: v[:len(v) // 2] + bytes(9) + v[len(v) // 2 + 9:] for k, v in files.items()}
    (tmp_path / 'c.json').write_text(json.dumps({'isic2018': dict(licence='CC-0', attribution='Me', page='p', files=rows)}))
    with IsicServer(bad) as s:
        with pytest.raises(InputError, match='cannot be unpacked') as e:
            isic.fetch_challenge('isic2018', tmp_path / 'c', isic=quick(s), catalogue=tmp_path / 'c.json')
        assert len(e.value.problems) == 2
        s.files = files
        assert len(isic.fetch_challenge('isic2018', tmp_path / 'c', isic=quick(s), catalogue=tmp_path / 'c.json')) == 12


def test_a_full_disk_does_not_cost_the_zip(tmp_path, phantoms, monkeypatch):
    files, rows = challenge_files(2018, *phantoms)
    (tmp_path / 'c.json').write_text(json.dumps({'isic2018': dict(licence='CC-0', attribution='Me', page='p', files=rows)}))
    def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')
    with IsicServer(files) as s:
        with monkeypatch.context() as m, pytest.raises(InputError, match='free some space'):
            m.setattr(isic, '_extract', full)
            isic.fetch_challenge('isic2018', tmp_path / 'c', isic=quick(s), catalogue=tmp_path / 'c.json')
        n = len(s.log)
        assert len(isic.fetch_challenge('isic2018', tmp_path / 'c', isic=quick(s), catalogue=tmp_path / 'c.json')) == 12
        assert len(s.log) == n


# ---- the package

def test_the_catalogue_is_whole():
    known = json.loads((Path(isic.__file__).parent / 'isic_files.json').read_text())
    pairs = {k: sum(f['files'] for f in known[k]['files']) / 2 for k in ('isic2016', 'isic2017', 'isic2018')}
    assert pairs == {'isic2016': 1279, 'isic2017': 2750, 'isic2018': 3694} # Gutman 2016; Codella 2017, 2018
    for c in (known[k] for k in pairs):
        assert c['licence'] in isic.LICENCES
        for f in c['files']:
            assert re.fullmatch(r'20\d\d/[\w-]+\.zip', f['path']) and f['part'] in ('training', 'validation', 'test')
            assert re.fullmatch('[0-9a-f]{64}', f['sha256'] or '') or re.fullmatch('[0-9a-f]{32}', f['md5'] or '')


def test_the_module_is_light():
    code = "import sys, lesion_seg.isic; print([m for m in ('torch', 'fastai', 'pandas', 'requests', 'matplotlib', 'fastprogress') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


def test_the_bar_takes_any_course(capsys):
    report = isic.show_bar('MB')
    for done, total in ((0, 0), (0, 10**7), (10**6, 10**7), (5 * 10**5, 2 * 10**7), (2 * 10**7, 2 * 10**7), (2 * 10**7, 2 * 10**7)): report(done, total)
