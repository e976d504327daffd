"lesion_seg.manifest against values by hand, scipy and properties."
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lesion_seg import manifest as d
from lesion_seg.core import InputError

ISIC = Path(__file__).parents[2] / 'shared/data'
isic = pytest.mark.skipif(not (ISIC / 'isic2017').exists(), reason='no ISIC sample')


def enc(im, fmt='PNG', **kw):
    b = io.BytesIO()
    (Image.fromarray(im) if isinstance(im, np.ndarray) else im).save(b, fmt, **kw)
    return b.getvalue()


def dataset(folder, n=6, image='images/i{}.png', mask='masks/i{}.png', size=(32, 40)):
    "n pairs of drawn files; pair i has i % 5 + 1 lesion pixels in its first row."
    for i in range(n):
        photograph = np.random.default_rng(i).integers(60, 220, (*size, 3), np.uint8)
        for name, a in ((image, photograph), (mask, (np.indices(size).sum(0) <= i % 5).astype(np.uint8) * 255)):
            if not name: continue
            p = folder / name.format(i)
            p.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(a).save(p)
    return folder


def test_import_brings_no_heavy_library():
    code = ('import sys; import lesion_seg.manifest; '
            'print([m for m in ("pandas", "torch", "fastai", "matplotlib", "scipy", "pyarrow", "fastcore") if m in sys.modules])')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


class TestLayouts:
    def check(self, folder, n=6, masks=True):
        m = d.Manifest.from_folder(folder)
        assert len(m) == n and m.check(strict=False) == [] if masks else len(m) == n
        return m

    @pytest.mark.parametrize('mask', ['i{}.png', 'i{}_mask.png', 'i{}_segmentation.png', 'i{}_Segmentation.PNG', 'i{}-mask.png'])
    def test_images_and_masks(self, tmp_path, mask):
        m = self.check(dataset(tmp_path, mask='masks/' + mask))
        assert [p.id for p in m] == [f'i{i}' for i in range(6)] and all(p.mask.stem.startswith(p.id) for p in m)

    def test_side_by_side(self, tmp_path):
        assert all(p.mask for p in self.check(dataset(tmp_path, image='i{}.png', mask='i{}_mask.png')))

    def test_images_alone(self, tmp_path):
        m = self.check(dataset(tmp_path, image='i{}.png', mask=''), masks=False)
        assert {p.kind for p in m.check(strict=False)} == {'no mask'}

    @pytest.mark.parametrize('images,masks,year,role', [
        ('ISBI2016_ISIC_Part1_Training_Data/ISIC_000{}.jpg', 'ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_000{}_Segmentation.png',
            '2016', 'train'),
        ('ISIC-2017_Validation_Data/ISIC_000{}.jpg', 'ISIC-2017_Validation_Part1_GroundTruth/ISIC_000{}_segmentation.png', '2017', 'valid'),
        ('ISIC-2017_Test_v2_Data/ISIC_000{}.jpg', 'ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_000{}_segmentation.png', '2017', 'test'),
        ('ISIC2018_Task1-2_Training_Input/ISIC_000{}.jpg', 'ISIC2018_Task1_Training_GroundTruth/ISIC_000{}_segmentation.png', '2018',
            'train')])
    def test_challenges(self, tmp_path, images, masks, year, role):
        dataset(tmp_path, image=images, mask=masks)
        Image.new('RGB', (4, 4)).save(tmp_path / Path(images).parent / 'ISIC_0000_superpixels.png')
        (tmp_path / 'ISIC-2017_Training_Part2_GroundTruth').mkdir()
        (tmp_path / Path(images).parent / 'LICENSE.txt').touch()
        m = self.check(tmp_path)
        assert {(p.meta['challenge'], p.meta['official_split']) for p in m} == {(year, role)}

    def test_two_roles_and_doubly_nested(self, tmp_path):
        for role in ('Training', 'Validation'):
            n = f'ISIC-2017_{role}_Data'
            dataset(tmp_path, 3, f'{n}/{n}/{role}{{}}.png', f'ISIC-2017_{role}_Part1_GroundTruth/{role}{{}}_segmentation.png')
        m = self.check(tmp_path)
        assert Counter(p.meta['official_split'] for p in m) == {'train': 3, 'valid': 3}

    def test_folder_with_nothing(self, tmp_path):
        with pytest.raises(InputError, match='holds no photographs'): d.Manifest.from_folder(tmp_path)
        with pytest.raises(InputError, match='is not a folder'): d.Manifest.from_folder(tmp_path / 'no')

    @isic
    def test_isic_sample(self):
        m = d.Manifest.load(ISIC / 'isic2017')
        assert len(m) == 2150 and all(p.mask.parent.name == 'masks' for p in m) and m.check() == []
        native = d.Manifest.load(ISIC / 'isic2017_native')
        assert len(native) == 21 and native.check() == []
        original = d.Manifest([d.LesionPair(p.image, p.mask.parents[1] / 'masks_original_resolution' / p.mask.name) for p in m[:5]])
        assert {p.kind for p in original.check(strict=False)} == {'sizes differ'} and original.check(resize_ok=True) == []


FORMULAS = {*'=+-@＝＋－＠'} # with the wide ones
cells = st.builds(str.__add__, st.sampled_from(['', "'", "''", ' ', *FORMULAS, "'=", '\t@']), st.text(
    st.characters(exclude_categories=['Cs', 'Cc'], exclude_characters='/'), max_size=8)).filter(lambda s: s and s == s.strip())


