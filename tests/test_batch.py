"""Batches as processes: kills, orphans, twins, odd names, Ray; and COCO's own code as oracle of the run lengths."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lesion_seg.batch import decode_rle, encode_rle, even_size, list_inputs, make_plan, place_to_work, segment_folder
from lesion_seg.bundle import Bundle, save_bundle
from lesion_seg.core import InputError
from lesion_seg.onnx import export_onnx
from lesion_seg.phantom import make_phantom
from lesion_seg.unet import UNet

N = 40


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A tiny exported bundle and a folder of phantoms, with one file that is none."
    folder = tmp_path_factory.mktemp("batch")
    torch.manual_seed(0)
    save_bundle(folder / "bundle", UNet(channels=(4, 8), bottleneck=16), size=32)
    export_onnx(folder / "bundle", opset=17)  # its exporter is the quick one
    for i in range(N - 1):
        file = folder / "photos" / f"day{i % 3}" / f"{i:03}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_phantom(i, 64).image).save(file)
    (folder / "photos" / "day1" / "zero.jpg").touch()
    return folder


def start(work, out, *args, **kw):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "lesion_seg",
        "segment",
        work / "photos",
        "-b",
        work / "bundle",
        "-o",
        out,
        "--batch",
        *args,
        "--workers",
        "2",
        "--set",
        "batch.shard_size=1",
    ]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **kw
    )


def rows(out): return pq.read_table(Path(out) / "results").to_pylist()


def children(pid):
    "The workers of process `pid`, from /proc; multiprocessing's bookkeeper is none."
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except (OSError, IndexError): continue
    return found


def alive(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError: return False


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition(): return True
        time.sleep(0.02)
    return False


def check_whole(work, out):
    "Every input has one row, every success one mask, and nothing hidden is left."
    got = rows(out)
    assert [r["image"] for r in got] == list(list_inputs(work / "photos")) and len(got) == N
    assert [Path(r["image"]).name for r in got if r["status"] != "ok"] == ["zero.jpg"]
    masks = sorted(r["mask"] for r in got if r["mask"])
    assert masks == sorted(str(p.relative_to(out)) for p in (out / "masks").rglob("*.*")) and len(masks) == N - 1
    assert sorted(p.name for p in out.iterdir()) == ["inputs.jsonl", "masks", "plan.json", "results"]


@pytest.mark.slow
def test_killed_at_random_and_run_again(work, tmp_path):
    "kill -9 of the parent alone, of a worker, of all: at the end the rows are those of a run that nobody disturbed."
    out, rng, kills = tmp_path / "out", random.Random(5), 0
    for kind in ("parent", "worker", "all", "all"):
        run = start(work, out)
        n = len(list(out.glob("results/*.parquet")))
        wait_for(lambda n=n, run=run: len(list(out.glob("results/*.parquet"))) > n + 2 or run.poll() is not None)
        time.sleep(rng.random() * 0.05)
        workers = children(run.pid)
        if run.poll() is None:
            kills += 1
            if kind == "all": os.killpg(run.pid, signal.SIGKILL)
            elif kind == "parent": run.kill()
            elif workers: os.kill(workers[0], signal.SIGKILL)
        _, err = run.communicate(timeout=300)
        assert "Traceback" not in err, err
        assert wait_for(lambda w=workers: not any(map(alive, w)), 60), "workers end with their parent"
    assert kills  # on a machine that stutters some runs end before they can be killed
    done = start(work, out)
    assert done.wait(300) == 2  # one of the files is none
    check_whole(work, out)
    whole = segment_folder(work / "photos", tmp_path / "whole", work / "bundle", shard_size=1, workers=1)
    assert (whole.counts.inputs, whole.counts.failed) == (N, 1)
    assert rows(out) == rows(tmp_path / "whole")


@pytest.mark.slow
def test_twins_share_the_work(work, tmp_path):
    "Two equal runs at the same time finish one batch."
    twins = [start(work, tmp_path / "out"), start(work, tmp_path / "out")]
    ends = [t.communicate(timeout=300) for t in twins]
    assert [t.returncode for t in twins] == [2, 2] and not any("Traceback" in e for _, e in ends)
    check_whole(work, tmp_path / "out")


def test_places_to_work_come_and_go(tmp_path):
    "Whoever leaves takes the empty folder along, which must not trip those who are just coming."
    def work(k):
        for i in range(300):
            with place_to_work(tmp_path, f"{k}-{i}") as place: (place / "x").touch()
    with ThreadPoolExecutor(4) as pool: list(pool.map(work, range(4)))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c(work, tmp_path):
    out = tmp_path / "out"
    run = start(work, out, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert wait_for(lambda: list(out.glob("results/*.parquet")) or run.poll() is not None)
    workers = children(run.pid)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=300)
    assert run.returncode in (130, 2) and "Traceback" not in err
    assert wait_for(lambda: not any(map(alive, workers)), 60)
    assert start(work, out).wait(300) == 2
    check_whole(work, out)


def test_odd_names_and_links(work, tmp_path):
    "A name that is no text, a newline, a link that goes round, and results inside the folder of the photographs."
    folder, photo = tmp_path / "in", (work / "photos" / "day0" / "000.jpg").read_bytes()
    for name in (b"caf\xe9.jpg", b"two\nlines.JPG", "größe.jpeg".encode()):
        path = os.path.join(os.fsencode(folder), b"sub", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f: f.write(photo)
    (folder / "sub" / "round").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    for _ in range(2): done = segment_folder(folder, folder / "out", work / "bundle", workers=1)
    assert (done.counts.inputs, done.counts.failed, done.before.inputs) == (4, 1, 4)
    names = {Path(r["image"]).name: r["status"] for r in rows(folder / "out")}
    assert names == {"gone.jpg": "failed", "caf\\xe9.jpg": "ok", "two\nlines.JPG": "ok", "größe.jpeg": "ok"}
    assert all((folder / "out" / r["mask"]).is_file() for r in rows(folder / "out") if r["mask"])


def test_a_swapped_bundle_is_refused(work, tmp_path):
    make_plan(work / "photos", tmp_path / "out", Bundle.load(work / "bundle"))
    with pytest.raises(ValueError, match="differs in bundle"):
        make_plan(work / "photos", tmp_path / "out", Bundle.shipped())


def test_shards_of_another_batch_are_refused(work, tmp_path):
    segment_folder(work / "photos" / "day0", tmp_path / "a", work / "bundle", workers=1)
    make_plan(work / "photos" / "day2", tmp_path / "b", Bundle.load(work / "bundle"))
    (tmp_path / "a" / "results").rename(tmp_path / "b" / "results")
    with pytest.raises(ValueError, match="belongs to another batch"):
        segment_folder(work / "photos" / "day2", tmp_path / "b", work / "bundle", workers=1)


def test_parquet_table_and_millimetres(work, tmp_path):
    "A table's relative names start at its folder; a DICOM header's spacing reaches the rows."
    pytest.importorskip("pydicom")
    import pyarrow as pa

    from lesion_seg.dicom_seg import photo_to_dicom
    photo_to_dicom(make_phantom(3, (48, 64)).image, tmp_path / "x.dcm", spacing=(0.1, 0.2))
    pq.write_table(
        pa.table({"image": ["x.dcm", str(work / "photos" / "day0" / "000.jpg")]}), tmp_path / "table.parquet"
    )
    segment_folder(
        tmp_path / "table.parquet", tmp_path / "out", work / "bundle", masks="none", workers=1, threshold=0.3
    )
    dicom, jpeg = rows(tmp_path / "out")
    assert (
        dicom["spacing_mm"] == [0.1, 0.2]
        and dicom["area_mm2"] == pytest.approx(dicom["area_px"] * 0.02)
        and dicom["area_px"] > 0
    )
    assert jpeg["spacing_mm"] is None and jpeg["area_mm2"] is None and dicom["mask"] is None


def test_run_lengths_are_coco(work):
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (7, 1), (33, 21)):
        for p in (0, 0.1, 0.5, 1):
            mask = rng.random(shape) < p
            theirs = coco.frPyObjects(dict(counts=encode_rle(mask).tolist(), size=list(shape)), *shape)
            assert np.array_equal(coco.decode(theirs).astype(bool), mask) and np.array_equal(
                decode_rle(encode_rle(mask), shape), mask
            )


@pytest.mark.slow
def test_ray_gives_the_same_rows(work, tmp_path):
    pytest.importorskip("ray")
    done = segment_folder(work / "photos", tmp_path / "ray", work / "bundle", shard_size=4, workers=2, ray=True)
    segment_folder(work / "photos", tmp_path / "here", work / "bundle", shard_size=4, workers=1)
    assert (done.counts.inputs, done.counts.failed) == (N, 1) and rows(tmp_path / "ray") == rows(tmp_path / "here")
    check_whole(work, tmp_path / "ray")


def test_a_damaged_list_of_inputs_is_written_again(tmp_path, work):
    photos = tmp_path / 'photos'
    photos.mkdir()
    for i in range(3): Image.fromarray(make_phantom(i, 32).image).save(photos / f'{i}.png')
    out = tmp_path / 'out'
    def go(): return segment_folder(photos, out, work / "bundle", masks='none', shard_size=1, workers=1)
    go()
    whole = (out / 'inputs.jsonl').read_bytes()
    (out / 'results' / '000001.parquet').unlink()
    for damaged in (b'', whole[:-9], b'[' * 100_000, whole.replace(b'1.png', b'7.png')):
        (out / 'inputs.jsonl').write_bytes(damaged)
        (out / 'results' / '000001.parquet').unlink(missing_ok=True)
        assert go().counts.inputs == 3 and (out / 'inputs.jsonl').read_bytes() == whole
    (out / 'results' / '000001.parquet').write_bytes(b'PAR1')
    with pytest.raises(InputError, match=r'000001.parquet: is damaged \(no whole Parquet file\)'): go()


def test_jobs_of_a_scheduler_share_evenly(work, tmp_path):
    "150 photographs on two jobs were 150 and 0."
    links = tmp_path / "photos"
    links.mkdir()
    for i in range(30): (links / f"{i:02}.jpg").symlink_to(work / "photos" / "day0" / "000.jpg")
    done = [
        segment_folder(links, tmp_path / "out", work / "bundle", masks="none", workers=1, shard=f"{i}/2")
        for i in (1, 2)
    ]
    assert [d.counts.inputs for d in done] == [15, 15]
    whole = segment_folder(links, tmp_path / "out", work / "bundle", masks="none", workers=1)
    assert (whole.counts.inputs, whole.before.inputs, len(rows(tmp_path / "out"))) == (30, 30, 30)
    for n, parts in ((150, 2), (150, 7), (5000, 3), (1, 4)):
        size = even_size(n, parts)
        shards = [min(size, n - at) for at in range(0, n, size)]
        jobs = [sum(shards[k::parts]) for k in range(parts)]
        assert sum(jobs) == n and max(jobs) - min(jobs) <= size <= 256


def test_folders_behind_links_are_entered_once(work, tmp_path):
    "As data version control and clusters keep them; a link that goes round is no trap."
    (tmp_path / "store").mkdir()
    for i in range(3):
        (tmp_path / "store" / f"{i}.jpg").write_bytes((work / "photos" / "day0" / "000.jpg").read_bytes())
    (tmp_path / "in").mkdir()
    for name in ("a", "b"): (tmp_path / "in" / name).symlink_to(tmp_path / "store")
    (tmp_path / "store" / "round").symlink_to(tmp_path / "in")
    names = [os.path.relpath(p, tmp_path / "in") for p in list_inputs(tmp_path / "in")]
    assert names == ["a/0.jpg", "a/1.jpg", "a/2.jpg"]
    assert [os.path.relpath(p, tmp_path / "in") for p in list_inputs(f"{tmp_path}/in/**/*.jpg")] == names


def test_files_that_are_not_photographs_are_counted(work, tmp_path):
    from collections import Counter
    (tmp_path / "deep").mkdir()
    for name in ("a.txt", "deep/b.txt", "deep/c.mov", "deep/d"): (tmp_path / name).write_text("no picture")
    for name in ("x.jpg", "deep/x_mask.png", "deep/x.jpg"):
        (tmp_path / name).write_bytes((work / "photos" / "day0" / "000.jpg").read_bytes())
    os.mkfifo(tmp_path / "deep" / "pipe.png")
    seen = Counter()
    assert [Path(p).name for p in list_inputs(tmp_path, passed_over=seen)] == ["x.jpg", "x.jpg"]
    assert seen == {".txt": 2, ".mov": 1, "without a suffix": 1, ".png": 2}
    for _ in range(2):
        done = segment_folder(tmp_path, tmp_path / "out", work / "bundle", masks="none", workers=1)
        assert done.passed_over == "6 files passed over: 2 .txt, 2 .png, 1 .mov, 1 without a suffix"


HANG = """
import time, lesion_seg.predict as p
read = p.prepare_input
def slow(src, side):
    while 'hang' in str(src): time.sleep(1)
    return read(src, side)
p.prepare_input = slow
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_takes_for_ever_costs_one_row(workers, work, tmp_path):
    "Its process is ended, the shard begun again one by one, and the rest of it is done."
    (tmp_path / "photos").mkdir()
    for i in range(10):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes((work / "photos" / "day0" / "000.jpg").read_bytes())
    (tmp_path / "photos" / "4hang.jpg").write_bytes((work / "photos" / "day0" / "000.jpg").read_bytes())
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HANG)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [
        sys.executable,
        "-m",
        "lesion_seg",
        "segment",
        "photos",
        "-b",
        work / "bundle",
        "-o",
        "out",
        "--batch",
        "--workers",
        workers,
        "--masks",
        "none",
        "--set",
        "batch.shard_size=6",
        "--set",
        "batch.batch_size=2",
        "--set",
        "batch.time_limit=4",
    ]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    got = {Path(r["image"]).name: r for r in rows(tmp_path / "out")}
    assert len(got) == 11 and [n for n, r in got.items() if r["status"] == "failed"] == ["4hang.jpg"]
    assert got["4hang.jpg"]["reason"] == "photos/4hang.jpg: took longer than 4 seconds; look at it by itself"
    assert not list((tmp_path / "out").rglob("*.slow"))
