"""Two processes over gloo: the weights of one, through a kill -9 of the whole job; one report; one sentence."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from lesion_seg.callbacks import CHECKPOINT, HISTORY, read_state, read_tensors
from lesion_seg.core import InputError
from lesion_seg.phantom import write_phantoms

# Float64, so that rounding cannot hide a mistake. An encoder that thaws, a moving average, unequal validation shares.
PROGRAM = """
import sys
import torch
import lesion_seg.train as training
from lesion_seg.loss import DiceBCELoss
from lesion_seg.manifest import Manifest
from lesion_seg.unet import UNet

class Loss(DiceBCELoss):
    def forward(self, logits, target): return super().forward(logits, target).float()  # fastai's Recorder wants float32

def float64(architecture, seed):
    torch.manual_seed(seed)
    model = UNet((8, 16), 32, dropout=0.0).double()
    forward = model.forward
    model.forward = lambda x: forward(x.as_subclass(torch.Tensor).double())
    return model

training.build_model = float64
training.train_model(Manifest.load(sys.argv[1]), sys.argv[2], size=64, bs=8, epochs=5, lr=2e-3, loss=Loss(),
    precision="fp32", schedule="one_cycle", freeze_epochs=1, average=0.9, num_workers=0, progress=False)
"""

# One step of the network with timm's layers, whole and in two parts.
STEP = """
import copy
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
from lesion_seg.distributed import join_processes, sync_batch_norm
from lesion_seg.unet import lesion_unet

rank, world = join_processes()
torch.manual_seed(0)
whole = lesion_unet(decoder=(16, 16, 8, 8), dropout=0.0).double().train()
for p in whole.parameters(): p.data += 0.1 * torch.randn_like(p)  # away from ReLU's kinks, where rounding decides
part, x = sync_batch_norm(copy.deepcopy(whole)), torch.randn(4, 3, 64, 64, dtype=torch.float64)
whole(x).square().mean().backward()
parallel = DistributedDataParallel(part)
parallel(x[rank::world]).square().mean().backward()
pairs = zip(part.parameters(), whole.parameters(), strict=True)
far = max((p.grad - q.grad).abs().max() / (1 + q.grad.abs().max()) for p, q in pairs)
kept = max((p.double() - q.double()).abs().max() for p, q in zip(part.buffers(), whole.buffers(), strict=True))
sys.stdout.write(f"step {world} {far} {kept}\\n")  # one write, so that the lines of the processes do not mix
"""
TWO = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "step.py").write_text(STEP)
    return write_phantoms(folder, n=33, size=64, seed=5).split((0.6, 0.3, 0.1), seed=0).save(folder / "split.csv")


def start(command: list, *args) -> subprocess.Popen:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=env, start_new_session=True)


def finish(run: subprocess.Popen) -> tuple[str, str]:
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err[-3000:]
    return out, err


def kill(run: subprocess.Popen) -> None:
    "SIGKILL to the launcher and to the processes that it started, which lead sessions of their own."
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    for pid in (run.pid, *map(int, children)): os.kill(pid, signal.SIGKILL)
    run.communicate()


@pytest.mark.slow
def test_two_processes_killed_and_resumed_give_the_weights_of_one(table, tmp_path):
    program, one, two = table.parent / "program.py", tmp_path / "one", tmp_path / "two"
    finish(start([sys.executable, "-W", "ignore"], program, table, one))
    run = start(TWO, program, table, two)
    while not ((two / CHECKPOINT).exists() and read_state(two / CHECKPOINT)["epoch"] >= 2) and run.poll() is None:
        time.sleep(0.02)
    kill(run)
    assert 2 <= read_state(two / CHECKPOINT)["epoch"] < 5, "killed in the middle"
    finish(start(TWO, program, table, two))
    a, b = read_tensors(one / CHECKPOINT)[0], read_tensors(two / CHECKPOINT)[0]
    assert a.keys() == b.keys() and max((a[k] - b[k]).abs().max().item() for k in a) < 1e-9
    assert any(k.startswith("average.") for k in a) and all(v.dtype == torch.float64 for k,
                                                            v in a.items() if k.endswith(".weight"))
    x, y = (pd.read_csv(f / HISTORY)[["train_loss", "valid_loss", "dice", "jaccard"]] for f in (one, two))
    assert len(x) == 5 and (x - y).abs().to_numpy().max() < 1e-6
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}, "no half-written file is left"


@pytest.mark.slow
def test_a_step_in_two_parts_has_the_gradients_and_statistics_of_the_whole(table):
    out, _ = finish(start(TWO, table.parent / "step.py"))
    steps = [line.split()[1:] for line in out.splitlines() if line.startswith("step")]
    assert len(steps) == 2 and all(world == "2" and float(far) < 1e-9 and float(kept) < 1e-9 for world, far,
                                   kept in steps)


@pytest.mark.slow
def test_the_command_line_reports_once_and_refuses_in_one_sentence(table, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
              "--main_process_port", "0"]
    launch += ["-m", "lesion_seg", "train", str(table), "-o"]
    tiny = ["model.architecture=unet", "model.encoder_channels=[4,8]", "model.bottleneck_channels=8",
            "data.image_size=32", "data.num_workers=0",
            "training.epochs=1"]

    def run(folder, size):
        return start(launch, folder, "--json", *(x for s in (*tiny, f"data.batch_size={size}") for x in ("--set", s)))
    good, bad = run(tmp_path / "good", 4), run(tmp_path / "bad", 5)
    out, err = finish(good)
    assert json.loads(out)["valid"]["n"] == 10 and err.count("epoch 1: loss") == 1
    _, err = bad.communicate(timeout=300)
    assert bad.returncode != 0 and err.count("lesion_seg: ") == 1
    assert "batch size 5: cannot be shared equally by 2 processes" in err
    assert not (tmp_path / "bad" / CHECKPOINT).exists()


def test_without_accelerate_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delitem(sys.modules, "lesion_seg.distributed", raising=False)
    with pytest.raises(InputError, match="needs Accelerate; run pip install 'lesion_seg\\[distributed\\]'"):
        importlib.import_module("lesion_seg.distributed")


def test_shards_in_loading_processes_and_beyond_the_images(table):
    from lesion_seg.distributed import ShardedDL
    from lesion_seg.loaders import lesion_dls
    from lesion_seg.manifest import Manifest
    manifest = Manifest.load(table)
    here, forked = (lesion_dls(manifest, 64, bs=8, num_workers=n) for n in (0, 2))
    for (x, _), (y, _) in zip(ShardedDL(here.train, 1, 2), ShardedDL(forked.train, 1, 2), strict=True):
        assert torch.equal(x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor))
    for rank in range(3):
        shard = ShardedDL(here.valid, rank, 3)
        assert len(list(shard)) == len(shard)
    assert len(ShardedDL(here.valid, 90, 100)) == 0, "more processes than images"
    for epoch in (0, 1):
        here.train_ds.epoch = epoch
        whole = [y.as_subclass(torch.Tensor) for _, y in here.train]
        parts = [[y.as_subclass(torch.Tensor) for _, y in ShardedDL(here.train, rank, 4)] for rank in range(4)]
        assert all(torch.equal(torch.stack(step, 1).flatten(0, 1), y) for *step, y in zip(*parts, whole, strict=True))