def is_number(cell):
    try: return bool(float(cell)) or True
    except ValueError: return False


class TestTables:
    @pytest.mark.parametrize('name', ['m.csv', 'm.parquet', 'sub/m.csv'])
    def test_round_trip(self, tmp_path, name):
        m = d.Manifest.load(dataset(tmp_path, 12))
        m = d.Manifest([d.LesionPair(p.image, p.mask, p.id, f'g{i // 2}', '', {'age': str(i), 'note': 'a, "b"\nc'}) for i,
            p in enumerate(m)]).split()
        got = d.Manifest.load(m.save(tmp_path / name))
        assert [(p.id, p.group, p.split, p.meta) for p in got] == [(p.id, p.group, p.split, p.meta) for p in m]
        assert all(os.path.samefile(a.image, b.image) and os.path.samefile(a.mask, b.mask) for a, b in zip(got, m, strict=True))
        assert got.digest == m.digest and got.check() == []
        assert not any(x.name.startswith('.') for x in tmp_path.rglob('*'))

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(cells, cells, cells, cells), min_size=1, max_size=4, unique_by=lambda r: r[1]))
    def test_round_trip_of_any_names(self, rows):
        with tempfile.TemporaryDirectory() as folder:
            pairs = [d.LesionPair(Path(folder, f'{name}.jpg'), Path(folder, 'm', f'{i}.png'), i, g, '', {'=age': note})
                     for name, i, g, note in rows]
            for name in ('m.csv', 'm.parquet'):
                path = d.Manifest(pairs).save(Path(folder, name))
                got = d.Manifest.load(path)
                assert [(p.image, p.mask, p.id, p.group, p.meta) for p in got] == [
                    (p.image, p.mask, p.id, p.group, p.meta) for p in pairs]
                if name == 'm.csv':
                    for line in csv.reader(io.StringIO(path.read_text(), newline='')):
                        for cell in line: assert cell[:1] not in FORMULAS or is_number(cell), cell

    def test_a_formula_is_no_file_name(self, tmp_path):
        dataset(tmp_path, 2, '={}.png', '={}_mask.png')
        text = d.Manifest.load(tmp_path).save(tmp_path / 'm.csv').read_text()
        assert text == "image,mask,id,group,split\n./=0.png,./=0_mask.png,'=0,'=0,\n./=1.png,./=1_mask.png,'=1,'=1,\n"
        assert [p.id for p in d.Manifest.load(tmp_path / 'm.csv')] == ['=0', '=1']
        table = tmp_path / 'meta.csv'
        table.write_text("image_id,patient_id\n'=0,+A\n=1,+A\n")
        assert {p.group for p in d.Manifest.load(tmp_path / 'm.csv').join(table).group_by()} == {'+A'}

    def test_saved_paths(self, tmp_path):
        m = d.Manifest.load(dataset(tmp_path / 'set', 4))
        text = m.save(tmp_path / 'runs' / 'm.csv').read_text()
        assert text.splitlines()[:2] == ['image,mask,id,group,split', '../set/images/i0.png,../set/masks/i0.png,i0,i0,']
        (tmp_path / 'set').rename(tmp_path / 'set2')
        assert {p.kind for p in d.Manifest.load(tmp_path / 'runs' / 'm.csv').check(strict=False)} == {'missing photograph', 'missing mask'}

    @pytest.mark.skipif(os.name == 'nt', reason='POSIX paths')
    def test_only_the_root_shared_is_absolute(self):
        assert d.relative_path(Path('/data/isic/a.jpg'), Path('/home/me')) == '/data/isic/a.jpg'
        assert d.relative_path(Path('/data/isic/a.jpg'), Path('/data/runs')) == '../isic/a.jpg'

    def test_table_moves_with_its_folder(self, tmp_path):
        d.Manifest.load(dataset(tmp_path / 'a', 4)).save(tmp_path / 'a' / 'manifest.csv')
        (tmp_path / 'a').rename(tmp_path / 'b')
        m = d.Manifest.load(tmp_path / 'b')
        assert m.check() == [] and all(str(tmp_path / 'b') in str(p.image) for p in m)

    def test_absolute_paths_stay_absolute_on_reading(self, tmp_path):
        f = dataset(tmp_path / 'set', 1) / 'images' / 'i0.png'
        (tmp_path / 'm.csv').write_text(f'image\n{f}\n')
        assert d.Manifest.load(tmp_path / 'm.csv')[0].image == f

    def test_patient_column_makes_the_group(self, tmp_path):
        (tmp_path / 'm.csv').write_text('image,patient_id,lesion_id\na.jpg,P1,\nb.jpg,P1,L1\nc.jpg,,L1\nd.jpg,,L2\ne.jpg,,\n')
        assert [p.group for p in d.Manifest.load(tmp_path / 'm.csv')] == ['P1', 'P1', 'P1', 'L2', 'e']

    def test_no_collision_of_patient_and_lesion_numbers(self, tmp_path):
        (tmp_path / 'm.csv').write_text('image,patient_id,lesion_id\na.jpg,7,\nb.jpg,,7\n')
        m = d.Manifest.load(tmp_path / 'm.csv')
        assert m[0].group != m[1].group

    @pytest.mark.parametrize('text,says', [
        ('', 'is empty'), ('image\n', 'has no rows'), ('age,mask\na,b\n', r'no column "image" \(it has age, mask\)'),
        ('image,mask\na.jpg\n', '1 fields in line 2')])
    def test_bad_tables(self, tmp_path, text, says):
        (tmp_path / 'm.csv').write_text(text)
        with pytest.raises(InputError, match=says) as e: d.Manifest.load(tmp_path / 'm.csv')
        assert str(tmp_path / 'm.csv') in str(e.value)

    def test_bad_files(self, tmp_path):
        (tmp_path / 'l1.csv').write_bytes('image\nmüller.jpg\n'.encode('latin-1'))
        with pytest.raises(InputError, match='not UTF-8'): d.Manifest.load(tmp_path / 'l1.csv')
        (tmp_path / 'm.parquet').write_text('no')
        with pytest.raises(InputError, match='Parquet'): d.Manifest.load(tmp_path / 'm.parquet')
        with pytest.raises(InputError, match='does not exist'): d.Manifest.load(tmp_path / 'none.csv')

    @pytest.mark.parametrize('change', [lambda t: t[:-1], lambda t: [t[0], t[1].replace('train', 'test').replace('valid', 'test'), *t[2:]],
                                        lambda t: [t[0], t[1].replace(',i0,i0,', ',i0,other,'), *t[2:]]])
    def test_changed_split_is_noticed(self, tmp_path, change):
        m = d.Manifest.load(dataset(tmp_path, 12)).split((0.5, 0.5, 0))
        lines = m.save(tmp_path / 'm.csv').read_text().splitlines()
        (tmp_path / 'm.csv').write_text('\n'.join([lines[0], *lines[:0:-1]]))
        assert d.Manifest.load(tmp_path / 'm.csv').digest == m.digest  # another order is the same split
        (tmp_path / 'm.csv').write_text('\n'.join(change(lines)))
        with pytest.raises(InputError, match=r'm.csv: was changed .* delete the column split_digest'): d.Manifest.load(tmp_path / 'm.csv')

    def test_digest_by_hand(self):
        m = d.Manifest([d.LesionPair('b.jpg', split='test'), d.LesionPair('a.jpg', group='g', split='train')])
        assert m.digest == hashlib.sha256(b'[["a", "g", "train"], ["b", "b", "test"]]').hexdigest()

    def test_frame_slice_subset(self, tmp_path):
        m = d.Manifest.load(dataset(tmp_path, 20)).split()
        f = m.frame()
        assert list(f.columns) == ['image', 'mask', 'id', 'group', 'split'] and len(f) == 20 and len(m[:3]) == 3
        assert sum(len(m.subset(s)) for s in d.SPLITS) == 20 and m[:3] == d.Manifest(m.pairs[:3])
        with pytest.raises(InputError, match='train, valid, test'): m.subset('val')


