"lesion_seg.layouts: folders as people and programs lay them out, every file accounted for."
import json
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lesion_seg import layouts as d
from lesion_seg.core import InputError, suffixes
from lesion_seg.data import read_mask
from lesion_seg.manifest import Manifest

IMAGE = np.random.default_rng(0).integers(60, 220, (32, 40, 3), np.uint8)
MASK = np.pad(np.full((4, 4), 255, np.uint8), ((1, 27), (2, 34)))


def lay_out(folder, *files):
    "Photographs, and masks where a name or a folder says so, as small real files."
    for f in files:
        p = folder / f
        p.parent.mkdir(parents=True, exist_ok=True)
        mask = any(w in f.lower() for w in ('mask', '_seg', '_gt', '_label', 'labels', 'lesion.', 'lesion_tsch', 'groundtruth', 'segmentation'))
        if p.suffix in ('.txt', '.csv', '.json', '.mov', '.npy'): p.write_text('x')
        else: Image.fromarray(MASK if mask else IMAGE).save(p)
    return folder


LAYOUTS = {
    **{f'suffix {s}': ['a.jpg', f'a{s}.png', 'b.jpg', f'b{s}.png'] for s in ('_lesion', '_seg', '_gt', '_label', '_mask', '_Segmentation', '-mask')},
    'patients': ['P1/a.jpg', 'P1/a_mask.png', 'P2/a.jpg', 'P2/a_mask.png'],
    'visits': ['P1/visit1/x.jpg', 'P1/visit1/x_seg.png', 'P1/visit2/x.jpg', 'P1/visit2/x_seg.png'],
    'patient images masks': ['P1/images/a.jpg', 'P1/masks/a.png', 'P2/images/a.jpg', 'P2/masks/a.png'],
    'kaggle': ['train/images/a.jpg', 'train/masks/a.png', 'val/images/b.jpg', 'val/masks/b.png'],
    'yolo': ['images/train/a.jpg', 'masks/train/a.png', 'images/test/b.jpg', 'masks/test/b.png'],
    'nnunet': ['imagesTr/a_0000.png', 'labelsTr/a.png', 'imagesTs/b_0000.png', 'labelsTs/b.png'],
    'voc': ['JPEGImages/a.jpg', 'SegmentationClass/a.png', 'JPEGImages/b.jpg', 'SegmentationClass/b.png'],
    'ph2': [f'PH2 Dataset images/IMD00{i}/IMD00{i}_{k}.bmp' for i in (2, 3) for k in ('Dermoscopic_Image/IMD00{}', 'lesion/IMD00{}_lesion')],
    'ham': ['HAM10000_images_part_1/ISIC_1.jpg', 'HAM10000_images_part_2/ISIC_2.jpg',
            'HAM10000_segmentations_lesion_tschandl/ISIC_1_segmentation.png', 'HAM10000_segmentations_lesion_tschandl/ISIC_2_segmentation.png'],
    'isic 2019': ['images/ISIC_1_downsampled.jpg', 'masks/ISIC_1_segmentation.png', 'images/ISIC_2.jpg', 'masks/ISIC_2_segmentation.png'],
    'other case': ['Images/A.JPG', 'Masks/a.png', 'Images/b.jpg', 'Masks/B_mask.PNG'],
    'unpacked': ['inner/images/a.jpg', 'inner/masks/a.png', 'inner/images/b.jpg', 'inner/masks/b.png']}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout(tmp_path, layout):
    files = [f.format(f[f.find('IMD00') + 5]) if '{}' in f else f for f in LAYOUTS[layout]]
    pairs, problems, notes = d.find_pairs(lay_out(tmp_path, *files))
    assert len(pairs) == 2 and problems == [] and notes == []
    assert len({p.id for p in pairs}) == 2 and len({p.mask for p in pairs}) == 2
    for p in pairs: assert read_mask(p.mask).sum() == 16 and d.photograph_stem(p.mask.stem)[:1].lower() == p.image.stem[:1].lower()
    assert Manifest.load(tmp_path).check(full=True, strict=False) == []


