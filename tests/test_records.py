"lesion_seg.records against the `tfrecord` package, TensorFlow where it is installed, the files themselves, and damage of every kind."
import gzip
import json
import multiprocessing
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesion_seg import records as r
from lesion_seg.core import InputError, refuses
from lesion_seg.data import read_image, read_mask, resize_image, resize_mask
from lesion_seg.manifest import LesionPair, Manifest
from lesion_seg.phantom import write_phantoms
from lesion_seg.tfrecord import encode_example, frame, masked_crc32c


@pytest.fixture(scope='module')
def manifest(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp('phantoms'), n=10, size=(60, 80), seed=9).split((0.6, 0.2, 0.2), seed=1)


@pytest.fixture(scope='module')
def raw(manifest, tmp_path_factory):
    return r.write_records(manifest, tmp_path_factory.mktemp('raw') / 'records', size=48, shards=2)


@pytest.fixture(scope='module')
def files(manifest, tmp_path_factory):
    return r.write_records(manifest, tmp_path_factory.mktemp('files') / 'records', size=None, shards=3)


@pytest.fixture
def folder(raw, tmp_path):
    "A copy to be damaged."
    return Path(shutil.copytree(raw.path, tmp_path / 'copy'))


class TestOracles:
    def test_tfrecord_reads_ours(self, raw):
        tfrecord = pytest.importorskip('tfrecord')
        seen = {}
        for path in sorted(raw.path.glob('*.tfrecord')):
            for ex in tfrecord.tfrecord_loader(str(path), None, {'image': 'byte', 'mask': 'byte', 'height': 'int', 'id': 'byte', 'split': 'byte'}):
                seen[ex['id'].decode()] = dict(ex, image=bytes(ex['image']), mask=bytes(ex['mask']))
        assert len(seen) == len(raw) == 10
        for rec in raw:
            ex = seen[rec.id]
            assert ex['image'] == rec.image.tobytes() and ex['mask'] == rec.mask.tobytes()
            assert ex['height'] == [48] and ex['split'].decode() == rec.split

    def test_tfrecord_uses_our_index(self, raw):
        tfrecord = pytest.importorskip('tfrecord')
        path = raw.path / 'train-00000-of-00002.tfrecord'
        ids = [bytes(ex['id']).decode() for part in range(2)
               for ex in tfrecord.tfrecord_loader(str(path), str(path.with_suffix('.index')), {'id': 'byte'}, shard=(part, 2))]
        assert ids == [x.id for x in r.RecordReader(path)]

    def test_index_is_what_the_tool_of_tfrecord_makes(self, raw, tmp_path):
        tool = pytest.importorskip('tfrecord.tools.tfrecord2idx')
        for path in raw.path.glob('*.tfrecord'):
            tool.create_index(str(path), str(tmp_path / 'x.index'))
            assert (tmp_path / 'x.index').read_text() == path.with_suffix('.index').read_text()

    def test_tensorflow_and_we_read_each_other(self, raw, tmp_path):
        tf = pytest.importorskip('tensorflow', reason='no TensorFlow')
        with tf.io.TFRecordWriter(str(tmp_path / 'theirs.tfrecord')) as w:
            for payload in tf.data.TFRecordDataset(sorted(map(str, raw.path.glob('*.tfrecord')))):
                f = tf.train.Example.FromString(payload.numpy()).features.feature
                rec = next(x for x in raw if x.id == f['id'].bytes_list.value[0].decode())
                assert f['image'].bytes_list.value[0] == rec.image.tobytes() and f['mask'].bytes_list.value[0] == rec.mask.tobytes()
                w.write(payload.numpy())
        theirs = {x.id: x for x in r.RecordReader(tmp_path / 'theirs.tfrecord')}
        assert len(theirs) == len(raw) and all(np.array_equal(theirs[x.id].image, x.image) and np.array_equal(theirs[x.id].mask, x.mask) for x in raw)

    @pytest.mark.parametrize('name', ['a.tfrecord', 'train.tfrecord-00000-of-00001'])
    def test_ours_reads_tfrecord(self, manifest, tmp_path, name):
        tfrecord = pytest.importorskip('tfrecord')
        w = tfrecord.TFRecordWriter(str(tmp_path / name))
        small = [(resize_image(read_image(p.image), 32), resize_mask(read_mask(p.mask), 32)) for p in manifest[:3]]
        for image, mask in small:  # raw, with masks of 0 and 255, and without an id
            w.write({'image': (image.tobytes(), 'byte'), 'mask': ((mask * np.uint8(255)).tobytes(), 'byte'), 'height': (32, 'int'), 'width': (32, 'int'),
                     'channels': (3, 'int'), 'weight': (0.5, 'float')})
        p = manifest[3]
        w.write({'image': (p.image.read_bytes(), 'byte'), 'mask': (p.mask.read_bytes(), 'byte'), 'id': (b'x', 'byte'), 'group': (b'g', 'byte')})
        w.close()
        for path in (tmp_path, tmp_path / name):
            reader = r.RecordReader(path)
            assert [x.id for x in reader] == [f'{Path(name).stem}-{k}' for k in range(3)] + ['x'] and reader[3].group == 'g'
            for (image, mask), rec in zip(small, reader, strict=False):
                np.testing.assert_array_equal(rec.image, image)
                np.testing.assert_array_equal(rec.mask, mask)
            np.testing.assert_array_equal(reader[3].image, read_image(p.image))
            np.testing.assert_array_equal(reader.raw(3, 32)[1], resize_mask(read_mask(p.mask), 32))

    def test_floats_of_the_old_system_are_refused(self, tmp_path):
        image = np.ones((8, 8, 3), np.float32)
        payload = encode_example(dict(image=image.tobytes(), mask=image[..., 0].tobytes(), height=8, width=8, channels=3))
        (tmp_path / 'train.tfrecord').write_bytes(frame(payload))
        with pytest.raises(InputError, match='byte 0: has 768 bytes as its image, .* need 192; store uint8'):
            r.RecordReader(tmp_path / 'train.tfrecord')[0]