class TestCheck:
    def test_everything_together_by_name(self, tmp_path):
        dataset(tmp_path, 8)
        (tmp_path / 'images/i0.png').write_bytes(b'')
        (tmp_path / 'images/i1.png').write_text('<html>')
        (tmp_path / 'masks/i2.png').unlink()
        Image.fromarray(np.eye(3) > 0).save(tmp_path / 'masks/i3.png')
        noise = enc(np.random.default_rng(0).integers(0, 255, (32, 40, 3)).astype(np.uint8))
        (tmp_path / 'images/i4.png').write_bytes(noise[:150])
        Image.new('L', (40, 32), 77).save(tmp_path / 'masks/i5.png')
        Image.new('L', (40, 32)).save(tmp_path / 'masks/orphan_mask.png')
        Image.new('L', (40, 32)).save(tmp_path / 'masks/i6_mask.png')
        m = d.Manifest.load(tmp_path)
        quick = {p.id: p.kind for p in m.check(strict=False)}
        assert quick == {'i0': 'unreadable photograph', 'i1': 'unreadable photograph', 'i2': 'no mask', 'i3': 'sizes differ',
                         'orphan': 'mask without a photograph', 'i6': 'several masks'}
        full = {p.id: p.kind for p in m.check(full=True, strict=False)}
        assert full == {**quick, 'i4': 'unreadable photograph', 'i5': 'unreadable mask'}
        with pytest.raises(InputError) as e: m.check(full=True)
        assert len(e.value.problems) == 8 and all(n in str(e.value) for n in ('i0.png', 'i1.png', 'i2', 'i3.png', 'i4.png', 'i5.png',
            'orphan', 'i6'))

    def test_table_problems(self, tmp_path):
        dataset(tmp_path, 3)
        rows = 'images/i0.png,masks/i0.png,x,g,train', 'images/i1.png,masks/i1.png,x,g,test', 'images/i2.png,masks/i2.png,y,h,holdout'
        (tmp_path / 'm.csv').write_text('\n'.join(['image,mask,id,group,split', *rows]))
        got = d.Manifest.load(tmp_path / 'm.csv').check(strict=False)
        assert {p.kind for p in got} == {'id twice', 'group in several splits', 'unknown split'}

    def test_long_lists_are_counted(self, tmp_path):
        m = d.Manifest([d.LesionPair(f'{i}.jpg', 'm.png') for i in range(50)])
        with pytest.raises(InputError, match=r'missing photograph \(50\)') as e: m.check()
        assert 'and 30 more' in str(e.value) and len(e.value.problems) == 100

    def test_one_missing_mask_shifts_nothing(self, tmp_path):
        dataset(tmp_path, 6)
        (tmp_path / 'masks/i2.png').unlink()
        assert [p.mask and p.mask.name for p in d.Manifest.load(tmp_path)] == ['i0.png', 'i1.png', None, 'i3.png', 'i4.png', 'i5.png']

    @isic
    def test_fast(self):
        import time
        m = d.Manifest.load(ISIC / 'isic2017')
        t = time.process_time()
        m.check()
        assert time.process_time() - t < 10


