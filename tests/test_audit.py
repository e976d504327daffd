"lesion_seg.audit against copies made on purpose, different phantoms, and the known pairs of ISIC 2017."
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lesion_seg import audit as d
from lesion_seg.core import InputError
from lesion_seg.manifest import LesionPair, Manifest, make_split
from lesion_seg.phantom import make_phantom

ISIC = Path(__file__).parents[2] / 'shared/data/isic2017'

# pairs that near_duplicates.csv lacks; compared side by side, each is one lesion
SAME_LESION = {(215, 15313), (205, 14742), (177, 14657), (224, 14791), (223, 14818), (229, 14771), (204, 14748), (157, 14946), (198, 14667),
               (225, 14778), (433, 9896), (420, 9910), (423, 10571), (1131, 11126), (396, 9880),
               (453, 11097), (392, 10475), (240, 9998), (410, 9955)}

SYMMETRIES = {g: (lambda a, g=g: np.rot90(a.transpose(1, 0, 2) if g > 3 else a, g % 4)) for g in range(8)}


def save(folder, name, image, **kw):
    path = folder / name
    Image.fromarray(np.ascontiguousarray(image)).save(path, **kw)
    return LesionPair(path)


def cropped(a, top=.1, bottom=.1, left=.1, right=.1):
    h, w = a.shape[:2]
    return a[round(h * top):h - round(h * bottom), round(w * left):w - round(w * right)]


def scaled(a, k): return np.asarray(Image.fromarray(a).resize((round(a.shape[1] * k), round(a.shape[0] * k)), Image.Resampling.BICUBIC))


def rotated(a, angle, border=cv2.BORDER_REFLECT_101):
    h, w = a.shape[:2]
    return cv2.warpAffine(np.ascontiguousarray(a), cv2.getRotationMatrix2D((w / 2, h / 2), angle, 1), (w, h), borderMode=border)


def shifted(a, part=.1):
    h, w = a.shape[:2]
    return cv2.warpAffine(a, np.float32([[1, 0, part * w], [0, 1, part * h]]), (w, h))


def brighter(a, k): return np.clip(a * k, 0, 255).astype(np.uint8)


def jpeg(a, quality):
    f = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(a)).save(f, 'JPEG', quality=quality)
    return np.asarray(Image.open(f))


CHANGES = {**{f'symmetry {g}': f for g, f in SYMMETRIES.items()}, 'jpeg': lambda a: jpeg(a, 40), 'half': lambda a: scaled(a, .5),
           'large': lambda a: scaled(a, 1.7), 'crop': cropped, 'one side': lambda a: cropped(a, 0, 0, .1, 0), 'bright': lambda a: brighter(a, 1.15),
           'dark': lambda a: brighter(a, .85), 'squashed': lambda a: np.asarray(Image.fromarray(a).resize((256, 256))),
           'turned by 10': lambda a: jpeg(rotated(a, 10), 80), 'turned by 30': lambda a: jpeg(rotated(a, 30), 80),
           'mirrored and turned by 75': lambda a: jpeg(rotated(a[:, ::-1], 75), 80), 'cropped to 60 %': lambda a: jpeg(cropped(a, .35, .05, .1, .3), 80),
           'shifted by 10 %': lambda a: jpeg(shifted(a), 80), 'turned, black corners': lambda a: rotated(a, 20, cv2.BORDER_CONSTANT),
           'all': lambda a: jpeg(brighter(scaled(cropped(a[::-1]), .6), 1.15), 40)}


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp('originals')
    images = [make_phantom(i, (192, 256)).image for i in range(12)]
    return images, [save(folder, f'o{i:02}.png', x) for i, x in enumerate(images)]


@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_copy_is_found(originals, tmp_path, change):
    images, files = originals
    copies = [save(tmp_path, f'c{i:02}.png', CHANGES[change](images[i])) for i in range(4)]
    pairs, problems = d.find_duplicates(Manifest([*files, *copies]), threads=1)
    assert {frozenset(x[:2]) for x in pairs} == {frozenset((f'c{i:02}', f'o{i:02}')) for i in range(4)} and problems == []


