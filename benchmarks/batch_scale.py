"""How time and memory of a batch grow with its length: hard links to phantoms and a tiny network, so that the batch itself is measured; and Ray's workers.

    python benchmarks/batch_scale.py 100000                  # local processes: benchmarks/results/batch_scale.json
    python benchmarks/batch_scale.py 600 --ray               # the shipped network on Ray Data, one and two workers: benchmarks/results/batch_ray.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent / "results"
IN_FOLDER = 1000  # inputs


def save_tiny(folder: Path) -> None:
    "A tiny exported U-Net, so that files and shards are what takes time."
    import torch

    from lesion_seg.bundle import save_bundle
    from lesion_seg.onnx import export_onnx
    from lesion_seg.unet import UNet
    torch.manual_seed(0)
    save_bundle(folder, UNet(channels=(4, 8), bottleneck=16), size=32)
    export_onnx(folder, opset=17)


def make_bundle(folder: Path) -> Path:
    "The bundle, made by another process: torch shall not stay in the memory that is measured."
    maker = get_context("spawn").Process(target=save_tiny, args=(folder,))
    maker.start()
    maker.join()
    return folder


def make_inputs(folder: Path, n: int, phantoms: int = 64) -> Path:
    "`n` hard links to phantoms of 128 x 128 pixels, a thousand in a folder."
    from PIL import Image

    from lesion_seg.phantom import make_phantom
    originals = []
    for i in range(phantoms):
        originals.append(folder / "originals" / f"{i}.jpg")
        originals[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_phantom(i, 128).image).save(originals[-1], quality=90)
    for i in range(n):
        link = folder / "photos" / f"{i // IN_FOLDER:05}" / f"{i % IN_FOLDER:04}.jpg"
        if i % IN_FOLDER == 0: link.parent.mkdir(parents=True)
        os.link(originals[i % phantoms], link)
    return folder / "photos"


def memory(pid: int) -> float:
    "Memory of a process that is its own (not files that it shares with others), MB."
    return int(Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()[0]) / 1000


def cpu(pid: int) -> float:
    "Seconds of processor time of a process."
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family() -> list[int]:
    "This process and its workers."
    from multiprocessing import active_children
    return [os.getpid(), *(c.pid for c in active_children() if c.pid)]


def r_squared(x: np.ndarray, y: np.ndarray) -> float:
    "Share of the variance of y that a straight line explains."
    rest = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(1 - rest.var() / y.var())


def scale(folder: Path, n: int, workers: int) -> dict:
    "One batch, with a sample of time and memory about every thousand inputs."
    from lesion_seg.batch import segment_folder
    bundle, photos, samples = make_bundle(folder / "bundle"), make_inputs(folder, n), []
    begin = time.perf_counter()

    def report(done: int, total: int) -> None:
        if samples and done - samples[-1]["inputs"] < 1000 and done < total: return
        mb = [memory(p) for p in family()]
        samples.append(dict(inputs=done, seconds=time.perf_counter() - begin, cpu=sum(map(cpu, family())), mb=sum(mb), parent_mb=mb[0]))
        print(json.dumps(samples[-1]), flush=True)

    result = segment_folder(photos, folder / "out", bundle, masks="rle", workers=workers, report=report)
    later = [s for s in samples if s["inputs"] >= 1000 and s["inputs"] < n]  # the last sample sees workers that have left
    x = np.array([s["inputs"] for s in later], float)
    return dict(inputs=result.counts.inputs, failed=result.counts.failed, workers=workers, seconds=result.seconds,
                planning_seconds=samples[0]["seconds"], r2_wall=r_squared(x, np.array([s["seconds"] for s in later])),
                r2_cpu=r_squared(x, np.array([s["cpu"] for s in later])), cpu_ms_per_input=1000 * later[-1]["cpu"] / later[-1]["inputs"],
                mb_at_1000=later[0]["mb"], mb_largest_after=max(s["mb"] for s in later), mb_at_end=later[-1]["mb"],
                samples=later[::max(1, len(later) // 25)])


def ray_speed(folder: Path, n: int) -> dict:
    "A batch with the shipped network through Ray with one worker and with two, in turn, and the ratio of the medians."
    import ray

    from lesion_seg.batch import segment_folder
    photos, seconds = make_inputs(folder, n), {1: [], 2: []}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    for turn in range(3):
        for workers in (1, 2) if turn % 2 else (2, 1):
            done = segment_folder(photos, folder / f"out{turn}_{workers}", masks="rle", shard_size=max(1, n // 16), workers=workers, ray=True)
            assert done.counts.inputs == n and not done.counts.failed
            if turn: seconds[workers].append(done.seconds)  # the first turn warms the disk and Ray
            print(workers, done.seconds, flush=True)
    return dict(inputs=n, ray=ray.__version__, seconds={str(k): v for k, v in seconds.items()}, ratio=float(np.median(seconds[1]) / np.median(seconds[2])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int, nargs="?", default=100_000)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    from lesion_seg.bundle import code_commit
    facts = dict(command=f"python benchmarks/batch_scale.py {args.n}{' --ray' if args.ray else ''}", commit=code_commit(), cores=os.cpu_count(),
                 machine=platform.machine(), load_before=os.getloadavg()[0])
    with tempfile.TemporaryDirectory() as tmp: found = ray_speed(Path(tmp), args.n) if args.ray else scale(Path(tmp), args.n, args.workers)
    path = OUT / ("batch_ray.json" if args.ray else "batch_scale.json")
    path.write_text(json.dumps(facts | dict(load_after=os.getloadavg()[0]) | found, indent=1) + "\n")
    print(path.read_text()[:1500])


if __name__ == "__main__": main()
