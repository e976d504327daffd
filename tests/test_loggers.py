"""What a training leaves for people, with the real trackers where they are installed.

The trackers are extras; a test without its package is skipped: pip install mlflow-skinny sqlalchemy alembic sqlparse wandb
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lesion_seg.callbacks import HISTORY
from lesion_seg.core import InputError
from lesion_seg.loggers import BATCHES, CURVES, PREDICTIONS, TRACKERS
from lesion_seg.phantom import write_phantoms
from lesion_seg.train import train_model

TINY = dict(name="unet", channels=[4, 8], bottleneck=16, dropout=.1)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    table = write_phantoms(tmp_path_factory.mktemp("data"), n=12, size=64, seed=2, images_per_patient=1)
    for i, p in enumerate(table): p.split = "valid" if i % 3 == 0 else "train"
    return table


def train(manifest, folder: Path, epochs: int = 2, **options):
    said = []
    train_model(manifest, folder, TINY, 64, 4, epochs, "none", precision="fp32", num_workers=0, progress=False, say=said.append, schedule="plateau", **options)
    return pd.read_csv(folder / HISTORY)


def test_a_run_folder_holds_what_people_look_at(manifest, tmp_path):
    rows = train(manifest, tmp_path / "run", pictures=True)
    assert HISTORY == "results.csv" and len(rows) == 2
    assert {BATCHES, PREDICTIONS, CURVES} <= {p.name for p in (tmp_path / "run").iterdir()}
    assert Image.open(tmp_path / "run" / BATCHES).size == (4 + 4 * 196, 4 + 2 * 196)  # eight training photographs
    assert Image.open(tmp_path / "run" / PREDICTIONS).size == (4 + 4 * 196, 200)  # four for validation


def test_pictures_change_nothing(manifest, tmp_path):
    "Looking at the batches and at predictions takes no random number from the training."
    plain, seen = train(manifest, tmp_path / "a"), train(manifest, tmp_path / "b", pictures=True)
    pd.testing.assert_frame_equal(plain[["train_loss", "valid_loss", "jaccard"]], seen[["train_loss", "valid_loss", "jaccard"]])


def test_training_pictures_are_the_augmented_ones(manifest, tmp_path):
    "Without augmentation each tile of the sheet is one of the training photographs, with the border of its own mask."
    from lesion_seg.data import draw_contour, read_image, read_mask, resize_image, resize_mask
    train(manifest, tmp_path / "run", pictures=True, epochs=1)
    sheet = np.asarray(Image.open(tmp_path / "run" / BATCHES)).astype(int)
    expected = [resize_image(draw_contour(resize_image(read_image(p.image), 64), resize_mask(read_mask(p.mask), 64)), 192) for p in manifest if p.split == "train"]
    tiles = [sheet[y:y + 192, x:x + 192] for y in (4, 200) for x in range(4, 788, 196)]
    nearest = [min((np.abs(t - e).mean(), k) for k, e in enumerate(expected)) for t in tiles]
    assert max(d for d, _ in nearest) < 8 and len({k for _, k in nearest}) == 8


def test_callbacks_of_your_own(manifest, tmp_path):
    from fastai.callback.core import Callback
    class Count(Callback):
        batches = 0
        def after_batch(self): self.batches += self.training
    count = Count()
    train(manifest, tmp_path / "run", cbs=[count])
    assert count.batches == 2 * 2


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_tracker_is_said_before_the_training(manifest, tmp_path, monkeypatch, name):
    import importlib.util
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == name else find(n, *a))
    with pytest.raises(InputError, match=rf"lesion_seg\[{name}\]"): train(manifest, tmp_path / "run", loggers=[name])
    assert not (tmp_path / "run" / HISTORY).exists()


def test_mlflow_has_every_row(manifest, tmp_path):
    pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    pytest.importorskip("sqlalchemy", reason="needs sqlalchemy, alembic and sqlparse")
    from mlflow.tracking import MlflowClient
    folder = tmp_path / "run"
    train(manifest, folder, loggers=["mlflow"], tracking=dict(experiment="moles"))
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    number = json.loads((folder / TRACKERS).read_text())["mlflow"]
    rows, run = pd.read_csv(folder / HISTORY), client.get_run(number)
    assert client.get_experiment(run.info.experiment_id).name == "moles" and run.info.status == "FINISHED"
    assert run.data.params["architecture.name"] == "unet" and run.data.params["epochs"] == "2"
    history = client.get_metric_history(number, "jaccard")
    assert [(m.step, m.value) for m in history] == [(0, pytest.approx(rows.jaccard[0])), (1, pytest.approx(rows.jaccard[1]))]


def test_a_resumed_run_stays_one_run_in_mlflow(manifest, tmp_path):
    pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    pytest.importorskip("sqlalchemy", reason="needs sqlalchemy, alembic and sqlparse")
    from fastai.callback.core import Callback, CancelFitException
    from mlflow.tracking import MlflowClient
    class Cut(Callback):
        order = 90
        def after_epoch(self): raise KeyboardInterrupt
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt): train(manifest, folder, loggers=["mlflow"], cbs=[Cut()])
    first = json.loads((folder / TRACKERS).read_text())["mlflow"]
    Cut.after_epoch = lambda self: None
    train(manifest, folder, loggers=["mlflow"], cbs=[Cut()])
    assert json.loads((folder / TRACKERS).read_text())["mlflow"] == first and CancelFitException
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    assert [m.step for m in client.get_metric_history(first, "dice")] == [0, 1] and client.get_run(first).info.status == "FINISHED"


def test_wandb_writes_offline(manifest, tmp_path):
    pytest.importorskip("wandb", reason="needs wandb")
    folder = tmp_path / "run"
    train(manifest, folder, loggers=["wandb"])
    number = json.loads((folder / TRACKERS).read_text())["wandb"]
    (file,) = (folder / "wandb").glob(f"offline-run-*-{number}/run-{number}.wandb")
    data = file.read_bytes()
    assert b"train_loss" in data and b"architecture.name" in data and sys.modules["wandb"].run is None
