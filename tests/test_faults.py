"""Hostile files, full disks, missing permission and interruptions: one sentence with the name, no half file."""

import ctypes
import io
import json
import os
import pickle
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lesion_seg.bundle import Bundle, revise, save_bundle
from lesion_seg.cli import main
from lesion_seg.config import load_config
from lesion_seg.core import InputError
from lesion_seg.data import image_size, read_image, read_mask
from lesion_seg.evaluate import load_table
from lesion_seg.isic import safe_unzip
from lesion_seg.manifest import Manifest, make_split
from lesion_seg.onnx import export_onnx
from lesion_seg.phantom import make_phantom, write_phantoms
from lesion_seg.predict import Segmenter
from lesion_seg.records import RecordReader, RecordWriter
from lesion_seg.unet import UNet

HERE = Path(__file__).parent


def tiny(folder, seed=0, size=32):
    torch.manual_seed(seed)
    return save_bundle(folder, UNet(channels=(2, 4), bottleneck=8, dropout=0.2), size=size)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A photograph, a table of phantoms with splits, and a bundle of random weights with its exported files."
    folder = tmp_path_factory.mktemp("faults")
    pairs = write_phantoms(folder / "data", n=6, size=64, images_per_patient=1)
    make_split(pairs, (0.5, 0.25, 0.25))[0].save(folder / "data" / "manifest.csv")
    Image.fromarray(make_phantom(3, (305, 415)).image).save(folder / "photo.png")
    tiny(folder / "bundle")
    export_onnx(folder / "bundle", opset=17)
    return folder


def command(*args):
    return [sys.executable, "-W", "ignore", "-m", "lesion_seg", *map(str, args)]


def cli(*args, cwd, **options):
    return subprocess.run(command(*args), cwd=cwd, capture_output=True, text=True, timeout=300, **options)


def sentence(said, *names):
    "What was said on stderr is one sentence with these names."
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("lesion_seg: ")] # others say how far it had come
    assert len(lines) == 1 and said.rstrip().endswith(lines[0]), said
    assert all(str(n) in lines[0] for n in names), lines[0]


def refused(capfd, args, *names):
    "The command line, in this process, ends with code 2 and one sentence."
    capfd.readouterr()
    assert main(list(map(str, args))) == 2
    sentence(capfd.readouterr().err, *names)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


# ----------------------------------------------------------------------------------------------------- a short campaign
@pytest.mark.slow
def test_a_short_campaign(tmp_path):
    "Some hundred damaged inputs at every way in; `tests/fuzz/campaign.py` runs as long as one likes."
    out = tmp_path / "fuzz.json"
    entries = "image,predict,dicom,records,config,manifest,zip,archive,scores,bundle"
    run = [
        sys.executable,
        str(HERE / "fuzz" / "campaign.py"),
        "--entry",
        entries,
        "--minutes",
        "0.5",
        "--inputs",
        "1500",
        "-o",
        str(out),
    ]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(out.read_text())["entries"]
    assert all(e["inputs"] > 0 and e["read"] + e["refused"] == e["inputs"] for e in facts.values())


def test_the_campaign_catches_what_it_should(tmp_path):
    "A reader that lets a decoder's error through is found."
    code = "import lesion_seg.data as d, contextlib; d.decoding = lambda name: contextlib.nullcontext()"
    (tmp_path / "sitecustomize.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = [sys.executable, str(HERE / "fuzz" / "campaign.py"), "--entry", "image", "--inputs", "60"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 1 and "data.py" in done.stdout, done.stdout + done.stderr


# -------------------------------------------------------------------------------------------- what campaigns have found
def png(w, h, bits, colour, *chunks):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*c) for c in chunks) + chunk(b"IEND", b"")


def test_few_bytes_that_claim_many_pixels():
    "853 bytes cost 15 s and 2.9 GB."
    Image.new("RGB", (64, 64)).save(f := io.BytesIO(), "JPEG")
    at = (data := f.getvalue()).index(b"\xff\xc0") + 5
    bomb = data[:at] + struct.pack(">HH", 65326, 2238) + data[at + 4:]
    for read in (read_image, read_mask, image_size):
        with pytest.raises(InputError, match="2238 x 65326 pixels in"): read(bomb)