def test_splits_of_folders_are_kept(tmp_path):
    from lesion_seg.manifest import make_split
    lay_out(tmp_path, *LAYOUTS['kaggle'], 'test/images/c.jpg', 'test/masks/c.png')
    m = Manifest.load(tmp_path)
    assert [(p.id, p.split) for p in m] == [('c', 'test'), ('a', 'train'), ('b', 'valid')]
    done, report = make_split(m, (.7, .15, .15))
    assert [p.split for p in done] == ['test', 'train', 'valid'] and 'the splits of the folders are kept: train, valid, test' in str(report)


def test_same_name_in_two_folders_is_two_pairs(tmp_path):
    m = Manifest.load(lay_out(tmp_path, *LAYOUTS['visits'], 'P2/visit1/x.jpg', 'P2/visit1/x_seg.png'))
    assert [p.id for p in m] == ['P1/visit1/x', 'P1/visit2/x', 'P2/visit1/x'] and [p.group for p in m] == ['P1', 'P1', 'P2']
    assert all(p.mask.parent == p.image.parent for p in m) and m.grouping == 'grouped by patient (2 patients)'


def test_folders_of_diagnoses_are_no_patients(tmp_path):
    m = Manifest.load(lay_out(tmp_path, 'nevus/a.jpg', 'melanoma/b.jpg', 'part_1/c.jpg', 'fold2/d.jpg', '2021-03-04/e.jpg'))
    assert len({p.group for p in m}) == 5 and m.grouping.startswith('no patient column found') and m[1].meta['folder'] == 'fold2'


def test_ham10000_takes_lesions_from_its_table(tmp_path):
    lay_out(tmp_path, *LAYOUTS['ham'])
    (tmp_path / 'HAM10000_metadata.csv').write_text('lesion_id,image_id,dx\nHAM_1,ISIC_1,nv\nHAM_1,ISIC_2,nv\n')
    m = Manifest.load(tmp_path)
    assert [p.group for p in m] == ['HAM_1', 'HAM_1'] and m.grouping == 'grouped by lesion_id (1 lesion)'


def test_what_is_no_photograph_is_named(tmp_path):
    lay_out(tmp_path, 'a.jpg', 'a_mask.png', 'a_superpixels.png', 'a_overlay.jpg', 'a_probability.png', 'notes.txt', 'clip.mov', 'm.npy', '.hidden.jpg')
    pairs, problems, (note,) = d.find_pairs(tmp_path)
    assert [p.id for p in pairs] == ['a'] and problems == []
    assert note.startswith('6 files passed over: ') and all(x in note for x in ('2 .png', '1 .jpg', '1 .txt', '1 .mov', '1 .npy', 'a_overlay.jpg'))


def test_other_masks_beside_the_right_ones(tmp_path):
    "As in the ISIC sample: masks/ and masks_original_resolution/."
    pairs, problems, (note,) = d.find_pairs(lay_out(tmp_path, 'images/a.jpg', 'masks/a_segmentation.png', 'masks_original_resolution/a_segmentation.png'))
    assert pairs[0].mask.parent.name == 'masks' and problems == [] and 'masks_original_resolution/a_segmentation.png' in note


def test_a_photograph_called_lesion(tmp_path):
    "x_lesion.jpg alone is a photograph; beside x.jpg it is its mask."
    assert [p.id for p in d.find_pairs(lay_out(tmp_path / '1', 'x_lesion.jpg', 'y_lesion.jpg')).pairs] == ['x_lesion', 'y_lesion']
    assert [(p.id, p.mask.name) for p in d.find_pairs(lay_out(tmp_path / '2', 'x.jpg', 'x_lesion.jpg')).pairs] == [('x', 'x_lesion.jpg')]


def test_left_over_and_ambiguous_masks(tmp_path):
    lay_out(tmp_path, 'images/P1/a.jpg', 'images/P2/a.jpg', 'masks/a.png', 'masks/z_mask.png', 'images/b.jpg', 'masks/b.png', 'masks/b_mask.png')
    pairs, problems, _ = d.find_pairs(tmp_path)
    assert Counter(p.kind for p in problems) == {'mask of several photographs': 1, 'mask without a photograph': 1, 'several masks': 1}
    assert sum(p.mask is None for p in pairs) == 2


