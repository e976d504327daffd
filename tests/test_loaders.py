"""lesion_seg.loaders: the same batches whoever makes them, on every way that systems start processes."""
import multiprocessing
import pickle
import subprocess
import sys
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from lesion_seg.augment import train_augs
from lesion_seg.core import InputError
from lesion_seg.loaders import ANSWER, TRUTH, LesionDataset, epoch_order, lesion_dls, load_pair, load_pairs
from lesion_seg.manifest import LesionPair, Manifest
from lesion_seg.phantom import write_phantoms
from lesion_seg.records import write_records

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), n=16, size=(48, 64), seed=3).split(seed=1)


def sums(dl): return [float(x.double().sum()) for x, _ in dl]


# One epoch in processes that are started in one of three ways, as a program of its own since the way is chosen once.
EPOCH = """
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")

def main(method, data):
    from lesion_seg.loaders import lesion_dls
    from lesion_seg.manifest import Manifest
    multiprocessing.set_start_method(method)
    dls = lesion_dls(Manifest.load(data) if data.endswith(".csv") else data, size=32, bs=2, num_workers=1, augs="robust", device="cpu")
    dls.train_ds.epoch = 3
    print(*[repr(float(x.double().sum())) for x, _ in dls.train])

if __name__ == "__main__": main(*sys.argv[1:])
"""


@pytest.mark.parametrize("method, kind", [("spawn", "files"), ("forkserver", "records")] + [
    pytest.param(*p, marks=pytest.mark.slow) for p in (("fork", "files"), ("fork", "records"), ("spawn", "records"), ("forkserver", "files"))])
def test_one_epoch_in_processes_of_every_kind(manifest, method, kind, tmp_path):
    if method not in multiprocessing.get_all_start_methods(): pytest.skip(f"this system has no {method}")
    data = manifest.save(tmp_path / "split.csv") if kind == "files" else write_records(manifest, tmp_path / "records", size=32, shards=1)
    (tmp_path / "epoch.py").write_text(EPOCH)
    data = str(tmp_path / ("split.csv" if kind == "files" else "records"))
    done = subprocess.run([sys.executable, tmp_path / "epoch.py", method, data], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-800:]
    dls = lesion_dls(manifest if kind == "files" else data, size=32, bs=2, num_workers=0, augs="robust", device="cpu")
    dls.train_ds.epoch = 3
    assert [float(v) for v in done.stdout.split()] == sums(dls.train)


def test_a_loader_can_be_sent(manifest):
    dls = lesion_dls(manifest, size=32, bs=2, num_workers=0, device="cpu")
    again = pickle.loads(pickle.dumps(dls.train)) # noqa: S301
    assert sums(again) == sums(dls.train)


def test_epochs_differ_and_come_back(manifest):
    dls = lesion_dls(manifest, size=32, bs=2, num_workers=0, device="cpu")
    def at(epoch):
        dls.train_ds.epoch = epoch
        return sums(dls.train)
    first = at(0)
    assert at(1) != first and at(0) == first


def test_order_is_a_permutation_of_its_epoch():
    assert sorted(epoch_order(range(5, 15), 1, 2)) == list(range(5, 15))
    orders = {tuple(epoch_order(range(10), s, e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_the_cache_changes_nothing(manifest, cache_mb):
    full, other = (LesionDataset(manifest, 256, train_augs(256), cache_mb=c) for c in (2048, cache_mb))
    assert (len(full.images), len(other.images)) == (16, 4 * cache_mb)
    for i in (0, 3, 4, 15): assert torch.equal(full[i][0], other[i][0]) and torch.equal(full[i][1], other[i][1])


def test_tensors_for_a_loop_of_ones_own(manifest):
    plain, ours = LesionDataset(manifest, 32, as_tensors=True), LesionDataset(manifest, 32)
    x, y = plain[2]
    image, mask = ours.raw(2)
    assert type(x) is type(y) is torch.Tensor and (x.dtype, y.dtype, x.shape, y.shape) == (torch.float32, torch.float32, (3, 32, 32), (1, 32, 32))
    np.testing.assert_allclose(x.numpy(), image.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    assert np.array_equal(y[0].numpy(), mask)
    batch = next(iter(torch.utils.data.DataLoader(plain, batch_size=4)))
    assert batch[0].shape == (4, 3, 32, 32) and batch[1].shape == (4, 1, 32, 32)


def lesion_of(folder, side, name="a"):
    "A photograph of 512 x 512 whose lesion is a square of some pixels."
    mask = np.zeros((512, 512), np.uint8)
    mask[100:100 + side, 200:200 + side] = 255
    Image.fromarray(np.full((512, 512, 3), 180, np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    return LesionPair(folder / f"{name}.png", folder / f"{name}_mask.png")


@pytest.mark.parametrize("side, lost", [(0, False), (8, True), (100, False)])
def test_a_lesion_that_vanishes_is_counted(tmp_path, side, lost):
    "8 pixels of 512 are half a pixel of 32; a mask that was empty before has not lost anything."
    pair = lesion_of(tmp_path, side)
    images, masks, vanished = load_pairs([pair], 32)
    assert vanished == [pair] * lost and masks.any() == (side == 100)


def test_vanished_lesions_are_said(tmp_path):
    pairs = [replace(lesion_of(tmp_path, 8, f"p{i}"), split=s, group=f"g{i}") for i, s in enumerate(("train", "train", "valid"))]
    with pytest.warns(UserWarning, match="2 masks of split 'train' are empty at 32 pixels, such as .*p0_mask.png") as found:
        lesion_dls(Manifest(pairs), 32, 2, num_workers=0, device="cpu")
    assert ["'valid'" in str(w.message) for w in found].count(True) == 1


def test_refusals(manifest):
    with pytest.raises(InputError, match="split 'valid': has no image; run `lesion_seg split`"): lesion_dls(manifest.subset("train"), size=32)
    leaky = Manifest([replace(p, group="P1") for p in manifest])
    with pytest.raises(InputError, match=r"1 group in both train and valid \(such as P1\)"): lesion_dls(leaky, size=32)
    with pytest.raises(InputError, match="has no mask"): load_pair(replace(manifest[0], mask=None), 32)


def drawn(call):
    "The RGB pixels of what a call draws."
    plt.close("all")
    call()
    fig = plt.gcf()
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())[..., :3].astype(int)


def near(picture, colour): return int((np.abs(picture - colour).max(-1) < 40).sum())


def test_borders_are_drawn_in_their_colours_and_nothing_lies_over_the_skin(manifest):
    dls = lesion_dls(manifest, size=48, bs=4, num_workers=0, augs="none", device="cpu")
    batch = next(iter(dls.valid))
    shown = drawn(lambda: dls.show_batch())
    both = drawn(lambda: dls.valid.show_results(batch, batch[1].roll(8, dims=2)))
    assert near(shown, TRUTH) > 50 and near(shown, ANSWER) < 20 and near(both, TRUTH) > 50 and near(both, ANSWER) > 50
    empty = drawn(lambda: dls.valid.show_batch((batch[0], torch.zeros_like(batch[1]))))
    assert near(empty, TRUTH) == 0
    assert 0.005 < (shown != drawn(lambda: dls.show_batch((dls.one_batch()[0], torch.zeros_like(dls.one_batch()[1]))))).any(-1).mean() < 0.2