def test_an_empty_mask_of_a_large_photograph_is_read():
    for mode in ("1", "L"):
        Image.new(mode, (6000, 4000)).save(f := io.BytesIO(), "PNG")
        assert read_mask(f.getvalue()).shape == (4000, 6000) == image_size(f.getvalue())


def test_a_decoder_that_panics(tmp_path):
    "Rust panics pass `except Exception`."
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("rle", reason="no extra dicom")
    from pydicom.data import get_testdata_file

    from lesion_seg.dicom import read_dicom
    ds = pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm"))
    frame = bytearray(ds.PixelData)
    at = frame.index(struct.pack("<II", 2, 64))  # two segments, the first at byte 64
    frame[at + 8:at + 12] = struct.pack("<I", len(frame))  # the second begins behind the end
    ds.PixelData = bytes(frame)
    ds.save_as(path := tmp_path / "rle.dcm")
    with pytest.raises(InputError, match="rle.dcm: holds a picture that no decoder here can read"): read_dicom(path)


def test_sentences_are_printable_and_short(tmp_path):
    (config := tmp_path / "c.yaml").write_text('training:\n  "ep\\x1b[2Jochs": 1\n')
    with pytest.raises(InputError) as e: load_config(config)
    assert "\x1b" not in str(e.value) and "ep?[2Jochs is unknown" in str(e.value)
    with pytest.raises(InputError) as e: load_config(None, ["training.epochs=" + "a" * 9999])
    assert len(str(e.value)) < 600


@pytest.mark.parametrize("text", ["training: {epochs: 1" + "0" * 5000 + "}", "a: &a [x]\nb: *a", "[" * 5000,
                                  "a: !!python/object/apply:os.system ['true']"])
def test_yaml_that_is_hostile(tmp_path, text):
    (config := tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match="c.yaml: is not valid YAML"): load_config(config)


