"lesion_seg.isic against a real HTTP server on the loopback host."
import csv
import errno
import io
import json
import os
import random
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isic_server import IsicServer, challenge_files, phantom_files, zipped

from lesion_seg import isic
from lesion_seg.core import InputError, read_rows, refuses
from lesion_seg.download import Checksums, Item, Network
from lesion_seg.manifest import Manifest


def quick(s, **kw): return isic.ISIC(s.api, (s.url,), **{'pause': .005, 'timeout': (2, 2), **kw})


@pytest.fixture(scope='module')
def phantoms(): return phantom_files(12)


# ---- the promise: a fifth of the requests fail

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


def test_no_server_at_all_is_one_sentence(tmp_path):
    with IsicServer() as s: pass
    with pytest.raises(InputError, match=r'2 attempts in a row\); try again later'):
        isic.search_archive(isic=quick(s, attempts=2))


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


def one_answer(**fields):
    server = IsicServer(images={f'ISIC_{i:07d}': b'1' for i in range(5)})
    server.url = 'https://a.org'
    return {**server.record(4), **fields}


def full(url, size): return dict(full=dict(url=url, size=size))


@pytest.mark.parametrize('fields, says', [
    (dict(isic_id='../../evil'), 'identifier'), (dict(isic_id=7), '(isic_id)'), (dict(attribution=None), '(attribution)'), (dict(metadata=[]), '(metadata)'),
    (dict(files=[]), '(files.full.size)'), (dict(files=full('https://a.org/', True)), '(files.full.size)'),
    (dict(files=full('http://evil.org/a.jpg', 9)), 'is not followed'), (dict(files=full('https://a.org/', 10**12)), 'instead of 1 to')])
def test_an_answer_of_another_form_is_refused(fields, says):
    assert says in refuses(isic.ArchiveImage.from_answer, one_answer(**fields), 'https://a.org')


def test_metadata_of_an_image_fits_a_table():
    clinical = {'age': 5, 'group': 'x', 'a b': 1, 'deep': {}, 'none': None, 'text': 'x' * 9999}
    image = isic.ArchiveImage.from_answer(one_answer(metadata=dict(clinical=clinical)), 'https://a.org')
    assert image.metadata == {'age': 5, 'clinical_group': 'x', 'text': 'x' * 2000}
    assert isic.ArchiveImage.from_answer(one_answer(metadata=dict(clinical=[1])), 'https://a.org').metadata == {}


@pytest.mark.parametrize('url, suffix', [('https://a.org/x.PNG?b=.jpg', '.png'), ('https://a.org/x.exe', '.jpg'), ('https://a.org/', '.jpg')])
def test_where_the_file_of_an_image_belongs(url, suffix):
    assert isic.ArchiveImage('ISIC_1', 'CC-0', 'A', url, 1).path == f'images/ISIC_1{suffix}'


def first_page(change, plan=()):
    "The first page, changed before it is sent."
    with IsicServer(images={f'ISIC_{i:07d}': b'1' for i in range(24)}) as s, Network(quick(s, attempts=2)) as network:
        s.page, s.plan['api/v2/images/search/'] = change, list(plan)
        return isic.ArchivePages(network, s.api, most=10**5).read(f'{s.api}/images/search/')


def test_a_page_is_json_and_not_endless():
    assert len(first_page(None, ['500'])['results']) == 24
    assert 'sends no JSON (2 attempts' in refuses(first_page, lambda p: b'<html>')
    assert 'another form' in refuses(first_page, lambda p: [p])
    assert 'more than 100000 bytes' in refuses(first_page, lambda p: b'[' * 10**6)


@pytest.mark.parametrize('place, says', [('https://b.org/api/v2', 'continues at https://b.org'), ('http://a.org/api', 'is not followed'), (7, '(next)'),
                                         ('SAME', 'where it should not')])
def test_pages_lead_on_in_the_archive_and_never_back(place, says):
    with IsicServer(images={'ISIC_0000000': b'1'}) as s:
        s.page = lambda p: p | dict(next=f'{s.api}/images/search/?query=&collections=&limit=100' if place == 'SAME' else place)
        assert says in refuses(isic.search_archive, isic=quick(s))