groups_st = st.lists(st.integers(0, 40), min_size=3, max_size=120).filter(lambda g: len(set(g)) >= 3).map(lambda g: [f'p{x}' for x in g])
fractions_st = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)).map(lambda t: tuple(x / sum(t) for x in t))


class TestSplit:
    @given(groups_st, fractions_st, st.integers(0, 99), st.randoms())
    @settings(max_examples=150, deadline=None)
    def test_properties(self, groups, fractions, seed, rnd):
        areas = [(hash_area(g) + i % 3) / 100 for i, g in enumerate(groups)]
        got = d.split_groups(groups, areas, fractions, seed)
        assert got == d.split_groups(groups, areas, fractions, seed)
        side = {}
        for g, s in zip(groups, got, strict=True): assert side.setdefault(g, s) == s           # no group is divided
        order = list(range(len(groups)))
        rnd.shuffle(order)
        again = d.split_groups([groups[i] for i in order], [areas[i] for i in order], fractions, seed)
        assert again == [got[i] for i in order]                                                 # the order of rows is nothing
        n, largest = Counter(got), max(Counter(groups).values())
        for s, f in zip(d.SPLITS, fractions, strict=True):
            assert (n[s] > 0) == (f > 0)                                                        # filled where asked for
            assert n[s] - f * len(groups) <= max(largest, 1)

    @pytest.mark.parametrize('n', [*range(3, 40), 100, 997])
    def test_single_files_come_as_close_as_can_be(self, n):
        got = Counter(d.split_groups([str(i) for i in range(n)]))
        for s, f in zip(d.SPLITS, (0.7, 0.15, 0.15), strict=True): assert abs(got[s] - f * n) < 1 or n <= 6 and got[s] >= 1

    @given(st.lists(st.integers(1, 6), min_size=3, max_size=7), st.integers(0, 9))
    @settings(max_examples=60, deadline=None)
    def test_no_single_move_would_be_better(self, sizes, seed):
        groups = [f'g{i}' for i, n in enumerate(sizes) for _ in range(n)]
        got, f = dict(zip(groups, d.split_groups(groups, seed=seed), strict=True)), np.array((0.7, 0.15, 0.15)) * len(groups)
        def off(where): return sum(abs(sum(sizes[int(g[1:])] for g, s in where.items() if s == t) - f[k]) for k, t in enumerate(d.SPLITS))
        for g in got:
            for s in d.SPLITS:
                moved = {**got, g: s}
                assert len(set(moved.values())) < 3 or off(moved) >= off(got) - 1e-9

    def test_stratified_by_area(self):
        rng = np.random.default_rng(0)
        area, groups = rng.beta(1, 4, 1000), [f'p{i}' for i in range(1000)]
        def spread(a): return max(abs(np.mean([x for x, g in zip(area, a, strict=True) if g == s]) - area.mean()) for s in d.SPLITS)
        plain = np.mean([spread(d.split_groups(groups, seed=s)) for s in range(5)])
        assert np.mean([spread(d.split_groups(groups, area, seed=s)) for s in range(5)]) < 0.6 * plain
        fifth = np.searchsorted(np.quantile(area, [.2, .4, .6, .8]), area)
        for k in range(5): assert Counter(s for s, b in zip(d.split_groups(groups, area), fifth,
            strict=True) if b == k)['test'] in range(28, 33)

    def test_strata_by_mean_area_of_the_group(self):
        names = [f'g{i:02}' for i in range(20)]
        groups = names * 2
        areas = [0.9 - i / 25 for i in range(20)] + [0.1 + 3 * i / 25 for i in range(20)]  # the mean grows with i, the first falls
        assert d.area_strata(names, groups, areas).tolist() == [0] * 10 + [1] * 10

    def test_large_groups_first_by_hand(self):
        halves = np.array([.5, .5, 0])
        assert d.assign_splits(np.array([1, 1, 1, 3]), np.zeros(4, int), halves) == [1, 1, 1, 0]  # the three fills train, and each one goes to valid

    def test_an_empty_split_gets_the_smallest_group_by_hand(self):
        assert d.mend_splits(np.zeros(3, int), np.array([3, 2, 1]), np.array([5., 1.])).tolist() == [0, 0, 1]

    def test_unknown_areas(self):
        area = [math.nan if i % 2 else 0.1 * i for i in range(40)]
        got = d.split_groups([str(i) for i in range(40)], area)
        assert Counter(s for s, a in zip(got, area, strict=True) if a != a)['test'] == 3

    @pytest.mark.parametrize('f', [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (math.nan, 0.5, 0.5), (0, 0, 0)])
    def test_fractions_are_checked(self, f):
        with pytest.raises(InputError, match='sum to 1'): d.split_groups(list('abcd'), fractions=f)

    def test_too_few_groups(self):
        with pytest.raises(InputError, match='1 group: cannot fill 3'): d.split_groups(['a'] * 50)
        with pytest.raises(InputError): d.split_groups([])
        assert d.split_groups(['a'] * 5, fractions=(0, 0, 1)) == ['test'] * 5

    def test_pinned(self):
        "A split must stay the same from release to release."
        got = d.split_groups([f'p{i}' for i in range(12)], [i / 12 for i in range(12)])
        assert ''.join(s[1] for s in got) == PINNED

    @given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
    @settings(max_examples=60, deadline=None)
    def test_components_against_scipy(self, n, links):
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
        links = [(a % n, b % n) for a, b in links]
        rows = np.array(links, int).reshape(-1, 2)
        _, want = connected_components(coo_matrix((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), (n, n)), directed=False)
        got = d.components(n, links)
        first = {}
        assert got == [first.setdefault(w, i) for i, w in enumerate(want)]


