"""Out to the labelling tools and back, against the tools' own readers where a package has them.

The packages are not needed by anything else, so these tests are skipped with a sentence where one is missing:
    pip install label-studio-sdk datumaro labelme pycocotools
"""

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from lesion_seg.cli import main
from lesion_seg.core import InputError
from lesion_seg.data import read_mask
from lesion_seg.labels import TOOLS, PhotographIndex, export_labels, import_labels, mask_polygons
from lesion_seg.layouts import LesionPair
from lesion_seg.manifest import Manifest
from lesion_seg.polygons import (
    Outlines,
    decode_brush,
    decode_counts,
    encode_brush,
    encode_counts,
    encode_runs,
    file_address,
    fill_runs,
    last_part,
    read_outlines,
)


def blobs(seed: int, size: tuple[int, int]) -> np.ndarray:
    "Regions of any form, with holes, some at the edge."
    noise = np.random.default_rng(seed).random(size)
    return gaussian_filter(noise, 4) > np.quantile(gaussian_filter(noise, 4), .7)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Manifest, Path]:
    "Photographs in folders with names that need care, and masks that are empty, full, in pieces, with holes."
    root = tmp_path_factory.mktemp("data")
    names = ["a & b/mole 1.png", "second/mole 1.png", "second/Läsion.png", "full.png", "none.png"]
    masks = [blobs(1, (60, 80)), blobs(2, (70, 50)), blobs(3, (33, 41)), np.ones((20, 30), bool), np.zeros((25, 35), bool)]
    pairs = []
    for i, (name, mask) in enumerate(zip(names, masks, strict=True)):
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[::-1], (150, 120, 100 + i)).save(path)
        target = root / "truth" / f"{i}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(target)
        pairs.append(LesionPair(path, target))
    return Manifest(pairs), root / "photos"


def accept(file: Path) -> None:
    "In Label Studio a person submits the predictions as they are."
    tasks = json.loads(file.read_text())
    for t in tasks: t["annotations"] = t.pop("predictions")
    file.write_text(json.dumps(tasks))


def there_and_back(data, tool: str, painted: bool, folder: Path) -> dict[Path, np.ndarray]:
    manifest, photos = data
    file = export_labels(manifest, tool, folder, painted)[0]
    if tool == "label-studio": accept(file)
    back = import_labels(folder if tool == "labelme" else file, photos, folder / "back.csv", empty=True)
    assert back.problems == [] and len(back) == len(manifest)
    assert [(p.image.resolve(), p.mask.resolve(), p.id) for p in Manifest.load(folder / "back.csv")] == [(p.image, p.mask, p.id) for p in back]
    return {p.image: read_mask(p.mask) for p in back}


@pytest.mark.parametrize("tool", TOOLS)
def test_painted_pixels_return_exactly(tmp_path, data, tool):
    back = there_and_back(data, tool, True, tmp_path)
    for p in data[0]: np.testing.assert_array_equal(back[p.image], read_mask(p.mask))


@pytest.mark.parametrize("tool", TOOLS)
def test_polygons_return_within_a_pixel(tmp_path, data, tool):
    back = there_and_back(data, tool, False, tmp_path)
    for p in data[0]:
        before = read_mask(p.mask)
        distance = np.where(before, distance_transform_edt(before), distance_transform_edt(~before))
        assert distance[back[p.image] ^ before].max(initial=0) <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_packings_undo_each_other(seed, h, w, rate):
    mask = np.random.default_rng(seed).random((h, w)) < rate
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), (h, w)), mask)
    for by_column in (True, False):
        counts = encode_runs(mask, by_column)
        assert sum(counts[1::2]) == mask.sum()
        np.testing.assert_array_equal(fill_runs(decode_counts(encode_counts(counts)), (h, w), by_column), mask)
    redrawn = Outlines("x", (h, w), [("lesion", p) for p in mask_polygons(mask, 0)]).mask((h, w))
    np.testing.assert_array_equal(redrawn, mask)


# The tools' own programs


