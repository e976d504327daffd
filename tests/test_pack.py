"""Packed bundles: what goes in comes out, and files that mean harm do not get anywhere."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lesion_seg import Segmenter
from lesion_seg.bundle import SHIPPED, Bundle, revise
from lesion_seg.cli import main
from lesion_seg.core import InputError
from lesion_seg.pack import LISTING, MEMBERS, pack_files, unpack_files, unpacked
from lesion_seg.phantom import make_phantom
from lesion_seg.share import export_monai, model_card, pack_bundle


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None: monkeypatch.setenv("LESION_SEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path: return pack_bundle("shipped", tmp_path_factory.mktemp("packed") / "mine.lesion")


def test_every_file_comes_back(packed, tmp_path):
    folder = unpack_files(packed, tmp_path / "again")
    for path in SHIPPED.iterdir(): assert (folder / path.name).read_bytes() == path.read_bytes()
    assert {p.name for p in folder.iterdir()} - {p.name for p in SHIPPED.iterdir()} == {"README.md"}


def test_any_zip_program_reads_it(packed):
    with zipfile.ZipFile(packed) as z:
        assert z.testzip() is None
        listing = json.loads(z.read(LISTING))["files"]
        assert {n: hashlib.sha256(z.read(n)).hexdigest() for n in listing} == {n: v["sha256"] for n, v in listing.items()}


def test_it_predicts_without_torch_and_as_the_folder_does(packed, tmp_path):
    photograph = tmp_path / "mole.png"
    Image.fromarray(make_phantom(4, (90, 120)).image).save(photograph)
    code = "import sys; sys.modules['torch'] = None; from lesion_seg import Segmenter; import numpy as np; np.save(sys.argv[2], Segmenter(sys.argv[1])(sys.argv[3]).small)"
    subprocess.run([sys.executable, "-c", code, str(packed), str(tmp_path / "a.npy"), str(photograph)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), Segmenter()(photograph).small)


def test_it_is_unpacked_once_and_never_changed(packed):
    folder = unpacked(packed)
    stamp = (folder / "bundle.json").stat().st_mtime_ns
    assert unpacked(packed) == folder and (folder / "bundle.json").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="lesion_seg unpack"): revise(Bundle.open(packed), threshold=.3)


def archive(path: Path, members: list[tuple[str, bytes]], listing: object = None) -> Path:
    "A ZIP with these members; the listing is true to them unless one is given."
    import warnings
    files = {n: dict(bytes=len(b), sha256=hashlib.sha256(b).hexdigest()) for n, b in members}
    text = json.dumps(dict(format=1, files=files) if listing is None else listing)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        warnings.simplefilter("ignore")  # of a name that is there twice
        z.writestr(LISTING, text)
        for n, b in members: z.writestr(n, b)
    return path


def entry(n: int, digest: str = "0" * 64) -> dict: return dict(format=1, files={"bundle.json": dict(bytes=n, sha256=digest)})


@pytest.mark.parametrize("members, listing, words", [
    ([("../bundle.json", b"{}")], None, "is not a file of a bundle"),
    ([("/etc/passwd", b"{}")], None, "is not a file of a bundle"),
    ([("..\\bundle.json", b"{}")], None, "is not a file of a bundle"),
    ([("sub/bundle.json", b"{}")], None, "is not a file of a bundle"),
    ([("bundle.json", b"{}"), ("bundle.json", b"[]")], None, "twice"),
    ([("bundle.json", b"0" * 50_000_000)], entry(2), "is not 2 bytes long"),
    ([("bundle.json", b"{}")], entry(3), "is not 3 bytes long"),
    ([("bundle.json", b"{}")], entry(2), "differs from its digest"),
    ([("bundle.json", b"{}")], entry(10**15), "cannot be true"),
    ([("bundle.json", b"{}")], entry(-1), "cannot be true"),
    ([("bundle.json", b"{}")], entry(True), "cannot be true"),
    ([("bundle.json", b"{}")], entry(2, "x"), "cannot be true"),
    ([("bundle.json", b"{}")], dict(format=2, files={}), "of another format"),
    ([("bundle.json", b"{}")], dict(format=1, files={}), "does not hold what"),
    ([("bundle.json", b"{}")], [1], "cannot be read"),
    ([("bundle.json", b"{}")], dict(format=1, files={"bundle.json": dict(bytes=2, sha256=7)}), "cannot be read")])
def test_hostile_archives_are_refused_and_leave_nothing(tmp_path, members, listing, words):
    path = archive(tmp_path / "in" / "x.lesion" if (tmp_path / "in").mkdir() is None else tmp_path, members, listing)
    with pytest.raises(InputError, match=words) as e: unpack_files(path, tmp_path / "out" / "x")
    assert str(e.value).startswith(str(path))
    assert list((tmp_path / "out").iterdir()) == [] and sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_unusual_compression_and_encryption_are_refused(tmp_path):
    body = json.dumps(entry(2))
    for kind in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(tmp_path / "x.lesion", "w", kind) as z:
            z.writestr(LISTING, body)
            z.writestr("bundle.json", "{}")
        with pytest.raises(InputError, match="unusual way"): unpack_files(tmp_path / "x.lesion", tmp_path / "y")
    data = bytearray(archive(tmp_path / "x.lesion", [("bundle.json", b"{}")]).read_bytes())
    at = data.rfind(b"PK\x01\x02")
    for place in (data.rfind(b"PK\x03\x04") + 6, at + 8): data[place:place + 2] = struct.pack("<H", 1)  # the flag for a password
    (tmp_path / "x.lesion").write_bytes(data)
    with pytest.raises(InputError, match="damaged"): unpack_files(tmp_path / "x.lesion", tmp_path / "y")


def test_no_cut_and_no_flipped_bit_gets_through(tmp_path):
    names = ["bundle.json", "README.md"]
    for n in names: (tmp_path / n).write_text(n * 9)
    good = pack_files([tmp_path / n for n in names], tmp_path / "g.lesion").read_bytes()
    rng = np.random.default_rng(0)
    for i in range(300):
        bad = bytearray(good)
        if i % 3: bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        else: bad = bad[:rng.integers(len(bad))]
        path = tmp_path / "b.lesion"
        path.write_bytes(bad)
        try: folder = unpack_files(path, tmp_path / f"out{i}")
        except InputError: continue
        for n in names: assert (folder / n).read_text() == n * 9  # a bit that no reader looks at


def test_names_are_those_of_a_bundle():
    from lesion_seg import bundle as b
    assert {b.METADATA, b.WEIGHTS, b.MODEL_CARD, b.ONNX, b.ONNX_DECODER, b.ONNX_INT8} < MEMBERS


def test_model_card_is_true_and_safe(tmp_path):
    text = model_card(Bundle.shipped(), "shipped")
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["pipeline_tag"]) == ("cc0-1.0", "image-segmentation")
    stored = json.loads((SHIPPED / "bundle.json").read_text())["metrics"]["isic2017_validation"]["original"]
    assert any(r["metrics"][0]["value"] == round(stored["jaccard"], 4) and str(stored["n"]) in r["dataset"]["name"] for r in head["model-index"][0]["results"])
    assert f'| {stored["n"]} | {stored["jaccard"]:.3f} | {stored["dice"]:.3f} |' in text


def test_command_line(tmp_path, packed, capsys):
    assert main(["pack", "shipped", "-o", str(tmp_path / "a.lesion"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == os.path.getsize(tmp_path / "a.lesion")
    assert (tmp_path / "a.lesion").read_bytes()[:2] == packed.read_bytes()[:2] == b"PK"
    assert main(["unpack", str(packed), "-o", str(tmp_path / "b")]) == 0
    assert main(["unpack", str(packed), "-o", str(tmp_path / "b")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["calibrate", str(packed), str(tmp_path)]) == 2
    assert main(["info", str(packed)]) == 0


@pytest.mark.slow
def test_monai_runs_what_we_export(tmp_path):
    "Its own runner, over two photographs; the masks are those of the Segmenter but for single pixels at the border."
    pytest.importorskip("monai", reason="needs monai")
    made, photos = export_monai("shipped", tmp_path / "made"), tmp_path / "photos"
    photos.mkdir()
    phantoms = [make_phantom(i, size) for i, size in ((21, (200, 300)), (22, (260, 180)))]
    for i, p in enumerate(phantoms): Image.fromarray(p.image).save(photos / f"{i}.png")
    code = "import sys; from monai.bundle import run; run(config_file=sys.argv[1], bundle_root=sys.argv[2], dataset_dir=sys.argv[3], output_dir=sys.argv[4])"
    command = [sys.executable, "-c", code, str(made / "configs" / "inference.json"), str(made), str(photos), str(tmp_path / "masks")]
    done = subprocess.run(command, capture_output=True, text=True)  # as `python -m monai.bundle run` does, which needs the package fire
    assert done.returncode == 0, done.stderr[-2000:]
    for i, p in enumerate(phantoms):
        theirs, ours = np.asarray(Image.open(tmp_path / "masks" / f"{i}_mask.png")) > 127, Segmenter()(p.image).mask
        assert theirs.shape == ours.shape and 2 * (theirs & ours).sum() / (theirs.sum() + ours.sum()) > .99


@pytest.mark.slow
def test_monai_checks_what_goes_in_and_out(tmp_path):
    bundle = pytest.importorskip("monai.bundle", reason="needs monai")
    made = export_monai("shipped", tmp_path / "made")
    configs = made / "configs"
    bundle.verify_net_in_out(net_id="network_def", meta_file=str(configs / "metadata.json"), config_file=str(configs / "inference.json"),
                             device="cpu", n=1, any=64, bundle_root=str(made))
