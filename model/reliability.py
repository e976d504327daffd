"""Are the shipped model's probabilities right, and does its uncertainty find its failures? python model/reliability.py DATA --manifest M [--trial B S]...

DATA as for model/model_card.py, M the manifest that model/weights.py wrote (its 'valid' is the selection split). Uncertainty comes from one pass,
from one mirrored pass, from the square's eight symmetries and from MC dropout (20 samples); a ridge regression over all of them, fitted on the
selection split, is the learned score. Each --trial is a bundle of model/trials/trials.py and the source that it has never seen: the failures there
choose the score (`chosen`) together with the selection split; the official validation set is only reported on. Without --trial the choice and
the held-out sources' figures of the last run stay.
Writes model/results/reliability.json.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lesion_seg.bundle import Bundle, code_commit, default_channel, versions
from lesion_seg.data import read_image, read_mask, resize_image
from lesion_seg.manifest import Manifest
from lesion_seg.mc_dropout import Uncertainty, lesion_scores, pairwise_dice
from lesion_seg.predict import Segmentation, Segmenter, d4_maps
from lesion_seg.reliability import auroc, calibration_summary, failure_report, fit_review
from lesion_seg.contours import resize_probability

sys.path.insert(0, str(Path(__file__).resolve().parent / "trials"))
from trials import held_out  # noqa: E402

RESULT = Path(__file__).resolve().parent / "results" / "reliability.json"
ENTROPY, MIRROR = "one pass: entropy_per_area", "one mirrored pass: disagreement"


def uncertainties(segmenter: Segmenter, image: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    "The map of the plain pass, and every measure of its uncertainty."
    bundle = segmenter.bundle
    maps = default_channel(d4_maps(segmenter.backend.probabilities, image[None])[0])[:, 0]
    dropped = segmenter.backend.samples(image, 20, 0)
    found = {ENTROPY: lesion_scores(Uncertainty.from_samples(maps[[0, 0]], bundle.threshold), bundle.threshold)["entropy_per_area"],
             MIRROR: 1 - pairwise_dice(maps[:2] >= bundle.threshold)}
    for name, samples in (("symmetries", maps), ("dropout", dropped)):
        found |= {f"{name}: {k}": v for k, v in lesion_scores(Uncertainty.from_samples(samples, bundle.threshold), bundle.threshold).items()}
    return maps[0], found


def look(bundle: Bundle, manifest: Manifest) -> dict:
    "Jaccard index, map, truth and uncertainties of each photograph."
    segmenter, rows = Segmenter(bundle), []
    for pair in manifest:
        truth = read_mask(pair.mask)
        p, found = uncertainties(segmenter, resize_image(read_image(pair.image), bundle.size))
        mask = Segmentation(p, truth.shape, bundle.threshold, largest=bundle.largest).mask
        rows.append((pair.id, pair.group, (mask & truth).sum() / (mask | truth).sum(), p, truth, found))
    ids, groups, j, maps, truths, found = zip(*rows, strict=True)
    return dict(ids=ids, groups=groups, j=np.array(j), maps=maps, truths=truths, uncertainties={k: np.array([f[k] for f in found]) for k in found[0]})


def learn(selection: dict):
    "Ridge regression of 1 - J on the logarithms of all uncertainties."
    def table(seen): return np.log(np.column_stack(list(seen["uncertainties"].values())) + 1e-3)
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 17))).fit(table(selection), 1 - selection["j"])
    return lambda seen: model.predict(table(seen))


def raw_maps(bundle: Bundle, manifest: Manifest) -> list[np.ndarray]:
    "Maps as a sigmoid alone would give them."
    plain = Segmenter(Bundle(bundle.path, bundle.info | dict(temperature=1.0, calibration={})), runtime="torch")  # the exported file holds the calibration
    images = (resize_image(read_image(pair.image), bundle.size) for pair in manifest)
    return [default_channel(plain.backend.probabilities(image[None]))[0, 0] for image in images]


def calibration(bundle: Bundle, manifest: Manifest, seen: dict) -> dict:
    "At the size of the truth (256 x 256), before and after the calibration."
    def summary(maps):
        return calibration_summary([resize_probability(p, y.shape) for p, y in zip(maps, seen["truths"], strict=True)], seen["truths"])[0]
    return dict(before=summary(raw_maps(bundle, manifest)), after=summary(seen["maps"]))


def choose(*seen: dict) -> str:
    "The uncertainty with the highest mean AUROC over the sets, both baselines among the candidates."
    names = list(seen[0]["uncertainties"])
    return max(names, key=lambda k: np.mean([auroc(s["uncertainties"][k], s["j"] < 0.65) for s in seen]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--trial", nargs=2, metavar=("BUNDLE", "SOURCE"), action="append", default=[])
    args = parser.parse_args()
    manifest, bundle = Manifest.load(args.manifest), Bundle.shipped()
    parts = dict(selection=manifest.subset("valid"), validation=manifest.subset("test"))
    sets = {name: look(bundle, part) for name, part in parts.items()}
    for path, source in args.trial: sets[f"unseen {source}"] = look(Bundle.load(path), held_out(manifest, source).subset("test"))
    old = json.loads(RESULT.read_text()) if RESULT.exists() and not args.trial else {}  # without a trial its figures, and the choice made with it, stay
    chosen = old.get("chosen") or choose(*(s for k, s in sets.items() if k != "validation"))
    learned = learn(sets["selection"])
    result = dict(command="python model/reliability.py FOLDER --manifest runs/weights/manifest.csv --trial BUNDLE SOURCE ...", commit=code_commit(),
                  versions=versions(), weights_sha256=bundle.info["weights_sha256"], chosen=chosen, failures={}, calibration={})
    for name, s in sets.items():
        scores = s["uncertainties"] | ({} if name == "selection" else {"learned": learned(s)})
        result["failures"][name] = dict(n=len(s["j"]), failed=int((s["j"] < 0.65).sum()), scores=failure_report(scores, s["j"], s["groups"]))
        print(f"\n{name}: {len(s['j'])}, {(s['j'] < 0.65).sum()} failed")
        for k, v in result["failures"][name]["scores"].items():
            print(f"{k:34s}", *(f"{m} {v[m][0]:.3f} ({v[m][1]:.3f}-{v[m][2]:.3f})" for m in ("auroc", "caught", "aupr", "aurc")))
        if name in parts: result["calibration"][name] = calibration(bundle, parts[name], s)
    result["failures"] |= {k: v for k, v in old.get("failures", {}).items() if k not in sets}
    flagged = sets["validation"]["uncertainties"][chosen] > fit_review(sets["selection"]["uncertainties"][chosen])
    failed = sets["validation"]["j"] < 0.65
    result["review"] = dict(flagged=float(flagged.mean()), failures_flagged=float((flagged & failed).sum() / failed.sum()))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(chosen, result["review"], json.dumps(result["calibration"], indent=1))


if __name__ == "__main__": main()
