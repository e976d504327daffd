"""Every way in: the seeds that are damaged, and the code that must read what comes of them or refuse it in one sentence."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import mutate
import numpy as np
import shapes
from PIL import Image

from lesion_seg.core import InputError
from lesion_seg.data import image_size, read_image, read_mask
from lesion_seg.phantom import Phantom, make_phantom

Case = dict[str, bytes]  # files by name, in a folder of their own
LIMIT = 1000  # characters of a sentence


class Flaw(AssertionError):
    "What an input got away with."


def must(ok: bool, what: str) -> None:
    if not ok:
        raise Flaw(what)


def judge(e: InputError, *names: str | Path) -> InputError:
    "A refusal, which has to be one plain sentence that names the file."
    text = str(e)
    must(0 < len(text) <= LIMIT or bool(e.problems), f"a sentence of {len(text)} characters: {text[:200]!r}")
    must(e.problems or "\n" not in text.strip(), f"several lines: {text[:300]!r}")
    must(all(c.isprintable() or c == "\n" for c in text), f"characters that do not print: {ascii(text)[:300]}")
    must("Traceback" not in text and not names or any(str(n) in text for n in names), f"does not name its file: {text[:300]!r}")
    return e


def tried(f: Callable, *args, names: tuple = (), **options):
    "The result, or the refusal."
    try:
        return f(*args, **options)
    except InputError as e:
        return judge(e, *names)


def same(a: InputError | object, b: InputError | object) -> bool:
    return isinstance(a, InputError) == isinstance(b, InputError)


def small(seed: int, size: tuple[int, int]) -> Phantom:
    "A corner of a phantom, to keep the files short."
    p = make_phantom(seed, 48)
    h, w = (48 - size[0]) // 2, (48 - size[1]) // 2
    return replace(p, image=p.image[h : h + size[0], w : w + size[1]].copy(), mask=p.mask[h : h + size[0], w : w + size[1]].copy())


# ------------------------------------------------------------------------------------------------------------------ photographs
def encoded(im: Image.Image, fmt: str, **options) -> bytes:
    im.save(f := io.BytesIO(), fmt, **options)
    return f.getvalue()


def image_seeds() -> list[Case]:
    im, exif = Image.fromarray(make_phantom(3, (46, 62)).image), Image.Exif()
    exif[274], exif[270] = 6, "mole"
    icc = encoded_profile()
    made = [
        ("jpg", "JPEG", im, dict(quality=90)),
        ("jpg", "JPEG", im, dict(progressive=True, exif=exif)),
        ("jpg", "JPEG", im.convert("L"), {}),
        ("jpg", "JPEG", im.convert("CMYK"), dict(icc_profile=icc)),
        ("jpg", "JPEG", im, dict(icc_profile=icc, restart_marker_blocks=1)),
        ("png", "PNG", im, dict(exif=exif)),
        ("png", "PNG", im.convert("RGBA"), dict(icc_profile=icc)),
        ("png", "PNG", im.quantize(16), dict(transparency=3)),
        ("png", "PNG", im.convert("1"), {}),
        ("png", "PNG", Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 130), {}),
        ("tif", "TIFF", im, {}),
        ("tif", "TIFF", im, dict(compression="tiff_lzw", exif=exif)),
        ("tif", "TIFF", im, dict(compression="jpeg")),
        ("tif", "TIFF", im, dict(compression="tiff_adobe_deflate", big_tiff=True)),
        ("tif", "TIFF", im.convert("CMYK"), {}),
        ("tif", "TIFF", im.convert("1"), dict(compression="group4")),
        ("tif", "TIFF", im, dict(save_all=True, append_images=[im.resize((9, 9))])),
        ("bmp", "BMP", im, {}),
        ("bmp", "BMP", im.quantize(8), {}),
        ("webp", "WEBP", im, dict(exif=exif)),
        ("webp", "WEBP", im.convert("RGBA"), dict(lossless=True)),
        ("webp", "WEBP", im, dict(save_all=True, append_images=[im.rotate(9)])),
    ]
    return [{f"photo.{suffix}": encoded(i, fmt, **options)} for suffix, fmt, i, options in made]


@lru_cache
def encoded_profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def read_photo(folder: Path) -> None:
    path = next(folder.glob("photo.*"))
    size = tried(image_size, path, names=(path,))
    if not isinstance(size, InputError) and size[0] * size[1] > 20_000_000:  # it takes its time, rightly, so once is enough
        image = tried(read_image, path, names=(path,))
        if isinstance(image, InputError):
            raise image
        return must(size == image.shape[:2], f"{size} announced, {image.shape} read")
    image, mask = (tried(f, path, names=(path,)) for f in (read_image, read_mask))
    if not isinstance(image, InputError):
        must(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, f"{image.dtype} {image.shape}")
        must(size == image.shape[:2], f"{size} announced, {image.shape} read")
        must(same(tried(read_image, path.read_bytes()), image), "the bytes are read otherwise than the file")
    if not isinstance(mask, InputError):
        must(mask.dtype == bool and mask.ndim == 2, f"{mask.dtype} {mask.shape}")
    if isinstance(image, InputError):
        raise image


@lru_cache
def segmenter():
    from lesion_seg.predict import Segmenter

    return Segmenter(threads=1)


def predict_photo(folder: Path) -> None:
    from lesion_seg.predict import ALL_KINDS

    path = next(folder.glob("photo.*"))
    found = tried(segmenter().predict, path, largest=True, names=(path,))
    if isinstance(found, InputError):
        raise found
    must(found.mask.shape == found.size, f"a mask of {found.mask.shape} for {found.size}")
    written = found.save(folder / "out", "photo", ALL_KINDS)
    must(np.array_equal(read_mask(written["mask"]), found.mask), "the mask's file differs from the mask")
    json.loads(written["json"].read_text(encoding="utf-8"))


# ----------------------------------------------------------------------------------------------------------------------- DICOM
def dicom_seeds() -> list[Case]:
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    from lesion_seg.dicom_seg import photo_to_dicom

    img, made = make_phantom(3, (46, 62)).image, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shipped = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))
        made += [p.read_bytes() for p in shipped if p.stat().st_size < 40_000]
        folder = Path("seed.dcm")
        photo_to_dicom(img, folder, spacing=(0.02, 0.02))
        made.append(folder.read_bytes())
        ds = pydicom.dcmread(folder)
        folder.unlink()
        ds.PhotometricInterpretation, ds.file_meta.TransferSyntaxUID = "YBR_FULL_422", JPEGBaseline8Bit
        ds.PixelData = encapsulate([encoded(Image.fromarray(img), "JPEG")])
        ds.save_as(f := io.BytesIO(), enforce_file_format=True)
    return [{"photo.dcm": b} for b in (*made, f.getvalue(), f.getvalue())]


def read_dicom_file(folder: Path) -> None:
    from lesion_seg.dicom import dicom_summary, is_dicom, read_dicom
    from lesion_seg.dicom_seg import write_seg

    path = folder / "photo.dcm"
    for identifying in (False, True):
        facts = tried(dicom_summary, path, identifying, names=(path,))
        if not isinstance(facts, InputError):
            json.dumps(facts, allow_nan=False), str(facts)
    size, frames = tried(image_size, path, names=(path,)), 1 if isinstance(facts, InputError) else facts["frames"]
    read = tried(read_dicom, path, frame=None if frames == 1 else 1, names=(path,))
    if isinstance(read, InputError):
        raise read
    image = read[0]
    must(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, f"{image.dtype} {image.shape}")
    must(isinstance(size, InputError) or size == image.shape[:2], f"{size} announced, {image.shape} read")
    if frames == 1 and is_dicom(path.read_bytes()[:256]):
        must(same(tried(read_image, path), read), "read_image and read_dicom disagree")
    if image.size < 10**6 and image[0, 0, 0] % 4 == 0:  # a quarter of them, since it is slow
        with suppress(InputError):
            write_seg(folder / "out" / "seg.dcm", image[..., 0] > 128, path, frame=1)


# --------------------------------------------------------------------------------------------------------------------- records
def records_seeds() -> list[Case]:
    from lesion_seg.records import RecordWriter
    from lesion_seg.tfrecord import encode_example

    seeds = []
    for whole in (False, True):
        with RecordWriter("seed", shards=1) as w:
            for i in range(3):
                p = small(i, (20, 24))
                image, mask = (encoded(Image.fromarray(a), "PNG") for a in (p.image, p.mask)) if whole else (p.image, p.mask)
                w.write(image, mask, f"p{i}", split=("train", "valid", "test")[i])
        seeds.append({p.name: p.read_bytes() for p in Path("seed").iterdir()})
        shutil.rmtree("seed")
    foreign = encode_example(
        dict(image=encoded(Image.fromarray(small(9, (16, 16)).image), "JPEG"), height=16, width=16, floats=[0.5, 1.5], numbers=[1, -2, 2**40])
    )
    return [*seeds, {"x.tfrecord": mutate_frame(foreign) * 2}]


def mutate_frame(payload: bytes) -> bytes:
    from lesion_seg.tfrecord import frame

    return frame(payload)


def read_records(folder: Path) -> None:
    from lesion_seg.records import RecordReader

    reader = tried(RecordReader, folder, names=(folder,))
    if isinstance(reader, InputError):
        raise reader
    for i in range(min(len(reader), 20)):
        record = tried(reader.__getitem__, i, names=(folder,))
        if not isinstance(record, InputError):
            must(record.image.dtype == np.uint8 and record.image.shape[2] == 3, f"{record.image.dtype} {record.image.shape}")
            must(record.mask is None or record.mask.dtype == bool, "a mask that is not bool")
        tried(reader.raw, i, 16, names=(folder,))
    must(len(reader.digest) == 64, "no digest")
    try:
        reader.check()
    except InputError as e:
        raise judge(e, folder) from None


# ---------------------------------------------------------------------------------------------------------------- configuration
def config_seeds() -> list[Case]:
    from lesion_seg.config import Config, config_yaml

    full = config_yaml(Config()).encode()
    return [
        {"config.yaml": full, "set.txt": b"training.epochs=5\ndata.image_size=128\nprediction.largest=true"},
        {"config.yaml": b"training:\n  epochs: 3\n  learning_rate: 1e-3\nmodel: {encoder_channels: [8, 16]}\n", "set.txt": b""},
    ]


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line][:20] if path.exists() else []


def read_config(folder: Path) -> None:
    from lesion_seg.config import config_yaml, load_config

    path, lines = folder / "config.yaml", lines_of(folder / "set.txt")
    cfg = tried(load_config, path, names=(path,))
    override = tried(load_config, None, lines)
    if isinstance(cfg, InputError):
        raise cfg
    again = folder / "out" / "again.yaml"
    again.parent.mkdir()
    again.write_text(config_yaml(cfg), encoding="utf-8")
    must(load_config(again) == cfg, "a configuration written and read is another one")
    if isinstance(override, InputError):
        raise override


# --------------------------------------------------------------------------------------------------------------------- manifests
def manifest_seeds() -> list[Case]:
    files, rows = {}, []
    for i in range(4):
        p = small(i, (12, 14))
        files |= {f"images_p{i}.png": encoded(Image.fromarray(p.image), "PNG"), f"p{i}_mask.png": encoded(Image.fromarray(p.mask), "PNG")}
        rows.append((f"images_p{i}.png", f"p{i}_mask.png", f"p{i}", f"patient{i // 2}", "", "female", i))
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("image", "mask", "id", "patient_id", "split", "sex", "age"), *rows])
    facts, pairs = b"isic_id,lesion_id,split\np0,l1,val\np1,l2,val\np2,l3,train\np3,l3,train\n", b"image_a,image_b\np0,p3\n"
    seed = {**files, "manifest.csv": out.getvalue().encode(), "facts.csv": facts, "pairs.csv": pairs}
    return [
        seed,
        {**seed, "manifest.csv": out.getvalue().replace(",", ";").encode("utf-8-sig")},
        {**files, "manifest.csv": b"image,mask\nimages_p0.png,p0_mask.png\nimages_p1.png,p1_mask.png\n", "facts.csv": facts, "pairs.csv": pairs},
    ]


def read_manifest(folder: Path) -> None:
    from lesion_seg.manifest import Manifest, make_split

    path, (facts, pairs) = folder / "manifest.csv", (folder / n for n in ("facts.csv", "pairs.csv"))
    m = tried(Manifest.load, path, names=(path,))
    if isinstance(m, InputError):
        raise m
    found = m.check(strict=False)
    joined = tried(m.join, facts, names=(facts,))
    tried(m.link_duplicates, pairs, names=(pairs,))
    for table in (m, joined):
        if isinstance(table, InputError):
            continue
        done = tried(make_split, table, (0.5, 0.25, 0.25), stratify=not found)
        if isinstance(done, InputError):
            continue
        str(done[1])
        for suffix in ("csv", "parquet"):
            saved = done[0].save(folder / "out" / f"m.{suffix}")
            must(Manifest.load(saved).digest == done[0].digest, "a manifest saved and loaded has another digest")


# ----------------------------------------------------------------------------------------------------------------------- bundles
@lru_cache
def tiny_bundle(width: int) -> Path:
    "A bundle of random weights with its exported files, made once for all workers of a campaign, by a process that has torch."
    folder = Path("..").resolve() / f"bundle{width}"
    if not folder.exists():
        made = Path(f"bundle{width}").resolve()
        subprocess.run([sys.executable, "-c", f"import entries; entries.make_bundle({str(made)!r}, {width})"], check=True)
        with suppress(OSError):  # another worker was faster
            made.rename(folder)
    return folder


def make_bundle(folder: str, width: int) -> None:
    import torch

    from lesion_seg.bundle import revise, save_bundle
    from lesion_seg.onnx import export_onnx
    from lesion_seg.quantize import quantize_onnx
    from lesion_seg.unet import UNet

    torch.manual_seed(width)
    new = save_bundle(folder, UNet(channels=(width, 2 * width), bottleneck=4 * width, dropout=0.2), size=32)
    export_onnx(revise(new, review=dict(score="disagreement", threshold=0.1, share=0.1, n=10)), opset=17)
    quantize_onnx(new.path, n=2, at_least=0)  # how well random weights survive is no matter here


def bundle_seeds() -> list[Case]:
    return [{p.name: p.read_bytes() for p in tiny_bundle(w).iterdir()} for w in (2, 4)]


def with_digests(case: Case, rng: Random) -> Case:
    "Mostly, the card gets the digests of the files as they are now, so that what lies behind the digests is reached."
    if rng.random() < 0.2:
        return case
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        card = json.loads(case["bundle.json"])
        card["weights_sha256"] = hashlib.sha256(case["model.safetensors"]).hexdigest()
        for name in card["onnx"]["sha256"]:
            card["onnx"]["sha256"][name] = hashlib.sha256(case[name]).hexdigest()
        return {**case, "bundle.json": json.dumps(card).encode("utf-8", "surrogatepass")}
    return case


def read_bundle(folder: Path) -> None:
    import lesion_seg.unet  # noqa: F401 (the time it takes to import torch is not an input's)
    from lesion_seg.bundle import Bundle
    from lesion_seg.predict import Segmenter

    b = tried(Bundle.load, folder, names=(folder,))
    if isinstance(b, InputError):
        raise b
    repr(b)
    photo = make_phantom(3, (46, 62)).image
    refusals = []
    ways = [("onnxruntime", "float32"), ("onnxruntime", "int8"), ("torch", "float32")]
    for runtime, precision in ways[: 2 + (len(json.dumps(b.info)) % 4 == 0)]:
        for use in (lambda s: s.predict(photo), lambda s: s.uncertainty(photo, n=2)):
            s = tried(Segmenter, b, threads=1, runtime=runtime, precision=precision, names=(folder,))
            if not isinstance(s, InputError):
                s = tried(use, s, names=(folder, "image", "array"))
            if isinstance(s, InputError):
                refusals.append(s)
    if refusals:
        raise refusals[0]


# --------------------------------------------------------------------------------------------------------------------- archives
def zip_seeds() -> list[Case]:
    photo, seeds = encoded(Image.fromarray(small(3, (20, 24)).image), "JPEG"), []
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        with zipfile.ZipFile(f := io.BytesIO(), "w", method) as z:
            for name in ("set/a.jpg", "set/b.jpg", "set/metadata.csv", "__MACOSX/._a.jpg"):
                z.writestr(zipfile.ZipInfo(name), photo * 3)
        seeds.append({"archive.zip": f.getvalue()})
    return seeds


def unpack_archive(folder: Path) -> None:
    from lesion_seg.isic import safe_unzip

    path, out = folder / "archive.zip", folder / "out"
    files = tried(safe_unzip, path, out, most=50_000_000, names=(path, out))
    if isinstance(files, InputError):
        raise files
    there = {p.name: p.stat().st_size for p in out.rglob("*") if p.is_file()} if out.exists() else {}
    must(there == {k: v[0] for k, v in files.items()}, "what was unpacked is not what was reported")


class _Replies(BaseHTTPRequestHandler):
    replies: dict[str, bytes] = {}

    def do_GET(self):
        kind = "search.json" if "search" in self.path else "photo.jpg"
        body = self.replies.get(kind, b"")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@lru_cache
def server() -> str:
    "A server on the loopback host that answers with the case's files."
    s = ThreadingHTTPServer(("127.0.0.1", 0), _Replies)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{s.server_address[1]}"


def archive_seeds() -> list[Case]:
    photo = encoded(Image.fromarray(small(3, (20, 24)).image), "JPEG")

    def image(i):
        return dict(
            isic_id=f"ISIC_{i:07d}",
            copyright_license="CC-0",
            attribution="A b",
            files=dict(full=dict(url=f"HOST/f/{i}.jpg", size=len(photo))),
            metadata=dict(acquisition=dict(pixels_x=24), clinical=dict(sex="female", age_approx=40, patient_id="IP_1")),
        )

    page = json.dumps(dict(count=2, next=None, previous=None, results=[image(1), image(2)])).encode()
    book = json.dumps({"images/ISIC_0000001.jpg": dict(size=3, sha256="00")}).encode()
    table = b"image,mask,id,group,split,licence,attribution,source\nimages/ISIC_0000009.jpg,,ISIC_0000009,g,,CC-0,A b,x\n"
    return [{"search.json": page, "photo.jpg": photo}, {"search.json": page, "photo.jpg": photo, "checksums.json": book, "manifest.csv": table}]


def fetch_from_archive(folder: Path) -> None:
    from lesion_seg.isic import ISIC, fetch_archive, search_archive

    _Replies.replies = {p.name: p.read_bytes().replace(b"HOST", server().encode()) for p in folder.iterdir()}
    out, isic = folder / "out", ISIC(api=server(), attempts=2, pause=0.0, workers=1, timeout=(2, 2))
    out.mkdir()
    for name in ("checksums.json", "manifest.csv"):
        if (folder / name).exists():
            shutil.copy(folder / name, out / name)
    images = tried(search_archive, limit=3, isic=isic)
    if isinstance(images, InputError):
        raise images
    try:
        fetch_archive(images, out, isic)
    except InputError as e:
        raise judge(e) from None


# -------------------------------------------------------------------------------------------------------- scores and checkpoints
def table_seeds() -> list[Case]:
    return [
        {
            "scores.csv": b"id,group,jaccard,dice,sensitivity,specificity,accuracy\na,g1,0.5,0.66,0.7,0.9,0.9\nb,g2,0.8,0.9,0.7,0.9,0.95\nc,g2,1,1,1,1,1\n"
        }
    ]


def read_scores(folder: Path) -> None:
    from lesion_seg.evaluate import load_table, summarise, text_report

    path = folder / "scores.csv"
    table = tried(load_table, path, names=(path,))
    if isinstance(table, InputError):
        raise table
    summary = tried(summarise, table, n=50)
    if isinstance(summary, InputError):
        raise summary
    text_report(summary)
    json.dumps(summary, allow_nan=False)


@lru_cache
def tiny_learner():
    from lesion_seg.loaders import lesion_dls
    from lesion_seg.manifest import Manifest
    from lesion_seg.phantom import write_phantoms

    pairs = write_phantoms("phantoms", n=4, size=32, images_per_patient=1).pairs
    for p, split in zip(pairs, ("train", "train", "valid", "valid"), strict=True):
        p.split = split
    return lesion_dls(Manifest(pairs), 32, 2, "none", num_workers=0)


def go_on(folder: Path, epochs: int = 2) -> None:
    import torch
    from fastai.callback.progress import ProgressCallback

    from lesion_seg.train import fit, lesion_learner
    from lesion_seg.unet import UNet

    torch.manual_seed(0)
    learn = lesion_learner(tiny_learner(), UNet(channels=(2, 4), bottleneck=8), precision="fp32")
    learn.remove_cbs(learn.cbs.filter(lambda cb: isinstance(cb, ProgressCallback)))
    with learn.no_logging():
        fit(learn, 2, folder, average=0.5, report=_stop if epochs == 1 else None, say=lambda sentence: None)


def _stop(row: dict) -> None:
    if row["epoch"] == 1:
        raise KeyboardInterrupt


def run_seeds() -> list[Case]:
    seeds = []
    for epochs in (1, 2):  # cut after the first epoch, and finished
        with suppress(KeyboardInterrupt):
            go_on(Path("run"), epochs)
        seeds.append({p.name: p.read_bytes() for p in Path("run").iterdir() if p.is_file()})
        shutil.rmtree("run")
    return seeds


def resume_run(folder: Path) -> None:
    from lesion_seg.callbacks import seal

    out = folder / "out"
    out.mkdir()
    for p in folder.iterdir():
        if p.is_file():
            data = p.read_bytes()
            (out / p.name).write_bytes(seal(data) if sum(data[-64:]) % 2 else data)  # half of the damage has the right digest
    outcome = tried(go_on, out, names=(out,))
    if isinstance(outcome, InputError):
        raise outcome


# --------------------------------------------------------------------------------------------------------------------------- batch
HERE, BATCH = Path("case"), Path("case/out/batch")  # below the folder that a worker lives in


def segment_again() -> object:
    from lesion_seg.batch import segment_folder

    return segment_folder(HERE / "out" / "photos", BATCH, tiny_bundle(2), masks="png", shard_size=2, workers=1)


def batch_seeds() -> list[Case]:
    "A batch that was cut after its first or second shard; '__' stands for '/'."
    (HERE / "out" / "photos").mkdir(parents=True)
    for i in range(5):
        (HERE / "out" / "photos" / f"p{i}.png").write_bytes(encoded(Image.fromarray(small(i, (12, 14)).image), "PNG"))
    (HERE / "out" / "photos" / "torn.jpg").write_bytes(b"torn")
    segment_again()
    files = {str(p.relative_to(HERE)).replace("/", "__"): p.read_bytes() for p in sorted((HERE / "out").rglob("*")) if p.is_file()}
    shutil.rmtree(HERE)
    return [{k: v for k, v in files.items() if not any(f"{n:06d}" in k for n in missing)} for missing in ((2,), (1, 2))]


def resume_batch(folder: Path) -> None:
    import pyarrow.parquet as pq

    for p in [p for p in folder.iterdir() if p.is_file()]:
        place = folder / p.name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(p, place)
    done = tried(segment_again, names=("case/", "photograph"))
    if isinstance(done, InputError):
        raise done
    rows, files = [], sorted((BATCH / "results").glob("*.parquet"))
    for path in files:
        try:
            rows += pq.read_table(path, columns=["image"])["image"].to_pylist()
        except (OSError, ValueError):
            return  # rotten behind an intact head, as a disk does it: whoever reads it is told by Parquet
    photos = sorted(str(p) for p in (HERE / "out" / "photos").iterdir())
    must(sorted(rows) == photos or len(rows) != done.inputs, f"rows for {sorted(rows)}, photographs {photos}")
    must((BATCH / "inputs.jsonl").read_text().count("\n") == done.inputs, "the list of inputs is not that of the batch")


# ------------------------------------------------------------------------------------------------------------------------- the app
@lru_cache
def page():
    "The app with a small network, whose work is done at once."
    from lesion_seg.app import LesionApp
    from lesion_seg.session import Session

    return LesionApp(Session({"tiny": tiny_bundle(2)}, threads=1), wait=True)


def app_seeds() -> list[Case]:
    mask = {"photo_mask.png": encoded(Image.fromarray(make_phantom(3, (46, 62)).mask), "PNG")}
    names = ("mole.jpg", "../../mole.png", "=cmd().tif", "m\u202egpj.exe", "mole_mask.png", "", "x" * 500)
    photos = [*image_seeds(), *dicom_seeds()[-3:]]
    return [{**case, **(mask if i % 3 else {}), "name.txt": names[i % len(names)].encode()} for i, case in enumerate(photos)]


def upload(folder: Path) -> None:
    "What a reader does after an upload; 'something went wrong' is the app's word for an error that nobody foresaw."
    from lesion_seg.session import MAPS

    reader, refusal, given = page().reader, None, {}
    reader.save = lambda name, data, mime: given.update({name: data})

    def act(do: Callable, *arguments) -> None:
        nonlocal refusal
        reader.act(do, *arguments)
        must("Something went wrong" not in reader.says, f"{do}: {reader.says}")
        json.dumps(reader.facts, allow_nan=False)
        if reader.is_alert:
            refusal = judge(InputError(reader.says))

    act(reader.start_over)
    name = (folder / "name.txt").read_text(encoding="utf-8", errors="replace") if (folder / "name.txt").exists() else "photo"
    photo = next((p for p in folder.glob("photo.*")), None)
    for path, given_name in ((photo, name), (folder / "photo_mask.png", f"{Path(name).stem}_mask.png")):
        if path is None or not path.exists():
            continue
        act(reader.add, given_name, path.read_bytes())
    for key in list(reader.session.photographs):
        act(reader.open, key)
        for border in ("tight", "wide", 0.3):
            act(reader.session.choose, key, border)
        for kind in [k for k in MAPS if k not in ("lesion", "border")]:
            act(reader.show_map, kind)
        if reader.photograph and reader.photograph.header:
            act(reader.session.header, key, True), act(reader.download, "seg")
        for kind in ("mask", "json", "geojson", "coco"):
            act(reader.download, kind)
        act(lambda: (editor := reader.editor()) and editor.clear())
        act(reader.decide, "accepted")
    act(reader.archive)
    for line in reader.session.table().decode().splitlines():
        must(not line.startswith(("=", "+", "@", "-")), "a cell that a spreadsheet runs")
    if refusal:
        raise refusal


# ------------------------------------------------------------------------------------------------------------- files that programs write
def graph_case(rng: Random) -> Case:
    "A bundle whose network is another one, that is said to be right."
    case = {p.name: p.read_bytes() for p in tiny_bundle(2).iterdir()}
    case["model.onnx"] = shapes.graphs(rng)
    card = json.loads(case["bundle.json"])
    card["onnx"]["sha256"]["model.onnx"] = hashlib.sha256(case["model.onnx"]).hexdigest()
    return {**case, "bundle.json": json.dumps(card).encode()}


def run_graph(folder: Path) -> None:
    from lesion_seg.bundle import Bundle
    from lesion_seg.predict import Segmenter

    bundle = tried(Bundle.load, folder, names=(folder,))
    if isinstance(bundle, InputError):
        raise bundle
    s = tried(Segmenter, bundle, threads=1, names=(folder,))
    found = s if isinstance(s, InputError) else tried(s.predict, make_phantom(3, (46, 62)).image, names=(folder, "image", "array"))
    if isinstance(found, InputError):
        raise found
    must(found.mask.shape == found.size, f"a mask of {found.mask.shape} for {found.size}")


def read_tables(folder: Path) -> None:
    from lesion_seg.batch import list_inputs
    from lesion_seg.manifest import Manifest, make_split

    manifest, metadata, pairs, scores = (next(folder.glob(f"{n}.*"), folder / n) for n in ("manifest", "metadata", "pairs", "scores"))
    if scores.stat().st_size > 60:
        read_scores(folder)
    listed = tried(lambda: list(list_inputs(manifest)), names=(manifest,))
    m = tried(Manifest.load, manifest, names=(manifest,))
    if isinstance(m, InputError):
        raise m
    must(isinstance(listed, InputError) or len(listed) >= len(m), "a batch finds fewer photographs than training")
    m._repr_html_(), repr(m)
    found, joined = m.check(strict=False), tried(m.join, metadata, names=(metadata,))
    linked = tried(m.link_duplicates, pairs, names=(pairs,))
    for one in (m, joined, linked):
        if isinstance(one, InputError):
            continue
        done = tried(make_split, one, (0.5, 0.25, 0.25), stratify=not found)
        if not isinstance(done, InputError):
            str(done[1])
            saved = tried(done[0].save, folder / "out" / "m.csv")
            must(isinstance(saved, InputError) or Manifest.load(saved).digest == done[0].digest, "a manifest saved and loaded has another digest")
    for one in (joined, linked):
        if isinstance(one, InputError):
            raise one


def show_strings(folder: Path) -> None:
    import itertools

    import displays

    case = json.loads((folder / "strings.json").read_bytes())
    kinds = [k for k in displays.MAKERS if case["picture"] or not any(n in ("_repr_png_", "_repr_jpeg_") for n in displays.displays(k))]  # those take long
    kind = kinds[case["kind"] % len(kinds)]

    def words(strings):
        numbers, chosen = itertools.count(), itertools.cycle(strings)
        return lambda: f"{next(chosen)}{next(numbers)}"

    for name in displays.displays(kind):
        plain, shown = (displays.skeleton(name, getattr(displays.MAKERS[kind](words(s)), name)()) for s in (["word"], case["strings"]))
        must(plain == shown, f"{kind.__name__}.{name}: {shown}")


# -------------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Entry:
    "A way in."

    seeds: Callable[[], list[Case]]  # of the files that are damaged
    run: Callable[[Path], None]  # raises InputError for a refusal
    share: float  # of all inputs
    targets: tuple[str, ...] = ("",)  # beginnings of the names of files that are damaged
    finish: Callable[[Case, Random], Case] = lambda case, rng: case
    leaves: tuple[str, ...] = ()  # endings of hidden files that may stay, for a later resume
    make: Callable[[Random], Case] | None = None  # writes a new seed for each input
    damaged: float = 1.0  # how many of the inputs are damaged seeds


def shaped(make: Callable[[Random], Case], run: Callable[[Path], None], share: float, damaged: float = 0.25) -> Entry:
    return Entry(lambda: [make(Random(0))], run, share, make=make, damaged=damaged)


ENTRIES = {
    "image": Entry(image_seeds, read_photo, 0.30),
    "predict": Entry(image_seeds, predict_photo, 0.04),
    "dicom": Entry(dicom_seeds, read_dicom_file, 0.22),
    "records": Entry(records_seeds, read_records, 0.12),
    "config": Entry(config_seeds, read_config, 0.08),
    "manifest": Entry(manifest_seeds, read_manifest, 0.06, ("manifest", "manifest", "manifest", "facts", "pairs", "")),
    "bundle": Entry(bundle_seeds, read_bundle, 0.06, finish=with_digests),
    "zip": Entry(zip_seeds, unpack_archive, 0.06),
    "archive": Entry(archive_seeds, fetch_from_archive, 0.03, ("search", "search", "photo", "checksums", "manifest"), leaves=(".part", ".etag")),
    "app": Entry(app_seeds, upload, 0.05),
    "batch": Entry(batch_seeds, resume_batch, 0.04, ("out__batch__plan", "out__batch__inputs", "out__batch__results", "out__batch", "")),
    "scores": Entry(table_seeds, read_scores, 0.02),
    "run": Entry(run_seeds, resume_run, 0.01),
    "tiles": shaped(shapes.tiles, read_photo, 0.125),
    "scans": shaped(shapes.scans, read_photo, 0.05),
    "chains": shaped(shapes.chains, read_photo, 0.1),
    "elements": shaped(shapes.elements, read_dicom_file, 0.125),
    "graphs": shaped(graph_case, run_graph, 0.15),
    "tables": shaped(shapes.tables, read_tables, 0.2),
    "displays": shaped(shapes.strings, show_strings, 0.25, damaged=0),
}


def make_case(name: str, seeds: list[Case], seed: int, i: int) -> Case:
    "Input number `i` of a campaign."
    entry, rng = ENTRIES[name], Random(f"{name}:{seed}:{i}")
    if entry.make:
        case = entry.make(rng)
        if rng.random() >= entry.damaged:
            return case
        seeds = [case]
    case = dict(rng.choice(seeds))
    wanted = [n for n in case if n.startswith(rng.choice(entry.targets))] or list(case)
    for _ in range(rng.choice((1, 1, 1, 2))):
        target, donor = rng.choice(wanted), rng.choice(seeds)
        other = donor.get(target) or rng.choice(list(donor.values()))
        what = rng.random()
        if len(case) > 1 and what < 0.03:
            case.pop(target, None)
        elif len(case) > 1 and what < 0.08:
            case[target] = other  # swapped
        elif target in case:
            case[target] = mutate.mutate(target, case[target], rng, other)
    return entry.finish(case, rng)