@pytest.mark.parametrize(('angle', 'mirror'), [(10, False), (-40, False), (25, True)])
def test_a_turned_copy_says_how_it_was_turned(originals, tmp_path, angle, mirror):
    images, files = originals
    copy = rotated(images[2][:, ::-1] if mirror else images[2], angle)
    (pair,), _ = d.find_duplicates(Manifest([*files[:5], save(tmp_path, 'c.png', copy)]), threads=1)
    assert {pair.image_a, pair.image_b} == {'c', 'o02'} and pair.correlation > .8 and ('mirrored' in pair.orientation) == mirror
    back = angle if pair.image_a == 'o02' or mirror else -angle  # a mirror and a turn undo themselves by the same turn
    assert f'turned {"left" if back > 0 else "right"} by {abs(angle)} degrees' in pair.orientation


def test_key_points_alone_make_no_pair(originals, tmp_path):
    "The same hairs on another lesion: many key points move together, the pictures do not agree."
    strangers = [make_phantom(20 + i, (192, 256), {}) for i in range(4)]
    from lesion_seg.phantom import add_artefacts
    files = [save(tmp_path, f'h{i}.png', add_artefacts(p.clean, p.mask, 5, hair=.25)) for i, p in enumerate(strangers)]
    assert d.find_duplicates(Manifest(files), threads=1)[0] == []
    bare = [save(tmp_path, f'b{i}.png', p.clean) for i, p in enumerate(strangers)]
    assert d.find_duplicates(Manifest(bare), threads=1)[0] == []


def test_progress_is_told(originals):
    seen = []
    def progress(rows):
        rows = list(rows)
        seen.append(len(rows))
        return rows
    d.audit_manifest(Manifest(originals[1]), progress=progress, threads=1)
    assert seen[0] == 12 and len(seen) == 2


def test_the_page_names_what_it_cannot_find(originals, tmp_path):
    page = d.save_audit(tmp_path, d.audit_manifest(Manifest(originals[1][:2]), threads=1), Manifest(originals[1][:2])).read_text()
    assert 'Not found are: other photographs of the same lesion' in page


def test_orientation_and_window_say_how_to_lay_a_on_b(originals, tmp_path):
    images, files = originals
    (pair,), _ = d.find_duplicates(Manifest([files[0], save(tmp_path, 'c.png', cropped(images[0], .1, .06, .04, .1)[:, ::-1])]), threads=1)
    y, x, h, w = (.1, .04, .84, .86)
    if pair.image_a == 'o00': y, x, h, w = -y / h, -(1 - x - w) / w, 1 / h, 1 / w  # the original, seen from its crop
    assert pair.orientation == 'mirrored left to right'
    np.testing.assert_allclose(pair.window, (y, x, h, w), atol=.015)


@pytest.mark.slow
def test_300_phantoms_of_which_many_share_a_patient_give_no_pair(tmp_path):
    files = [save(tmp_path, f'p{i}.png', make_phantom(i, 128, patient=f'P{i // 3}').image) for i in range(300)]
    assert d.find_duplicates(Manifest(files), threads=1) == ([], [])


def test_order_and_threads_do_not_matter(originals, tmp_path):
    images, files = originals
    every = [*files, *(save(tmp_path, f'c{i}.png', cropped(images[i])) for i in range(3))]
    runs = [d.find_duplicates(Manifest(f), threads=t)[0] for f, t in ((every, 1), (every, 4), (every[::-1], 2))]
    assert runs[0] == runs[1] and [x.image_a for x in runs[0]] and len(runs[2]) == 3
    assert {frozenset(x[:2]) for x in runs[0]} == {frozenset(x[:2]) for x in runs[2]}


def test_a_shared_round_frame_is_no_pair(tmp_path):
    y, x = np.mgrid[-1:1:192j, -1.33:1.33:256j]
    frame = np.clip((.8 - np.hypot(y, x)) * 20, 0, 1)[..., None]
    files = [save(tmp_path, f'r{i}.png', (make_phantom(i, (192, 256)).image * frame).astype(np.uint8)) for i in range(12)]
    assert d.find_duplicates(Manifest(files), threads=1)[0] == []


def test_even_pictures_are_no_duplicates(tmp_path):
    files = [save(tmp_path, f'e{v}.png', np.full((64, 64, 3), v, np.uint8)) for v in (0, 0, 120, 255)]
    assert d.find_duplicates(Manifest(files), threads=1) == ([], [])