def test_yaml_aliases_do_not_multiply(tmp_path):
    "The billion laughs: nine levels of nine."
    lines = ["a: &a [lol]"] + [
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (config := tmp_path / "c.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="aliases"): load_config(config)


def test_a_path_too_long_for_any_file(tmp_path):
    (tmp_path / "m.csv").write_text("image,mask\n" + "a" * 5000 + ".png,\n")
    assert [p.kind for p in Manifest.load(tmp_path / "m.csv").check(strict=False)] == ["missing photograph", "no mask"]


OUT = ["l_sion.json", "l_sion_coco.json", "l_sion_mask.png", "segmentations.csv", "segmentations_coco.json"]


def test_a_name_that_is_not_utf8(tmp_path, work):
    "As an old camera or a Windows share leaves it; nothing is lost and nothing breaks."
    name = tmp_path / "f" / os.fsdecode(b"l\xe4sion.png")
    name.parent.mkdir()
    shutil.copy(work / "photo.png", name)
    done = cli("segment", name.parent, "-b", work / "bundle", "-o", "out", "--save", "mask,json,coco", cwd=tmp_path)
    assert done.returncode == 0 and files(tmp_path / "out") == OUT, done.stderr
    with pytest.raises(InputError, match="rename that file"): Manifest.load(name.parent).save(tmp_path / "m.csv")
    assert files(tmp_path) == sorted([*(f"out/{f}" for f in OUT), str(name.relative_to(tmp_path))])


def test_an_empty_split_has_no_area(tmp_path, work):
    done, report = make_split(Manifest.load(work / "data" / "manifest.csv"), (1, 0, 0))
    assert "nan" not in str(report) and "valid: 0 images in 0 groups\n" in str(report)


def test_scores_that_are_no_numbers(tmp_path):
    (tmp_path / "s.csv").write_text("id,group,jaccard\na,a,0x10\n")
    with pytest.raises(InputError, match="s.csv: the column jaccard"): load_table(tmp_path / "s.csv")


def test_records_that_lie(tmp_path):
    with RecordWriter(tmp_path / "r") as w: w.write(np.zeros((4, 4, 3), np.uint8), None, "a")
    table = json.loads((path := tmp_path / "r" / "records.json").read_text())
    shard = table["shards"][0]
    for change in (dict(size="x"), *(dict(shards=[dict(shard, file=f)]) for f in ("a" * 300, "../../etc/passwd"))):
        path.write_text(json.dumps(table | change))
        with pytest.raises(InputError, match="records.json: contradicts itself"): RecordReader(tmp_path / "r")
    path.write_text(json.dumps({k: v for k, v in table.items() if k != "size"}))
    with pytest.raises(InputError, match="records.json: contradicts itself"): RecordReader(tmp_path / "r")


@pytest.mark.parametrize("value", ["0", "1", "nan", "-0.1", "inf"])
def test_thresholds_that_are_none(work, tmp_path, value, capfd):
    args = ("segment", work / "photo.png", "-b", work / "bundle", "-o", tmp_path / "out", "--threshold", value)
    refused(capfd, args, "--threshold", "above 0 and below 1")
    assert files(tmp_path) == []


# -------------------------------------------------------------------------------------------------------------- bundles
@pytest.fixture
def bundle(work, tmp_path): return Path(shutil.copytree(work / "bundle", tmp_path / "bundle"))


PHOTO = make_phantom(3, (61, 83)).image


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "model.onnx", "decoder.onnx"])
@pytest.mark.parametrize("how", ["cut", "swapped", "absent", "empty"])
def test_a_bundle_with_a_wrong_file(work, bundle, tmp_path, name, how):
    if how == "cut": (bundle / name).write_bytes((bundle / name).read_bytes()[:-40])
    elif how == "absent": (bundle / name).unlink()
    elif how == "empty": (bundle / name).write_bytes(b"")
    else:
        shutil.copy(
            tiny(tmp_path / "other", seed=1).path / ("bundle.json" if name == "bundle.json" else "model.safetensors"),
            bundle / name,
        )
    with pytest.raises(InputError) as e:
        s = Segmenter(bundle)
        s.predict(PHOTO), s.uncertainty(PHOTO, n=2)
    assert str(bundle) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_files_of_another_architecture_with_right_digests(bundle, tmp_path, runtime):
    torch.manual_seed(0)
    other = save_bundle(tmp_path / "other", UNet(channels=(4, 8), bottleneck=16, dropout=0.2), size=32)
    export_onnx(other, opset=17)
    wide = Bundle.load(other.path)
    if runtime == "torch":
        shutil.copy(other.path / "model.safetensors", bundle)
        revise(Bundle.load(bundle, verify=False), weights_sha256=other.info["weights_sha256"])
    else:
        shutil.copy(other.path / "decoder.onnx", bundle)
        b = Bundle.load(bundle)
        digests = b.info["onnx"]["sha256"] | {"decoder.onnx": wide.info["onnx"]["sha256"]["decoder.onnx"]}
        revise(b, onnx=b.info["onnx"] | dict(sha256=digests))
    with pytest.raises(InputError, match="does not fit the architecture|decoder.onnx: cannot be run by onnxruntime"):
        Segmenter(bundle, runtime=runtime).uncertainty(PHOTO, n=2)


@pytest.mark.parametrize("change", [dict(onnx=dict(sha256=[])), dict(onnx={}),
                                    dict(review=dict(score=1, threshold=0.1)), dict(review={})])
def test_a_card_whose_later_parts_are_odd(bundle, change):
    card = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(card | change))
    with pytest.raises(InputError, match="bundle.json: (onnx must name|review must name)"): Segmenter(bundle)


def test_a_score_of_doubt_that_is_none(bundle):
    revise(Bundle.load(bundle), review=dict(score="horoscope", threshold=0.1))
    with pytest.raises(InputError, match="'horoscope' is not a score of uncertainty"):
        Segmenter(bundle).predict(PHOTO, review=True)


