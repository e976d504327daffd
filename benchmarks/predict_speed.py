"""From a file to a mask: python benchmarks/predict_speed.py [--bundle FOLDER] [--rounds 15] [--megapixels 6]

Four questions, each with medians of alternating runs beside `bare_script.py`, the script that a person would write with Pillow and onnxruntime:
a whole cold process for a large JPEG, with its memory; the same warm; where the warm time goes; and a folder of photographs with one core and with all.
The photograph is synthetic, 3:2, quality 92. Writes benchmarks/results/predict_speed.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import bare_script
import numpy as np
from PIL import Image

from lesion_seg.benchmark import processor, spread
from lesion_seg.bundle import ONNX, ONNX_INT8, SHIPPED, Bundle, code_commit, versions
from lesion_seg.data import image_size, read_image, resize_image
from lesion_seg.core import cores
from lesion_seg.onnx import open_session
from lesion_seg.phantom import write_phantoms
from lesion_seg.predict import KINDS, Segmenter

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "predict_speed.json"
# A process of some megabytes starts the command, since the memory of whoever starts it would count.
LAUNCHER = """import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6, usage.ru_utime + usage.ru_stime, status]))"""
FOLDER = """import sys, time
from pathlib import Path
from lesion_seg.predict import Segmenter
segmenter, files = Segmenter(sys.argv[1], threads=int(sys.argv[2])), sorted(Path(sys.argv[3]).glob('*.jpg'))[int(sys.argv[4])::int(sys.argv[5])]
for found in segmenter.predict_many(files[:2]): found.save(sys.argv[6], kinds='mask')
print('ready', flush=True)
sys.stdin.readline()
for found in segmenter.predict_many(files, workers=int(sys.argv[2])): found.save(sys.argv[6], kinds='mask')"""


def photograph(path: Path, megapixels: float) -> tuple[int, int]:
    "A 3:2 JPEG of quality 92 with a dark disc, coarse and fine texture; returns (H, W)."
    h = round((megapixels * 1e6 / 1.5) ** .5)
    w, rng = round(1.5 * h), np.random.default_rng(0)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    spot = 1 / (1 + np.exp((np.hypot(y - h / 2, x - w / 2) - .31 * h) / 20))
    coarse = np.asarray(Image.fromarray(rng.normal(0, 12, (h // 8, w // 8)).astype(np.float32)).resize((w, h), Image.Resampling.BICUBIC))
    img = np.array([225, 180, 155]) - spot[..., None] * np.array([110, 110, 100]) + (coarse + rng.normal(0, 3, (h, w)))[..., None]
    Image.fromarray(img.clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return h, w


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    "Seconds of each way, in turns, after one turn that does not count."
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if i: seconds[name].append(time.perf_counter() - start)
    return seconds


def cold(bundle: Bundle, photo: Path, tmp: Path, rounds: int) -> dict:
    "A whole process each time."
    segment = [sys.executable, "-m", "lesion_seg.cli", "segment", str(photo), "-b", str(bundle.path), "-o", str(tmp / "cold")]
    commands = {"lesion_seg segment": segment, "lesion_seg segment, mask alone": [*segment, "--save", "mask"],
                "bare script": [sys.executable, str(HERE / "bare_script.py"), str(bundle.file(ONNX)), str(bundle.size), str(photo), str(tmp / "bare.png")]}
    found: dict[str, list] = {name: [] for name in commands}
    for i in range(rounds + 1):
        for name, command in commands.items():
            got = json.loads(subprocess.run([sys.executable, "-c", LAUNCHER, *command], capture_output=True, text=True, check=True).stdout)
            if got[3]: raise SystemExit(f"{name} failed with {got[3]}")
            if i: found[name].append(got)
    return {n: dict(milliseconds=spread(g[0] for g in v), memory_mb=round(max(g[1] for g in v), 1), cpu_ms=round(statistics.median(g[2] for g in v) * 1e3))
            for n, v in found.items()}


def warm(bundle: Bundle, photo: Path, tmp: Path, rounds: int) -> dict:
    "The same in a process that is up."
    session, segmenter, out = open_session(bundle.file(ONNX)), Segmenter(bundle), str(tmp / "bare.png")
    ways: dict[str, Callable[[], object]] = {
        "lesion_seg": lambda: segmenter(photo).save(tmp, kinds="mask"),
        "bare script": lambda: bare_script.segment(session, bundle.size, str(photo), out),
        "bare script with draft": lambda: bare_script.segment(session, bundle.size, str(photo), out, draft=True)}
    if ONNX_INT8 in bundle.info["onnx"]["sha256"]:
        quick = Segmenter(bundle, precision="int8")
        ways["lesion_seg, int8"] = lambda: quick(photo).save(tmp, kinds="mask")
    return {n: spread(s) for n, s in alternate(ways, rounds).items()}


def steps(bundle: Bundle, photo: Path, tmp: Path, rounds: int) -> dict:
    "Where the warm time goes, and what further outputs cost; medians, milliseconds."
    segmenter = Segmenter(bundle)
    pixels, base = read_image(photo, bundle.size), segmenter(photo)
    small, png = resize_image(pixels, bundle.size), base.mask.view(np.uint8) * np.uint8(255)
    def again(**options): return segmenter.predict(small, **options)
    ways = {"header": lambda: image_size(photo), "decode": lambda: read_image(photo, bundle.size), "resize": lambda: resize_image(pixels, bundle.size),
            "network": lambda: segmenter.backend.probabilities(small[None]), "mask": lambda: base.with_threshold(bundle.threshold).mask,
            "png": lambda: base.save(tmp, kinds="mask"), "png by Pillow": lambda: Image.fromarray(png).save(tmp / "pillow.png"),
            "tta": lambda: again(tta=True), "polygons": lambda: base.with_threshold(bundle.threshold).polygons, "preview": lambda: base.preview(),
            **{f"save {k}": (lambda k=k: base.with_threshold(bundle.threshold).save(tmp, kinds=k)) for k in KINDS if k != "mask"}}
    return {n: spread(s)["median"] for n, s in alternate(ways, max(5, rounds // 2)).items()}


def rate(bundle: Bundle, folder: Path, out: Path, processes: int, threads: int) -> float:
    "Images per second of a folder, files to saved masks, on `processes * threads` cores."
    pinned = set(sorted(os.sched_getaffinity(0))[:processes * threads])
    def pin() -> None: os.sched_setaffinity(0, pinned)
    command = [sys.executable, "-c", FOLDER, str(bundle.path), str(threads), str(folder)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pin)
    started = [subprocess.Popen([*command, str(i), str(processes), str(out)], **pipes) for i in range(processes)]
    for p in started: p.stdout.readline()
    start = time.perf_counter()
    for p in started:
        p.stdin.write("\n")
        p.stdin.flush()
    for p in started: p.communicate()
    return len(list(folder.glob("*.jpg"))) / (time.perf_counter() - start)


def folders(bundle: Bundle, tmp: Path, rounds: int) -> dict:
    "Throughput, and what a second core brings: as threads of one process, and as a process each."
    write_phantoms(tmp / "small", n=160, size=256)
    (tmp / "large").mkdir()
    photograph(tmp / "large" / "0.jpg", 6)
    for i in range(1, 24): os.link(tmp / "large" / "0.jpg", tmp / "large" / f"{i}.jpg")
    ways, n = {"one core": (1, 1), "all cores, threads": (1, cores()), "all cores, processes": (cores(), 1)}, cores()
    found = {}
    for name, folder in {"256 x 256": tmp / "small" / "images", "6 megapixels": tmp / "large"}.items():
        runs: dict[str, list[float]] = {w: [] for w in ways}
        for _ in range(max(1, rounds // 7)):
            for w, (processes, threads) in ways.items(): runs[w].append(rate(bundle, folder, tmp / "masks", processes, threads))
        per_second = {w: round(statistics.median(r), 1) for w, r in runs.items()}
        found[name] = dict(images_per_second=per_second, cores=n, scaling={w: round(r / per_second["one core"], 2) for w, r in per_second.items()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--megapixels", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    found: dict = dict(command=f"python benchmarks/predict_speed.py --rounds {args.rounds}", commit=code_commit(), versions=versions(), processor=processor(),
                       cores=cores(), weights_sha256=bundle.info["weights_sha256"], rounds=args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        tmp, photo = Path(folder), Path(folder) / "photo.jpg"
        found["size"] = list(photograph(photo, args.megapixels))
        for question in (cold, warm, steps):
            found[question.__name__] = question(bundle, photo, tmp, args.rounds)
            print(question.__name__, json.dumps(found[question.__name__], indent=1), flush=True)
        found["folders"] = folders(bundle, tmp, args.rounds)
        print("folders", json.dumps(found["folders"], indent=1))
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__": main()