@pytest.mark.parametrize('wanted', [dict(collections=['nevi']), dict(limit=0), dict(licence='mit')])
def test_a_search_that_cannot_be_is_refused_before_anybody_is_asked(wanted):
    with IsicServer() as s:
        assert re.search('is not a number|give 1 or more|choose from CC-0', refuses(isic.search_archive, **wanted, isic=quick(s)))
        assert not s.log


def test_a_search_that_the_archive_does_not_understand():
    with IsicServer() as s: assert 'does not understand the search (answer 400)' in refuses(isic.search_archive, 'bad:', isic=quick(s))


def test_what_is_missing_of_a_challenge_and_nothing_else_is_fetched_again(tmp_path, phantoms):
    files, rows = challenge_files(2018, *phantoms)
    (tmp_path / 'c.json').write_text(json.dumps({'isic2018': dict(licence='CC-0', attribution='Me', page='p', files=rows)}))
    def fetch(**kw): return isic.fetch_challenge('isic2018', tmp_path / 'c', isic=quick(s), catalogue=tmp_path / 'c.json', **kw)
    with IsicServer(files) as s: fetch()
    with IsicServer(files) as s:
        fetch()
        assert s.log == []
        (tmp_path / 'c' / 'ISIC2018_Task1_Training_GroundTruth' / 'ISIC_0000000_segmentation.png').unlink()
        assert fetch(keep_zips=True)[0].mask.exists()
        assert {path for _, path, *_ in s.log} == {'/2018/ISIC2018_Task1_Training_GroundTruth.zip'}
    assert [p.name for p in (tmp_path / 'c').glob('*.zip')] == ['ISIC2018_Task1_Training_GroundTruth.zip']


def test_a_set_with_too_few_images_is_refused_and_not_kept(tmp_path, phantoms):
    files, rows = challenge_files(2018, *phantoms)
    short = dict(licence='CC-0', attribution='Me', page='p', files=[dict(row, files=25) for row in rows])
    (tmp_path / 'c.json').write_text(json.dumps({'isic2018': short}))
    with IsicServer(files) as s:
        sentence = refuses(isic.fetch_challenge, 'isic2018', tmp_path / 'c', isic=quick(s), catalogue=tmp_path / 'c.json')
    assert 'holds 12 images instead of 25; download it again' in sentence
    assert not list((tmp_path / 'c').glob('*.zip')) and Checksums(tmp_path / 'c').rows == {}


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
    try: image = isic.ArchiveImage.from_answer(d, 'https://a.org')
    except InputError as e: assert len(str(e)) < 500
    else:
        assert re.fullmatch('ISIC_[0-9]+', image.id) and image.url.startswith('https://') and 0 < image.size <= Item.most
        assert all(re.fullmatch(r'\w+', k) and isinstance(v, (str, int, float)) for k, v in image.metadata.items())


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


def link():
    info = zipfile.ZipInfo('l.jpg')
    info.external_attr = 0o120777 << 16
    return [(info, b'/etc/passwd')]


@pytest.mark.parametrize('files, limits, says', [
    *[({name: b''}, {}, 'which leads out of the folder') for name in ('../a.jpg', '/a.jpg', 'a/../../b.jpg', '..\\a.jpg', 'C:a.jpg')],
    (link(), {}, "'l.jpg', which is a link"), ({'a/1.jpg': b'', 'b/1.JPG': b''}, {}, "'1.JPG' twice"), ({'a/-rf.jpg': b''}, {}, 'an odd name'),
    ({'a.jpg': bytes(2 * 10**6)}, {}, 'unfolds suspiciously far'), ({'a.jpg': b'12'}, dict(most=1), 'more than 1 bytes'),
    ({'a.jpg': b'', 'b.jpg': b''}, dict(members=1), 'holds 2 files, more than 1')])
def test_a_zip_with_what_has_no_business_there_is_refused(tmp_path, files, limits, says):
    (tmp_path / 'x.zip').write_bytes(zipped(files))
    assert says in refuses(isic.safe_unzip, tmp_path / 'x.zip', tmp_path / 'out', **limits)
    assert not (tmp_path / 'out').exists()