def test_a_new_temperature_takes_the_old_exports_away(bundle):
    revise(Bundle.load(bundle), temperature=2.0)
    assert files(bundle) == ["bundle.json", "model.safetensors"]
    assert Segmenter(bundle).runtime == "torch"


@pytest.mark.parametrize("opset", [13, 17])
def test_mc_dropout_of_every_length_at_old_opsets(tmp_path, opset):
    "The older exporter had frozen the number of samples at three."
    b = tiny(tmp_path / "b")
    export_onnx(b, opset=opset)
    for n in (2, 5, 7):
        one, two = (Segmenter(b.path, runtime=r).uncertainty(PHOTO, n=n).mean for r in ("onnxruntime", "torch"))
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_onnxruntime_tells_nobody(work, tmp_path):
    "Its telemetry, on by default since 1.32, leaves an identifier in the folder for temporary files."
    code = "import sys; from lesion_seg.predict import Segmenter; import numpy as np; "
    code += "Segmenter(sys.argv[1]).predict(np.zeros((9, 9, 3), np.uint8))"
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | dict(TMPDIR=str(tmp_path))
    subprocess.run([sys.executable, "-c", code, work / "bundle"], check=True, env=env, timeout=300)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ no pickle
class Trap:
    def __reduce__(self): return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy", "zip"])
def test_no_pickle_is_ever_loaded(kind, bundle, tmp_path, monkeypatch):
    "Every file of a bundle, a run, a data set and a table replaced by a pickle: none is opened."
    monkeypatch.chdir(tmp_path)
    f = io.BytesIO()
    if kind == "pickle": pickle.dump(Trap(), f)
    elif kind == "torch": torch.save({"state": Trap()}, f)
    elif kind == "numpy": np.save(f, np.array([Trap()], object), allow_pickle=True)
    else:
        with zipfile.ZipFile(f, "w") as z: z.writestr("archive/data.pkl", pickle.dumps(Trap()))
    trap, bad = f.getvalue(), tmp_path / "bad"
    bad.mkdir()
    for name in ("a.png", "a.dcm", "a.csv", "a.parquet", "a.tfrecord", "a.yaml", "a.safetensors"):
        (bad / name).write_bytes(trap)

    from lesion_seg.callbacks import read_state
    from lesion_seg.dicom import dicom_summary, read_dicom
    from lesion_seg.unet import read_weights
    readers = [
        (read_image, "a.png"),
        (read_mask, "a.png"),
        (image_size, "a.png"),
        (read_dicom, "a.dcm"),
        (dicom_summary, "a.dcm"),
        (Manifest.load, "a.csv"),
        (Manifest.load, "a.parquet"),
        (load_table, "a.csv"),
        (load_table, "a.parquet"),
        (RecordReader, "a.tfrecord"),
        (load_config, "a.yaml"),
        (read_state, "a.safetensors"),
        (read_weights, "a.safetensors"),
        (lambda p: safe_unzip(p, tmp_path / "out"), "a.png"),
    ]
    for read, name in readers:
        try: read(bad / name)
        except InputError: pass
        assert not Path("sprung").exists(), (read, name)
    for name in files(bundle):
        good = (bundle / name).read_bytes()
        (bundle / name).write_bytes(trap)
        with pytest.raises(InputError):
            Segmenter(bundle, runtime="torch" if "model.s" in name else None).uncertainty(PHOTO, n=1)
        (bundle / name).write_bytes(good)
    assert not Path("sprung").exists()
    pickle.loads(pickle.dumps(Trap()))  # noqa: S301
    assert Path("sprung").exists(), "the trap works"