def test_unreadable_files_are_listed_and_the_others_go_on(originals, tmp_path):
    images, files = originals
    (tmp_path / 'bad.jpg').write_bytes(b'\xff\xd8\xff' + bytes(50))
    (tmp_path / 'empty.png').touch()
    rows = [LesionPair(tmp_path / 'bad.jpg'), files[0], LesionPair(tmp_path / 'empty.png'), save(tmp_path, 'c.png', images[0]),
            LesionPair(tmp_path / 'gone.jpg')]
    found = d.audit_manifest(Manifest(rows), threads=2)
    assert [p.id for p in found.unreadable] == ['bad', 'empty', 'gone'] and found.images == 2 and len(found.pairs) == 1
    assert d.audit_manifest(Manifest()).pairs == []


def leaky(originals, folder):
    "Copies of 0 and 1, of which the first is in another split."
    images, files = originals
    rows = [*files[:6], save(folder, 'c0.png', images[0][::-1]), save(folder, 'c1.png', images[1])]
    return Manifest([LesionPair(p.image, split='test' if p.id == 'c0' else 'train', meta={'fold': '1' if p.id == 'c1' else '2'}) for p in rows])


def test_leaks_are_pairs_in_different_splits(originals, tmp_path):
    m = leaky(originals, tmp_path)
    assert d.audit_manifest(m, threads=1).leaks == [('c0', 'test', 'o00', 'train')]
    assert d.audit_manifest(m, 'fold', threads=1).leaks == [('c1', '1', 'o01', '2')]
    with pytest.raises(InputError, match='no column folder'): d.audit_manifest(m, 'folder')


def test_a_chain_is_one_cluster_and_leaks_through_a_free_row():
    clusters = d.clusters_of([('a', 'b'), ('b', 'c'), ('d', 'e')])
    assert clusters == [('a', 'b', 'c'), ('d', 'e')]
    assert d.leaks_in(clusters, dict(a='train', b='', c='test', d='', e='test')) == [('a', 'train', 'c', 'test')]


def test_split_keeps_clusters_together(originals, tmp_path):
    m = leaky(originals, tmp_path)
    found = d.audit_manifest(m, threads=1)
    for seed in range(8):
        for done in (make_split(m, (.5, .25, .25), seed, stratify=False, duplicates=found.links())[0],
                     found.merge(m).split((.5, .25, .25), seed, stratify=False)):
            where = {p.id: p.split for p in done}
            assert where['c0'] == where['o00'] and where['c1'] == where['o01']


def test_report_is_escaped_and_stands_alone(originals, tmp_path):
    images, files = originals
    copy = save(tmp_path, 'c.png', images[0]).image
    m = Manifest([LesionPair(files[0].image, id='<script>alert(1)</script>', split='train'), LesionPair(copy, id='a,"b', split='valid')])
    found = d.audit_manifest(m, threads=1)
    page = d.save_audit(tmp_path / 'out', found, m).read_text()
    assert '<script' not in page and '&lt;script&gt;' in page and 'http' not in page and page.count('<img') == 2
    assert m.link_duplicates(tmp_path / 'out/duplicates.csv') == found.merge(m) and len({p.group for p in found.merge(m)}) == 1
    facts = json.loads((tmp_path / 'out/duplicates.json').read_text())
    assert facts['images'] == 2 and {facts['leaks'][0]['split_a'], facts['leaks'][0]['split_b']} == {'train', 'valid'}


def test_import_is_light():
    code = 'import sys; import lesion_seg.audit; print([m for m in ("pandas", "torch", "fastai", "matplotlib") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


@pytest.mark.slow
@pytest.mark.skipif(not ISIC.exists(), reason='no ISIC sample')
def test_isic_2017():
    table = list(csv.DictReader(open(ISIC / 'near_duplicates.csv')))
    found = d.audit_manifest(Manifest.load(ISIC / 'images').join(ISIC / 'splits.csv'), 'official_isic2017_split')
    known, pairs = ({frozenset(x) for x in y} for y in ([(r['image_a'], r['image_b']) for r in table], found.links()))
    seen = {frozenset(f'ISIC_{i:07}' for i in ab) for ab in SAME_LESION}
    assert known | seen <= pairs and len(pairs - known - seen) <= 5 and found.images == 2150
    crossing = {(12127, 12970), (171, 15124), (215, 15313), (157, 14946)}
    assert {frozenset((x.image_a, x.image_b)) for x in found.leaks} == {frozenset(f'ISIC_{i:07}' for i in ab) for ab in crossing}
