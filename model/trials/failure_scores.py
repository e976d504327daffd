"""Do other views of a photograph betray a failure better than the square's eight symmetries?

    python model/trials/failure_scores.py --manifest runs/weights/manifest.csv --trial BUNDLE SOURCE ... [-o runs/doubts]

Each photograph is seen in 22 ways: the symmetries, four magnifications, a turn by 45 degrees, eight changes of light and colour, a blur. A group of
views gives two scores: their disagreement (1 - mean pairwise Dice) and the Jaccard index that their mean map expects of its own mask, from 1. `learned`
is a regression over all of them on every set but the one that it is asked about, and never on the validation set. Each --trial is a bundle of
model/trials/trials.py and the source that it has never seen. Maps are kept in the folder -o, so that a second run only reads them.
Writes model/trials/results/failure_scores.json: AUROC for a Jaccard index below 0.65, and the share of the failures among the 20 % most doubtful.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from trials import held_out

from lesion_seg.bundle import Bundle, code_commit, default_channel
from lesion_seg.data import read_image, read_mask, resize_image
from lesion_seg.manifest import Manifest
from lesion_seg.mc_dropout import pairwise_dice
from lesion_seg.predict import Segmentation, Segmenter
from lesion_seg.reliability import auroc

RESULT = Path(__file__).resolve().parent / "results" / "failure_scores.json"
SKIN = np.array([190, 150, 140])  # a usual mean colour


def warped(zoom: float, angle: float) -> Callable[[np.ndarray], np.ndarray]:
    "Magnify and turn about the middle, mirrored at the frame."
    def warp(a):
        n = len(a)
        return cv2.warpAffine(a, cv2.getRotationMatrix2D(((n - 1) / 2, (n - 1) / 2), angle, zoom), (n, n), borderMode=cv2.BORDER_REFLECT)
    return warp


def byte(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    "A change of colours, rounded and cut to 0 to 255."
    return lambda x: np.clip(change(x.astype(float)), 0, 255).round().astype(np.uint8)


def shades_of_gray(x: np.ndarray) -> np.ndarray:
    light = (x**6).mean((0, 1)) ** (1 / 6)
    return x * (np.linalg.norm(light) / np.sqrt(3) / light)


def same(a): return a

# name: (what happens to the photograph, what brings its map back)
VIEWS: dict[str, tuple[Callable, Callable]] = {
    "plain": (same, same), "h": (lambda x: x[:, ::-1],) * 2, "v": (lambda x: x[::-1],) * 2, "r2": (lambda x: x[::-1, ::-1],) * 2,
    "t": (lambda x: x.swapaxes(0, 1),) * 2, "r1": (np.rot90, lambda p: np.rot90(p, -1)), "r3": (lambda x: np.rot90(x, -1), np.rot90),
    "at": (lambda x: np.rot90(x, 2).swapaxes(0, 1), lambda p: np.rot90(p.T, 2)),
    **{f"zoom {z}": (warped(z, 0), warped(1 / z, 0)) for z in (0.75, 0.85, 1.2, 1.4)}, "turn 45": (warped(1, 45), warped(1, -45)),
    "brighter": (byte(lambda x: 255 * (x / 255) ** 0.7), same), "darker": (byte(lambda x: 255 * (x / 255) ** 1.4), same),
    "warm": (byte(lambda x: x * [1.1, 1, 0.85]), same), "cool": (byte(lambda x: x * [0.88, 1, 1.15]), same),
    "shades of gray": (byte(shades_of_gray), same), "white balance": (byte(lambda x: x * (SKIN / x.mean((0, 1)))), same),
    "blur": (lambda x: cv2.GaussianBlur(x, (0, 0), 1.5), same), "flat": (byte(lambda x: (x - x.mean((0, 1))) * 0.7 + x.mean((0, 1))), same),
    "gray": (byte(lambda x: np.repeat(x.mean(2, keepdims=True), 3, 2)), same),
}
NAMES = list(VIEWS)
LIGHT = ["brighter", "darker", "warm", "cool", "shades of gray", "white balance", "flat", "gray"]
GROUPS = {"symmetries": NAMES[:8], "magnifications": ["plain", *NAMES[8:12]], "light and colour": ["plain", *LIGHT], "blur": ["plain", "blur"],
          "turn by 45 degrees": ["plain", "turn 45"], "one of each": ["plain", "h", "r1", "zoom 0.75", "zoom 1.2", "brighter", "gray", "white balance"],
          "all views": NAMES}


def maps_of(bundle: Bundle, manifest: Manifest) -> np.ndarray:
    "uint8 (photographs, views, S, S): every map, brought back, 255 for probability 1."
    segmenter, found = Segmenter(bundle), []
    for pair in manifest:
        x = resize_image(read_image(pair.image), bundle.size)
        batch = np.stack([np.ascontiguousarray(there(x)) for there, _ in VIEWS.values()])
        maps = default_channel(segmenter.backend.probabilities(batch))[:, 0]
        found.append([(255 * np.ascontiguousarray(back(p))).round().astype(np.uint8) for (_, back), p in zip(VIEWS.values(), maps, strict=True)])
    return np.array(found)


def kept(path: Path, bundle: Bundle, manifest: Manifest) -> np.ndarray:
    "`maps_of`, from the file where there is one."
    if not path.exists(): np.save(path, maps_of(bundle, manifest))
    return np.load(path, mmap_mode="r")


def scores(maps: np.ndarray, threshold: float) -> dict[str, float]:
    "Both scores of each group for one photograph."
    found = {}
    for name, views in GROUPS.items():
        p = maps[[NAMES.index(v) for v in views]] / np.float32(255)
        mean = p.mean(0)
        inside = mean >= threshold
        found[f"{name}: disagreement"] = 1 - pairwise_dice(p >= threshold)
        found[f"{name}: expected"] = 1 - float(mean[inside].sum() / max(inside.sum() + mean[~inside].sum(), 1e-3))
    return found


def jaccard(p: np.ndarray, truth: np.ndarray, bundle: Bundle) -> float:
    mask = Segmentation(p / np.float32(255), truth.shape, bundle.threshold, largest=bundle.largest).mask
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))


def caught(doubt: np.ndarray, failed: np.ndarray) -> float:
    "Share of the failures among the 20 % most doubtful."
    most = np.argsort(-doubt, kind="stable")[:int(np.ceil(0.2 * len(doubt)))]
    return float(failed[most].sum() / failed.sum())


def learned(sets: dict[str, dict], name: str) -> np.ndarray:
    "Doubt of set `name` by a ridge regression of 1 - J on the logarithms of all scores of the other sets, validation never among them."
    def table(s): return np.log(np.column_stack(list(s["scores"].values())) + 1e-3)
    rest = [s for k, s in sets.items() if k not in (name, "validation")]
    fit = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 17)))
    return fit.fit(np.concatenate([table(s) for s in rest]), np.minimum(1 - np.concatenate([s["j"] for s in rest]), 0.6)).predict(table(sets[name]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--trial", nargs=2, metavar=("BUNDLE", "SOURCE"), action="append", required=True)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/doubts"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    manifest, shipped = Manifest.load(args.manifest), Bundle.shipped()
    asked = {f"unseen {s}": (Bundle.load(b), held_out(manifest, s).subset("test")) for b, s in args.trial}
    asked |= dict(selection=(shipped, manifest.subset("valid")), validation=(shipped, manifest.subset("test")))
    sets = {}
    for name, (bundle, part) in asked.items():
        maps = kept(args.out / f"{name.replace(' ', '-')}.npy", bundle, part)
        rows = [scores(m, bundle.threshold) for m in maps]
        sets[name] = dict(j=np.array([jaccard(m[0], read_mask(p.mask), bundle) for m, p in zip(maps, part, strict=True)]),
                          scores={k: np.array([r[k] for r in rows]) for k in rows[0]})
    result = dict(command="python model/trials/failure_scores.py --manifest runs/weights/manifest.csv --trial BUNDLE SOURCE ...", commit=code_commit(),
                  weights_sha256=shipped.info["weights_sha256"], sets={}, scores={})
    for name, s in sets.items():
        failed = s["j"] < 0.65
        result["sets"][name] = dict(n=len(failed), failed=int(failed.sum()))
        for k, doubt in (s["scores"] | dict(learned=learned(sets, name))).items():
            result["scores"].setdefault(k, {})[name] = dict(auroc=auroc(doubt, failed), caught=caught(doubt, failed))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for k, v in result["scores"].items(): print(f"{k:34s}", *(f"{n} {r['auroc']:.3f} {r['caught']:.2f} " for n, r in v.items()))


if __name__ == "__main__": main()
