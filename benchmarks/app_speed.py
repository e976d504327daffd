"""What a reader of the web app waits for, and what a session costs, in a real browser on this machine.

    python benchmarks/app_speed.py [--rounds 3] [--readers 10] [-o benchmarks/results/app_speed.json]

Phantoms only. Seconds are medians over the rounds; memory is the resident set of a session's kernel, in MB."""
import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from lesion_seg.bundle import code_commit
from lesion_seg.core import atomic_path
from lesion_seg.phantom import make_phantom

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from app_server import ARGS, chromium, has_torch, memory, peak, serving

DONE = """() => document.querySelector('.lesion-numbers dt') && !document.querySelector('.lesion-job')?.checkVisibility()"""
SLIDE = """async () => {
  const slider = [...document.querySelectorAll('[role=slider]')].find(e => e.getAttribute('aria-label') === 'Threshold');
  const area = () => [...document.querySelectorAll('.lesion-numbers dl > div')].find(e => e.firstChild.textContent === 'Area in pixels').textContent, times = [];
  slider.focus();
  for (let i = 0; i < 25; i++) {
    const before = area(), start = performance.now();
    slider.dispatchEvent(new KeyboardEvent('keydown', { key: i % 2 ? 'PageUp' : 'PageDown', bubbles: true }));
    while (area() === before) await new Promise(requestAnimationFrame);
    times.push(performance.now() - start);
    await new Promise(done => setTimeout(done, 600));
  }
  return times;
}"""


class Reader:
    "A page, and the time of what is done on it."
    def __init__(self, server, browser):
        self.server, self.page = server, browser.new_page(viewport=dict(width=1440, height=900))
        self.page.set_default_timeout(180_000)
        start = time.perf_counter()
        self.page.goto(server.url)
        self.page.wait_for_selector("[data-ready]", state="attached")
        self.ready = time.perf_counter() - start
        self.paint = self.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1e3
        self.pid = server.kernel_of(self.page)

    def take(self, *files) -> float:
        "Seconds from the choice of files to their results."
        with self.page.expect_file_chooser() as chooser: self.page.get_by_role("button", name="Choose files").click()
        start = time.perf_counter()
        chooser.value.set_files([str(f) for f in files])
        self.page.wait_for_function(DONE)
        return time.perf_counter() - start

    def tab(self, name) -> None: self.page.locator(".lesion-tabs").get_by_role("button", name=name, exact=True).click()

    def layer(self, kind, words) -> float:
        "Seconds until a map is there."
        self.tab("Maps")
        start = time.perf_counter()
        self.page.get_by_label("Map", exact=True).select_option(kind)
        self.page.locator(".lesion-maps", has_text=words).wait_for()
        return time.perf_counter() - start

    def leave(self) -> None:
        self.page.goto("about:blank")
        self.page.close()


def files(folder: Path) -> dict[str, Path]:
    "A photograph of 6 megapixels, one file of nearly 200 MB, and a batch of 20."
    out = dict(photo=folder / "photo.jpg", large=folder / "large.png")
    Image.fromarray(make_phantom(57, (2000, 3000)).image).save(out["photo"], quality=92)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8100, 8100, 3), np.uint8)).save(out["large"], compress_level=0)
    for i in range(20): Image.fromarray(make_phantom(40 + i, (768, 1024)).image).save(folder / f"batch{i:02}.jpg", quality=92)
    return out


def one(server, browser, photo) -> dict[str, float]:
    "A reader with one photograph."
    server.wait_warm(server.log.read_text().count("Using pre-heated") + 1)
    time.sleep(2)
    r = Reader(server, browser)
    seen = dict(first_paint=r.paint, ready=r.ready, first_result_6_megapixels=r.take(photo))
    moves = sorted(r.page.evaluate(SLIDE))
    seen |= dict(slider_median=statistics.median(moves) / 1e3, slider_95th=moves[int(.95 * len(moves))] / 1e3)
    seen |= dict(uncertainty=r.layer("Standard deviation", "20 variants"), memory_one_photograph=memory(r.pid), torch=float(has_torch(r.pid)))
    seen |= dict(gradcam_first=r.layer("Grad-CAM: lesion", "spoke most"), memory_with_gradcam=memory(r.pid))
    seen["gradcam_again"] = r.layer("Grad-CAM: border", "most for the border")
    r.leave()
    return seen


def many(server, browser, folder) -> dict[str, float]:
    "A batch of 20, packed; then one file of nearly 200 MB in a session of its own."
    r = Reader(server, browser)
    batch = sorted(folder.glob("batch*.jpg"))
    seconds = r.take(*batch)
    assert r.page.locator(".lesion-queue .widget-select option").count() == 20
    r.tab("Take away")
    start = time.perf_counter()
    with r.page.expect_download() as download: r.page.get_by_role("button", name="All results (ZIP)").click()
    seen = dict(batch_of_20=seconds, zip_of_20=time.perf_counter() - start, zip_megabytes=download.value.path().stat().st_size / 1e6,
                memory_batch_of_20=memory(r.pid))
    r.leave()
    r = Reader(server, browser)
    seen |= dict(upload_197_megabytes=r.take(folder / "large.png"), memory_upload_197_megabytes_peak=peak(r.pid))
    r.leave()
    return seen


def together(server, browser, photo, n) -> dict[str, float]:
    "Readers at the same time."
    readers = [Reader(server, browser) for _ in range(n)]
    start = time.perf_counter()
    for r in readers: r.take(photo)
    seen = dict(readers=n, last_of_them_has_its_result=time.perf_counter() - start, memory_each_mean=statistics.mean(memory(r.pid) for r in readers),
                memory_each_most=max(memory(r.pid) for r in readers), torch_in=sum(has_torch(r.pid) for r in readers))
    for r in readers: r.leave()
    return seen


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--readers", type=int, default=10)
    a.add_argument("-o", type=Path, default=Path("benchmarks/results/app_speed.json"))
    args = a.parse_args()
    with tempfile.TemporaryDirectory() as tmp, serving(tmp) as server, sync_playwright() as p:
        folder = Path(tmp)
        made, browser = files(folder), p.chromium.launch(executable_path=chromium(), args=ARGS)
        rounds = [one(server, browser, made["photo"]) for _ in range(args.rounds)]
        command = f"python benchmarks/app_speed.py --rounds {args.rounds} --readers {args.readers}"
        result = dict(command=command, commit=code_commit(), cores=os.cpu_count(), load_at_start=round(os.getloadavg()[0], 1),
                      one={k: round(statistics.median(r[k] for r in rounds), 3) for k in rounds[0]},
                      many={k: round(v, 3) for k, v in many(server, browser, folder).items()},
                      together={k: round(v, 3) for k, v in together(server, browser, made["photo"], args.readers).items()},
                      load_at_end=round(os.getloadavg()[0], 1))
    text = json.dumps(result, indent=1) + "\n"
    with atomic_path(args.o) as tmp: tmp.write_text(text)
    print(text)


if __name__ == "__main__": main()