@pytest.mark.parametrize("size", [(1, 1), (60, 80), (400, 300)])
def test_brush_as_label_studio_packs_it(size):
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="needs label-studio-sdk")
    mask = blobs(4, size) if min(size) > 1 else np.ones(size, bool)
    theirs = brush.decode_rle(encode_brush(mask)).reshape(*size, 4)[..., 3]
    np.testing.assert_array_equal(theirs, mask * np.uint8(255))
    np.testing.assert_array_equal(decode_brush(brush.mask2rle(mask.astype(np.uint8) * 255), size), mask)


def test_label_studio_converts_our_tasks(tmp_path, data):
    "Its own converter reads the tasks with the interface that we wrote, and makes COCO of the polygons."
    converter = pytest.importorskip("label_studio_sdk.converter", reason="needs label-studio-sdk")
    tasks, interface = export_labels(data[0], "label-studio", tmp_path)
    accept(tasks)
    items = json.loads(tasks.read_text())
    for i, t in enumerate(items): t |= dict(id=i, annotations=[a | dict(id=i, completed_by=dict(id=1, email="a@b.c")) for a in t["annotations"]])
    tasks.write_text(json.dumps(items))
    made = converter.Converter(interface.read_text(), str(tmp_path), download_resources=False)
    made.convert_to_coco(str(tasks), str(tmp_path / "coco"), output_image_dir=str(tmp_path / "images"), is_dir=False)
    theirs = json.loads((tmp_path / "coco" / "result.json").read_text())
    areas = {i["file_name"]: sum(a["area"] for a in theirs["annotations"] if a["image_id"] == i["id"]) for i in theirs["images"]}
    full = next(v for k, v in areas.items() if k.endswith("full.png"))
    assert abs(full - 600) <= 1 and [c["name"] for c in theirs["categories"]] == ["lesion"]


@pytest.mark.parametrize("painted", [True, False])
def test_coco_as_pycocotools_reads_it(tmp_path, data, painted):
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    file = export_labels(data[0], "coco", tmp_path, painted)[0]
    theirs = coco.COCO(str(file))
    for image in theirs.imgs.values():
        p = next(p for p in data[0] if p.image.as_posix().endswith(image["file_name"]))
        mask = read_mask(p.mask)
        anns = theirs.imgToAnns[image["id"]]
        got = np.any([theirs.annToMask(a) for a in anns], axis=0) if anns else np.zeros_like(mask)
        if painted: np.testing.assert_array_equal(got, mask)
        else:  # it also draws the line of the outline
            distance = np.where(mask, distance_transform_edt(mask), distance_transform_edt(~mask))
            assert distance[got ^ mask].max(initial=0) <= 2


@pytest.mark.parametrize("painted", [True, False])
def test_labelme_opens_our_files(tmp_path, data, painted):
    labelme = pytest.importorskip("labelme._label_file", reason="needs labelme")
    files = export_labels(data[0], "labelme", tmp_path, painted)
    load = getattr(labelme, "load_label_file", None) or getattr(labelme, "read_label_file", None)
    if load is None: pytest.skip("this labelme has its reader elsewhere")
    for file, p in zip(files, data[0], strict=True):
        read, mask = load(str(file)), read_mask(p.mask)
        assert read.image_data  # the photograph is where the file says
        if not painted or not mask.any(): continue
        (shape,) = read.shapes
        (left, top), (right, bottom) = np.array(shape["points"]).astype(int)
        np.testing.assert_array_equal(shape["mask"], mask[top:bottom + 1, left:right + 1])
        assert mask.sum() == shape["mask"].sum()


@pytest.mark.parametrize("tool, form", [("cvat", "cvat"), ("coco", "coco_instances")])
@pytest.mark.parametrize("painted", [True, False])
def test_datumaro_reads_our_files(tmp_path, data, tool, form, painted):
    dm = pytest.importorskip("datumaro", reason="needs datumaro")
    file = export_labels(data[0], tool, tmp_path, painted)[0]
    target = tmp_path / "annotations" / f"instances_{file.name}"  # where it looks for COCO
    target.parent.mkdir()
    target.write_bytes(file.read_bytes())
    shutil.copytree(data[1], tmp_path / "images")  # and where it looks for the photographs
    theirs = dm.Dataset.import_from(str(target if tool == "coco" else file), form)
    by_id = {item.id: item for item in theirs}
    for p in data[0]:
        mask = read_mask(p.mask)
        name = p.image.relative_to(data[1]).with_suffix("").as_posix()
        shapes = by_id[name].annotations
        assert bool(shapes) == bool(mask.any())
        if not painted: continue
        got = np.any([s.image for s in shapes if s.type.name == "mask"], axis=0) if shapes else np.zeros_like(mask)
        np.testing.assert_array_equal(got, mask)


