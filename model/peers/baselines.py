"""What does learning buy? Classic methods that need no training, beside the shipped model: python model/peers/baselines.py DATA [-o runs/peers]

DATA holds isic2017/ (256x256 photographs, masks, splits.csv, near_duplicates.csv). Each method writes a folder of masks for the official validation
set, as a stranger would, and `lesion_seg evaluate --masks` scores it; `lesion_seg compare` sets all of them beside the shipped model. What the methods
leave open (channel, start) is chosen on official training photographs: 200 for Otsu's method, 50 for the slow ones. One process, no GPU; masks that are there already are kept. Needs scikit-image (`pip install 'lesion_seg[bench]'`). Writes model/results/baselines.json and the table of model/peers/README.md.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import chan_vese

from lesion_seg.bundle import code_commit
from lesion_seg.core import atomic_path, encode_png, read_rows
from lesion_seg.data import read_image, read_mask
from lesion_seg.manifest import LesionPair, Manifest
from lesion_seg.metrics import jaccard

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "model" / "results" / "baselines.json"
README = Path(__file__).resolve().parent / "README.md"
CHANNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "red": lambda im: im[..., 0],
    "green": lambda im: im[..., 1],
    "blue": lambda im: im[..., 2],
    "grey": lambda im: cv2.cvtColor(im, cv2.COLOR_RGB2GRAY),
    "lightness (CIELAB)": lambda im: cv2.cvtColor(im, cv2.COLOR_RGB2LAB)[..., 0],
}


def largest(mask: np.ndarray) -> np.ndarray:
    "The largest region that does not lie in a corner, where a dermatoscope is dark, without holes; every method here gets this help."
    parts, n = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)
    sizes[0] = 0
    middle = sizes.copy()
    middle[parts[[0, 0, -1, -1], [0, -1, 0, -1]]] = 0
    if not sizes.any(): return mask
    return ndimage.binary_fill_holes(parts == np.argmax(middle if middle.any() else sizes))


def smooth(image: np.ndarray, channel: str) -> np.ndarray:
    "One channel without hairs of a pixel or two, float in [0, 1]."
    return cv2.GaussianBlur(cv2.medianBlur(np.ascontiguousarray(CHANNELS[channel](image)), 5), (0, 0), 2).astype(np.float32) / 255


def otsu(image: np.ndarray, channel: str = "blue") -> np.ndarray:
    "What is darker than Otsu's threshold (1979)."
    values = smooth(image, channel)
    return largest(values < threshold_otsu(values))


def grabcut(image: np.ndarray, channel: str = "blue", start: str = "otsu") -> np.ndarray:
    "GrabCut (Rother 2004), five rounds, from Otsu's answer, with or without a frame of a twentieth that is skin for certain."
    seed = otsu(image, channel)
    labels = np.where(seed, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    if start == "otsu and frame":
        h, w = seed.shape
        inside = np.zeros_like(seed)
        inside[h // 20:h - h // 20, w // 20:w - w // 20] = True
        labels[~inside] = cv2.GC_BGD
    if not (labels == cv2.GC_PR_FGD).any() or (labels == cv2.GC_PR_FGD).all(): return seed
    cv2.setRNGSeed(0)
    cv2.grabCut(np.ascontiguousarray(image[..., ::-1]), labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    return largest((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def active_contour(image: np.ndarray, channel: str = "blue", start: str = "checkerboard") -> np.ndarray:
    "Chan and Vese (2001) with at most 200 steps; the darker of its two parts."
    values = smooth(image, channel)
    part = chan_vese(values, mu=0.25, max_num_iter=200, init_level_set=start)
    if not part.any() or part.all(): return np.zeros_like(part)
    return largest(part if values[part].mean() < values[~part].mean() else ~part)


METHODS = {"otsu": otsu, "grabcut": grabcut, "chan_vese": active_contour}
CHOICES = {"otsu": [dict(channel=c) for c in CHANNELS], "grabcut": [dict(start=x) for x in ("otsu", "otsu and frame")],
           "chan_vese": [dict(start=x) for x in ("checkerboard", "disk", "small disk")]}


def pairs_of(data: Path, split: str) -> list[LesionPair]:
    "The photographs of an official split, without those that stand in the other one, too."
    rows = [r["image_id"] for r in read_rows(data / "splits.csv") if r["official_isic2017_split"] == split]
    twice = {r["image_a"] for r in read_rows(data / "near_duplicates.csv")} | {r["image_b"] for r in read_rows(data / "near_duplicates.csv")}
    kept = [i for i in rows if split != "train" or i not in twice]
    return [LesionPair(data / "images" / f"{i}.jpg", data / "masks" / f"{i}_segmentation.png", i, split="test") for i in kept]


def choose(pairs: list[LesionPair]) -> dict[str, dict]:
    "For each method the options with the best mean Jaccard index on training photographs, and what each of them reached."
    images, truths = [read_image(p.image) for p in pairs], [read_mask(p.mask) for p in pairs]
    found: dict[str, dict] = {}
    for name, method in METHODS.items():
        every = slice(None, None, 1 if name == "otsu" else 4)  # the others take long
        channel = found["otsu"]["options"] if found else {}
        options = [channel | o for o in CHOICES[name]]
        scores = [float(np.mean([jaccard(method(i, **o), t) for i, t in zip(images[every], truths[every], strict=True)])) for o in options]
        tried = [dict(options=o, jaccard=j) for o, j in zip(options, scores, strict=True)]
        found[name] = dict(options=options[int(np.argmax(scores))], tried=tried, n=len(images[every]))
        print(name, found[name], flush=True)
    return found


def write_masks(pairs: list[LesionPair], name: str, options: dict, folder: Path) -> float | None:
    "The masks of a method, and the seconds for each photograph; None where they are there already."
    todo = [p for p in pairs if not (folder / f"{p.id}.png").exists()]
    begin = time.perf_counter()
    for p in todo:
        mask = METHODS[name](read_image(p.image), **options)
        with atomic_path(folder / f"{p.id}.png") as tmp: tmp.write_bytes(encode_png(mask.astype(np.uint8) * 255))
    return (time.perf_counter() - begin) / len(todo) if len(todo) == len(pairs) else None


def lesion_seg(*args: str) -> dict:
    "What a command of the package answers."
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "lesion_seg.cli", *args, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def table(result: dict) -> str:
    "The table of the README."
    lines = ["| method | mean Jaccard | 95 % interval | mean Dice | pooled Jaccard | failures (J < 0.65) | shipped model better by |", "|---|---|---|---|---|---|---|"]
    gap = {p["b"]: p for p in result["comparison"]["pairs"] if p["a"] == "shipped"}
    for name, s in result["scores"].items():
        j = s["metrics"]["jaccard"]
        d = gap.get(name)
        against = f"{d['difference']:.3f} ({d['ci'][0]:.3f} to {d['ci'][1]:.3f}), p = {d['p_holm']:.1g}" if d else ""
        lines.append(f"| {name} | {j['mean']:.3f} | {j['ci'][0]:.3f} to {j['ci'][1]:.3f} | {s['metrics']['dice']['mean']:.3f} | "
                     f"{s['pooled']['jaccard']:.3f} | {s['failures']} of {s['n']} | {against} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--methods", default=",".join(METHODS), help="only these, with commas")
    args = parser.parse_args()
    data, out = args.data / "isic2017", args.out
    methods = args.methods.split(",")
    valid = pairs_of(data, "val")
    out.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(valid).save(out / "manifest.csv")
    chosen_file = out / "choices.json"
    if not chosen_file.exists(): chosen_file.write_text(json.dumps(choose(pairs_of(data, "train")[::9][:200]), indent=1))
    choices = json.loads(chosen_file.read_text())
    seconds, scores, commands = {}, {}, []
    for name in methods:
        seconds[name] = write_masks(valid, name, choices[name]["options"], out / name)
        print(name, "seconds a photograph", seconds[name], flush=True)
    for name in ("shipped", *methods):
        what = ["shipped", str(manifest)] if name == "shipped" else [str(manifest), "--masks", str(out / name)]
        commands.append(["evaluate", *what, "-o", str(out / f"{name}_scores"), "--distances"])
        scores[name] = lesion_seg(*commands[-1])
        print(name, scores[name]["metrics"]["jaccard"]["mean"], flush=True)
    commands.append(["compare", *(str(out / f"{name}_scores") for name in scores), "-o", str(out / "comparison")])
    comparison = lesion_seg(*commands[-1], "--name", ",".join(scores))
    known = json.loads(RESULT.read_text()).get("seconds", {}) if RESULT.exists() else {}
    shown = [" ".join(["lesion_seg", *c]).replace(str(out), "runs/peers") for c in commands]
    keep = ("n", "groups", "metrics", "pooled", "failures", "failure_rate", "failure_rate_ci", "empty_predictions")
    result = dict(command="python model/peers/baselines.py DATA -o runs/peers", size=256, n=len(valid), choices=choices, seconds={k: v or known.get(k) for k, v in seconds.items()}, commands=shown,
                  scores={k: {n: s[n] for n in keep} for k, s in scores.items()}, comparison={k: comparison[k] for k in ("pairs", "ranks", "metric", "level")},
                  commit=code_commit(), versions={p: version(p) for p in ("scikit-image", "opencv-python-headless", "lesion_seg")})
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    head, _, rest = README.read_text(encoding="utf-8").partition("| method | mean Jaccard |")
    README.write_text(head + table(result) + rest.partition("\n\n")[1] + rest.partition("\n\n")[2], encoding="utf-8")


if __name__ == "__main__": main()