class TestRoundTrip:
    @given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.sampled_from(['train', 'valid', 'test', ''])), min_size=1,
                    max_size=12), st.integers(1, 5), st.integers(0, 2 ** 32 - 1))
    @settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_images(self, tmp_path, shapes, shards, seed):
        rng, out = np.random.default_rng(seed), tmp_path / 'any'
        shutil.rmtree(out, ignore_errors=True)
        want = [(rng.integers(0, 256, (h, w, 3), np.uint8), rng.random((h, w)) < 0.5 if m else None, f'ü{i}', f'g{i % 3}', s)
                for i, (h, w, m, s) in enumerate(shapes)]
        with r.RecordWriter(out, shards) as w:
            for x in want: w.write(*x)
        for index in (True, False):
            if not index: [p.unlink() for p in out.glob('*.index')]
            got = r.RecordReader(out)
            assert len(got) == len(want) == got.check()
            for (image, mask, *facts), rec in zip(want, got, strict=True):
                np.testing.assert_array_equal(rec.image, image)
                assert (mask is None) == (rec.mask is None) and (mask is None or (mask == rec.mask).all())
                assert list(rec[2:]) == facts

    def test_files_keep_their_bytes(self, manifest, files):
        for i, p in enumerate(manifest):
            assert bytes(files.stored(i).source()) == p.image.read_bytes()
            np.testing.assert_array_equal(files[i].image, read_image(p.image))
            np.testing.assert_array_equal(files[i].mask, read_mask(p.mask))

    def test_raw_is_what_the_loaders_make(self, manifest, raw, files):
        from lesion_seg.loaders import load_pair
        for i, p in enumerate(manifest):
            image, mask = load_pair(p, 48)
            for reader in (raw, files):
                got = reader.raw(i, 48)
                np.testing.assert_array_equal(got[0], image)
                np.testing.assert_array_equal(got[1], mask)
                assert got[1].dtype == bool

    def test_any_size_from_files_but_not_from_pixels(self, raw, files):
        assert files.raw(0, 33)[0].shape == (33, 33, 3)
        with pytest.raises(InputError, match='holds images of 48 x 48 pixels, not 33 x 33'): raw.raw(0, 33)

    def test_splits_have_their_own_shards(self, manifest, raw):
        for split in ('train', 'valid', 'test'):
            of_split = [x.id for path in raw.path.glob(f'{split}-*.tfrecord') for x in r.RecordReader(path)]
            assert sorted(of_split) == sorted(p.id for p in manifest.subset(split)) != []

    def test_pairs(self, manifest, raw):
        assert [(p.id, p.group, p.split) for p in raw.pairs] == [(p.id, p.group, p.split) for p in manifest]
        assert [p.id for p in raw.subset('valid').pairs] == [p.id for p in manifest.subset('valid')]

    def test_same_input_same_bytes(self, manifest, raw, tmp_path):
        again = r.write_records(manifest, tmp_path / 'again', size=48, shards=2)
        for path in raw.path.iterdir(): assert path.read_bytes() == (again.path / path.name).read_bytes()

    def test_views(self, raw):
        image, mask = raw.raw(0, 48)
        for a in (image, mask):
            assert not a.flags.writeable
            with pytest.raises(ValueError, match='read-only'): a[0] = 1