PINNED = 'aarererrrrrr'


def hash_area(g): return int(hashlib.sha256(g.encode()).hexdigest()[:4], 16) % 97


class TestMakeSplit:
    def manifest(self, n=20): return d.Manifest([d.LesionPair(f'{i:02}.jpg') for i in range(n)])

    def test_official_groups_and_duplicates(self):
        table = [{'isic_id': f'{i:02}.jpg', 'official': 'val' if i < 4 else 'train', 'patient_id': 'P' if i in (3, 10,
            11) else ''} for i in range(20)]
        m, r = d.make_split(self.manifest(), (0.75, 0.25, 0), stratify=False, table=table, official='official', as_split={'val': 'test'},
                            duplicates=[('00', '05'), ('05', '06'), ('07', '08'), ('07', 'elsewhere')])
        assert {p.id for p in m.subset('test')} == {'00', '01', '02', '03'}
        assert sorted(p.id for p in r.dropped) == ['05', '06', '10', '11'] and all('official' in p.detail for p in r.dropped)
        assert r.images == {'train': 9, 'valid': 3, 'test': 4} and r.digest == m.digest
        assert len({p.split for p in m if p.id in ('07', '08')}) == 1 and len({p.group for p in m if p.id in ('07', '08')}) == 1
        json.dumps(dataclasses.asdict(r))

    def test_two_fixed_splits_keep_the_more_held_out(self):
        table = [{'id': f'{i:02}', 'part': ('a', 'b', 'c')[i % 3]} for i in range(20)]
        m, r = d.make_split(self.manifest(), stratify=False, table=table, official='part', as_split={'a': 'train', 'b': 'valid',
            'c': 'test'},
                            duplicates=[('00', '01'), ('03', '05'), ('04', '08')])
        assert [p.id for p in r.dropped] == ['00', '03', '04'] and len(m) == 17

    def test_free_rows_go_between_the_other_splits(self):
        table = [{'id': f'{i:02}', 'part': 'v' if i < 3 else 't'} for i in range(20)]
        kw = dict(stratify=False, table=table, official='part', as_split={'v': 'test'})
        m, r = d.make_split(self.manifest(), **kw)
        assert r.images == {'train': 14, 'valid': 3, 'test': 3}  # 17 * 0.7/0.85, 17 * 0.15/0.85, the official three
        with pytest.raises(InputError, match='test: is filled by the official split'): d.make_split(self.manifest(), (0.8, 0.1, 0.1), **kw)

    def test_all_fixed(self):
        m = d.Manifest([d.LesionPair(f'{i}.jpg', meta={'o': 'x'}) for i in range(3)])
        assert d.make_split(m, stratify=False, official='o', as_split={'x': 'test'})[1].images == {'train': 0, 'valid': 0, 'test': 3}

    @pytest.mark.parametrize('kw,says', [
        (dict(official='o', as_split={'dev': 'test'}), r"column o: holds 'dev' nowhere \(it has train, val\)"), (dict(official='o'),
            'needs both'),
        (dict(as_split={'val': 'test'}), 'needs both'), (dict(official='o', as_split={'val': 'exam'}), "cannot become 'exam'"),
        (dict(group_by=['hospital']), 'no column hospital')])
    def test_mistakes(self, kw, says):
        m = d.Manifest([d.LesionPair(f'{i}.jpg', meta={'o': 'val' if i < 3 else 'train'}) for i in range(9)])
        with pytest.raises(InputError, match=says): d.make_split(m, stratify=False, **kw)

    def test_joins(self, tmp_path):
        m = self.manifest(3)
        (tmp_path / 't.csv').write_text('name,age\n00,50\n01.JPG,60\n02,70\n99,1\n')
        assert [p.meta['age'] for p in m.join(tmp_path / 't.csv', on='name')] == ['50', '60', '70']
        with pytest.raises(InputError, match='no column id or image_id'): m.join(tmp_path / 't.csv')
        with pytest.raises(InputError, match='two rows'): m.join([{'id': '00'}, {'id': '00'}])
        with pytest.raises(InputError, match='1 of 3 pairs .02.'): m.join([{'id': '00'}, {'id': '01'}])
        assert m.join([{'id': '00', 'a': 1}], partial=True)[1].meta == {}
        with pytest.raises(InputError, match='3 of 3'): m.join([{'id': 'z'}], partial=True)
        got = m.join([{'id': p.id, 'group': 'g', 'split': 'val'} for p in m])
        assert {(p.group, p.split) for p in got} == {('g', 'valid')}

    def test_group_by_hospital(self):
        m = d.Manifest([d.LesionPair(f'{i}.jpg', meta={'site': 'A' if i < 3 else 'B' if i < 6 else 'C'}) for i in range(9)])
        got, _ = d.make_split(m, (0.34, 0.33, 0.33), stratify=False, group_by=['site'])
        assert [p.group for p in got] == list('AAABBBCCC') and Counter(p.split for p in got) == {s: 3 for s in d.SPLITS}

    @isic
    def test_isic_sample(self):
        f = ISIC / 'isic2017'
        m, r = d.make_split(d.Manifest.load(f), (0.9, 0.1, 0), table=f / 'splits.csv', official='official_isic2017_split',
            as_split={'val': 'test'},
                            duplicates=f / 'near_duplicates.csv')
        assert sorted(p.id for p in r.dropped) == ['ISIC_0000171', 'ISIC_0012970']
        assert r.images['train'] + r.images['valid'] == 1998 and r.images['test'] == 150 and r.images['valid'] == 200
        assert {p.meta['official_isic2017_split'] for p in m.subset('test')} == {'val'}
        assert abs(r.area['train'] - r.area['valid']) < 0.01


