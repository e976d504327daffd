"""Trials for the shipped model: python model/trials/trials.py FOLDER NAME... [--hold 4288x2848] [--seed 1] [-o runs/trials]

FOLDER as for model/weights.py. Only the official training photographs are used. Each trial trains one variant of BASE on what is left when one source
(photographs of one original width x height: a camera, mostly a hospital) is held out, and is scored on the selection photographs of the
other sources and on the whole held-out source. `python model/trials/trials.py FOLDER all` runs every trial; a cut one is resumed.
Appends to model/trials/results/trials.json.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lesion_seg.bundle import Bundle, code_commit, save_bundle
from lesion_seg.data import read_image, read_mask, resize_image, resize_mask
from lesion_seg.evaluate import failure_rate
from lesion_seg.loss import BCELoss, DiceBCELoss, ImageLoss, SumLoss, TverskyLoss
from lesion_seg.manifest import LesionPair, Manifest
from lesion_seg.phantom import write_phantoms
from lesion_seg.report import evaluate_manifest
from lesion_seg.train import train_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where weights.py is
import more_epochs  # noqa: E402
import weights  # noqa: E402
from mean_weights import mean_weights  # noqa: E402

RESULT = Path(__file__).resolve().parent / "results" / "trials.json"
LEAN = dict(name="lesion_unet", encoder="tf_efficientnet_lite0", pretrained=True, decoder=[128, 64, 48, 24])
BASE = dict(model=LEAN, size=128, bs=16, epochs=8, augs="strong", lr=2e-3, schedule="one_cycle", encoder_lr=0.3, average=0.99)


class Bootstrapped(ImageLoss):
    "Half Dice, half cross-entropy towards 85 % truth and 15 % own opinion (arXiv:1412.6596), for doubtful masks."
    def per_image(self, logits: Tensor, target: Tensor) -> Tensor:
        mixed = 0.85 * target + 0.15 * logits.sigmoid().detach()
        return (DiceBCELoss(1, 0).per_image(logits, target) + BCELoss().per_image(logits, mixed)) / 2


TRIALS = dict(
    base={}, lite1=dict(encoder="tf_efficientnet_lite1"), lite2=dict(encoder="tf_efficientnet_lite2"), robust=dict(augs="robust"),
    robust_zoom=dict(augs=dict(preset="robust", scale=(0.5, 2.2))),
    reference=dict(augs="reference"),
    jaccard=dict(loss=SumLoss([TverskyLoss(1, 1), BCELoss()], [0.5, 0.5])),
    tversky=dict(loss=SumLoss([TverskyLoss(0.35, 0.65), BCELoss()], [0.5, 0.5])), cross_entropy=dict(loss=BCELoss()), bootstrapped=dict(loss=Bootstrapped()),
    dropout_03=dict(dropout=0.3), encoder_full_rate=dict(encoder_lr=1.0), encoder_tenth=dict(encoder_lr=0.1), no_average=dict(average=0.0),
    plateau=dict(schedule="plateau"),
    wide=dict(decoder=[256, 128, 64, 32]), narrow=dict(decoder=[96, 48, 24, 16]), fastai_decoder=dict(decoder=None), size_192=dict(size=192),
    shipped_zoom=dict(encoder="tf_efficientnet_lite2", augs=dict(preset="robust", scale=(0.5, 2.2)),
                      loss=SumLoss([TverskyLoss(1, 1), BCELoss()], [0.5, 0.5])),
    shipped_recipe=dict(encoder="tf_efficientnet_lite2", augs="robust", loss=SumLoss([TverskyLoss(1, 1), BCELoss()], [0.5, 0.5])),
)
SHIPPED = TRIALS["shipped_recipe"]
TRIALS |= dict(colour_constancy=SHIPPED | dict(prepare="shades_of_gray"), aspect=SHIPPED | dict(prepare="keep_aspect"),
               phantoms_first=SHIPPED | dict(phantoms=1600),
               both_shapes=SHIPPED | dict(prepare="keep_aspect", both_shapes=True, epochs=4),  # twice the photographs, half the epochs
               **{f"on_{size}": SHIPPED | dict(on="shipped_recipe", size=size, epochs=4, lr=1e-3) for size in (224, 256)})  # the trial's network goes on
ROUND = 2  # figures compare within a round only: the split lost near-duplicates after the first


def shades_of_gray(image: np.ndarray, mask: np.ndarray, pair: LesionPair) -> tuple[np.ndarray, np.ndarray]:
    "The light estimated as the 6-norm of each channel and divided out (Finlayson and Trezzi 2004)."
    light = np.power(image.astype(float), 6).mean((0, 1)) ** (1 / 6)
    return np.clip(image * (np.linalg.norm(light) / np.sqrt(3) / light), 0, 255).round().astype(np.uint8), mask


def keep_aspect(image: np.ndarray, mask: np.ndarray, pair: LesionPair) -> tuple[np.ndarray, np.ndarray]:
    "The photograph at its own ratio in the middle of a black square (the data folder holds it squashed)."
    w, h = (int(pair.meta[f"original_{k}"]) for k in ("width", "height"))
    size = tuple(round(256 * n / max(h, w)) for n in (h, w))
    before = [(256 - n) // 2 for n in size]
    around = [(b, 256 - n - b) for b, n in zip(before, size, strict=True)]
    return np.pad(resize_image(image, size), [*around, (0, 0)]), np.pad(resize_mask(mask, size), around)


PREPARE = dict(shades_of_gray=shades_of_gray, keep_aspect=keep_aspect)

def prepared(manifest: Manifest, how: str, folder: Path) -> Manifest:
    "The same photographs and masks, each pair changed by `PREPARE[how]` and written as PNG."
    def one(pair):
        image, mask = folder / "images" / f"{pair.id}.png", folder / "masks" / f"{pair.id}.png"
        if not mask.exists():
            new = PREPARE[how](read_image(pair.image), read_mask(pair.mask), pair)
            Image.fromarray(new[0]).save(image)
            Image.fromarray(new[1].astype(np.uint8) * 255).save(mask)
        return replace(pair, image=image, mask=mask)
    for name in ("images", "masks"): (folder / name).mkdir(parents=True, exist_ok=True)
    return Manifest([one(p) for p in manifest])


def on_phantoms(n: int, plan: dict, seed: int, folder: Path) -> Bundle:
    "A network trained on `n` phantoms, with 100 more to watch."
    pairs = write_phantoms(folder / "phantoms", n + 100, size=plan["size"], seed=seed)
    seen = Manifest([replace(p, split="train" if i < n else "valid") for i, p in enumerate(pairs)])
    return train_model(seen, folder / "run", **plan, seed=seed, progress=False, licence="CC0-1.0")


def settings(name: str) -> dict:
    "Arguments of `train`: BASE with what the trial changes."
    change = TRIALS[name]
    inner = {k: v for k, v in change.items() if k in ("encoder", "decoder", "dropout")}
    return BASE | {k: v for k, v in change.items() if k not in (*inner, "prepare", "phantoms", "both_shapes", "on")} | dict(model=LEAN | inner)


def held_out(manifest: Manifest, source: str) -> Manifest:
    "Training and selection without one source; all of that source as 'test'."
    def place(p): return "test" if f"{p.meta['original_width']}x{p.meta['original_height']}" == source else p.split
    return Manifest([replace(p, split=place(p)) for p in manifest if p.split != "test"])


def scores(bundle, manifest: Manifest, tta: bool = False) -> dict:
    "Mean Jaccard and failures."
    j = evaluate_manifest(bundle, manifest, tta=tta).jaccard.to_numpy()
    return dict(n=len(j), jaccard=float(j.mean()), std_error=float(j.std(ddof=1) / np.sqrt(len(j))), failure_rate=failure_rate(j))


def at_home_and_abroad(bundle: Bundle, parts: Manifest, suffix: str = "", tta: bool = False) -> dict:
    "Scores on the selection photographs and on the held-out source."
    return {f"{k}{suffix}": scores(bundle, parts.subset(place), tta) for k, place in (("selection", "valid"), ("other_source", "test"))}


MEAN = "mean_of_branches"  # shipped_recipe, then the branches of more_epochs.py at half its length, then the mean of all their weights

def mean_of_branches(parts: Manifest, first: Bundle, plan: dict, folder: Path) -> Bundle:
    "The mean of a trained network and the branches that start from it."
    members = [first]
    for name, change in more_epochs.BRANCHES.items():
        changes = plan | dict(epochs=plan["epochs"] // 2, lr=more_epochs.FURTHER["lr"]) | change
        changes["model"] = {k: v for k, v in plan["model"].items() if k != "pretrained"}
        members.append(train_model(parts, folder / name, **changes, start=first.path, progress=False, licence="CC0-1.0"))
    return save_bundle(folder / "mean", mean_weights(members), plan["size"])


def trained(parts: Manifest, name: str, plan: dict, source: str, seed: int, out: Path) -> Bundle:
    "A trial's network; a finished one is not repeated."
    return train_model(parts, out / f"{name}-{source}-{seed}", **plan, seed=seed, progress=False, licence="CC0-1.0")


def run(name: str, manifest: Manifest, source: str, seed: int, out: Path, tta: bool) -> dict:
    "Train and score one trial."
    recipe = "shipped_recipe" if name == MEAN else name
    plan, squashed, change = settings(recipe), held_out(manifest, source), TRIALS[recipe]
    parts = prepared(squashed, how, out / how) if (how := change.get("prepare")) else squashed
    if change.get("both_shapes"): parts = Manifest([*parts, *(replace(p, id=f"{p.id}-squashed") for p in squashed.subset("train"))])
    if n := change.get("phantoms"): plan["start"] = on_phantoms(n, plan | dict(epochs=plan["epochs"] // 2), seed, out / f"{recipe}-{seed}").path
    if before := change.get("on"): plan["start"] = trained(parts, before, settings(before), source, seed, out).path
    if "start" in plan: plan["model"] = {k: v for k, v in plan["model"].items() if k != "pretrained"}
    bundle = trained(parts, recipe, plan, source, seed, out)
    if name == MEAN: bundle = mean_of_branches(parts, bundle, plan, out / f"{name}-{source}-{seed}")
    found = at_home_and_abroad(bundle, parts) | (at_home_and_abroad(bundle, parts, "_tta", tta=True) if tta else {})
    if how == "keep_aspect": found |= at_home_and_abroad(bundle, squashed, "_squashed")
    return dict(trial=name, round=ROUND, changed={k: repr(v) for k, v in TRIALS[recipe].items()}, held_out=source, seed=seed, size=plan["size"],
                epochs=plan["epochs"], seconds=bundle.info["training"].get("seconds"), **found, commit=code_commit())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", choices=["all", MEAN, *TRIALS])
    parser.add_argument("--hold", default="4288x2848")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tta", action="store_true", help="score test-time augmentation as well")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/trials"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    manifest = weights.split(args.folder)
    for name in [*TRIALS, MEAN] if "all" in args.names else args.names:
        done = run(name, manifest, args.hold, args.seed, args.out, args.tta)
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else []
        RESULT.write_text(json.dumps([*kept, done], indent=1) + "\n")
        print(name, {k: round(done[k]["jaccard"], 4) for k in done if k.startswith(("selection", "other"))}, flush=True)


if __name__ == "__main__": main()