class TestWriter:
    def test_nothing_is_left_after_a_failure(self, manifest, tmp_path):
        broken = [*manifest[:2], LesionPair(tmp_path / 'cut.jpg', id='cut')]
        (tmp_path / 'cut.jpg').write_bytes(manifest[0].image.read_bytes()[:900])
        for size in (32, None):
            with pytest.raises(InputError, match='cut.jpg: is damaged'): r.write_records(broken, tmp_path / 'deep' / 'out', size)
            assert not list((tmp_path / 'deep').iterdir())
        with pytest.raises(KeyboardInterrupt), r.RecordWriter(tmp_path / 'deep' / 'out') as w:
            w.write(np.zeros((2, 2, 3), np.uint8), None, 'a')
            raise KeyboardInterrupt
        assert not list((tmp_path / 'deep').iterdir())

    def test_an_old_folder_is_kept(self, manifest, raw, tmp_path):
        before = {p: p.read_bytes() for p in raw.path.iterdir()}
        with pytest.raises(InputError, match='exists already'): r.write_records(manifest[:1], raw.path, 48)
        assert before == {p: p.read_bytes() for p in raw.path.iterdir()}
        (tmp_path / 'empty').mkdir()
        assert len(r.write_records(manifest[:1], tmp_path / 'empty', 16)) == 1

    def test_folder_that_cannot_be(self, tmp_path):
        (tmp_path / 'file').write_text('')
        for path in (tmp_path / 'file', tmp_path / 'file' / 'x'):
            with pytest.raises(InputError, match='exists already|cannot be written'): r.RecordWriter(path).__enter__()

    @pytest.mark.parametrize('image,mask,says', [
        (np.zeros((4, 4), np.uint8), None, 'uint8 .height, width, 3.'), (np.zeros((4, 4, 3)), None, 'float64'), (np.zeros((0, 4, 3), np.uint8), None, '0, 4'),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), 'not a bool array'), (np.zeros((4, 4, 3), np.uint8), b'x', 'not a bool array'),
        (b'%PDF-1.4', None, 'a: is a PDF file'), (b'\xff\xd8\xff', np.zeros((4, 4), bool), 'an array as its mask')])
    def test_refused(self, tmp_path, image, mask, says):
        with pytest.raises(InputError, match=says), r.RecordWriter(tmp_path / 'x') as w: w.write(image, mask, 'a')
        assert not list(tmp_path.iterdir())

    def test_an_id_stands_for_one_record(self, tmp_path):
        image, mask = np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), bool)
        with pytest.raises(InputError, match='the id a: stands for two records'), r.RecordWriter(tmp_path / 'out') as w:
            for id in 'aba': w.write(image, mask, id)
        assert not (tmp_path / 'out').exists()

    def test_shards(self, tmp_path):
        with pytest.raises(InputError, match='0 shards'): r.RecordWriter(tmp_path / 'x', 0)
        with r.RecordWriter(tmp_path / 'x', 9) as w: w.write(np.zeros((2, 2, 3), np.uint8), None, 'a')
        assert sorted(p.name for p in (tmp_path / 'x').iterdir()) == ['records-00000-of-00001.index', 'records-00000-of-00001.tfrecord', 'records.json']