@pytest.mark.skipif(os.name == 'nt', reason='links')
def test_links_are_followed_once(tmp_path):
    lay_out(tmp_path / 'store', 'images/a.jpg', 'masks/a.png')
    data = tmp_path / 'data'
    data.mkdir()
    for k in ('images', 'masks'): (data / k).symlink_to(tmp_path / 'store' / k, target_is_directory=True)
    (data / 'images' / 'round').symlink_to(data, target_is_directory=True)
    pairs, problems, notes = d.find_pairs(data)
    assert [(p.id, p.mask.name) for p in pairs] == [('a', 'a.png')] and problems == []
    assert len(notes) == 1 and 'leads to a folder that was read already' in notes[0]


@pytest.mark.skipif('.gif' not in suffixes(), reason='no reader for GIF yet')
def test_gif_masks(tmp_path):
    lay_out(tmp_path, 'images/a.jpg')
    (tmp_path / 'masks').mkdir()
    Image.fromarray(MASK).save(tmp_path / 'masks/a.gif')
    m = Manifest.load(tmp_path)
    assert m[0].mask.name == 'a.gif' and m.check(full=True) == []


def labelme(name, shapes=1, label='lesion'):
    return json.dumps(dict(imagePath=name, imageWidth=40, imageHeight=32, shapes=[dict(label=label, points=[[2, 1], [6, 1], [6, 5], [2, 5]])] * shapes))


def test_polygons_become_masks(tmp_path):
    lay_out(tmp_path, 'P1/a.jpg', 'P2/a.jpg', 'b.jpg', 'b_mask.png', 'c.jpg')
    for p in ('P1', 'P2'): (tmp_path / p / 'a.json').write_text(labelme('a.jpg'))
    (tmp_path / 'c.json').write_text(labelme('c.jpg', 0))
    (tmp_path / 'gone.json').write_text(labelme('gone.jpg'))
    m = Manifest.load(tmp_path)
    assert {p.id: p.mask and p.mask.relative_to(tmp_path).as_posix() for p in m} == {
        'P1/a': 'masks_from_polygons/P1/a_mask.png', 'P2/a': 'masks_from_polygons/P2/a_mask.png', 'b': 'b_mask.png', 'c': None}
    assert np.array_equal(read_mask(m[0].mask), MASK > 0)
    assert [p.kind for p in m.problems] == ['outline without a photograph']
    assert Manifest.load(tmp_path) == m  # its own masks are no masks to be matched
    elsewhere = Manifest.load(tmp_path, masks_to=tmp_path.parent / 'out')
    assert elsewhere[0].mask == tmp_path.parent / 'out' / 'P1' / 'a_mask.png' and elsewhere[0].mask.exists()


def test_polygons_with_two_labels(tmp_path):
    lay_out(tmp_path, 'a.jpg', 'b.jpg')
    for name, label in (('a', 'mole'), ('b', 'ruler')): (tmp_path / f'{name}.json').write_text(labelme(f'{name}.jpg', label=label))
    with pytest.raises(InputError, match='has the labels mole, ruler'): d.find_pairs(tmp_path)
    assert read_mask(d.find_pairs(tmp_path, label='mole').pairs[0].mask).sum() == 16


def test_own_coco_files_are_no_annotations(tmp_path):
    lay_out(tmp_path, 'a.jpg')
    (tmp_path / 'a_coco.json').write_text(json.dumps(dict(images=[dict(id=1, file_name='a.jpg')], annotations=[])))
    pairs, _, notes = d.find_pairs(tmp_path)
    assert pairs[0].mask is None and 'a_coco.json' in notes[0]


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match=r'holds no photographs \(2 files passed over: 1 .mov, 1 .txt'): d.find_pairs(lay_out(tmp_path, 'a.mov', 'b.txt'))
    with pytest.raises(InputError, match='is not a folder'): d.find_pairs(tmp_path / 'b.txt')
