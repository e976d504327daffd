"""What is worth labelling next: the order by hand, the descriptions against PyTorch, the table."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lesion_seg.cli import main
from lesion_seg.core import InputError
from lesion_seg.phantom import make_phantom
from lesion_seg.predict import Segmenter
from lesion_seg.queue import Describer, Queued, diverse_order, make_queue, write_queue


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(4): Image.fromarray(make_phantom(60 + i, (90, 110)).image).save(folder / f"{i}.png")
    return folder


def slow_order(vectors: np.ndarray, scores: np.ndarray, known: list[np.ndarray]) -> list[int]:
    "The definition, without any saving of work."
    chosen: list[int] = []
    while len(chosen) < len(scores):
        centres = known + [vectors[i] for i in chosen]
        gains = [-1 if i in chosen else s * (min(np.linalg.norm(v - c) for c in centres) if centres else 1) for i, (v, s) in enumerate(zip(vectors, scores, strict=True))]
        chosen.append(int(np.argmax(gains)))
    return chosen


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 3))
def test_the_greedy_order_is_its_definition(seed, n, labelled):
    rng = np.random.default_rng(seed)
    vectors, scores, known = rng.normal(size=(n, 3)), rng.random(n), rng.normal(size=(labelled, 3))
    order, gaps = diverse_order(vectors, scores, known=known if labelled else None)
    assert order == slow_order(vectors, scores, list(known))
    for k, i in enumerate(order):
        centres = [*known, *(vectors[j] for j in order[:k])]
        assert gaps[k] == pytest.approx(min((np.linalg.norm(vectors[i] - c) for c in centres), default=np.inf))


def test_descriptions_are_those_of_the_network():
    import torch

    from lesion_seg.gradcam import to_input
    segmenter = Segmenter()
    image = make_phantom(3, (segmenter.bundle.size,) * 2).image
    with torch.inference_mode(): features = segmenter.bundle.model().encode(to_input(image, segmenter.bundle))[-1]
    expected = features.mean((2, 3))[0] / features.mean((2, 3))[0].norm()
    np.testing.assert_allclose(Describer(segmenter.bundle)(image[None])[0], expected, atol=1e-4)


def test_uncertainty_is_that_of_review(photos):
    segmenter = Segmenter()
    rows, _ = make_queue(segmenter, sorted(photos.iterdir()))
    expected = {p: segmenter.predict(p, review=True).disagreement for p in photos.iterdir()}
    assert [r.file for r in rows] == sorted(expected, key=lambda p: -expected[p])
    assert all(r.disagreement == pytest.approx(expected[r.file], abs=1e-6) for r in rows)


def test_what_is_labelled_already_can_wait(photos):
    segmenter, files = Segmenter(), sorted(photos.iterdir())
    first = make_queue(segmenter, files, "diverse")[0][0].file
    rows = make_queue(segmenter, files, "diverse", labelled=[first])[0]
    assert rows[-1].file == first and rows[-1].distance == pytest.approx(0, abs=1e-5)


def test_cells_are_safe(tmp_path):
    write_queue([Queued(1, "=cmd()", .5, None)], tmp_path / "q.csv")
    assert next(csv.DictReader((tmp_path / "q.csv").open())) == dict(rank="1", image="'=cmd()", disagreement="0.500000", distance="")


def test_command_line(photos, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for p in photos.iterdir(): (tmp_path / "in" / p.name).write_bytes(p.read_bytes())
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["queue", str(tmp_path / "in"), "-o", str(tmp_path / "q.csv"), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert [r["rank"] for r in answer["queue"]] == [1, 2, 3, 4] and "broken.png" in answer["remarks"][0]
    assert main(["queue", str(photos), "-o", str(tmp_path / "q.csv"), "--first", "2"]) == 2
    assert "are for --order diverse" in capsys.readouterr().err


def test_unknown_orders_are_refused():
    with pytest.raises(InputError, match="uncertainty, diverse"): make_queue(None, [], "chance")
