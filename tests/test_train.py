"""Training beyond the notebook: kill -9 in the middle, and the same weights after a resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lesion_seg.callbacks import BEST, CHECKPOINT, HISTORY, batch_scores, read_state
from lesion_seg.manifest import Manifest
from lesion_seg.phantom import write_phantoms

SCRIPT = """
import sys
from lesion_seg.manifest import Manifest
from lesion_seg.train import train
train(Manifest.load(sys.argv[1]), sys.argv[2], dict(name="unet", channels=(8, 16), bottleneck=32, dropout=.2), size=64, bs=4, epochs=5, lr=5e-3,
      schedule="one_cycle", num_workers=1, progress=False)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_phantoms(folder, n=32, size=64, seed=5).split((0.5, 0.25, 0.25), seed=0).save(folder / "split.csv")


def start(table: Path, folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, str(table), str(folder)], stdout=subprocess.DEVNULL, start_new_session=True)


@pytest.mark.slow
def test_kill_9_and_resume_gives_the_same_weights(table, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(table, whole).wait(300) == 0
    run = start(table, cut)
    for _ in range(15_000):
        if (cut / CHECKPOINT).exists() and read_state(cut / CHECKPOINT)["epoch"] >= 2: break
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert 2 <= read_state(cut / CHECKPOINT)["epoch"] < 5, "the training was killed before its end"
    assert start(table, cut).wait(300) == 0
    a, b = load_file(whole / CHECKPOINT), load_file(cut / CHECKPOINT)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert json.loads((whole / "bundle" / "bundle.json").read_text())["weights_sha256"] == \
        json.loads((cut / "bundle" / "bundle.json").read_text())["weights_sha256"]
    assert not [p for p in cut.rglob("*") if p.suffix in (".pkl", ".pth", ".pt")]
    assert {CHECKPOINT, BEST, HISTORY, "bundle"} == {p.name for p in cut.iterdir()}, "no half-written file is left"


def test_batch_scores_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    logits, target = torch.randn(7, 1, 16, 16), torch.randint(0, 2, (7, 16, 16))
    together = batch_scores(logits, target)[1]
    apart = torch.cat([batch_scores(logits[i:i + 1], target[i:i + 1])[1] for i in range(7)])
    assert torch.equal(together, apart)


def test_batch_scores_agree_with_the_metrics_module():
    from lesion_seg.metrics import score_pair
    torch.manual_seed(1)
    logits, target = torch.randn(5, 1, 16, 16), torch.randint(0, 2, (5, 16, 16))
    dice, jaccard = batch_scores(logits, target)
    for i in range(5):
        scores = score_pair((logits[i, 0] >= 0).numpy(), target[i].numpy().astype(bool))
        assert abs(scores["dice"] - dice[i].item()) < 1e-6 and abs(scores["jaccard"] - jaccard[i].item()) < 1e-6


def test_manifest_round_trip_keeps_the_digest(tmp_path):
    manifest = write_phantoms(tmp_path, n=8, size=32, seed=2).split((0.5, 0.25, 0.25))
    assert Manifest.load(manifest.save(tmp_path / "split.csv")).digest == manifest.digest
