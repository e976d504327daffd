"""Three borders: do outputs that know the annotators' styles beat three levels of one output?

    python model/trials/borders.py isic2017 [-o runs/borders] [--seeds 1 2] [--epochs 4]

The shipped network's encoder stays as it is, and its decoder is taught on in five ways, on the same features of the training photographs in four
augmented views. Each way is given the same freedom: three thresholds fitted on the selection photographs, the middle one for the best mean Jaccard
index, the others for the best of three. `levels` has one output; `styles` one for each style and one for anybody, each taught by masks of its own
style; `code` one decoder that is told the style (FiLM, arXiv:1709.07871), or "unknown"; `mixture` three nested outputs of which the one that fits
best learns most; `mixture_styles` the same, with odds for each style that are learned alongside. With --without polygon (or grown, automatic)
no mask of that style is shown in training, and the scores of that style are those of annotators whom nobody has met.
FOLDER is as for model/weights.py, with masks_original_resolution/ for the styles. What is finished is not done again.
Writes model/trials/results/borders.json.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesion_seg.augment import apply_augs, train_augs
from lesion_seg.bundle import Bundle, code_commit
from lesion_seg.data import read_mask
from lesion_seg.loaders import LesionDataset
from lesion_seg.manifest import Manifest
from lesion_seg.styles import contour_of, style_of

RESULT = Path(__file__).resolve().parent / "results" / "borders.json"
STYLES = ["polygon", "grown", "automatic"]
WAYS = ["levels", "styles", "code", "mixture", "mixture_styles"]
VIEWS, BATCH = 4, 16
LEVELS = np.round(np.arange(0.02, 0.99, 0.02), 2)
GAP = 3.5  # of the nested outputs at the start, in logits of the shipped network before its calibration
TEMPERATURE = 0.05  # of the mixture: a loss larger by this makes an output e times less responsible


def batch_of(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def features_of(net: nn.Module, images: np.ndarray) -> list[Tensor]:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16): return [f.bfloat16() for f in net.encode(batch_of(images))]


def cached(path: Path, make) -> tuple:
    "What `make` gives, kept in a file."
    if not path.exists(): torch.save(make(), path)
    return torch.load(path)


def view_of(net: nn.Module, photographs: LesionDataset, view: int) -> tuple[list[Tensor], Tensor]:
    "Features and masks of all photographs under one augmentation each."
    augs, features, masks = train_augs(photographs.size, preset="robust"), [], []
    for start in range(0, len(photographs), BATCH):
        pairs = [apply_augs(augs, *photographs.raw(i), (1, view, i)) for i in range(start, min(start + BATCH, len(photographs)))]
        features.append(features_of(net, np.stack([image for image, _ in pairs])))
        masks += [torch.from_numpy(mask) for _, mask in pairs]
    return [torch.cat(f) for f in zip(*features, strict=True)], torch.stack(masks)


def plain_view(net: nn.Module, photographs: LesionDataset) -> tuple[list[Tensor], Tensor]:
    "Features and masks of all photographs as they are."
    pairs = [photographs.raw(i) for i in range(len(photographs))]
    features = [features_of(net, np.stack([image for image, _ in pairs[i:i + BATCH]])) for i in range(0, len(pairs), BATCH)]
    return [torch.cat(f) for f in zip(*features, strict=True)], torch.from_numpy(np.stack([mask for _, mask in pairs]) > 0)


class Decoder(nn.Module):
    "The shipped decoder with the outputs of one of the ways."
    def __init__(self, net: nn.Module, way: str):
        super().__init__()
        self.way, self.blocks, self.dropout = way, net.blocks, net.dropout
        conv = net.final_up[0]
        self.heads = nn.ModuleList(copy.deepcopy(conv) for _ in range({"styles": 4, "mixture": 3, "mixture_styles": 3}.get(way, 1)))
        if way.startswith("mixture"):
            for head in self.heads[1:]:
                nn.init.zeros_(head.weight)
                nn.init.constant_(head.bias, float(np.log(np.expm1(GAP))))
        if way == "code":
            self.codes = nn.ModuleList(nn.Embedding(4, 2 * block.n_out) for block in self.blocks)
            for code in self.codes: nn.init.zeros_(code.weight)

    def one(self, features: list[Tensor], style: Tensor | None = None) -> list[Tensor]:
        x = features[-1]
        for k, (block, skip) in enumerate(zip(self.blocks, features[-2::-1], strict=False)):
            x = block(self.dropout(x), skip)
            if style is not None:
                gain, shift = self.codes[k](style)[:, :, None, None].chunk(2, 1)
                x = x * (1 + gain) + shift
        return [F.pixel_shuffle(head(x), 2) for head in self.heads]

    def forward(self, features: list[Tensor], style: Tensor | None = None) -> Tensor:
        if self.way == "code":
            if style is not None: return self.one(features, style)[0]
            n = len(features[0])
            return torch.cat([self.one(features, torch.full((n,), s))[0] for s in range(4)], 1)
        outputs = self.one(features)
        if not self.way.startswith("mixture"): return torch.cat(outputs, 1)
        middle, wider, tighter = (o.float() for o in outputs)
        return torch.cat([middle - F.softplus(tighter), middle, middle + F.softplus(wider)], 1)


def costs(logits: Tensor, truth: Tensor) -> Tensor:
    "Half soft Jaccard, half cross-entropy, of each output of each image."
    truth = truth.expand_as(logits)
    p = logits.sigmoid()
    inter = (p * truth).sum((-2, -1))
    union = (p + truth - p * truth).sum((-2, -1))
    return 0.5 * (1 - (inter + 1) / (union + 1)) + 0.5 * F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((-2, -1))


def jaccard_at_levels(p: np.ndarray, truth: np.ndarray) -> np.ndarray:
    "The Jaccard index of each map at each of LEVELS."
    out = np.zeros((len(p), len(LEVELS)))
    for i, (one, t) in enumerate(zip(p, truth, strict=True)):
        place = np.digitize(one.ravel(), LEVELS)
        above = [np.bincount(place[m], minlength=len(LEVELS) + 1)[::-1].cumsum()[::-1][1:] for m in (slice(None), t.ravel())]
        out[i] = above[1] / (above[0] + t.sum() - above[1])
    return out


def best_of_three(tables: list[np.ndarray], styles: np.ndarray) -> dict:
    "Default and best of three, at thresholds fitted on the same photographs."
    tight, middle, wide = tables
    m = middle.mean(0).argmax()
    default = middle[:, m]
    means = np.maximum(np.maximum(default[:, None, None], tight[:, :, None]), wide[:, None, :]).mean(0)
    a, b = np.unravel_index(means.argmax(), means.shape)
    best = np.max([tight[:, a], default, wide[:, b]], 0)
    return dict(default=default.mean(), failures=(default < 0.65).mean(), best_of_three=best.mean(), best_failures=(best < 0.65).mean(),
                levels=[float(LEVELS[k]) for k in (a, m, b)], default_by_style=[default[styles == s].mean() for s in range(3)],
                best_by_style=[best[styles == s].mean() for s in range(3)])


def score(model: Decoder, valid: tuple, styles: np.ndarray) -> dict:
    features, truth = valid
    model.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        p = torch.cat([model([f[i:i + 20] for f in features]).float() for i in range(0, len(truth), 20)]).sigmoid().numpy()
    tables = [jaccard_at_levels(p[:, c], truth.numpy()) for c in range(p.shape[1])]
    if model.way == "levels": return best_of_three(tables * 3, styles)
    if model.way.startswith("mixture"): return best_of_three(tables, styles)
    orders = [[0, 3, 1], [0, 3, 2], [0, 1, 2], [1, 3, 0], [1, 3, 2], [2, 1, 0], [2, 3, 0]]  # of polygons, grown, automatic, anybody
    return max((best_of_three([tables[c] for c in o], styles) | dict(outputs=o) for o in orders), key=lambda r: r["best_of_three"])


def teach(way: str, seed: int, epochs: int, views: list[tuple], valid: tuple, styles: np.ndarray, valid_styles: np.ndarray) -> dict:
    "One training; the average of the weights is scored."
    torch.manual_seed(seed)
    model = Decoder(Bundle.shipped().model(), way)
    average = copy.deepcopy(model).eval()
    start, began = score(average, valid, valid_styles), time.process_time()
    photographs, style_of = np.flatnonzero(styles >= 0), torch.from_numpy(styles)
    steps = len(photographs) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps * epochs, pct_start=0.2)
    odds = torch.zeros(3, 3)  # logarithms: of each output, for each style
    for epoch in range(epochs):
        features, masks = views[epoch % len(views)]
        counts = torch.zeros(3, 3)
        model.train()
        order = np.random.default_rng((seed, epoch)).permutation(photographs)
        for k in range(steps):
            rows = torch.from_numpy(np.sort(order[k * BATCH:(k + 1) * BATCH]))
            style, truth = style_of[rows], masks[rows].float()[:, None]
            code = torch.where(torch.rand(len(rows)) < 0.4, 3, style) if way == "code" else None
            with torch.autocast("cpu", torch.bfloat16): logits = model([f[rows] for f in features], code)
            cost = costs(logits.float(), truth)
            if way == "styles": loss = (cost.gather(1, style[:, None]) + cost[:, 3:]).mean()
            elif way.startswith("mixture"):
                with torch.no_grad(): share = (odds[style] * (way == "mixture_styles") - cost / TEMPERATURE).softmax(1)
                counts.index_add_(0, style, share)
                loss = (share * cost).sum(1).mean() + 0.5 * cost[:, 1].mean()
            else: loss = cost.mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                    kept.lerp_(new, 0.01) if kept.is_floating_point() else kept.copy_(new)
        odds = ((counts + 1) / (counts + 1).sum(1, keepdim=True)).log()
    return dict(way=way, seed=seed, epochs=epochs, before=start, after=score(average, valid, valid_styles), cpu_seconds=time.process_time() - began,
                shares=odds.exp().tolist() if way.startswith("mixture") else None)


def styles_of(manifest: Manifest, folder: Path) -> np.ndarray:
    "How each mask was drawn: the place in STYLES of its style."
    masks = [read_mask(folder / "masks_original_resolution" / f"{pair.id}_segmentation.png") for pair in manifest]
    return np.array([STYLES.index(style_of(contour_of(mask))) for mask in masks])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/borders"))
    parser.add_argument("--manifest", type=Path, default=Path("runs/weights/manifest.csv"), help="from model/weights.py")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--without", choices=STYLES, help="a style that training does not see")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    manifest, net = Manifest.load(args.manifest), Bundle.shipped().model().eval()
    train, chosen = (LesionDataset(manifest.subset(s), Bundle.shipped().size) for s in ("train", "valid"))
    views = [cached(args.out / f"view{v}.pt", lambda v=v: view_of(net, train, v)) for v in range(VIEWS)]
    valid = cached(args.out / "selection.pt", lambda: plain_view(net, chosen))
    styles, valid_styles = (styles_of(manifest.subset(s), args.folder) for s in ("train", "valid"))
    if args.without: styles = np.where(styles == STYLES.index(args.without), -1, styles)
    done = json.loads(RESULT.read_text())["trials"] if RESULT.exists() else []
    for seed in args.seeds:
        for way in args.ways:
            if any((r["way"], r["seed"], r["without"], r["epochs"]) == (way, seed, args.without, args.epochs) for r in done): continue
            done.append(teach(way, seed, args.epochs, views, valid, styles, valid_styles) | dict(without=args.without))
            print(json.dumps(done[-1]), flush=True)
            RESULT.write_text(json.dumps(dict(command="python model/trials/borders.py isic2017", commit=code_commit(), n_train=len(train),
                                              n_selection=len(chosen), styles=STYLES, trials=done), indent=1) + "\n")


if __name__ == "__main__": main()