class TestWhoIsWho:
    "Issues 20 and 21: patients by any spelling; who is not known is nobody."
    def named(self, column, values, **more):
        return d.Manifest([d.LesionPair(f'{i:02}.jpg', meta={column: v} | {k: c[i] for k, c in more.items()}) for i, v in enumerate(values)])

    @pytest.mark.parametrize('column', ['patient', 'patient_id', 'PatientID', 'Patient_ID', 'Patient ID', 'patient-id', 'subject', 'Subject_ID', 'case_id',
                                        'pid', 'lesion', 'lesion_id', 'LesionID', 'Person'])
    def test_spellings(self, column):
        m = self.named(column, [f'P{i // 3}' for i in range(34)]).group_by()
        noun = 'lesion' if 'lesion' in column.lower() else 'patient'
        assert len({p.group for p in m}) == 12 and m.grouping == f'grouped by {column} (12 {noun}s)'
        done, report = d.make_split(m, stratify=False)
        assert str(report).splitlines()[0] == m.grouping and sum(report.groups.values()) == 12

    def test_nothing_to_group_by(self):
        m = self.named('age', ['40'] * 5).group_by()
        assert m.grouping == 'no patient column found: each photograph is its own group' and len({p.group for p in m}) == 5

    def test_patient_before_lesion_and_columns_not_used(self):
        m = self.named('lesion', ['L1', 'L1', 'L2', 'L3'], PatientID=['A', 'B', 'B', ''], patient_code=['x', 'y', 'z', 'w']).group_by()
        assert [p.group for p in m] == ['A', 'A', 'A', 'L3']
        assert m.grouping == 'grouped by PatientID (2 patients) and lesion (3 lesions); column patient_code was not used'

    def test_a_lesion_column_of_diagnoses_is_no_group(self):
        m = self.named('lesion', ['nevus', 'melanoma', 'nevus', 'nevus', 'melanoma', 'nevus', 'nevus']).group_by()
        assert len({p.group for p in m}) == 7 and m.grouping.endswith('column lesion was not used')

    @pytest.mark.parametrize('word', ['NA', 'nan', 'unknown', 'None', '-', '', 'N/A', ' Unknown ', None, float('nan'), 'null'])
    def test_unknown_is_nobody(self, word):
        m = self.named('patient_id', ['P1', 'P1', word, word, word, word, word]).group_by()
        assert len({p.group for p in m}) == 6 and [p.group for p in m[2:]] == [p.id for p in m[2:]]
        assert m.grouping == 'grouped by patient_id (1 patient); 5 photographs without a patient'

    def test_case_and_blanks(self):
        m = self.named('patient_id', ['P7', 'p7', ' P7 ', 'P 8', 'P  8', 'P78']).group_by()
        assert [p.group for p in m] == ['P7'] * 3 + ['P 8'] * 2 + ['P78'] and m.grouping == 'grouped by patient_id (3 patients); P7 and p7 are taken for one'

    def test_own_column(self):
        m = self.named('Site', ['a', 'b', 'a', 'NA'])
        assert [p.group for p in m.group_by('site')] == ['a', 'b', 'a', '03']
        assert m.group_by(['Site']).grouping == 'grouped by Site (2 groups); 1 photograph without a group'
        with pytest.raises(InputError, match=r'has no column clinic \(it has Site\)'): m.group_by('clinic')

    def test_groups_of_a_table(self, tmp_path):
        (tmp_path / 'm.csv').write_text('image,group\na.jpg,g\nb.jpg,g\nc.jpg,h\n')
        assert d.Manifest.load(tmp_path / 'm.csv').grouping == 'groups as the table has them (2 groups)'

    @pytest.mark.skipif(not (ISIC.parent / 'cases').exists(), reason='no small cases')
    def test_the_table_of_the_report(self, tmp_path):
        rows = list(d.read_rows(ISIC.parent / 'cases/patients_NA.csv'))
        m = d.Manifest([d.LesionPair(f'{r["image_id"]}.jpg') for r in rows]).join(rows).group_by()
        unknown = sum(d.known_value(r['patient_id']) == '' for r in rows)
        assert len({p.group for p in m}) == unknown + len({r['patient_id'] for r in rows if d.known_value(r['patient_id'])})
        assert f'{unknown} photographs without a patient' in m.grouping


