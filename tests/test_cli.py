"""The command line as a process: exit codes, streams, and what is left on the disk."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from lesion_seg.bundle import save_bundle
from lesion_seg.core import counted
from lesion_seg.onnx import export_onnx
from lesion_seg.phantom import make_phantom
from lesion_seg.unet import UNet


def run(*args, cwd, **env):
    "A finished `lesion_seg` process."
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "lesion_seg", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=300,
    )


def test_an_audit_does_not_hide_that_no_patients_were_found(tmp_path):
    for i in range(6):
        for kind, seed in (("images", i), ("masks", i)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            phantom = make_phantom(seed, 64)
            picture = phantom.image if kind == "images" else phantom.mask
            for name in [f"p{i}", "copy"] if i == 5 else [f"p{i}"]:
                Image.fromarray(picture).save(tmp_path / "data" / kind / f"{name}.png")
    done = run("split", "data", "--audit", "-o", "split.csv", cwd=tmp_path)
    assert "near-duplicate pairs 1," in done.stderr + done.stdout and "no patient column found" in done.stdout
    rows = [line.split(",") for line in (tmp_path / "split.csv").read_text().splitlines()]
    at = {name: rows[0].index(name) for name in ("id", "group")}
    group = {row[at["id"]]: row[at["group"]] for row in rows[1:]}
    assert group["copy"] == group["p5"] and len(set(group.values())) == 6


def test_the_module_is_the_command_line_too(tmp_path):
    module = [sys.executable, "-W", "ignore", "-m", "lesion_seg.cli"]
    done = subprocess.run([*module, "phantom", "photographs", "-n", "2", "--size", "32"],
                          cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("2 phantoms")
    assert len(list((tmp_path / "photographs/images").iterdir())) == 2


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A folder with a random bundle and two photographs of different size."
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    # its exporter is the quick one
    export_onnx(save_bundle(folder / "bundle", UNet(channels=(4, 8), bottleneck=16), size=32), opset=17)
    for i, size in enumerate([(48, 64), (75, 51)]):
        Image.fromarray(make_phantom(i, size).image).save(folder / f"photo{i}.png")
    return folder


def test_segment_writes_masks_at_the_photographs_resolution(work, tmp_path):
    done = run(
        "segment",
        work / "photo0.png",
        work / "photo1.png",
        "-b",
        work / "bundle",
        "-o",
        tmp_path / "out",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    for result, (w, h) in zip(results, [(64, 48), (51, 75)], strict=True):
        mask = Image.open(result["written"]["mask"])
        assert mask.size == (w, h) and set(np.unique(np.asarray(mask))) <= {0, 255}
        assert result["area_px"] == np.count_nonzero(np.asarray(mask))


def test_broken_files_are_named_and_the_others_are_done(work, tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.png").write_bytes((work / "photo0.png").read_bytes()[:400])
    files = [tmp_path / "empty.jpg", work / "photo0.png", tmp_path / "cut.png", tmp_path / "absent.jpg"]
    done = run("segment", *files, "-b", work / "bundle", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        all(name in done.stderr for name in ("empty.jpg", "cut.png", "absent.jpg"))
        and len(done.stderr.strip().splitlines()) == 3
    )
    assert [p.name for p in (tmp_path / "out").glob("*_mask.png")] == ["photo0_mask.png"]


def test_same_stem_twice_does_not_collide(work, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes((work / "photo0.png").read_bytes())
    done = run("segment", "a", "b", "-b", work / "bundle", "-o", "out", "--save", "mask", cwd=tmp_path)
    assert done.returncode == 0 and len(list((tmp_path / "out").glob("*_mask.png"))) == 2


@pytest.mark.parametrize("args,words", [
    (["segment", "x.jpg", "-b", "none"], "none"), (["trian"], "trian"), (["evaluate", "b", "--tta", "--bad"], "--bad"),
    (["--config", "absent.yaml", "info"], "absent.yaml"), (["info", "--set", "data.image_size=7"], "data.image_size"),
    (["info", "absent.dcm"], "absent.dcm: does not exist"),
    pytest.param(["train", "absent.csv"], "absent.csv", marks=pytest.mark.slow),
])
def test_mistakes_give_exit_code_2_and_a_sentence(args, words, tmp_path):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr and not done.stdout
    assert not list(tmp_path.iterdir()), "nothing is left behind, no log either"


def test_review_with_a_bundle_that_has_no_rule_says_so(work, tmp_path):
    done = run("segment", work / "photo0.png", "-b", work / "bundle", "--review", "--json", cwd=tmp_path)
    assert done.returncode == 2 and "has no rule for review" in done.stderr and "lesion_seg calibrate" in done.stderr


def test_output_that_cannot_be_written_is_a_sentence(work, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    done = run("segment", work / "photo0.png", "-b", work / "bundle", "-o", "taken", cwd=tmp_path)
    assert done.returncode == 2 and "taken" in done.stderr and "Traceback" not in done.stderr


def test_environment_variable_names_the_configuration(tmp_path):
    (tmp_path / "c.yaml").write_text("training: {epochs: 3}\nlogging: {log_file: logs/app.jsonl}\n")
    done = run("info", "--set", "project.seed=1", "--json", cwd=tmp_path, CONFIG_PATH="c.yaml")
    assert done.returncode == 0 and json.loads(done.stdout)["training"]["epochs"] == 3


@pytest.mark.slow
def test_ctrl_c_stops_with_130_and_the_training_can_go_on(tmp_path):
    assert run("phantom", "data", "-n", 24, "--size", 64, cwd=tmp_path).returncode == 0
    assert run("split", "data", "-o", "split.csv", cwd=tmp_path).returncode == 0
    args = [
        "train",
        "split.csv",
        "-o",
        "run",
        *(
            x
            for s in (
                "model.architecture=unet",
                "model.encoder_channels=[8,16]",
                "model.bottleneck_channels=32",
                "data.image_size=64",
                "data.batch_size=4",
                "data.num_workers=0",
                "training.epochs=60",
                "training.schedule=one_cycle",
                "training.tensorboard=false",
            )
            for x in ("--set", s)
        ),
    ]
    def listen(): signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background inherits deafness to Ctrl-C
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "lesion_seg", *args],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,
    )
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    for _ in range(15_000):
        if checkpoint.exists(): break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in err and "stopped" in err
    assert not (tmp_path / "run" / "bundle").exists() and not list(Path(tmp_path / "run").glob("*.tmp"))


def test_download_from_a_server_that_stumbles(tmp_path):
    "A fifth of the answers fail; the images under the licence asked for arrive whole, and the manifest lists them."
    from isic_server import IsicServer, encoded
    photos = {f"ISIC_{i:07d}": encoded(make_phantom(i, 48).image, "JPEG") for i in range(5)}
    with IsicServer(images=photos, share=0.2, seed=3) as server:
        done = run(
            "download",
            "--limit",
            "4",
            "--licence",
            "cc0",
            "--mirror",
            server.api,
            "-o",
            tmp_path / "isic",
            "--json",
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "isic" / "manifest.csv").exists() and (tmp_path / "isic" / "licences.csv").exists()
    got = {f.stem: f.read_bytes() for f in (tmp_path / "isic" / "images").iterdir()}
    assert got == {k: photos[k] for k in ("ISIC_0000000", "ISIC_0000003")}  # the server's licences go round in threes


def test_download_of_what_is_not_there(tmp_path):
    for args in (["isic2015"], [], ["isic2017", "--query", "x"]):
        done = run("download", *args, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.strip()


@pytest.mark.slow
def test_dicom_in_and_dicom_out(work, tmp_path):
    "The segmentation refers to its photograph; the header's pixel spacing gives millimetres."
    pydicom, highdicom = pytest.importorskip("pydicom"), pytest.importorskip("highdicom")
    from lesion_seg.dicom_seg import photo_to_dicom
    photo_to_dicom(make_phantom(3, (48, 64)).image, tmp_path / "in.dcm", spacing=(0.1, 0.2))
    done = run(
        "segment",
        "in.dcm",
        "-b",
        work / "bundle",
        "-o",
        "out",
        "--seg",
        "seg.dcm",
        "--threshold",
        "0.4",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["results"][0]
    assert result["spacing_mm"] == [0.1, 0.2] and result["area_mm2"] == pytest.approx(result["area_px"] * 0.02)
    seg, mask = (
        highdicom.seg.segread(tmp_path / "seg.dcm"),
        np.asarray(Image.open(tmp_path / result["written"]["mask"])) > 0,
    )
    assert np.array_equal(seg.pixel_array.reshape(mask.shape) > 0, mask)
    source = pydicom.dcmread(tmp_path / "in.dcm", stop_before_pixels=True)
    assert (
        seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    )
    assert (
        run("segment", work / "photo0.png", "--seg", "x.dcm", cwd=tmp_path).returncode == 2
        and not (tmp_path / "x.dcm").exists()
    )


def test_info_of_a_dicom_file_keeps_the_patient_to_itself(tmp_path):
    from lesion_seg.dicom_seg import photo_to_dicom
    photo_to_dicom(make_phantom(3, (48, 64)).image, tmp_path / "in.dcm", patient="Doe")
    assert "Doe" not in (shown := run("info", "in.dcm", cwd=tmp_path).stdout) and "64" in shown
    assert "Doe" in run("info", "in.dcm", "--identifying", cwd=tmp_path).stdout


# ------------------------------------------------------------------------------------ everything has a name and a place
def here(capfd, *args):
    "A command in this process: exit code, stdout, stderr."
    from lesion_seg.cli import main
    capfd.readouterr()
    code = main(list(map(str, args)))
    return code, *capfd.readouterr()


@pytest.fixture(scope="module")
def trained(work, tmp_path_factory):
    "A folder as `train` leaves it, with a bundle inside, and a table, records and photographs to use it on."
    from lesion_seg.manifest import make_split
    from lesion_seg.phantom import write_phantoms
    from lesion_seg.records import write_records
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(1)
    save_bundle(folder / "run" / "bundle", UNet(channels=(4, 8), bottleneck=16), size=32)
    table, _ = make_split(write_phantoms(folder / "data", n=12, size=48, images_per_patient=1), (0.5, 0.25, 0.25))
    table.save(folder / "data" / "split.csv")
    write_records(table, folder / "records", None, 1)
    return folder


def test_a_run_a_bundle_a_table_and_records_are_the_same_to_every_command(trained, tmp_path, capfd):
    scores = {}
    for model in (trained / "run", trained / "run" / "bundle"):
        for data in (trained / "data" / "split.csv", trained / "records"):
            code, out, err = here(capfd, "evaluate", model, data, "-o", tmp_path / "scores", "--json")
            assert code == 0, err
            scores[model.name, data.name] = json.loads(out)["metrics"]["jaccard"]["mean"]
    assert len(scores) == 4 and len({round(x, 12) for x in scores.values()}) == 1
    code, out, err = here(capfd, "info", trained / "run", "--json")
    assert code == 0 and json.loads(out)["architecture"]["channels"] == [4, 8]
    assert here(capfd, "info", "shipped", "--json")[0] == 0


def test_records_of_pixels_say_at_which_size_they_are_compared(trained, tmp_path, capfd):
    code, _, err = here(
        capfd, "records", trained / "data" / "split.csv", "-o", tmp_path / "small", "--set", "data.image_size=32"
    )
    assert code == 0, err
    code, _, err = here(capfd, "evaluate", trained / "run", tmp_path / "small", "-o", tmp_path / "s")
    assert code == 0 and "hold 32 x 32 pixels" in err


def test_segment_takes_globs_tables_and_records(trained, tmp_path, capfd):
    photos = sorted((trained / "data" / "images").iterdir())
    (tmp_path / "list.csv").write_text("image\n" + "\n".join(map(str, photos[:3])) + "\n")
    sources = (trained / "data" / "images" / "*_1.jpg", 12), (tmp_path / "list.csv", 3), (trained / "records", 12)
    for what, n in sources:
        code, out, err = here(capfd, "segment", what, "-b", trained / "run", "-o", tmp_path / "out", "--json")
        assert code == 0 and len(json.loads(out)["results"]) == n, err
    masks = [np.asarray(Image.open(tmp_path / "out" / f"{photos[0].stem}_mask.png"))]
    here(capfd, "segment", photos[0], "-b", trained / "run", "-o", tmp_path / "one")
    masks.append(np.asarray(Image.open(tmp_path / "one" / f"{photos[0].stem}_mask.png")))
    assert np.array_equal(*masks), "a record gives the mask of its photograph"


def test_every_file_of_a_folder_is_accounted_for(work, tmp_path, capfd):
    "Photographs, masks, superpixels, own outputs, a DICOM Segmentation, a film, a note and a pipe called a.jpg."
    pytest.importorskip("highdicom")
    from lesion_seg.dicom_seg import photo_to_dicom, write_seg
    folder = tmp_path / "in"
    folder.mkdir()
    photo = make_phantom(1, (48, 64))
    for name in ("a.png", "a_superpixels.png", "old_overlay.jpg"): Image.fromarray(photo.image).save(folder / name)
    Image.fromarray(photo.mask).save(folder / "a_segmentation.png")
    scan = photo_to_dicom(photo.image, folder / "IM_0001")
    write_seg(folder / "seg.dcm", photo.mask, scan)
    (folder / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (folder / "note.txt").write_text("left arm")
    (folder / "letter.jpg").write_text("Dear doctor")
    os.mkfifo(folder / "pipe.jpg")
    code, out, err = here(capfd, "segment", folder, "-b", work / "bundle", "-o", folder, "--json")
    facts = json.loads(out)
    assert code == 2 and [Path(r["file"]).name for r in facts["results"]] == ["IM_0001", "a.png"]
    assert len(facts["broken"]) == 1 and "letter.jpg" in facts["broken"][0]
    assert facts["passed_over"] == [
        f"{folder}: 7 files passed over: 2 .png, 2 .jpg, 1 .mov, 1 .txt, 1 .dcm "
        "(a_segmentation.png, a_superpixels.png, film.mov, note.txt, old_overlay.jpg, pipe.jpg, seg.dcm)"]
    assert facts["passed_over"][0] in err
    again = json.loads(here(capfd, "segment", folder, "-b", work / "bundle", "-o", folder, "--json")[1])
    assert [Path(r["file"]).name for r in again["results"]] == ["IM_0001", "a.png"], (
        "its own outputs are not photographs"
    )
    code, out, err = here(
        capfd,
        "segment",
        folder,
        "-b",
        work / "bundle",
        "-o",
        tmp_path / "batch",
        "--batch",
        "--workers",
        "1",
        "--masks",
        "none",
        "--json",
    )
    facts = json.loads(out)
    assert (
        (facts["inputs"], facts["failed"]) == (3, 1)
        and "files passed over" in facts["passed_over"]
        and facts["passed_over"] in err
    )


def test_a_pipe_is_refused_and_does_not_hang(work, tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for more in ((), ("--batch", "--workers", "1")):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "lesion_seg",
                "segment",
                "a.jpg",
                "-b",
                work / "bundle",
                "-o",
                "out" + "b" * len(more),
                *more,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is not a regular file" in run("segment", "a.jpg", "-b", work / "bundle", cwd=tmp_path).stderr


def test_one_table_and_one_coco_file_for_a_folder(work, tmp_path, capfd):
    "The table has a row for each file and no formula; polygons and boxes are those of the single files."
    import csv
    folder = tmp_path / "in"
    folder.mkdir()
    for i, name in enumerate(("=1+1.png", "b.png")):
        Image.fromarray(make_phantom(i + 3, (48, 64)).image).save(folder / name)
    (folder / "c.png").write_bytes(b"")
    code, out, _ = here(
        capfd, "segment", folder, "-b", work / "bundle", "-o", tmp_path / "out", "--threshold", "0.4", "--json"
    )
    assert code == 2
    rows = list(csv.DictReader((tmp_path / "out" / "segmentations.csv").open()))
    results = json.loads(out)["results"]
    assert [Path(r["file"]).name for r in rows] == ["=1+1.png", "b.png", "c.png"] and [r["status"] for r in rows] == [
        "ok",
        "ok",
        "failed",
    ]
    assert "is empty" in rows[2]["reason"] and rows[2]["area_px"] == ""
    for row, result in zip(rows, results, strict=False):
        assert int(row["area_px"]) == result["area_px"] and [row["height"], row["width"]] == ["48", "64"]
        if result["bbox"]: assert [int(row[k]) for k in ("top", "left", "bottom", "right")] == result["bbox"]
    coco = json.loads((tmp_path / "out" / "segmentations_coco.json").read_text())
    assert [i["file_name"] for i in coco["images"]] == [r["file"] for r in results]
    assert [a["area"] for a in coco["annotations"]] == [r["area_px"] for r in results if r["area_px"]]
    single = work / "photo0.png"
    assert here(capfd, "segment", single, "-b", work / "bundle", "-o", tmp_path / "one")[0] == 0
    assert not (tmp_path / "one" / "segmentations.csv").exists(), "one photograph needs no table"


def test_a_relative_name_that_looks_like_a_formula_is_harmless(work, tmp_path, monkeypatch, capfd):
    import csv
    monkeypatch.chdir(tmp_path)
    for name in ("=cmd.png", "b.png"): (tmp_path / name).write_bytes((work / "photo0.png").read_bytes())
    assert here(capfd, "segment", "=cmd.png", "b.png", "-b", work / "bundle", "-o", "out", "--save", "mask")[0] == 0
    cells = [cell for row in csv.reader((tmp_path / "out" / "segmentations.csv").open()) for cell in row]
    assert "'=cmd.png" in cells and not [c for c in cells if c[:1] in "=+@" and c]


def test_names_with_control_characters_reach_no_terminal(work, tmp_path, capfd):
    "Also where all went well."
    odd = tmp_path / "a\x1b[31mred\nline.png"
    odd.write_bytes((work / "photo0.png").read_bytes())
    code, out, err = here(capfd, "segment", odd, work / "photo1.png", "-b", work / "bundle", "-o", tmp_path / "out")
    assert code == 0 and "\x1b" not in out + err and "a?[31mred?line.png: lesion" in out
    assert "\x1b" not in (tmp_path / "out" / "segmentations.csv").read_text()
    code, out, err = here(
        capfd, "segment", tmp_path / "a\x1b[2Jgone.png", "-b", work / "bundle", "-o", tmp_path / "out"
    )
    assert code == 2 and "\x1b" not in out + err


def test_calibrate_after_export_writes_the_files_anew(trained, tmp_path, capfd):
    "It used to delete them in silence; then segment ran on PyTorch, and --precision int8 failed."
    import shutil

    from lesion_seg.bundle import Bundle
    from lesion_seg.predict import Segmenter
    run_folder = shutil.copytree(trained / "run", tmp_path / "run")
    assert here(capfd, "export", run_folder, "--opset", "17")[0] == 0
    before = (run_folder / "bundle" / "model.onnx").read_bytes()
    code, out, err = here(capfd, "calibrate", run_folder, trained / "data" / "split.csv", "--json")
    assert code == 0 and "written anew" in err and json.loads(out)["n"] == 3
    bundle = Bundle.open(run_folder)
    assert bundle.info["onnx"]["opset"] == 17 and (run_folder / "bundle" / "model.onnx").read_bytes() != before
    photo = make_phantom(2, (40, 50)).image
    a, b = (Segmenter(bundle, runtime=r).predict(photo).probability for r in ("onnxruntime", "torch"))
    np.testing.assert_allclose(a, b, atol=1e-5)
    code, _, err = here(capfd, "calibrate", run_folder, trained / "data" / "split.csv")
    assert code == 0 and "written anew" not in err, "the same fit leaves the files alone"


def test_the_8_bit_file_is_written_anew_as_well(trained, tmp_path, monkeypatch):
    import shutil

    from lesion_seg import quantize, report
    from lesion_seg.bundle import Bundle, revise
    from lesion_seg.manifest import Manifest
    bundle = Bundle.open(export_onnx(shutil.copytree(trained / "run" / "bundle", tmp_path / "b"), opset=17).parent)
    bundle = revise(bundle, onnx=bundle.info["onnx"] | dict(int8=dict(method="dynamic", source="training photographs")))
    calls = []
    monkeypatch.setattr(quantize, "quantize_onnx", lambda b, method, say: calls.append((b.path, method)))
    said = []
    report.calibrate_bundle(bundle, Manifest.load(trained / "data" / "split.csv").subset("valid"), say=said.append)
    assert calls == [
        (bundle.path, "dynamic")
    ] and "8-bit file as well, rounded by phantoms now instead of training photographs" in "\n".join(said)


def test_the_shipped_bundle_is_not_changed(trained, capfd):
    calibrate = ("calibrate", "shipped", trained / "data" / "split.csv")
    for args in (calibrate, ("export", "shipped"), ("export", "shipped", "--quantize", "static")):
        code, _, err = here(capfd, *args)
        assert code == 2 and "the shipped bundle: belongs to the package and is not changed; " in err


def test_the_report_says_what_it_is_about(trained, tmp_path, capfd):
    from importlib.metadata import version

    from lesion_seg.bundle import Bundle
    assert (
        here(capfd, "evaluate", trained / "run", trained / "data" / "split.csv", "-o", tmp_path, "--threshold", "0.35")[
            0
        ]
        == 0
    )
    page = (tmp_path / "report.html").read_text()
    weights = Bundle.open(trained / "run").info["weights_sha256"][:16]
    named = f"lesion_seg {version('lesion_seg')}", time.strftime("%Y-"), str(trained / "run"), "not calibrated"
    for text in ("<td>0.35", weights, *named):
        assert text in page


# ---------------------------------------------------------------------------------------------------------------- split
@pytest.fixture
def table(tmp_path):
    "Twelve phantoms of six people, in a table with names of its own."
    import csv

    from lesion_seg.phantom import write_phantoms
    pairs = write_phantoms(tmp_path / "data", n=12, size=32, images_per_patient=1)
    with (tmp_path / "data" / "t.csv").open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["photo", "truth", "who"])
        for i, p in enumerate(pairs): writer.writerow([f"images/{p.image.name}", f"masks/{p.mask.name}", f"x{i // 2}"])
    return tmp_path / "data" / "t.csv"


def test_split_says_first_what_the_groups_are(table, tmp_path, capfd):
    columns = ("--image-column", "photo", "--mask-column", "truth")
    code, out, err = here(capfd, "split", table, *columns, "--group", "who", "-o", tmp_path / "m.csv")
    assert code == 0 and out.splitlines()[0].startswith("grouped by who (6"), out + err
    code, out, err = here(capfd, "split", table, *columns, "-o", tmp_path / "n.csv")
    assert code == 0 and "own group" in out.splitlines()[0], out + err
    code, out, err = here(capfd, "split", table, "--image-column", "nothing", "-o", tmp_path / "o.csv")
    assert code == 2 and "nothing" in err and "Traceback" not in err


def test_partial_is_an_option_where_the_sentence_says_so(table, tmp_path, capfd):
    (tmp_path / "meta.csv").write_text("image_id,patient_id\n" + "".join(f"{p.stem},p{i // 2}\n" for i, p in enumerate(
        sorted((tmp_path / "data" / "images").iterdir())) if i < 8))
    (tmp_path / "data" / "manifest.csv").unlink()
    args = ("split", tmp_path / "data", "--table", tmp_path / "meta.csv", "-o", tmp_path / "m.csv")
    code, _, err = here(capfd, *args)
    assert code == 2 and "`--partial`" in err and "partial=True" not in err
    assert here(capfd, *args, "--partial")[0] == 0


def test_frames_of_a_dicom_file(work, tmp_path, capfd):
    "Without --frame the sentence names it, in the words of the command line."
    pydicom = pytest.importorskip("pydicom")
    from lesion_seg.dicom_seg import photo_to_dicom
    photos = [make_phantom(i, (48, 64)).image for i in (3, 4)]
    ds = pydicom.dcmread(photo_to_dicom(photos[0], tmp_path / "one.dcm", spacing=(0.1, 0.2)))
    ds.NumberOfFrames, ds.PixelData = 2, b"".join(p.tobytes() for p in photos)
    ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", 0
    ds.save_as(tmp_path / "two.dcm")
    code, _, err = here(capfd, "segment", tmp_path / "two.dcm", "-b", work / "bundle", "-o", tmp_path / "out")
    assert code == 2 and "holds 2 frames; choose one with `--frame 1`" in err
    for n in (1, 2):
        Image.fromarray(photos[n - 1]).save(tmp_path / f"{n}.png")
        code, out, err = here(
            capfd,
            "segment",
            tmp_path / "two.dcm",
            "--frame",
            n,
            "-b",
            work / "bundle",
            "-o",
            tmp_path / "out",
            "--json",
        )
        assert code == 0, err
        result = json.loads(out)["results"][0]
        plain = json.loads(
            here(capfd, "segment", tmp_path / f"{n}.png", "-b", work / "bundle", "-o", tmp_path / "p", "--json")[1]
        )["results"][0]
        assert result["area_px"] == plain["area_px"] and result["spacing_mm"] == [0.1, 0.2]
    assert (
        here(capfd, "segment", tmp_path / "two.dcm", "--frame", 3, "-b", work / "bundle", "-o", tmp_path / "out")[0]
        == 2
    )


def film(path, photos, **elements):
    "A DICOM file with a frame for each photograph."
    pydicom = pytest.importorskip("pydicom")
    from lesion_seg.dicom_seg import photo_to_dicom
    ds = pydicom.dcmread(photo_to_dicom(photos[0], path, spacing=(0.1, 0.2)))
    ds.NumberOfFrames, ds.PixelData = len(photos), b"".join(p.tobytes() for p in photos)
    ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", 0
    for name, value in elements.items(): setattr(ds, name, value)
    ds.save_as(path)
    return path


@pytest.fixture(scope="module")
def mixed(work, tmp_path_factory):
    "A folder with a film of three frames and a PNG; and the areas of each by themselves."
    folder = tmp_path_factory.mktemp("mixed")
    photos = [make_phantom(i, (48, 64)).image for i in (3, 4, 5)]
    film(folder / "clip.dcm", photos)
    Image.fromarray(photos[0]).save(folder / "photo.png")
    from lesion_seg.predict import Segmenter
    segmenter = Segmenter(work / "bundle")
    return folder, [segmenter(p).measure()["area_px"] for p in photos]


def test_all_frames_of_a_folder(capfd, work, mixed, tmp_path):
    folder, areas = mixed
    args = ("segment", folder, "-b", work / "bundle", "-o", tmp_path / "out", "--json", "--save", "mask,json")
    code, out, err = here(capfd, *args, "--frame", "all")
    assert code == 0, err
    got = [(Path(r["file"]).name, r.get("frame"), r["area_px"]) for r in json.loads(out)["results"]]
    assert got == [("clip.dcm", 1, areas[0]), ("clip.dcm", 2, areas[1]), ("clip.dcm", 3, areas[2]),
                   ("photo.png", None, areas[0])]
    for n, area in enumerate(areas, 1):
        assert np.count_nonzero(np.asarray(Image.open(tmp_path / f"out/clip_frame{n}_mask.png"))) == area
        record = json.loads((tmp_path / f"out/clip_frame{n}.json").read_text())
        assert (record["source"], record["frame"], record["name"]) == (str(folder / "clip.dcm"), n, f"clip.dcm#{n}")
        assert record["measures"]["spacing_mm"] == [0.1, 0.2]
    table = (tmp_path / "out/segmentations.csv").read_text().splitlines()
    assert table[0].startswith("file,frame,status,reason,") and len(table) == 5
    coco = json.loads((tmp_path / "out/segmentations_coco.json").read_text())
    assert len({i["file_name"] for i in coco["images"]}) == 4


def test_a_film_without_the_option_is_named_with_its_frames(capfd, work, mixed, tmp_path):
    folder, _ = mixed
    code, out, err = here(capfd, "segment", folder, "-b", work / "bundle", "-o", tmp_path / "out")
    assert code == 2 and "1 of 2 segmented" in out
    assert "clip.dcm: holds 3 frames; choose one with `--frame 1`, or take all with `--frame all`" in err


def test_frames_of_a_batch(capfd, work, mixed, tmp_path):
    import pyarrow.parquet as pq
    folder, areas = mixed
    def batch(out, *more):
        code, text, err = here(capfd, "segment", folder, "-b", work / "bundle", "-o", tmp_path / out, "--batch",
                               "--workers", "1", "--json", *more)
        return code, json.loads(text), pq.read_table(tmp_path / out / "results").to_pylist()
    code, _, rows = batch("plain")
    assert code == 2 and [r["status"] for r in rows] == ["failed", "ok"]
    assert "holds 3 frames; choose one with `--frame 1`, or take all with `--frame all`" in rows[0]["reason"]
    code, told, rows = batch("all", "--frame", "all", "--set", "batch.shard_size=3")
    assert code == 0 and told["inputs"] == 4
    assert [(r["frame"], r["area_px"]) for r in rows] == [*enumerate(areas, 1), (None, areas[0])]
    assert len({r["mask"] for r in rows}) == 4 and all((tmp_path / "all" / r["mask"]).is_file() for r in rows)
    assert batch("all", "--frame", "all")[1]["before"] == 4
    code, _, rows = batch("two", "--frame", "3,4")
    assert code == 2 and [(Path(r["image"]).name, r["frame"], r["status"]) for r in rows] == [
        ("clip.dcm", 3, "ok"), ("clip.dcm", 4, "failed"), ("photo.png", 3, "failed"), ("photo.png", 4, "failed")]
    assert "has no frame 4; choose one from 1 to 3" in rows[1]["reason"]


@pytest.mark.parametrize("text", ["0", "x", "1-3"])
def test_a_frame_that_is_no_number(capfd, work, tmp_path, text):
    code, _, err = here(capfd, "segment", work / "photo0.png", "-b", work / "bundle", "-o", tmp_path / "o", "--frame", text)
    assert code == 2 and f"--frame {text}: is not a number of a frame" in err and not (tmp_path / "o").exists()


def test_a_segmentation_of_one_frame_refers_to_it(capfd, work, mixed, tmp_path):
    import pydicom
    folder, _ = mixed
    args = ("segment", folder / "clip.dcm", "-b", work / "bundle", "-o", tmp_path / "o", "--seg", tmp_path / "seg.dcm")
    assert here(capfd, *args, "--frame", "2")[0] == 0
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    referred = seg.SharedFunctionalGroupsSequence[0] if "DerivationImageSequence" in seg.SharedFunctionalGroupsSequence[0] \
        else seg.PerFrameFunctionalGroupsSequence[0]
    assert referred.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 2
    assert here(capfd, *args, "--frame", "all")[0] == 2


def test_nothing_is_left_behind_where_nothing_was_segmented(capfd, work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = here(capfd, "segment", "nothing.jpg", "-b", work / "bundle")
    assert code == 2 and "nothing.jpg: does not exist" in err and not list(tmp_path.iterdir())


def test_an_evaluation_says_what_flatters_it(trained, tmp_path, capfd):
    "Calibrated on the photographs that it is scored on; and a bootstrap over three groups."
    import shutil
    shutil.copytree(trained / "run", tmp_path / "run")
    table = trained / "data" / "split.csv"
    def evaluated(source, *more):
        code, out, err = here(capfd, "evaluate", tmp_path / "run", source, "-o", tmp_path / "e", "--json", *more)
        assert code == 0, err
        page, text = ((tmp_path / "e" / name).read_text() for name in ("report.html", "report.txt"))
        assert json.loads((tmp_path / "e" / "summary.json").read_text())["warnings"] == json.loads(out)["warnings"]
        for warning in json.loads(out)["warnings"]: assert warning in page and f"Note: {warning}" in text
        return json.loads(out)["warnings"]
    few = "the bootstrap draws from 3 groups only, so its intervals are likely to be too narrow"
    assert evaluated(table) == [few]
    assert here(capfd, "calibrate", tmp_path / "run", table, "--split", "test")[0] == 0
    assert len(json.loads((tmp_path / "run/bundle/bundle.json").read_text())["metrics"]["calibration"]["digest"]) == 64
    for source in (table, trained / "records"): # the same split, the same digest
        first, second = evaluated(source)
        assert first == few and "fitted on the same photographs" in second
    assert evaluated(table, "--split", "valid") == [few]


def test_records_round_the_8_bit_file(trained, tmp_path, capfd):
    args = ("export", trained / "run", "-o", tmp_path / "a.onnx", "--quantize", "static", "-n", "2", "--calibration")
    import shutil
    for source in ("data/split.csv", "records"):
        shutil.copytree(trained / "run", tmp_path / source / "run")
        export_onnx(tmp_path / source / "run/bundle", opset=17)
        code, _, err = here(capfd, "export", tmp_path / source / "run", *args[2:], trained / source)
        assert code == 0 and (tmp_path / "a.onnx").stat().st_size > 1000, err


def test_a_table_of_duplicates_hides_no_missing_patients(trained, tmp_path, capfd):
    from lesion_seg.manifest import Manifest
    pairs = list(Manifest.load(trained / "data" / "split.csv"))
    (tmp_path / "bare.csv").write_text("image,mask\n" + "".join(f"{p.image},{p.mask}\n" for p in pairs))
    (tmp_path / "pairs.csv").write_text(f"image_a,image_b\n{pairs[0].id},{pairs[1].id}\nx,y\n")
    for audit in ([], ["--audit"]):
        code, out, err = here(capfd, "split", tmp_path / "bare.csv", "-o", tmp_path / "m.csv", "--duplicates",
                              tmp_path / "pairs.csv", *audit)
        assert code == 0 and "no patient column found" in out and "1 pair of duplicates with an id that is not here" in out, err
        groups = {p.id: p.group for p in Manifest.load(tmp_path / "m.csv")}
        assert groups[pairs[0].id] == groups[pairs[1].id]


def test_masks_of_another_size_are_scaled_on_request(capfd, tmp_path):
    "Once, by split; and train or evaluate need not know about it."
    for i in range(4):
        photo = make_phantom(i, (64, 96))
        for kind, picture in (("images", photo.image), ("masks", photo.mask[::2, ::2] if i < 3 else photo.mask)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / "data" / kind / f"{i}.png")
    args = ("split", tmp_path / "data", "-o", tmp_path / "m.csv", "--fractions", "0.5,0.25,0.25")
    code, _, err = here(capfd, *args)
    assert code == 2 and "`--resize-ok` of `lesion_seg split`" in err and "resize_ok" not in err
    code, out, err = here(capfd, *args, "--resize-ok")
    assert code == 0 and f"3 masks scaled to the size of the photograph, in {tmp_path}/m_masks" in out, err
    from lesion_seg.cli import open_table
    from lesion_seg.data import read_mask
    pairs = {p.id: p for p in open_table(tmp_path / "m.csv")}
    for i in range(4):
        mask = read_mask(pairs[str(i)].mask)
        assert np.array_equal(mask[::2, ::2], make_phantom(i, (64, 96)).mask[::2, ::2]) and mask.shape == (64, 96)
    assert pairs["3"].mask == tmp_path / "data/masks/3.png"
    Image.fromarray(make_phantom(2, 64).mask).save(tmp_path / "data/masks/2.png") # another form stays an error
    assert here(capfd, *args, "--resize-ok")[0] == 2


def test_the_label_of_polygons_has_an_option(capfd, tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(4):
        Image.fromarray(make_phantom(i, 64).image).save(tmp_path / f"data/{i}.png")
        shapes = [dict(label=label, shape_type="polygon", points=[[a, a], [a, b], [b, b], [b, a]])
                  for label, a, b in (("spot", 10, 40), ("hair", 2, 60))]
        (tmp_path / f"data/{i}.json").write_text(json.dumps(dict(
            shapes=shapes, imagePath=f"{i}.png", imageHeight=64, imageWidth=64)))
    args = ("split", tmp_path / "data", "-o", tmp_path / "m.csv", "--fractions", "0.5,0.25,0.25")
    code, _, err = here(capfd, *args)
    assert code == 2 and "`--label " in err and "` of `lesion_seg split`" in err
    code, _, err = here(capfd, *args, "--label", "spot", "--masks-to", tmp_path / "drawn")
    assert code == 0, err
    from lesion_seg.manifest import Manifest
    assert {p.mask.parent for p in Manifest.load(tmp_path / "m.csv")} == {tmp_path / "drawn"}
    code, _, err = here(capfd, "split", tmp_path / "m.csv", "-o", tmp_path / "n.csv", "--label", "spot")
    assert code == 2 and "--label: is for a folder with polygons" in err


@pytest.fixture
def oddities(tmp_path):
    "One folder with one of each oddity: sound pairs, what is not a photograph, and what is wrong. Three sets of names."
    pytest.importorskip("highdicom")
    from lesion_seg.dicom_seg import photo_to_dicom, write_seg
    folder = tmp_path / "odd"
    folder.mkdir()
    photo = make_phantom(1, (48, 64))
    image, mask = Image.fromarray(photo.image), Image.fromarray(photo.mask)
    def pair(name, picture=image, truth=mask, **options):
        picture.save(folder / name, **options)
        if truth: truth.save(folder / f"{Path(name).stem}_segmentation.png")
    for name in ("a.jpg", "b.png", "c.tif", "d.bmp", "e.webp", "f.jfif", "=g.png", "-h.jpg", "two words.jpg", "=g(1).png"):
        pair(name)
    for name, feature in (("j2.jp2", "jpg_2000"), ("av.avif", "avif")):
        if features.check(feature): pair(name)
    pair("float.tif", Image.fromarray(photo.image.mean(2).astype(np.float32) / 255))
    pair("deep.png", Image.fromarray(photo.image.mean(2).astype(np.uint16) * 257))
    exif = Image.Exif()
    exif[274] = 6
    pair("turned.jpg", truth=mask.transpose(Image.Transpose.ROTATE_270), exif=exif)
    scan = photo_to_dicom(photo.image, folder / "IM_0001", spacing=(0.1, 0.2))
    mask.save(folder / "IM_0001_segmentation.png")
    sound = {p.name for p in folder.iterdir() if "_segmentation" not in p.name}
    masks = {p.name for p in folder.iterdir()} - sound
    image.save(folder / "a_superpixels.png")
    image.save(folder / "old_overlay.jpg")
    write_seg(folder / "seg.dcm", photo.mask, scan)
    (folder / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (folder / "note.txt").write_text("left arm")
    (folder / "colour\x1b[31m.txt").touch()
    os.mkfifo(folder / "pipe.jpg")
    strangers = {p.name for p in folder.iterdir()} - sound - masks
    pair("cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:300])
    (folder / "letter.jpg").write_text("Dear doctor")
    (folder / "zero.jpg").touch()
    film(folder / "clip.dcm", [photo.image] * 3)
    pair("bare.jpg", truth=None)
    pair("half.jpg", truth=mask.resize((32, 24)))
    pair("sideways.jpg", truth=mask.transpose(Image.Transpose.ROTATE_90))
    for name, truth in (("empty.jpg", photo.mask & False), ("full.jpg", photo.mask | True), ("inverted.jpg", ~photo.mask)):
        pair(name, truth=Image.fromarray(truth))
    pair("black.jpg", Image.new("RGB", (64, 48)))
    mask.save(folder / "orphan_segmentation.png")
    return folder, sound, masks, strangers


def test_segment_accounts_for_every_oddity(capfd, work, oddities, tmp_path):
    folder, sound, masks, strangers = oddities
    code, out, err = here(capfd, "segment", folder, "-b", work / "bundle", "-o", tmp_path / "out", "--json")
    told = json.loads(out)
    assert code == 2 and "Traceback" not in err and "\x1b" not in err
    good = {Path(r["file"]).name for r in told["results"]}
    broken = {n for n in os.listdir(folder) if any(f"{n}:" in sentence for sentence in told["broken"])}
    assert broken == {"cut.png", "letter.jpg", "zero.jpg", "clip.dcm"} and sound <= good
    wrong_masks = {"bare.jpg", "half.jpg", "sideways.jpg", "empty.jpg", "full.jpg", "inverted.jpg", "black.jpg"}
    loners = {"orphan_segmentation.png"} # a mask without its photograph is not segmented either
    assert good == sound | wrong_masks
    [remark] = told["passed_over"]
    others = {Path(name).name for name in told["passed_over_files"]}
    assert others == set(os.listdir(folder)) - good - broken >= strangers | masks | loners, "not one file is lost"
    assert remark.split(": ")[1].startswith(f"{len(others)} files passed over") and remark.split(" (")[0] in err
    [black] = [r for r in told["results"] if r["file"].endswith("black.jpg")]
    assert any("black everywhere" in w for w in black["warnings"])
    with open(tmp_path / "out/segmentations.csv", newline="") as f: rows = list(csv.DictReader(f))
    assert len(rows) == len(good) + len(broken) and all(r["reason"] for r in rows if r["status"] == "failed")


def test_split_and_evaluate_account_for_every_oddity(capfd, work, oddities, tmp_path):
    folder, sound, masks, strangers = oddities
    table = tmp_path / "split.csv"
    split = ("split", folder, "-o", table, "--fractions", "0.6,0.2,0.2", "--full", "--json")
    code, out, err = here(capfd, *split)
    assert code == 2 and not out and not table.exists() and "Traceback" not in err and "\x1b" not in err
    wrong = {"cut.png", "letter.jpg", "zero.jpg", "clip.dcm", "bare.jpg", "half.jpg", "sideways.jpg", "empty.jpg",
             "full.jpg", "inverted.jpg", "black.jpg", "orphan_segmentation.png"}
    for name in wrong: assert f"/{name} " in err or f"/{name}:" in err or Path(name).stem in err, name
    for name in sound - {"a.jpg"}: assert f"/{name} " not in err and f"/{name}:" not in err, name
    code, _, headers_only = here(capfd, "evaluate", work / "bundle", folder, "--split", "all", "-o", tmp_path / "e")
    assert code == 2 and not (tmp_path / "e").exists()
    for name in ("letter.jpg", "zero.jpg", "clip.dcm", "bare.jpg", "half.jpg", "sideways.jpg"): assert name in headers_only
    for name in wrong:
        for path in (folder / name, folder / f"{Path(name).stem}_segmentation.png"): path.unlink(missing_ok=True)
    code, out, err = here(capfd, *split)
    assert code == 0, err
    told = json.loads(out)
    assert sum(told["images"].values()) == len(sound)
    [note] = [n for n in told["notes"] if "passed over" in n]
    assert note.startswith(f"{counted(len(strangers), 'file')} passed over")
    assert all(name in note for name in strangers), note
    code, out, err = here(capfd, "evaluate", work / "bundle", table, "--split", "all", "-o", tmp_path / "e", "--json")
    assert code == 0 and json.loads(out)["n"] == len(sound), err
    with open(tmp_path / "e/scores.csv", newline="") as f: cells = [row["id"] for row in csv.DictReader(f)]
    assert not any(cell.startswith("=") for cell in cells) and "'=g" in cells
    from lesion_seg.evaluate import load_table
    from lesion_seg.manifest import Manifest
    images = {p.id: p.image.name for p in Manifest.load(table)}
    assert {images[i] for i in load_table(tmp_path / "e/scores.csv").id} == sound


# ------------------------------------------------------------------------------------------------------- small comforts
def test_segment_writes_the_log_file(work, tmp_path, capfd):
    log = tmp_path / "log.jsonl"
    (tmp_path / "broken.png").write_bytes(b"")
    code, _, err = here(
        capfd,
        "segment",
        work / "photo0.png",
        tmp_path / "broken.png",
        "-b",
        work / "bundle",
        "-o",
        tmp_path / "out",
        "--set",
        f"logging.log_file={log}",
    )
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (
        code == 2
        and any("broken.png" in e["message"] for e in lines)
        and lines[-1]["message"].startswith("1 of 2 segmented")
    )
    assert lines[-1]["result"]["results"][0]["file"] == str(work / "photo0.png")
    assert " INFO " not in err, "people have read it already"


@pytest.mark.parametrize("args,words", [(["--version"], "lesion_seg "), (["-h"], "Usage: lesion_seg"),
                                        (["segment", "-h"], "--frame"),
                                        (["--show-completion", "bash"], "_LESION_SEG_COMPLETE")])
def test_small_options(args, words, tmp_path):
    done = run(*args, cwd=tmp_path, SHELL="/bin/bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0 and words in done.stdout, done.stderr


def test_info_says_what_helpers_ask_first(tmp_path):
    known = json.loads(run("info", "--json", cwd=tmp_path).stdout)
    assert {"python", "torch", "lesion_seg", "device", "onnxruntime"} <= known.keys() and known["device"].startswith(
        ("cpu", "cuda")
    )
    extras = {k: v for k, v in known.items() if k.startswith("extra ")}
    assert {"extra app", "extra dicom"} <= extras.keys() and all(
        v == "complete" or v.startswith("needs ") for v in extras.values()
    )


def test_where_a_training_starts():
    from lesion_seg.cli import starting_weights
    from lesion_seg.config import load_config
    from lesion_seg.core import InputError
    assert [
        starting_weights(load_config(overrides=o))
        for o in ([], ["model.architecture=unet"], ["training.start=null"], ["training.start=run"])
    ] == ["shipped", None, None, "run"]
    with pytest.raises(InputError, match="another network"):
        starting_weights(load_config(overrides=["training.start=shipped", "model.decoder=null"]))


def test_a_loss_by_its_name(trained, tmp_path, capfd):
    small = [
        x
        for s in (
            "model.architecture=unet",
            "model.encoder_channels=[4,8]",
            "model.bottleneck_channels=8",
            "data.image_size=32",
            "training.epochs=1",
            "data.num_workers=0",
            "training.tensorboard=false",
            "training.loss=tversky",
            "training.loss_options={alpha: 0.3}",
        )
        for x in ("--set", s)
    ]
    code, _, err = here(capfd, "train", trained / "data" / "split.csv", "-o", tmp_path / "run", *small)
    assert code == 0, err
    loss = json.loads((tmp_path / "run" / "bundle" / "bundle.json").read_text())["training"]["loss"]
    assert loss.startswith("TverskyLoss") and "alpha=0.3" in loss
    code, _, err = here(
        capfd,
        "train",
        trained / "data" / "split.csv",
        "-o",
        tmp_path / "r2",
        *small,
        "--set",
        "training.loss=horoscope",
    )
    assert code == 2 and "horoscope" in err and "dice_bce" in err


def test_the_module_is_a_program_too(tmp_path):
    "As `accelerate launch -m lesion_seg.cli` starts it: with all its commands."
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "lesion_seg.cli", "phantom", "p", "-n", "1", "--size", "32"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout == "1 phantom; the table is p/manifest.csv\n", done.stderr


def test_an_output_of_another_kind_is_not_overwritten(capfd, work, tmp_path):
    for command, name in (("export", "table.csv"), ("split", "photo.jpg"), ("split", "notes.txt")):
        (tmp_path / name).write_text("mine")
        source = work / "bundle" if command == "export" else tmp_path
        code, out, err = here(capfd, command, source, "-o", tmp_path / name)
        assert code == 2 and not out and f"{name}: is no name of a" in err and "give one that ends in ." in err
        assert (tmp_path / name).read_text() == "mine"


def test_a_frame_of_what_is_no_dicom(capfd, work, tmp_path):
    code, _, err = here(capfd, "segment", work / "photo0.png", "-b", work / "bundle", "-o", tmp_path, "--frame", "1")
    assert code == 2
    assert err == f"{work / 'photo0.png'}: is not a DICOM file, so it has no frames; name it without a frame\n"


def test_fractional_without_a_segmentation(capfd, work, tmp_path):
    code, _, err = here(capfd, "segment", work / "photo0.png", "-b", work / "bundle", "-o", tmp_path, "--fractional")
    assert code == 2
    assert err.endswith("--fractional: is for a DICOM Segmentation; give --seg FILE as well, or leave it out\n")


def test_remedies_of_split_and_train_can_be_typed(capfd, trained, tmp_path):
    table = trained / "data" / "split.csv"
    code, _, err = here(capfd, "split", table, "-o", tmp_path / "m.csv", "--fractions", "1,1")
    assert code == 2 and err.endswith("such as 0.7,0.15,0.15\n")
    assert here(capfd, "split", table, "-o", tmp_path / "m.csv", "--fractions", "0.7,0.15,0.15")[0] == 0
    small = ("--set", "model.architecture=unet", "--set", "model.encoder_channels=[4, 8]", "--set", "data.image_size=32")
    small += ("--set", "training.start=null", "--set", "data.num_workers=0", "-o", tmp_path / "run")
    assert here(capfd, "train", table, *small, "--set", "training.epochs=1")[0] == 0
    code, _, err = here(capfd, "train", table, *small, "--set", "training.epochs=2")
    assert code == 2 and err.endswith("start anew with `--set training.resume=false`\n"), err
    assert here(capfd, "info", "--set", "training.resume=false")[0] == 0


def test_a_remark_on_a_photograph_is_a_sentence_and_not_a_place_in_the_code(tmp_path, capsys):
    from lesion_seg.cli import main
    grey = make_phantom(5, (48, 64)).image.mean(2).astype(np.uint16) * 16 # twelve bits in sixteen
    Image.fromarray(grey).save(tmp_path / 'deep.png')
    assert main(['segment', str(tmp_path / 'deep.png'), '-o', str(tmp_path / 'out')]) == 0
    remarks = [line for line in capsys.readouterr().err.splitlines() if 'deep.png' in line and '12 bits' in line]
    assert remarks and all('.py' not in line and 'Warning' not in line for line in remarks)


# ------------------------------------------------------------------------------------------------ masks of somebody else
def test_a_strangers_masks_in_one_command(trained, tmp_path, capfd):
    "The masks that `segment` writes are scored as the model itself is, and the page says where they come from."
    table = trained / "data" / "split.csv"
    assert here(capfd, "segment", table, "-b", trained / "run", "-o", tmp_path / "m", "--save", "mask,overlay")[0] == 0
    code, out, err = here(capfd, "evaluate", table, "--masks", tmp_path / "m", "-o", tmp_path / "a", "--split", "all", "--json")
    assert code == 0, err
    theirs = json.loads(out)
    code, out, _ = here(capfd, "evaluate", trained / "run", table, "-o", tmp_path / "b", "--split", "all", "--json")
    ours = json.loads(out)
    assert theirs["metrics"] == ours["metrics"] and theirs["n"] == 12
    with open(tmp_path / "a" / "scores.csv") as f, open(tmp_path / "b" / "scores.csv") as g: theirs, ours = list(csv.DictReader(f)), list(csv.DictReader(g))
    assert [r | {k: o[k] for k in o.keys() - r.keys()} for r, o in zip(theirs, ours, strict=True)] == ours  # a model has the best of three beside it
    page = (tmp_path / "a" / "report.html").read_text()
    assert f"12 files in {tmp_path / 'm'}" in page and "passed over" in page and page.count("data:image/jpeg") == 2
    (tmp_path / "m" / sorted(p.name for p in (tmp_path / "m").glob("*_mask.png"))[0]).unlink()
    code, out, err = here(capfd, "evaluate", table, "--masks", tmp_path / "m", "-o", tmp_path / "a", "--split", "all", "--json")
    assert "without a mask in the folder, counted as empty (1): " in err and json.loads(out)["n"] == 12
    code, out, _ = here(capfd, "evaluate", table, "--masks", tmp_path / "m", "-o", tmp_path / "a", "--split", "all", "--missing", "skip", "--json")
    assert json.loads(out)["n"] == 11


@pytest.mark.parametrize("args, words", [
    (("shipped", "t.csv", "--masks", "m"), "--masks: takes the place of the model"),
    (("t.csv", "--masks", "m", "--threshold", "0.4"), "--threshold: has no effect on masks"),
    (("t.csv", "--masks", "m", "--no-tta"), "--tta: has no effect on masks"),
    (("shipped", "t.csv", "--resize"), "--resize: is for --masks only"),
    (("shipped", "t.csv", "--missing", "skip"), "--missing: is for --masks only"),
])
def test_options_without_effect_on_masks(args, words, capfd):
    code, _, err = here(capfd, "evaluate", *args)
    assert code == 2 and words in err


def test_styles_and_evaluation_by_style(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert here(capfd, "phantom", "drawn", "-n", "4", "--size", "512", "--seed", "4", "--style", "mixed")[0] == 0
    code, out, err = here(capfd, "styles", "drawn", "-o", "styles.csv", "--picture", "styles.png", "--json")
    found = json.loads(out)
    assert (code, found["masks"], found["table"], found["picture"]) == (0, 4, "styles.csv", "styles.png")
    with open("styles.csv") as f, open("drawn/manifest.csv") as g: rows, made = list(csv.DictReader(f)), list(csv.DictReader(g))
    assert [r["style"] for r in rows] == [r["style"] for r in made] and {"density", "compactness", "solidity"} <= set(rows[0])
    assert sum(r["masks"] for r in found["styles"]) == 4
    code, out, err = here(capfd, "evaluate", "shipped", "styles.csv", "--split", "all", "--by", "style", "--by", "family", "-o", "report")
    assert code == 0 and "By style" in out and "By family" in out and "relative_bias" in out
    parts = json.loads(Path("report/summary.json").read_text())["subgroups"]
    assert {k: p["n"] for k, p in parts["style"].items()} == dict(Counter(r["style"] for r in rows))
    assert "<h2>By style</h2>" in Path("report/report.html").read_text()
    Path("bare.csv").write_text("image,mask\n" + "".join(f"{r['image']},{r['mask']}\n" for r in rows))
    code, out, err = here(capfd, "evaluate", "bare.csv", "--masks", "drawn/masks", "--split", "all", "--by", "style", "-o", "own", "--json")
    assert code == 0 and "how the masks were drawn" in err
    assert {k: p["jaccard"]["mean"] for k, p in json.loads(out)["subgroups"]["style"].items()} == {r["style"]: 1 for r in rows}
    for words, args in (("--out styles.txt: is no name of a table", ["styles", "drawn", "-o", "styles.txt"]),
                        ("--picture a.jpg: is no name of a picture", ["styles", "drawn", "--picture", "a.jpg"]),
                        ("--style round: does not exist", ["phantom", "x", "--style", "round"]),
                        ("has no column tone", ["evaluate", "shipped", "bare.csv", "--split", "all", "--by", "tone"])):
        code, out, err = here(capfd, *args)
        assert (code, out) == (2, "") and words in err, (words, err)


def test_several_annotators_are_scored_beside_each_other(trained, tmp_path, capfd):
    import csv

    from lesion_seg.data import read_mask
    from lesion_seg.manifest import Manifest
    m = Manifest.from_csv(trained / "data" / "manifest.csv")[:6]
    for k, p in enumerate(m):
        if k < 4: p.meta["mask_2"] = str(m[0].mask)  # everybody's second opinion is the first mask
        p.split = "test"
    table = m.save(tmp_path / "several.csv")
    masks = trained / "data" / "masks"
    code, out, err = here(capfd, "evaluate", table, "--masks", masks, "-o", tmp_path / "a", "--json")
    assert code == 0, err
    found = json.loads(out)["annotators"]
    truths = [read_mask(p.mask) for p in m[:4]]
    between = np.mean([2 * (t & truths[0]).sum() / (t.sum() + truths[0].sum()) for t in truths])
    assert found["agreement"]["between annotators"]["dice"]["mean"] == pytest.approx(between)
    assert found["agreement"]["mask"]["dice"]["mean"] == 1 and found["n"] == 4
    assert found["difference"]["dice"]["mean"] == pytest.approx((1 + between) / 2 - between)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "<h2>Several annotators</h2>" in page and "0.017 of the diagonal" in page
    with open(tmp_path / "a" / "annotators.csv") as f: assert len(list(csv.DictReader(f))) == 4 * (1 + 2 + 2)
    code, out, _ = here(capfd, "evaluate", trained / "run", table, "-o", tmp_path / "b")
    assert code == 0 and "each annotator less between annotators: dice " in out