def test_a_zip_that_lies_about_a_length_leaves_nothing(tmp_path):
    data = random.Random(1).randbytes(3000)
    lying = zipped({'a.jpg': data}).replace((3000).to_bytes(4, 'little'), (2991).to_bytes(4, 'little'))
    (tmp_path / 'x.zip').write_bytes(lying)
    assert 'cannot be unpacked' in refuses(isic.safe_unzip, tmp_path / 'x.zip', tmp_path / 'out')
    assert not list((tmp_path / 'out').iterdir())


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
            m.setattr(isic, 'atomic_path', full)
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


# ---- an archive that means harm

def searched(change, **kw):
    "The first images that a search finds where every page is changed, and how many pages were asked for."
    with IsicServer(images={f'ISIC_{i:07d}': b'1' for i in range(5)}) as s, Network(quick(s, attempts=2)) as network:
        count = iter(range(10**6))
        s.page = lambda p: change(p, f'{s.api}/images/search/?cursor=MA==&n={next(count)}')
        search = isic.Search(network, s.api, **kw)
        try: return [i.id for i in search.images(f'{s.api}/images/search/')], len(s.log)
        except InputError as e: return str(e), len(s.log)


def test_empty_pages_that_always_name_a_next_one_end():
    says, asked = searched(lambda p, place: p | dict(results=[], next=place))
    assert says == 'the archive: sends page after page (10) without a new image; try again later' and asked == 10


def test_pages_that_repeat_their_images_end():
    says, asked = searched(lambda p, place: p | dict(next=place))
    assert 'without a new image' in says and asked == 11 # the first was new


def test_pages_without_end_end():
    ids = iter(range(10**9))
    def change(p, place): return p | dict(next=place, results=[r | dict(isic_id=f'ISIC_{next(ids):07d}') for r in p['results']])
    says, asked = searched(change, pages=20)
    assert 'names more than 20 pages; narrow the search, or give a limit such as `limit=100`' in says and asked == 20


def test_a_few_empty_pages_are_nothing_unusual():
    empty = iter([True] * 5)
    found, asked = searched(lambda p, place: p | (dict(results=[], next=place) if next(empty, False) else {}))
    assert (found, asked) == ([f'ISIC_{i:07d}' for i in range(5)], 6)


HOSTILE = ['=cmd|"/c calc"!A1', '@SUM(A1)', '+1+1', '-1+1', '\t=1', '\x1b[31mred', 'a\u202egpj.exe', 'a\nb,c\r\n=1', '＝1']


@pytest.mark.parametrize('text', HOSTILE)
def test_no_formula_and_no_escape_reaches_a_table(tmp_path, phantoms, text):
    "Attribution, licence and metadata are the server's words; they land in three tables."
    images = {'ISIC_0000000': phantoms[0]['ISIC_0000000']}
    with IsicServer(images=images) as s:
        def change(p):
            r = p['results'][0] | dict(attribution=text)
            r['metadata']['clinical'] |= dict(sex=text, diagnosis=text)
            return p | dict(results=[r])
        s.page = change
        m = isic.fetch_archive(isic.search_archive(isic=quick(s)), tmp_path, quick(s))
    m.save(tmp_path / 'manifest.parquet')
    tables = [list(csv.reader((tmp_path / name).read_text(encoding='utf-8').splitlines())) for name in ('manifest.csv', 'licences.csv')]
    cells = [c for table in tables for row in table for c in row] + [str(v) for row in read_rows(tmp_path / 'manifest.parquet') for v in row.values()]
    assert sum(text.strip()[-1] in c for c in cells) >= 4
    for c in [*cells, *(tmp_path / 'ATTRIBUTION.txt').read_text().splitlines()]: assert c.isprintable() and not c.startswith(tuple('=+-@＝\t'))


@pytest.mark.parametrize('value, stored', [(float('inf'), 'inf'), (float('nan'), 'nan'), (10**30, '1' + '0' * 30), (-5, -5), (2.5, 2.5), (True, True)])
def test_numbers_that_no_table_holds_become_text(value, stored): assert isic.plain_metadata(dict(clinical=dict(age=value))) == dict(age=stored)


def test_a_search_has_a_deadline():
    with IsicServer(images={'ISIC_0000000': b'1'}) as s:
        s.page = lambda p: time.sleep(.6) or p | dict(results=[], next=f'{s.api}/images/search/?n={time.time()}')
        says = refuses(isic.search_archive, isic=quick(s, deadline=.3))
    assert says.startswith('the download: has taken 0.3 s, its deadline')