# ---------------------------------------------------------------------------------------------------------------- bombs
def test_a_png_of_50_000_by_50_000(tmp_path):
    rows = zlib.compress(bytes(50_000 // 8 * 300), 9)
    (path := tmp_path / "bomb.png").write_bytes(png(50_000, 50_000, 1, 0, (b"IDAT", rows)))
    for read in (read_image, read_mask, image_size):
        with pytest.raises(InputError, match="bomb.png: has 50000 x 50000 pixels, more than the limit of 200,000,000; make"):
            read(path)


def test_a_zip_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as z: z.writestr("a.png", bytes(50_000_000))
    with pytest.raises(InputError, match="bomb.zip: is not unpacked, since it holds 'a.png', which unfolds susp"):
        safe_unzip(tmp_path / "bomb.zip", tmp_path / "out")
    assert files(tmp_path) == ["bomb.zip"]


@pytest.mark.parametrize("name", ["../a.png", "/tmp/a.png", "x/../../a.png", "..\\a.png", "C:\\a.png"])
def test_an_archive_that_climbs_out(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "climb.zip", "w") as z: z.writestr(name, b"x")
    with pytest.raises(InputError, match="climb.zip: is not unpacked.*leads out of the folder"):
        safe_unzip(tmp_path / "climb.zip", tmp_path / "out")
    assert files(tmp_path) == ["climb.zip"]


@pytest.mark.parametrize("change", [dict(Rows=65535, Columns=65535), dict(Rows=65535),
                                    dict(NumberOfFrames=2**31 - 1), dict(NumberOfFrames="9" * 12),
                                    dict(Rows=0)])
def test_a_dicom_file_with_absurd_sizes(tmp_path, change):
    pydicom = pytest.importorskip("pydicom")
    from lesion_seg.dicom import read_dicom
    from lesion_seg.dicom_seg import photo_to_dicom
    path = photo_to_dicom(PHOTO, tmp_path / "bomb.dcm")
    ds = pydicom.dcmread(path)
    for k, v in change.items(): setattr(ds, k, v)
    ds.save_as(path)
    for read in (read_dicom, read_image):
        with pytest.raises(InputError, match="bomb.dcm"): read(path)


# ----------------------------------------------------------------------------------------------------------- file names
@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "..\\..\\x.png", "a\0b.png", "con.png",
                                  "." * 50 + ".png", "x" * 300 + ".png",
                                  "\u202egnp.exe", "-rf.png", " .png"])
def test_hostile_names_stay_in_the_folder(work, tmp_path, name):
    "The name of an upload is the sender's."
    f = io.BytesIO((work / "photo.png").read_bytes())
    f.name = name
    for written in Segmenter(work / "bundle").predict(f).save(tmp_path / "out", kinds=("mask", "json")).values():
        assert (
            written.parent == tmp_path / "out"
            and written.exists()
            and not written.name.startswith((".", "-rf."))
            and len(written.name) < 120
        )
    assert len(files(tmp_path)) == 2


# ------------------------------------------------------------------------------------------- full disks and permissions
def mounted(folder, size):
    "A small file system of its own, or a skip."
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs here")
    return folder


@pytest.fixture
def disk(tmp_path):
    "A disk of 64 kB with 4 kB left."
    folder = mounted(tmp_path / "disk", "64k")
    (folder / "ballast").write_bytes(bytes(60 * 1024))
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


SMALL = [
    a
    for setting in (
        "data.image_size=32",
        "training.epochs=1",
        "model.architecture=unet",
        "model.encoder_channels=[4,8]",
        "model.bottleneck_channels=16",
        "data.num_workers=0",
        "data.batch_size=2",
        "training.precision=fp32",
        "augmentation.preset=none",
    )
    for a in ("--set", setting)
]
JOBS = {
    "segment": lambda work, out: (
        "segment",
        work / "photo.png",
        "-b",
        work / "bundle",
        "-o",
        out / "new",
        "--save",
        "probability",
    ),
    "train": lambda work, out: ("train", work / "data" / "manifest.csv", "-o", out / "new", *SMALL),
    "evaluate": lambda work, out: ("evaluate", work / "bundle", work / "data" / "manifest.csv", "-o", out / "new"),
    "export": lambda work, out: ("export", work / "bundle", "-o", out / "new" / "m.onnx", "--opset", "17"),
    "split": lambda work, out: ("split", work / "data", "-o", out / "new" / "m.csv"),
    "records": lambda work, out: ("records", work / "data" / "manifest.csv", "-o", out / "new"),
    "phantom": lambda work, out: ("phantom", out / "new", "-n", "4"),
    "batch": lambda work, out: (
        "segment",
        work / "data" / "images",
        "-b",
        work / "bundle",
        "-o",
        out / "new",
        "--batch",
        "--workers",
        "1",
    ),
}


