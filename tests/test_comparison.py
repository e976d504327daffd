"""lesion_seg.comparison and `lesion_seg compare`: everything that may take part, against the scores of each by itself."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from lesion_seg.bundle import save_bundle
from lesion_seg.comparison import Contestant, contestant_name, kind_of, open_contestant, save_comparison
from lesion_seg.core import InputError, encode_png
from lesion_seg.data import read_mask
from lesion_seg.evaluate import save_table
from lesion_seg.phantom import write_phantoms
from lesion_seg.report import evaluate_manifest
from lesion_seg.unet import UNet


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "Eight phantoms, a network that knows nothing, its table, and masks that are right but for one."
    folder = tmp_path_factory.mktemp("comparison")
    manifest = write_phantoms(folder / "data", n=8, size=48, images_per_patient=1)
    torch.manual_seed(0)
    save_bundle(folder / "run" / "bundle", UNet(channels=(4, 8), bottleneck=16), size=32)
    (folder / "masks").mkdir()
    for k, p in enumerate(manifest):
        mask = read_mask(p.mask) if k else np.zeros((48, 48), bool)
        (folder / "masks" / f"{p.id}.png").write_bytes(encode_png(mask.astype(np.uint8) * 255))
    save_table(evaluate_manifest(folder / "run", manifest), folder / "sent.csv")
    return folder, manifest


def test_all_kinds_take_part(work, tmp_path):
    folder, manifest = work
    contestants = [open_contestant(s, manifest) for s in (folder / "run", folder / "sent.csv", folder / "masks")]
    assert [c.name for c in contestants] == ["run", "sent", "masks"] and [bool(c.mask_of) for c in contestants] == [True, False, True]
    pd.testing.assert_frame_equal(contestants[0].table, contestants[1].table, check_dtype=False)
    assert contestants[2].table.jaccard.tolist() == [0, *[1] * 7]
    result = save_comparison(tmp_path, contestants, manifest, by=["family"])
    gap = next(p for p in result["pairs"] if (p["a"], p["b"]) == ("run", "masks"))
    assert gap["difference"] == pytest.approx(contestants[0].table.jaccard.mean() - 7 / 8)
    assert result["remarks"]["masks"] == [f"a mask that has no lesion at all (1): {manifest[0].id}"]
    assert "8 groups: fewer than 10" in result["notes"][0]
    page = (tmp_path / "comparison.html").read_text()
    assert "<script" not in page and not re.search(r'(src|href)="(?!data:)', page)
    assert [h for h in re.findall("<h2>(.*?)</h2>", page)] == [
        "To keep in mind", "Ranking", "In pairs", "Sub-groups", "Where they differ most", "Where this comes from"]
    assert json.loads((tmp_path / "comparison.json").read_text()) == result
    images = pd.read_csv(tmp_path / "images.csv")
    assert images.spread.is_monotonic_decreasing and len(images) == 8
    assert len(pd.read_csv(tmp_path / "pairs.csv")) == 3 * (1 + len(result["subgroups"]["family"]))


def test_tables_alone_need_no_photographs(work, tmp_path):
    folder, _ = work
    t = open_contestant(folder / "sent.csv").table
    save_comparison(tmp_path, [Contestant("a", t), Contestant("b<i>", t.assign(jaccard=t.jaccard * .9))], by=["height"])
    page = (tmp_path / "comparison.html").read_text()
    assert "data:image/jpeg" not in page and "<td>b&lt;i&gt;</td>" in page and "<i>" not in page and t.id[0] in page


def test_kinds(work, tmp_path):
    folder, _ = work
    (tmp_path / "scored").mkdir()
    save_table(open_contestant(folder / "sent.csv").table, tmp_path / "scored" / "scores.csv")
    assert [kind_of(s) for s in ("shipped", folder / "run", folder / "run" / "bundle", folder / "sent.csv", tmp_path / "scored", folder / "masks")] == [
        "bundle", "bundle", "bundle", "table", "evaluation", "masks"]
    assert len(open_contestant(tmp_path / "scored").table) == 8 and contestant_name(tmp_path / "scored") == "scored"


@pytest.mark.parametrize("call, words", [
    (lambda f, m: open_contestant(f / "run"), "is a model, and has to be scored"),
    (lambda f, m: open_contestant(f / "masks"), "is a folder of masks, and has to be scored"),
    (lambda f, m: open_contestant(f / "gone"), "is neither a model nor"),
    (lambda f, m: save_comparison(f / "x", [Contestant("a", pd.DataFrame())] * 2), "a: is the name of two"),
    (lambda f, m: save_comparison(f / "x", [open_contestant(f / "sent.csv")] * 1, m), "two or more"),
    (lambda f, m: save_comparison(f / "x", [open_contestant(f / "sent.csv", name=n) for n in "ab"], m, by=["site"]), "site: is not a column"),
])
def test_refusals(work, call, words):
    with pytest.raises(InputError, match=words): call(*work)


def test_the_command(work, tmp_path, capfd):
    from lesion_seg.cli import main
    folder, manifest = work
    table = manifest.save(folder / "all.csv")
    args = ["compare", folder / "run", folder / "masks", "--manifest", table, "--split", "all", "--metric", "hd95", "--by", "family", "-o", tmp_path, "--json"]
    capfd.readouterr()
    assert main(list(map(str, args))) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["metric"] == "hd95" and list(result["models"]) == ["run", "masks"] and "masks: a mask that has no lesion" in err
    want = evaluate_manifest(folder / "run", manifest, distances=True).hd95.mean()
    assert result["models"]["run"]["mean"] == pytest.approx(want)


@pytest.mark.parametrize("args, words", [
    (("a.csv", "b.csv", "--metric", "beauty"), "--metric beauty: is not a metric"),
    (("a.csv", "b.csv", "--name", "x"), "--name x: has 1 names for 2"),
    (("shipped", "b.csv"), "shipped: is a model, and has to be scored; give the photographs with `--manifest TABLE`"),
])
def test_mistakes_on_the_command_line(args, words, capfd):
    from lesion_seg.cli import main
    assert main(["compare", *args]) == 2 and words in capfd.readouterr().err
