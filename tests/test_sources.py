"""lesion_seg.sources: what is held out, what is left out of the training, and a table that counts each photograph once."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from lesion_seg.bundle import Bundle, save_bundle
from lesion_seg.core import InputError
from lesion_seg.manifest import LesionPair, Manifest
from lesion_seg.phantom import write_phantoms
from lesion_seg.report import evaluate_manifest
from lesion_seg.sources import leave_one_out, leave_out, source_values
from lesion_seg.unet import UNet


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    "Twelve phantoms of one image each: five of A, four of B, two of C and one from nobody knows where."
    made = write_phantoms(tmp_path_factory.mktemp("sources"), n=12, size=48, images_per_patient=1)
    return Manifest(replace(p, meta=dict(source=s)) for p, s in zip(made, ["A"] * 5 + ["B"] * 4 + ["C"] * 2 + ["unknown"], strict=True))


def fake(calls):
    "A training that takes no time: a network of random weights, the same for all."
    def fit(table, folder):
        calls.append((folder.name, {s: sorted({p.meta["source"] for p in table.subset(s)}) for s in ("train", "valid", "test")}))
        torch.manual_seed(0)
        save_bundle(folder / "bundle", UNet(channels=(4, 8), bottleneck=16), size=32)
        return Bundle.open(folder)
    return fit


def test_one_source_is_held_out_whole(manifest):
    parts, report = leave_out(manifest, "source", "B", valid=.25)
    assert {p.id for p in parts.subset("test")} == {p.id for p in manifest if p.meta["source"] == "B"}
    assert report.images == dict(train=6, valid=2, test=4) and report.dropped == []


def test_a_patient_of_two_sources_does_not_train(tmp_path, manifest):
    shared = Manifest(replace(p, group="P" if p.id in (manifest[0].id, manifest[5].id) else p.group) for p in manifest)
    parts, report = leave_out(shared, "source", "B")
    assert [p.id for p in report.dropped] == [manifest[0].id] and manifest[0].id not in {p.id for p in parts}


def test_each_source_in_turn(manifest, tmp_path):
    calls, said = [], []
    result = leave_one_out(manifest, "source", tmp_path, fake(calls), say=said.append)
    assert [(name, splits["test"]) for name, splits in calls] == [("A", ["A"]), ("B", ["B"]), ("C", ["C"])]
    assert all(splits["test"][0] not in splits["train"] + splits["valid"] for _, splits in calls)
    assert said[0] == "1 photographs without a source are trained on every time, and never tested on"
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 11 and scores.id.is_unique and scores.groupby("left_out").size().to_dict() == dict(A=5, B=4, C=2)
    by_hand = evaluate_manifest(tmp_path / "A", Manifest(p for p in manifest if p.meta["source"] == "A")).jaccard
    row = result["sources"][0]
    assert row["jaccard"] == pytest.approx(by_hand.mean()) and row["failures"] == (by_hand < .65).sum()
    assert row["cost"] == pytest.approx(row["seen"] - row["jaccard"])
    assert result["worst"] == min(result["sources"], key=lambda r: r["jaccard"])["source"]
    assert json.loads((tmp_path / "sources.json").read_text()) == result
    assert "A: 5 groups: fewer than 10" in (tmp_path / "sources.html").read_text()
    assert Manifest.load(tmp_path / "B" / "manifest.csv").counts()["test"][0] == 4


def test_one_source_only(manifest, tmp_path):
    calls = []
    assert [r["source"] for r in leave_one_out(manifest, "source", tmp_path, fake(calls), ["C"], say=lambda _: None)["sources"]] == ["C"]
    assert len(calls) == 1


@pytest.mark.parametrize("meta, words", [([dict(site="A")] * 2, "source: is not a column of the table .it has site."),
                                         ([dict(source="A"), dict(source="")], "source: has 1 value")])
def test_tables_without_sources(meta, words):
    with pytest.raises(InputError, match=words): source_values(Manifest(LesionPair(f"{k}.png", meta=m) for k, m in enumerate(meta)), "source")


def test_a_mistake_shows_before_anything_is_trained(manifest, tmp_path):
    calls = []
    with pytest.raises(InputError, match="source D: does not occur"): leave_one_out(manifest, "source", tmp_path, fake(calls), ["A", "D"])
    assert not calls and not list(tmp_path.iterdir())


TINY = ("model.architecture=unet model.encoder_channels=[4,8] model.bottleneck_channels=8 data.image_size=32 data.batch_size=2 "
        "data.num_workers=0 training.epochs=1 training.tensorboard=false training.start=null").split()


@pytest.mark.slow
def test_the_command_line(manifest, tmp_path, capfd):
    from lesion_seg.cli import main
    table = manifest.save(tmp_path / "t.csv")
    settings = [x for s in TINY for x in ("--set", s)]
    assert main(["train", str(table), "--leave-out", "source", "-o", str(tmp_path / "loso"), "--json", *settings]) == 0
    result = json.loads(capfd.readouterr().out)
    assert [(r["source"], r["n"]) for r in result["sources"]] == [("A", 5), ("B", 4), ("C", 2)]
    assert (tmp_path / "loso" / "C" / "bundle" / "bundle.json").exists()
    assert main(["train", str(table), "--leave-out", "source=B", "-o", str(tmp_path / "loso"), "--json", *settings]) == 0
    out, err = capfd.readouterr()
    assert "finished; nothing to do" in err and json.loads(out)["sources"][0]["jaccard"] == result["sources"][1]["jaccard"]


def test_half_an_option(manifest, tmp_path, capfd):
    from lesion_seg.cli import main
    table = manifest.save(tmp_path / "t.csv")
    assert main(["train", str(table), "--leave-out", "source="]) == 2
    assert "--leave-out source=: names no value" in capfd.readouterr().err


def test_leave_out_and_start_exclude_each_other(manifest, tmp_path, capfd):
    from lesion_seg.cli import main
    table = manifest.save(tmp_path / "t.csv")
    assert main(["train", str(table), "--leave-out", "source", "--start", "shipped"]) == 2
    assert "--leave-out: does not go with --start" in capfd.readouterr().err