@pytest.mark.parametrize("job", [j for j in JOBS if j != "split"])
def test_full_disk(work, disk, job, capfd):
    refused(capfd, JOBS[job](work, disk), disk / "new", "No space left on device", "free some space")
    assert all(not Path(f).name.startswith(".") and (disk / f).stat().st_size for f in files(disk)), files(disk)


@pytest.fixture
def read_only(tmp_path):
    folder = mounted(tmp_path / "ro", "64k")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("job", JOBS)
def test_read_only_disk(work, read_only, job, capfd):
    refused(capfd, JOBS[job](work, read_only), read_only / "new", "Read-only file system")


def without_privilege():
    "Root may read and write anything; without two of its capabilities it may not."
    if os.geteuid() == 0 and any(ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) for capability in (1, 2)):
        os._exit(77)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="capabilities are Linux's")
def test_missing_permission(work, tmp_path):
    closed, secret, options = (
        tmp_path / "closed",
        tmp_path / "secret.png",
        dict(cwd=tmp_path, preexec_fn=without_privilege),
    )
    closed.mkdir(mode=0o555)
    shutil.copy(work / "photo.png", secret)
    secret.chmod(0)
    if subprocess.run(["true"], preexec_fn=without_privilege).returncode: pytest.skip("no right to give up rights here")
    done = cli("segment", work / "photo.png", "-b", work / "bundle", "-o", closed / "out", **options)
    assert done.returncode == 2
    sentence(done.stderr, closed / "out", "Permission denied")
    done = cli("segment", secret, work / "photo.png", "-b", work / "bundle", "-o", "out", **options)
    assert (
        done.returncode == 2
        and done.stderr.startswith(f"{secret}: cannot be opened")
        and "Permission denied" in done.stderr
    )
    assert files(tmp_path) == [
        "out/photo.json",
        "out/photo_mask.png",
        "out/segmentations.csv",
        "out/segmentations_coco.json",
        "secret.png",
    ]


def test_run_files_are_for_everybody(work, tmp_path):
    "safetensors' own writer leaves them to their owner."
    assert main(list(map(str, JOBS["train"](work, tmp_path)))) == 0
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "new").rglob("*") if p.is_file()}
    assert (
        modes["checkpoint.safetensors"]
        == modes["best.safetensors"]
        == modes["model.safetensors"]
        == modes["results.csv"]
    ), modes