def test_cvat_as_its_sdk_packs_masks(data):
    masks = pytest.importorskip("cvat_sdk.masks", reason="needs cvat-sdk")
    mask = read_mask(data[0][0].mask)
    top, bottom = np.flatnonzero(mask.any(1))[[0, -1]]
    left, right = np.flatnonzero(mask.any(0))[[0, -1]]
    theirs = [int(v) for v in masks.encode_mask(mask)]  # run lengths, then the box: left, top, right, bottom
    assert theirs == [*encode_runs(mask[top:bottom + 1, left:right + 1], by_column=False), left, top, right, bottom]


# Files that mean harm, or are merely odd


def index_of(tmp_path, *names: str) -> PhotographIndex:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 8)).save(path)
    return PhotographIndex(tmp_path)


@pytest.mark.parametrize("address, found", [
    ("a/x.png", "a/x.png"), ("b\\x.png", "b/x.png"), ("/mnt/elsewhere/b/x.png", "b/x.png"), ("x.png", None),
    ("c/x.png", None), ("/data/upload/7/0a1b2c3d-y.png", "a/y.png"), ("/data/local-files/?d=photos/a/y.png", "a/y.png"),
    ("/data/local-files/?d=y.png", "a/y.png"), ("../../a/y.png", "a/y.png"), ("../secret.png", None), ("http://h/a/y%2Epng", "a/y.png"), ("Y.PNG", "a/y.png"), ("", None)])
def test_addresses_choose_among_listed_photographs(tmp_path, address, found):
    (tmp_path / "secret.png").write_bytes(b"")
    index = index_of(tmp_path / "in", "a/x.png", "b/x.png", "a/y.png")
    o = Outlines(re.sub(r"^[0-9a-f]{8}-", "", last_part(address)), address=file_address(address))
    got = index.find(o)
    assert (got and got.relative_to(tmp_path / "in").as_posix()) == found


def coco_with(tmp_path, segmentation, size=(8, 10)) -> Path:
    data = dict(images=[dict(id=1, file_name="x.png", height=size[0], width=size[1])], annotations=[dict(image_id=1, segmentation=segmentation)])
    path = tmp_path / "c.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("segmentation, words", [
    (dict(size=[10**6, 10**6], counts=[10**12]), "are for 1000000 x 1000000"), (dict(size=[8, 10], counts="o" * 5000), "does not end"),
    (dict(size=[8, 10], counts=[-1, 81]), "cover 80 of"), (dict(size=[0, 0], counts=[0]), "are for 0 x 0"),
    ([[1, 2] * 200_001], "corners, more than"), (dict(size=[8, 10], counts=[1e400]), "is damaged")])
def test_hostile_annotations_are_refused(tmp_path, segmentation, words):
    index_of(tmp_path / "in", "x.png")
    with pytest.raises(InputError, match=words): import_labels(coco_with(tmp_path, segmentation), tmp_path / "in", tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def studio(tmp_path, *answers: dict) -> Path:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([dict(data=dict(image="x.png"), annotations=list(answers))]))
    return path


def brush(rle: list[int], h: int = 8, w: int = 10) -> dict:
    return dict(result=[dict(type="brushlabels", original_width=w, original_height=h, value=dict(rle=rle, brushlabels=["lesion"]))])


@pytest.mark.parametrize("answer, words", [
    (brush(encode_brush(np.ones((8, 10), bool))[:9]), "is cut"), (brush([255] * 40), "numbers of 32 bits"),
    (brush(encode_brush(np.ones((8, 11), bool))), "352 numbers"), (brush([300]), "is damaged"), (brush([], 10**6, 10**6), "are for 1000000")])