class TestTablesOfOthers:
    def table(self, folder, text, name='t.csv'):
        (folder / name).write_text(text, encoding='utf-8')
        return folder / name

    @pytest.mark.parametrize('head', ['image_path,mask_path', 'filename,mask_filename', 'img,seg', 'File Name,Segmentation', 'Image,Mask', 'file,gt'])
    def test_usual_names(self, tmp_path, head):
        dataset(tmp_path, 3)
        m = d.Manifest.load(self.table(tmp_path, f'{head}\nimages/i0.png,masks/i0.png\nimages/i1.png,masks/i1.png\n'))
        assert m.check() == [] and [p.mask.name for p in m] == ['i0.png', 'i1.png'] and m[0].meta == {}
        assert head == 'Image,Mask' or m.notes[0].startswith('images are taken from the column')

    def test_columns_by_name(self, tmp_path):
        dataset(tmp_path, 2)
        t = self.table(tmp_path, 'a,b,image\nimages/i0.png,masks/i0.png,old.jpg\n')
        (p,) = d.Manifest.load(t, image_column='a', mask_column='B')
        assert (p.image.name, p.mask.parent.name, p.meta) == ('i0.png', 'masks', {})
        with pytest.raises(InputError, match=r'has no column z \(it has a, b, image\)'): d.Manifest.load(t, mask_column='z')

    @pytest.mark.skipif(os.name == 'nt', reason='POSIX paths')
    def test_backslashes(self, tmp_path):
        dataset(tmp_path, 2)
        assert d.Manifest.load(self.table(tmp_path, 'image,mask\nimages\\i0.png,masks\\i0.png\n')).check() == []

    @pytest.mark.parametrize('stored', ['NFC', 'NFD'])
    def test_letters_with_accents(self, tmp_path, stored):
        import unicodedata
        other = {'NFC': 'NFD', 'NFD': 'NFC'}[stored]
        name = unicodedata.normalize(stored, 'Léa')
        dataset(tmp_path, 1, image=f'images/{name}.png', mask=f'masks/{unicodedata.normalize(other, "Léa")}_mask.png')
        assert d.Manifest.load(tmp_path).check() == []
        m = d.Manifest.load(self.table(tmp_path, f'image\nimages/{unicodedata.normalize(other, "Léa")}.png\n'))
        assert m[0].image.exists() and m.join([{'id': unicodedata.normalize('NFC', 'Léa'), 'age': 4}])[0].meta['age'] == 4

    def test_ids_without_suffix(self, tmp_path):
        dataset(tmp_path, 3)
        m = d.Manifest.load(self.table(tmp_path, 'isic_id,patient_id\ni0,P\ni2,P\ni9,Q\n'))
        assert [(p.id, p.group, bool(p.mask)) for p in m] == [('i0', 'P', True), ('i2', 'P', True), ('i9', 'Q', False)]
        assert m.notes == ['images are taken from the column isic_id', '2 photographs found by id']
        assert {p.kind for p in m.check(strict=False)} == {'missing photograph', 'no mask'}