# -------------------------------------------------------------------------------------------------------- interruptions
def started(args, cwd, until, **options):
    "A running process, from the moment that a file is there."
    p = subprocess.Popen(
        command(*args),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    end = time.monotonic() + 300
    while not until() and p.poll() is None and time.monotonic() < end: time.sleep(0.005)
    return p


def longer(job, epochs=4):
    return [a if a != "training.epochs=1" else f"training.epochs={epochs}" for a in map(str, job)]


@pytest.mark.slow
def test_kill_9_during_training(work, tmp_path):
    "The same command goes on; the result is that of a training that nobody killed."
    from lesion_seg.callbacks import read_state
    job, checkpoint = longer(JOBS["train"](work, tmp_path / "a")), tmp_path / "a" / "new" / "checkpoint.safetensors"
    p = started(job, tmp_path, checkpoint.exists)
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    assert read_state(checkpoint)["epoch"] >= 1
    assert main(job) == 0 and main(longer(JOBS["train"](work, tmp_path / "b"))) == 0
    one, two = (Bundle.load(tmp_path / k / "new" / "bundle").info["weights_sha256"] for k in "ab")
    assert one == two


def test_kill_9_during_a_download(tmp_path):
    "The second run fetches what is missing, and no file is anything but what the server has."
    from isic_server import IsicServer, phantom_files
    photographs = phantom_files(6)[0]
    with IsicServer(images=photographs, stall=5.0) as server:
        server.plan = {"images/ISIC_0000004.jpg": ["", "stall", "stall"]}  # the first request asks for the size
        args = ["download", "-o", str(tmp_path / "new"), "--limit", "6", "--mirror", server.api]
        p = started(args, tmp_path, lambda: (tmp_path / "new" / "images" / "ISIC_0000005.jpg").exists())
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        there = {f.stem: f.read_bytes() for f in (tmp_path / "new" / "images").glob("[!.]*.jpg")}
        assert "ISIC_0000005" in there and all(photographs[k] == v for k, v in there.items())
        server.plan = {}
        assert main(args) == 0
    assert {f.stem: f.read_bytes() for f in (tmp_path / "new" / "images").iterdir()} == photographs
    assert len(Manifest.load(tmp_path / "new")) == 6


@pytest.mark.slow
@pytest.mark.parametrize("job", ["evaluate", "export", "records", "phantom", "segment"])
def test_kill_9_during_other_work(work, tmp_path, job):
    "What is there under its own name is whole, and the same command ends well."
    args = ("phantom", tmp_path / "new", "-n", "40", "--size", "512") if job == "phantom" else JOBS[job](work, tmp_path)
    p = started(args, tmp_path, lambda: any(tmp_path.iterdir()))
    time.sleep(0.05)
    if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    for f in (tmp_path / "new").rglob("*"):
        if f.name.startswith(".") or not f.is_file(): continue
        if f.suffix in (".png", ".jpg"): read_image(f)
        elif f.suffix == ".json": json.loads(f.read_text())
        elif f.suffix == ".onnx": __import__("onnx").checker.check_model(f)
        else: assert f.stat().st_size
    if job == "records" and (tmp_path / "new").exists():
        assert RecordReader(tmp_path / "new").check() == 6  # it came whole, before the kill
    else: assert main(list(map(str, args))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("job", ["train", "phantom", "evaluate"])
def test_ctrl_c(work, tmp_path, job):
    args = longer(JOBS["train"](work, tmp_path), 500) if job == "train" else JOBS[job](work, tmp_path)
    if job == "phantom": args = ("phantom", tmp_path / "new", "-n", "500", "--size", "512")
    until = {"train": "results.csv", "phantom": "images", "evaluate": "."}[job]
    p = started(args, tmp_path, lambda: (tmp_path / "new" / until).exists())
    p.send_signal(signal.SIGINT)
    _, said = p.communicate(timeout=300)
    assert p.returncode == 130, said
    assert (
        "Traceback" not in said
        and said.splitlines()[-1] == "lesion_seg: stopped; the same command again goes on from what is finished"
    )
    assert not [f for f in files(tmp_path) if Path(f).name.startswith(".")]


# -------------------------------------------------------------------------------------------------------------- threads
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_eight_threads_share_one_segmenter(work, runtime):
    s, photos = Segmenter(work / "bundle", threads=1, runtime=runtime), [make_phantom(i, 64).image for i in range(16)]
    def answer(photo):
        found = s.predict(photo, threshold=0.5)
        return found.mask, found.small, s.uncertainty(photo, n=2).mean
    alone = [answer(p) for p in photos]
    with ThreadPoolExecutor(8) as pool: together = list(pool.map(answer, photos * 4))
    for k, got in enumerate(together):
        for a, b in zip(alone[k % 16], got, strict=True): np.testing.assert_array_equal(a, b)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_thousand_predictions_in_flat_memory(work, tmp_path):
    s, photo = Segmenter(work / "bundle", threads=1), tmp_path / "photo.png"
    # 37 kB of pixels: a copy left behind each time would be 37 MB
    Image.fromarray(make_phantom(3, (96, 128)).image).save(photo)
    def some(n):
        for _ in range(n): s.predict(photo).save(tmp_path, kinds=("mask", "json"))
        return resident()
    before = some(200)
    assert some(1000) - before < 10 * 2**20