class TestDamage:
    def test_every_byte_of_a_file(self, tmp_path):
        with r.RecordWriter(tmp_path / 'x') as w:
            for i in range(3): w.write(np.full((2, 3, 3), i, np.uint8), np.ones((2, 3), bool), f'{i}')
        path, copy = tmp_path / 'x' / 'records-00000-of-00001.tfrecord', tmp_path / 'copy.tfrecord'
        content, starts = path.read_bytes(), r.RecordReader(path).shards[0].starts
        for at in range(len(content)):
            start = starts[starts <= at][-1]
            copy.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1:])
            with pytest.raises(InputError, match=rf'copy.tfrecord: .*\bbyte {start}\b'): r.RecordReader(copy)
            if at and at not in starts:
                copy.write_bytes(content[:at])
                with pytest.raises(InputError, match=rf'copy.tfrecord: ends at byte {at}, .* at byte {start}\b'): r.RecordReader(copy)

    def test_flipped_byte_is_found_on_read_and_by_check(self, folder):
        path = folder / 'train-00001-of-00002.tfrecord'
        data, start = bytearray(path.read_bytes()), int(path.with_suffix('.index').read_text().split()[2])
        data[start + 500] ^= 1
        path.write_bytes(data)
        reader = r.RecordReader(folder)
        assert reader[0].image.shape == (48, 48, 3)
        with pytest.raises(InputError, match='1 of 10 records') as e: reader.check()
        (problem,) = e.value.problems
        assert f'train-00001-of-00002.tfrecord: is damaged in the record that starts at byte {start},' in problem.detail
        bad = [x.id for x in reader.pairs].index(problem.id)
        for read in (lambda: reader[bad], lambda: reader.raw(bad, 48)):
            with pytest.raises(InputError, match=f'byte {start}'): read()

    @pytest.mark.parametrize('index', [True, False])
    @pytest.mark.parametrize('cut', [0, 1, 700, 9000])
    def test_cut(self, folder, cut, index):
        path = folder / 'train-00000-of-00002.tfrecord'
        if not index: path.with_suffix('.index').unlink()
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(InputError, match=rf'train-00000-of-00002.tfrecord: (ends at byte {cut}\b|is empty)'): r.RecordReader(folder)

    def test_other_length(self, folder):
        path = folder / 'train-00000-of-00002.tfrecord'
        path.write_bytes(path.read_bytes() + b'x')
        with pytest.raises(InputError, match='bytes, and its manifest says'): r.RecordReader(folder)
        path.unlink()
        with pytest.raises(InputError, match='train-00000-of-00002.tfrecord: does not exist'): r.RecordReader(folder)

    def test_exchanged_shards(self, folder):
        a, b = (folder / f'train-0000{k}-of-00002' for k in (0, 1))
        if a.with_suffix('.tfrecord').stat().st_size != b.with_suffix('.tfrecord').stat().st_size: pytest.skip('shards differ in length')
        data = a.with_suffix('.tfrecord').read_bytes()
        a.with_suffix('.tfrecord').write_bytes(b.with_suffix('.tfrecord').read_bytes())
        b.with_suffix('.tfrecord').write_bytes(data)
        with pytest.raises(InputError, match='and the manifest says'): r.RecordReader(folder).subset('train')[0]

    @pytest.mark.parametrize('text', ['', 'x', '0', '5 16627\n', '0 -1\n', '0 1\n' * 3, '9' * 40])
    def test_bad_index(self, folder, text):
        index = folder / 'train-00000-of-00002.index'
        index.write_text(text)
        with pytest.raises(InputError, match='train-00000-of-00002.index: does not fit its shard; delete it'): r.RecordReader(folder).subset('train')[0]
        index.unlink()
        r.RecordReader(folder).check()

    @pytest.mark.parametrize('change', [
        lambda t: t.pop('shards'), lambda t: t.update(shards={}), lambda t: t['shards'][0].update(file='../../x'), lambda t: t['shards'][0].update(file=3),
        lambda t: t['shards'][0].update(records='3'), lambda t: t['shards'][0].update(bytes=None), lambda t: t.update(id=t['id'][1:]),
        lambda t: t.update(shard=[0] * 10), lambda t: t.update(shard=['0'] * 10), lambda t: t.update(group=[None] * 10), lambda t: t.update(size='48'),
        lambda t: t.update(split=5), lambda t: t.update(shard=[7] * 10)])
    def test_bad_manifest(self, folder, change):
        t = json.loads((folder / 'records.json').read_text())
        change(t)
        (folder / 'records.json').write_text(json.dumps(t))
        with pytest.raises(InputError, match='records.json: contradicts itself'): r.RecordReader(folder)

    @pytest.mark.parametrize('text,says', [('', 'cannot be read'), ('[]', 'not a manifest'), ('{"format": "x"}', 'not a manifest'),
                                           ('[' * 10 ** 5, 'cannot be read'), ('\xff', 'cannot be read')])
    def test_foreign_manifest(self, folder, text, says):
        (folder / 'records.json').write_text(text, encoding='latin-1')
        with pytest.raises(InputError, match=says): r.RecordReader(folder)

    def test_dishonest_length_allocates_nothing(self, tmp_path):
        for n in (2 ** 64 - 1, 2 ** 63, 2 ** 40, 100):
            header = struct.pack('<Q', n)
            (tmp_path / 'a.tfrecord').write_bytes(header + struct.pack('<I', masked_crc32c(header)) + bytes(99))
            with pytest.raises(InputError, match='a.tfrecord: ends at byte 111, before the end of the record that starts at byte 0'):
                r.RecordReader(tmp_path / 'a.tfrecord')

    @pytest.mark.parametrize('content,says', [
        (b'', 'is empty'), (b'abc', 'ends at byte 3'), (b'id,image\nP1,P1.jpg\n', 'is not a TFRecord file'), (bytes(50), 'is not a TFRecord file'),
        (gzip.compress(frame(b'abc'), mtime=0), 'compressed with gzip'), (frame(b'\x0a\x7f'), 'byte 0: is not a tf.train.Example'),
        (frame(b'') + frame(b'\x0b'), 'byte 16: is not a tf.train.Example'), (frame(encode_example({'id': b'\xff'})), 'not UTF-8 text as its id')])
    def test_foreign_files(self, tmp_path, content, says):
        (tmp_path / 'a.tfrecord').write_bytes(content)
        with pytest.raises(InputError, match=f'a.tfrecord.*{says}'): r.RecordReader(tmp_path / 'a.tfrecord')

    @pytest.mark.parametrize('features,says', [
        ({}, 'has no image'), (dict(image=5), 'has no image'), (dict(image=b'x' * 12, height=2, width=2, channels=3.0), '2147483647 as its channels'),
        (dict(image=b'x' * 12, height=-2, width=-2, channels=3), '2147483647 as its height'),
        (dict(image=b'x', height=2 ** 62, encoding='raw'), 'as its height'),
        (dict(image=b'x', height=2 ** 31 - 1, width=2 ** 31 - 1, channels=2 ** 31 - 1, encoding='raw'), 'has 1 bytes as its image'),
        (dict(image=b'', height=0, width=0, channels=3, encoding='raw'), 'has 0 bytes as its image'),
        (dict(image=b'\xff\xd8\xff\xe0'), 'damaged or incomplete'),
        (dict(image=bytes(12), mask=bytes([0, 7, 0, 0]), height=2, width=2, channels=3), 'from 0 to 7'), (dict(image=b'<html>'), 'web page')])
    def test_hostile_records(self, tmp_path, features, says):
        (tmp_path / 'a.tfrecord').write_bytes(frame(encode_example(features)))
        with pytest.raises(InputError, match=f'a.tfrecord, in the record that starts at byte 0: .*{says}'):
            r.RecordReader(tmp_path / 'a.tfrecord')[0]

    def test_grey_is_read(self, tmp_path):
        (tmp_path / 'a.tfrecord').write_bytes(frame(encode_example(dict(image=bytes([9, 8, 7, 6]), height=2, width=2, channels=1))))
        np.testing.assert_array_equal(r.RecordReader(tmp_path / 'a.tfrecord')[0].image[..., 2], [[9, 8], [7, 6]])


