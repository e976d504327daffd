"""model/peers: the table of its README against the JSON it was made from, and the methods on a lesion that cannot be missed."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "model" / "peers"
RESULT = json.loads((ROOT / "model" / "results" / "baselines.json").read_text(encoding="utf-8"))


def rows() -> dict[str, list[str]]:
    "The rows of the README's table of scores, by method."
    text = (PEERS / "README.md").read_text(encoding="utf-8").partition("| method | mean Jaccard |")[2]
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def test_the_table_shows_what_was_measured():
    table = rows()
    assert list(table) == list(RESULT["scores"]) == ["shipped", "otsu", "grabcut", "chan_vese"]
    gaps = {p["b"]: p for p in RESULT["comparison"]["pairs"] if p["a"] == "shipped"}
    for name, cells in table.items():
        s = RESULT["scores"][name]
        j = s["metrics"]["jaccard"]
        assert cells[:5] == [f"{j['mean']:.3f}", f"{j['ci'][0]:.3f} to {j['ci'][1]:.3f}", f"{s['metrics']['dice']['mean']:.3f}",
                             f"{s['pooled']['jaccard']:.3f}", f"{s['failures']} of {s['n']}"]
        if name != "shipped":
            difference = RESULT["scores"]["shipped"]["metrics"]["jaccard"]["mean"] - j["mean"]
            assert cells[5].startswith(f"{difference:.3f} (") and gaps[name]["difference"] == pytest.approx(difference)


def test_every_program_is_in_the_table():
    text = (PEERS / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in PEERS.glob("*.py") if f"`{p.name}`" not in text] == []
    assert all(s["n"] == 150 for s in RESULT["scores"].values()) and not re.search(r"/tmp|/work|/root", json.dumps(RESULT))


@pytest.mark.parametrize("method", ["otsu", "grabcut", "chan_vese"])
def test_a_dark_disk_on_light_skin_is_found(method, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.syspath_prepend(str(PEERS))
    import baselines
    y, x = np.mgrid[:96, :96]
    lesion = np.hypot(y - 50, x - 44) < 22
    noise = np.random.default_rng(0).normal(0, 4, (96, 96, 3))
    image = np.where(lesion[..., None], (110, 60, 45), (215, 170, 150)) + noise
    image[np.hypot(y - 48, x - 48) > 66] = 0  # the corners of a dermatoscope
    found = baselines.METHODS[method](image.clip(0, 255).astype(np.uint8))
    assert (found & lesion).sum() / (found | lesion).sum() > .9
    sys.modules.pop("baselines", None)