class TestFaultsOfMasks:
    def kinds(self, folder, mask, image=None, **kw):
        Image.fromarray(np.full((40, 60, 3), 150, np.uint8) if image is None else image).save(folder / 'a.png')
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(folder / 'm.png')
        return [p.kind for p in d.Manifest([d.LesionPair(folder / 'a.png', folder / 'm.png')]).check(strict=False, **kw)]

    def photo(self):
        return np.random.default_rng(0).integers(90, 220, (40, 60, 3), np.uint8)

    def test_empty_full_inverted(self, tmp_path):
        y, x = np.mgrid[-1:1:40j, -1.5:1.5:60j]
        disc, huge = np.hypot(y, x) < .6, np.hypot(y, x) < 1.6
        for mask, kind in ((disc & False, 'empty mask'), (disc | True, 'full mask'), (~disc, 'inverted mask')):
            assert self.kinds(tmp_path, mask, self.photo(), full=True) == [kind] and self.kinds(tmp_path, mask, self.photo()) == []
        assert huge[[0, -1]].mean() > .5
        for good in (disc, huge, np.roll(disc, 20, 1)): assert self.kinds(tmp_path, good, self.photo(), full=True) == []

    @isic
    def test_no_real_mask_is_called_inverted(self):
        from lesion_seg.data import read_mask
        masks = [read_mask(p) for p in sorted((ISIC / 'isic2017/masks').iterdir())[::7]]
        assert {d.mask_fault(m) for m in masks} == {''}
        assert np.mean([d.mask_fault(~m) == 'inverted' for m in masks]) > .99

    def test_implausible_photographs(self, tmp_path):
        disc = np.hypot(*np.mgrid[-1:1:40j, -1.5:1.5:60j]) < .6
        black = np.zeros((40, 60, 3), np.uint8)
        assert self.kinds(tmp_path, disc, black, full=True) == ['implausible photograph'] and self.kinds(tmp_path, disc, black) == []
        assert self.kinds(tmp_path, disc, self.photo(), full=True) == []

    def test_sizes(self, tmp_path):
        disc = np.hypot(*np.mgrid[-1:1:40j, -1.5:1.5:60j]) < .6
        half, turned = disc[::2, ::2], disc.T
        assert self.kinds(tmp_path, half) == ['sizes differ'] and self.kinds(tmp_path, half, resize_ok=True) == []
        assert self.kinds(tmp_path, turned) == self.kinds(tmp_path, turned, resize_ok=True) == ['mask lies on its side']
        m = d.Manifest([d.LesionPair(tmp_path / 'a.png', tmp_path / 'm.png')])
        self.kinds(tmp_path, half)
        with pytest.raises(InputError, match='60 x 40 pixels, its mask 30 x 20: the same form, so scaling is allowed by `resize_ok=True`'): m.check()
        self.kinds(tmp_path, disc[:, :20])
        with pytest.raises(InputError, match='another form; is it the mask of this photograph'): m.check()

    def test_mask_in_the_orientation_of_the_sensor(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(self.photo()).save(tmp_path / 'a.jpg', exif=exif)
        Image.fromarray(np.hypot(*np.mgrid[-1:1:40j, -1.5:1.5:60j]) < .6).save(tmp_path / 'm.png')
        for full in (False, True):
            (p,) = d.Manifest([d.LesionPair(tmp_path / 'a.jpg', tmp_path / 'm.png')]).check(full=full, strict=False)
            assert p.kind == 'mask not turned with its photograph' and '40 x 60 pixels, its mask 60 x 40' in p.detail and 'EXIF' in p.detail


def test_a_divided_group_is_refused_without_assertions():
    "python -O drops assert; the guard has to stay."
    code = ("from lesion_seg.manifest import *\nfrom lesion_seg.layouts import LesionPair\n"
            "m = Manifest([LesionPair('a.jpg', group='g', split='train'), LesionPair('b.jpg', group='g', split='test')])\n"
            "try: SplitReport.of(m, [0, 0])\nexcept InputError as e: print(e)")
    out = subprocess.run([sys.executable, '-O', '-c', 'from lesion_seg.core import InputError\n' + code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == 'the split: group g is in test and train; make it with `make_split`'


def test_display_is_escaped_and_short():
    bad = '<img src=x onerror=alert(1)>'
    m = d.Manifest([d.LesionPair('a.jpg', split=bad)], problems=[d.Problem('x', 'k', bad)] * 7, notes=[bad], grouping=bad)
    page = m._repr_html_()
    assert '<img' not in page and page.count('&lt;img') == 8 and 'and 2 more problems' in page
    assert '<td>1</td>' in page


# Several annotators

from lesion_seg.manifest import Manifest, other_masks


def several(tmp_path, text):
    from PIL import Image
    for name in ('a.jpg', 'b.jpg', 'm1.png', 'm2.png', 'm3.png', 'n1.png', 'small.png'):
        Image.new('L', (20, 20) if name == 'small.png' else (40, 30), 'white' if name[0] in 'mns' else 'grey').save(tmp_path/name)
    (tmp_path/'t.csv').write_text(text)
    return tmp_path/'t.csv'


def test_further_masks_move_with_their_table(tmp_path):
    m = Manifest.from_csv(several(tmp_path, 'image,mask,mask_3,mask_2,mask_1\na.jpg,m1.png,m3.png,m2.png,x\nb.jpg,n1.png,,,\n'))
    assert {k: p.name for k, p in other_masks(m[0]).items()} == {'mask_2': 'm2.png', 'mask_3': 'm3.png'}
    assert other_masks(m[1]) == {} and m[0].meta['mask_1'] == 'x' and m.check() == []
    (tmp_path/'sub').mkdir()
    m.save(tmp_path/'sub'/'t.csv')
    again = Manifest.from_csv(tmp_path/'sub'/'t.csv')
    assert [p.resolve() for p in other_masks(again[0]).values()] == [tmp_path/'m2.png', tmp_path/'m3.png']
    assert '../m2.png' in (tmp_path/'sub'/'t.csv').read_text() and again.check() == []


@pytest.mark.parametrize('mask, words', [('gone.png', 'gone.png does not exist'), ('small.png', 'is 40 x 30 pixels, its mask 20 x 20')])
def test_further_masks_are_checked(tmp_path, mask, words):
    m = Manifest.from_csv(several(tmp_path, f'image,mask,mask_2\na.jpg,m1.png,{mask}\n'))
    with pytest.raises(InputError, match=words): m.check()


def test_rows_of_one_photograph_become_one(tmp_path):
    path = several(tmp_path, 'id,image,mask,annotator,site\na,a.jpg,m1.png,ada,x\nb,b.jpg,n1.png,ada,x\na,a.jpg,m2.png,bo,x\na,a.jpg,m3.png,cy,x\n')
    m = Manifest.from_csv(path)
    assert [p.id for p in m] == ['a', 'b'] and m.check() == []
    assert {k: p.name for k, p in other_masks(m[0]).items()} == {'mask_2': 'm2.png', 'mask_3': 'm3.png'}
    assert {k: v for k, v in m[0].meta.items() if not k.startswith('mask')} == {
        'annotator': 'ada', 'annotator_2': 'bo', 'annotator_3': 'cy', 'site': 'x'}
    assert m.notes == ['1 photograph with several rows: their masks are mask, mask_2 and so on']
    assert [p.meta for p in Manifest.from_csv(m.save(tmp_path/'u.csv'))][0] == m[0].meta


@pytest.mark.parametrize('second', ['a,a.jpg,m1.png,p,', 'a,a.jpg,,p,', 'a,a.jpg,m2.png,q,', 'a,b.jpg,m2.png,p,'])
def test_what_is_not_another_opinion_stays_a_mistake(tmp_path, second):
    path = several(tmp_path, f'id,image,mask,group,split\na,a.jpg,m1.png,p,\n{second}\n')
    with pytest.raises(InputError, match='the id a stands in 2 rows'): Manifest.from_csv(path).check()