def test_hostile_brushes_are_refused(tmp_path, answer, words):
    with pytest.raises(InputError, match=words): read_outlines(studio(tmp_path, answer))


def test_hostile_masks_of_labelme_are_refused(tmp_path):
    import struct
    import zlib
    def chunk(kind: bytes, body: bytes) -> bytes: return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    shape = dict(label="lesion", shape_type="mask", points=[[0, 0], [5, 5]])
    for mask, words in ((base64.b64encode(png).decode(), "100000 x 100000"), ("no base64!", "is damaged")):
        path = tmp_path / "x.json"
        path.write_text(json.dumps(dict(imagePath="x.png", shapes=[shape | dict(mask=mask)])))
        with pytest.raises(InputError, match=words): read_outlines(path)


def test_the_last_answer_counts_and_the_others_are_said(tmp_path):
    index_of(tmp_path / "in", "x.png")
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:9] = True
    answers = [brush(encode_brush(~mask)), brush(encode_brush(mask)), brush(encode_brush(~mask)) | dict(was_cancelled=True)]
    back = import_labels(studio(tmp_path, *answers), tmp_path / "in", tmp_path / "t.csv")
    np.testing.assert_array_equal(read_mask(back[0].mask), mask)
    assert ["1 earlier annotation" in p.detail for p in back.problems] == [True]


def test_no_shape_is_no_mask_unless_somebody_looked(tmp_path):
    index_of(tmp_path / "in", "x.png")
    def masks(path, **options): return [p.mask and int(read_mask(p.mask).sum()) for p in import_labels(path, tmp_path / "in", tmp_path / "t.csv", **options)]
    nothing = coco_with(tmp_path, None)
    assert masks(nothing) == [None] and masks(nothing, empty=True) == [0]
    assert masks(studio(tmp_path, dict(result=[]))) == [0] and masks(studio(tmp_path)) == [None]


def test_annotations_of_another_photograph_do_not_fit(tmp_path):
    index_of(tmp_path / "in", "x.png")
    back = import_labels(coco_with(tmp_path, [[0, 0, 5, 0, 5, 5]], size=(80, 100)), tmp_path / "in", tmp_path / "t.csv")
    assert len(back) == 0 and "was annotated at 100 x 80 pixels and has 10 x 8" in back.problems[0].detail


def test_replaced_masks_are_said(tmp_path):
    index_of(tmp_path / "in", "x.png")
    for _ in range(2): back = import_labels(coco_with(tmp_path, [[0, 0, 5, 0, 5, 5]]), tmp_path / "in", tmp_path / "t.csv")
    assert "1 masks were replaced" in back.notes


def test_command_line(tmp_path, data, capsys):
    photos = data[1]
    assert main(["labels", "export", str(photos / "second"), "-t", "coco", "-o", str(tmp_path)]) == 2
    assert "let a model draw them with --predict" in capsys.readouterr().err
    assert main(["labels", "export", str(photos / "second"), "-t", "coco", "-o", str(tmp_path), "--predict", "--painted"]) == 0
    assert main(["labels", "import", str(tmp_path / "coco.json"), "--images", str(photos / "second"), "-o", str(tmp_path / "t.csv"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["photographs"], result["masks"]) == (2, len(table := json.loads((tmp_path / "coco.json").read_text())["annotations"]))
    drawn = {p.name: read_mask(p) for p in (tmp_path / "masks").iterdir()}
    table = Manifest.load(tmp_path / "t.csv")
    for p in table:
        if p.mask: np.testing.assert_array_equal(read_mask(p.mask), drawn[f"{p.image.stem.replace(' ', '_')}_mask.png"])


def test_the_box_of_a_painted_region_ends_on_its_last_pixel(tmp_path):
    "As labelme has it; worked out by hand."
    index_of(tmp_path, "x.png")
    mask = np.zeros((8, 10), np.uint8)
    mask[2:5, 3:9] = 255
    Image.fromarray(mask).save(tmp_path / "x_mask.png")
    file = export_labels([LesionPair(tmp_path / "x.png", tmp_path / "x_mask.png")], "labelme", tmp_path / "out", painted=True)[0]
    assert json.loads(file.read_text())["shapes"][0]["points"] == [[3, 2], [8, 4]]