class TestOrder:
    @given(st.integers(0, 60), st.integers(0, 99), st.integers(0, 9), st.integers(1, 5), st.integers(1, 4), st.booleans())
    @settings(deadline=None)
    def test_every_record_once(self, n, seed, epoch, ranks, workers, shuffle):
        parts = [r.record_order(n, seed, epoch, a, ranks, b, workers, shuffle) for a in range(ranks) for b in range(workers)]
        assert sorted(np.concatenate(parts).tolist()) == list(range(n))
        even = [r.record_order(n, seed, epoch, a, ranks, shuffle=shuffle, even=True) for a in range(ranks)]
        assert {len(p) for p in even} == {-(-n // ranks)} and set(np.concatenate(even).tolist()) == set(range(n))

    def test_is_the_order_of_the_loaders(self):
        from lesion_seg.loaders import epoch_order
        for epoch in range(3): assert r.record_order(17, 5, epoch).tolist() == epoch_order(list(range(17)), 5, epoch)

    @pytest.mark.parametrize('place', [(1, 1, 0, 1), (-1, 2, 0, 1), (0, 1, 2, 2), (0, 0, 0, 1)])
    def test_places_that_do_not_exist(self, place):
        with pytest.raises(InputError, match='count from 0'): r.record_order(9, 1, 1, *place)


class TestDataset:
    @pytest.fixture(scope='class')
    def two(self, manifest, raw):
        from lesion_seg.augment import apply_augs, train_augs
        from lesion_seg.loaders import LesionDataset
        of_files = LesionDataset(manifest.subset('train'), 48, train_augs(48), seed=3)
        return of_files, r.RecordDataset(raw.subset('train'), 48, partial(apply_augs, train_augs(48)), seed=3)

    def test_items_are_those_of_files(self, two):
        for epoch in range(3):
            for ds in two: ds.epoch = epoch
            for i in range(len(two[0])):
                (x, y), (u, v) = two[0][i], two[1][i]
                assert type(x) is type(u) and type(y) is type(v) and x.dtype == u.dtype and y.dtype == v.dtype
                assert (x == u).all() and (y == v).all()

    def test_batches_of_fastai(self, two):
        from fastai.data.core import TfmdDL
        a, b = (np.concatenate([x.numpy() for x, _ in TfmdDL(ds, bs=2, num_workers=n)]) for ds, n in zip(two, (0, 2), strict=True))
        np.testing.assert_array_equal(a, b)

    def test_other_processes(self, raw):
        want = [raw.raw(i, 48)[0].sum() for i in range(len(raw))]
        with multiprocessing.get_context('spawn').Pool(2) as pool:
            assert [image.sum() for image, _ in pool.map(partial(raw.raw, size=48), range(len(raw)))] == want

    def test_pickle_leaves_the_maps(self, raw):
        raw.check()
        assert len(pickle.dumps(raw)) < 5000
        assert pickle.loads(pickle.dumps(r.RecordDataset(raw.path, 48))).raw(1)[1].tolist() == raw.raw(1, 48)[1].tolist()  # noqa: S301


def test_import_is_light():
    code = "import sys, lesion_seg.records; print([m for m in ('torch', 'fastai', 'tensorflow', 'google.protobuf', 'pandas', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


def test_real_photographs(tmp_path):
    native = Path(__file__).parents[2] / 'shared/data/isic2017_native'
    if not native.exists(): pytest.skip('no ISIC sample')
    pairs = Manifest.from_folder(native)[:2]
    got = r.write_records(pairs, tmp_path / 'x', size=256)
    for i, p in enumerate(pairs):
        np.testing.assert_array_equal(got.raw(i, 256)[0], resize_image(read_image(p.image, at_least=256), 256))
        np.testing.assert_array_equal(got.raw(i, 256)[1], resize_mask(read_mask(p.mask), 256))


class TestManifestView:
    def test_pairs_are_those_of_the_files(self, manifest, raw, files):
        for i, p in enumerate(manifest):
            for view in (raw.manifest(), files.manifest()):
                v = view[i]
                assert (v.id, v.group, v.split, v.meta) == (p.id, p.group, p.split, {})
            np.testing.assert_array_equal(read_image(files.manifest()[i].image), read_image(p.image))
            np.testing.assert_array_equal(read_mask(files.manifest()[i].mask), read_mask(p.mask))
            np.testing.assert_array_equal(read_image(raw.manifest()[i].image), resize_image(read_image(p.image, at_least=48), 48))
            np.testing.assert_array_equal(read_mask(raw.manifest()[i].mask), resize_mask(read_mask(p.mask), 48))

    def test_it_is_a_manifest(self, manifest, raw):
        view = raw.manifest()
        assert isinstance(view, Manifest) and view.digest == manifest.digest and len(view) == len(manifest)
        assert [p.id for p in view.subset('test')] == [p.id for p in manifest.subset('test')]
        assert isinstance(view.subset('test'), r.RecordManifest) and isinstance(view[:2], r.RecordManifest)
        np.testing.assert_allclose(view.areas(), [resize_mask(read_mask(p.mask), 48).mean() for p in manifest])
        assert view.check() == [] and repr(view).startswith('RecordManifest of 10 pairs')

    def test_images_are_views_that_cost_no_memory(self, raw):
        images = [p.image for p in raw.manifest()]
        assert all(np.shares_memory(image, raw.shards[raw.rows[i].shard].frames.data) for i, image in enumerate(images))

    def test_what_it_cannot_do_is_a_sentence(self, raw, tmp_path):
        for f in (raw.manifest().frame, lambda: raw.manifest().save(tmp_path / 'm.csv')):
            assert 'holds records, not files that a table could list; use the table' in refuses(f)

    def test_records_of_a_view(self, raw, tmp_path):
        "A split of records can be written as records of its own, without its files."
        again = r.write_records(raw.manifest().subset('test'), tmp_path / 'test', size=48)
        assert [x.id for x in again] == [x.id for x in raw.subset('test')]
        for a, b in zip(again, raw.subset('test'), strict=True): np.testing.assert_array_equal(a.mask, b.mask)
        assert again.content_digest == raw.subset('test').content_digest
        assert 'holds pixels, not a file; give the size' in refuses(r.write_records, raw.manifest(), tmp_path / 'whole', size=None)

    def test_whole_files_of_a_view(self, files, tmp_path):
        again = r.write_records(files.manifest(), tmp_path / 'again', size=None)
        assert again.content_digest == files.content_digest

    def test_views_in_other_processes(self, raw):
        pairs = pickle.loads(pickle.dumps(raw.manifest().pairs))  # noqa: S301
        np.testing.assert_array_equal(pairs[3].image, raw[3].image)

    def test_damage_is_named(self, folder):
        path = folder / 'train-00000-of-00002.tfrecord'
        data = bytearray(path.read_bytes())
        data[500] ^= 1
        path.write_bytes(data)
        problems = r.RecordReader(folder).manifest().check(strict=False)
        assert [p.kind for p in problems] == ['unreadable record'] and 'train-00000-of-00002.tfrecord: is damaged' in problems[0].detail
        assert refuses(r.RecordReader(folder).manifest().check).startswith('1 of 10 records: cannot be used; repair')

    def test_a_model_is_scored_on_records(self, manifest, files):
        if not (Path(r.__file__).parent / 'shipped').exists(): pytest.skip('no shipped model here')
        from lesion_seg.bundle import Bundle
        from lesion_seg.report import evaluate_manifest
        bundle = Bundle.open('shipped')
        with_files, with_records = (evaluate_manifest(bundle, m.subset('test')) for m in (manifest, files.manifest()))
        assert len(with_files) and with_files.equals(with_records)


class TestContentDigest:
    def write(self, folder, change=lambda i, image, mask: (image, mask), **kw):
        rng = np.random.default_rng(0)
        with r.RecordWriter(folder, **kw) as w:
            for i in range(6):
                image, mask = change(i, rng.integers(0, 256, (8, 8, 3), np.uint8), rng.random((8, 8)) < .5)
                w.write(image, mask, f'P{i}', split='train' if i % 2 else 'test')
        return r.RecordReader(folder)

    def test_the_same_whatever_the_shards_and_their_order(self, tmp_path):
        a, b = self.write(tmp_path / 'a'), self.write(tmp_path / 'b', shards=3)
        assert a.content_digest == b.content_digest == self.write(tmp_path / 'c', shards=2).content_digest

    @pytest.mark.parametrize('what', ['image', 'mask'])
    def test_one_changed_pixel_is_noticed(self, tmp_path, what):
        def change(i, image, mask):
            if i == 3: (image if what == 'image' else mask)[0, 0] ^= 1
            return image, mask
        a, b = self.write(tmp_path / 'a'), self.write(tmp_path / 'b', change)
        assert a.digest == b.digest and a.content_digest != b.content_digest

    def test_masks_changed_in_place_are_noticed(self, manifest, tmp_path):
        "The files are overwritten, the table stays: what is written anew has another content."
        before = r.write_records(manifest, tmp_path / 'before', size=None)
        copies = [LesionPair(p.image, Path(shutil.copy(p.mask, tmp_path / p.mask.name)), p.id, p.group, p.split) for p in manifest]
        same = r.write_records(copies, tmp_path / 'same', size=None)
        other = read_mask(copies[0].mask)
        from PIL import Image
        Image.fromarray(np.roll(other, 1, 0)).save(copies[0].mask)
        after = r.write_records(copies, tmp_path / 'after', size=None)
        assert before.digest == same.digest == after.digest
        assert before.content_digest == same.content_digest != after.content_digest

    def test_no_pixel_is_read(self, folder):
        "The digest stays when a payload is damaged, since only checksums are read; reading the record is what notices."
        before = r.RecordReader(folder).content_digest
        path = folder / 'train-00000-of-00002.tfrecord'
        data = bytearray(path.read_bytes())
        data[500] ^= 1
        path.write_bytes(data)
        assert r.RecordReader(folder).content_digest == before
        data[3] ^= 1 # a length
        path.write_bytes(data)
        assert 'is damaged at byte 0' in refuses(lambda: r.RecordReader(folder).content_digest) or 'not a TFRecord' in refuses(
            lambda: r.RecordReader(folder).content_digest)


class TestAttacks:
    @pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
    @pytest.mark.parametrize('name', ['train-00000-of-00002.tfrecord', 'train-00000-of-00002.index', 'records.json'])
    def test_a_pipe_never_holds_us(self, folder, name):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert 'is not a regular file' in refuses(lambda: r.RecordReader(folder).check())

    @pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
    def test_a_pipe_among_foreign_files(self, folder, tmp_path):
        os.mkfifo(tmp_path / 'a.tfrecord')
        assert 'is not a regular file' in refuses(r.RecordReader, tmp_path / 'a.tfrecord')
        assert 'holds no records' in refuses(r.RecordReader, tmp_path)

    def test_a_link_is_followed_and_what_it_leads_to_is_judged(self, folder, tmp_path):
        path = folder / 'train-00000-of-00002.tfrecord'
        path.rename(tmp_path / 'elsewhere')
        path.symlink_to(tmp_path / 'elsewhere')
        assert r.RecordReader(folder).check() == 10
        path.unlink()
        path.symlink_to(__file__)
        assert refuses(r.RecordReader, folder)
        path.unlink()
        path.symlink_to(path)
        assert 'train-00000-of-00002.tfrecord' in refuses(r.RecordReader, folder)

    def test_a_shard_that_is_cut_while_it_is_open(self, folder):
        "Touching the missing part of a mapped file would end the process without a word."
        reader = r.RecordReader(folder).subset('train')
        assert reader.check() == len(reader)
        path = reader.shards[reader.rows[-1].shard].path
        os.truncate(path, 100)
        assert 'was cut while it was open; copy it again' in refuses(reader.stored, len(reader) - 1)

    def test_a_shard_that_is_replaced_while_it_is_open(self, folder):
        "The mapped file stays readable under no name, as everywhere on Unix; the new one is another file."
        reader = r.RecordReader(folder).subset('train')
        before = reader[0].image.copy()
        path = reader.shards[reader.rows[0].shard].path
        path.unlink()
        path.write_bytes(b'short')
        np.testing.assert_array_equal(reader[0].image, before)
        assert 'ends at byte 5' in refuses(r.RecordReader, folder)

    def test_an_index_without_end(self, folder):
        (folder / 'train-00000-of-00002.index').write_bytes(b'0 1\n' * 10 ** 7)
        began = time.monotonic()
        assert 'does not fit its shard; delete it' in refuses(lambda: r.RecordReader(folder).subset('train')[0])
        assert time.monotonic() - began < 1

    def test_a_writer_that_was_killed_leaves_no_folder_of_that_name(self, tmp_path):
        code = (f"import os, numpy as np, lesion_seg.records as r\nw = r.RecordWriter({str(tmp_path / 'x')!r}).__enter__()\n"
                "w.write(np.zeros((2, 2, 3), np.uint8), None, 'a')\nos.kill(os.getpid(), 9)")
        assert subprocess.run([sys.executable, '-c', code]).returncode == -9
        assert not (tmp_path / 'x').exists() and all(p.name.startswith('.') for p in tmp_path.iterdir())
        with r.RecordWriter(tmp_path / 'x') as w: w.write(np.zeros((2, 2, 3), np.uint8), None, 'a')
        assert r.RecordReader(tmp_path / 'x').check() == 1

    @pytest.mark.parametrize('id', ['a\x1b[31m', 'a\u202eb', 'a\nb', '=1+1', 'x' * 10 ** 5])
    def test_hostile_ids_in_sentences(self, tmp_path, id):
        (tmp_path / 'a.tfrecord').write_bytes(frame(encode_example(dict(image=b'x', id=id))))
        says = refuses(r.RecordReader(tmp_path / 'a.tfrecord').check)
        assert all(line.isprintable() and len(line) < 1000 for line in says.split('\n'))
