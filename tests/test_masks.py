"""lesion_seg.masks: folders of masks as strangers leave them; scores by counting pixels here."""

import numpy as np
import pytest
from PIL import Image

from lesion_seg.core import InputError, encode_png
from lesion_seg.manifest import LesionPair, Manifest
from lesion_seg.masks import MaskFolder, find_partner, mask_keys, score_masks


def square(top, left, side=10, shape=(40, 60)):
    m = np.zeros(shape, bool)
    m[top:top + side, left:left + side] = True
    return m


def put(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(mask.astype(np.uint8) * 255))
    return path


@pytest.fixture
def manifest(tmp_path):
    pairs = []
    for i in "abc":
        Image.new("RGB", (60, 40), "tan").save(put(tmp_path / "photos" / f"{i}.png", square(0, 0)))
        pairs.append(LesionPair(tmp_path / "photos" / f"{i}.png", put(tmp_path / "truth" / f"{i}_mask.png", square(10, 10)), i))
    return Manifest(pairs)


def test_scores_are_those_of_the_pixels(manifest, tmp_path):
    for i, left in zip("abc", (10, 15, 30), strict=True): put(tmp_path / "m" / f"{i}.png", square(10, left))
    table = score_masks(manifest, tmp_path / "m", distances=True)
    assert table.jaccard.tolist() == pytest.approx([1, 50 / 150, 0]) and table.tp.tolist() == [100, 50, 0]
    assert table.border_bias[0] == 0 and table.hd95[1] == 5 and table.id.tolist() == list("abc")


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif", ".bmp", ".jpg"])
def test_any_format_that_holds_a_mask(manifest, tmp_path, suffix):
    (tmp_path / "m").mkdir()
    for i in "abc": Image.fromarray(square(10, 15).astype(np.uint8) * 255).save(tmp_path / "m" / f"{i}_segmentation{suffix}")
    said = []
    table = score_masks(manifest, tmp_path / "m", say=said.append)
    # a JPEG moves the border by less than half a pixel at most of its length
    assert table.jaccard.tolist() == pytest.approx([1 / 3] * 3, abs=0.02 if suffix == ".jpg" else 1e-12) and not said


def test_a_dicom_segmentation(tmp_path):
    pytest.importorskip("highdicom")
    from lesion_seg.dicom_seg import photo_to_dicom, write_seg
    photo = photo_to_dicom(np.full((40, 60, 3), 180, np.uint8), tmp_path / "a.dcm")
    write_seg(tmp_path / "m" / "a_seg.dcm" if (tmp_path / "m").mkdir() is None else "", square(10, 15), photo)
    pair = LesionPair(photo, put(tmp_path / "truth" / "a.png", square(10, 10)), "a")
    assert score_masks(Manifest([pair]), tmp_path / "m").jaccard[0] == pytest.approx(1 / 3)


def test_what_does_not_fit_is_named(manifest, tmp_path):
    put(tmp_path / "m" / "b.png", square(0, 0, 0))
    put(tmp_path / "m" / "c.png", ~square(10, 10))
    put(tmp_path / "m" / "zebra.png", square(0, 0))
    put(tmp_path / "m" / "c_overlay.png", square(0, 0))
    (tmp_path / "m" / "notes.txt").write_text("x")
    said = []
    table = score_masks(manifest, tmp_path / "m", say=said.append)
    text = "\n".join(said)
    assert table.jaccard.tolist() == [0, 0, 0] and len(said) == 5
    assert "without a mask in the folder, counted as empty (1): a" in text
    assert "has no lesion at all (1): b" in text and "changed places (1): c" in text
    assert "masks without a photograph in the table (1): zebra.png" in text and "c_overlay.png, notes.txt" in text
    said.clear()
    assert score_masks(manifest, tmp_path / "m", missing="skip", say=said.append).id.tolist() == ["b", "c"]
    assert said[0] == "left out, without a mask in the folder (1): a"


def test_all_masks_of_another_size_are_named_at_once(manifest, tmp_path):
    for i in "ab": put(tmp_path / "m" / f"{i}.png", square(5, 5, 5, (20, 30)))
    put(tmp_path / "m" / "c.png", square(10, 10))
    with pytest.raises(InputError) as e: score_masks(manifest, tmp_path / "m")
    assert len(e.value.problems) == 2 and "a.png: is 30 x 20 pixels, its photograph 60 x 40" in str(e.value) and "b.png" in str(e.value)
    said = []
    assert score_masks(manifest, tmp_path / "m", resize=True, say=said.append).jaccard.tolist() == [1, 1, 1]
    assert said == ["scaled from another size (2): a, b"]


def test_a_broken_mask_does_not_hide_another(manifest, tmp_path):
    for i in "abc": put(tmp_path / "m" / f"{i}.png", square(10, 10))
    for i in "ac": (tmp_path / "m" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="2 masks cannot be scored") as e: score_masks(manifest, tmp_path / "m")
    assert [p.about[-5:] for p in e.value.problems] == ["a.png", "c.png"]


def test_names(tmp_path):
    one, two = (LesionPair(tmp_path / site / "IMG_1.png", id=f"{site}/IMG_1") for site in ("x", "y"))
    by_name = {"x/IMG_1": [one], "y/IMG_1": [two], "IMG_1": [one, two]}
    folded = {k.casefold(): v for k, v in by_name.items()}
    def partner(name): return find_partner(tmp_path / "m" / name, tmp_path / "m", by_name, folded)
    assert partner("x/IMG_1_mask.png") is one and partner("y/img_1.png") is two and partner("deep/y/IMG_1.png") is two
    assert partner("IMG_2.png") is None
    with pytest.raises(InputError, match="may belong to x/IMG_1, y/IMG_1"): partner("IMG_1.png")
    assert mask_keys(tmp_path / "a_lesion.png", tmp_path) == ["a", "a_lesion"]


def test_two_masks_for_one_photograph(manifest, tmp_path):
    for i in "abc": put(tmp_path / "m" / f"{i}_mask.png", square(10, 10))
    Image.new("RGB", (60, 40), "tan").save(tmp_path / "m" / "a.jpg")  # the photograph beside it
    said = []
    assert score_masks(manifest, tmp_path / "m", say=said.append).jaccard.tolist() == [1, 1, 1] and "a.jpg" in said[0]
    put(tmp_path / "m" / "b_seg.png", square(10, 10))
    with pytest.raises(InputError, match="b: has 2 masks .b_mask.png, b_seg.png."): score_masks(manifest, tmp_path / "m")


@pytest.mark.parametrize("options, words", [(dict(missing="drop"), "missing 'drop'"), (dict(folder="nowhere"), "is not a folder"),
                                            (dict(folder="photos/empty"), "holds no mask of these 3 photographs")])
def test_refusals(manifest, tmp_path, options, words):
    (tmp_path / "photos" / "empty").mkdir()
    options = dict(dict(folder="photos"), **options)
    with pytest.raises(InputError, match=words): MaskFolder(tmp_path / options.pop("folder"), manifest, **options)


def test_many_names_are_cut_in_the_sentence_only(manifest, tmp_path):
    put(tmp_path / "m" / "a.png", square(10, 10))
    for k in range(30): put(tmp_path / "m" / f"z{k:02}.png", square(10, 10))
    folder = MaskFolder(tmp_path / "m", manifest)
    assert len(folder.strangers) == 30 and folder.remarks()[-1].endswith("z19.png and 10 more")
