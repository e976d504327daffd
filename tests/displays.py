"""Every class of the package that a notebook shows in a rich way, made with strings of one's choice, and what a browser would make of what it shows."""

import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from markdown_it import MarkdownIt
from PIL import Image

import lesion_seg
from lesion_seg.bundle import SHIPPED, Bundle
from lesion_seg.dicom import Summary
from lesion_seg.explain import Explanation
from lesion_seg.gradcam import GradCAM
from lesion_seg.layouts import LesionPair, Problem
from lesion_seg.manifest import Manifest
from lesion_seg.mc_dropout import Uncertainty
from lesion_seg.predict import Segmentation
from lesion_seg.records import RecordManifest
from lesion_seg.session import Corrected
from lesion_seg.styles import DrawnMask, Styles

Words = Callable[[], str]  # each call gives the string for another field

HOSTILE = (
    "<img src=x onerror=alert(1)>", '"><script>alert(1)</script>', "'><svg/onload=alert(1)>", "</td></table><iframe src=//evil.example>",
    "a|b|\n|---|---|\n|<b>x</b>|", "[x](javascript:alert(1))", "![x](http://evil.example/x.png)", "<http://evil.example>", "www.evil.example",
    "http://evil.example/?a=1&b=2", "mole@evil.example", "`<i>`", "**x** _y_ ~~z~~", "# x", "\n\n<style>*{display:none}</style>\n\n", "<!-- ", "--> x",
    "<![CDATA[", "]]>", "<?php ", "&lt;script&gt;", "&#60;b&#62;x", "\x1b[31m\x07", "\u202egpj.exe", "\ud800", "\0", "$\\href{javascript:alert(1)}{x}$",
    "=cmd()", "\\<b>x", "<b\nx>", "<" * 3000, "x" * 100_000, "\n" * 2000, "",
)


def manifest(kind: type[Manifest], word: Words) -> Manifest:
    pairs = [LesionPair(Path(word().replace("\0", "")), None, word(), word(), word(), {word(): word()}) for _ in range(4)]
    problems = [Problem(*(word() for _ in Problem._fields)) for _ in range(7)]
    return kind(pairs, word().replace("\0", ""), problems, [word(), word()], word())


def bundle(word: Words) -> Bundle:
    info = Bundle.load(SHIPPED).info
    names = {"architecture": {"name": word(), word(): word()}, "training": {"data": word(), "n_train": word(), "licence": word(), word(): word()},
             "onnx": {"sha256": {word(): word(), word(): word()}}, "weights_sha256": word()}
    return Bundle(Path(word().replace("\0", "")), {**info, **names})


def segmentation(word: Words) -> Segmentation:
    model = {word(): word()}
    return Segmentation(np.eye(8, dtype=np.float32) * np.float32(0.9), (16, 16), name=word(), model=model, warnings=[word(), word()])


def uncertainty(word: Words) -> Uncertainty:
    return Uncertainty.from_samples(np.stack([np.eye(6), np.zeros((6, 6))]).astype(np.float32))  # it holds no string


def grad_cam(word: Words) -> GradCAM:
    heat = np.eye(6, dtype=np.float32)
    return GradCAM(heat, heat, word(), word(), heat > 0, 1.0, np.zeros((6, 6, 3), np.uint8))


def explanation(word: Words) -> Explanation:
    maps = {"std": np.eye(6, dtype=np.float32)}
    return Explanation(maps, (6, 6), word(), np.zeros((6, 6, 3), np.uint8), {word(): word()})


def styles(word: Words) -> Styles:
    masks = [DrawnMask(word(), Path(word().replace("\0", "")), word(), None, 0.1) for _ in range(3)]
    problem = Problem(*(word() for _ in Problem._fields))
    return Styles(masks, [m.style for m in masks], [], [], False, [word(), word()], [problem], 1)


# class: what makes one of it, every string of it from `word`
MAKERS: dict[type, Callable[[Words], Any]] = {
    Manifest: lambda word: manifest(Manifest, word),
    RecordManifest: lambda word: manifest(RecordManifest, word),
    Summary: lambda word: Summary({word(): v for v in (word(), [word(), word()], None, True, 1.5)}),
    Bundle: bundle,
    Segmentation: segmentation,
    Corrected: lambda word: Corrected.of(segmentation(word), np.eye(16, dtype=bool)),
    Uncertainty: uncertainty,
    GradCAM: grad_cam,
    Explanation: explanation,
    Styles: styles,
}


def shown_classes() -> Iterator[type]:
    "The public classes of every module that have a rich display of this package."
    for module in pkgutil.walk_packages(lesion_seg.__path__, "lesion_seg."):
        if module.name.endswith("__main__"): continue
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__ == module.name and not kind.__name__.startswith("_") and displays(kind): yield kind


def displays(kind: type) -> dict[str, Any]:
    "The rich displays of a class by name; those that a library has written are not ours."
    found = {n: getattr(kind, n) for n in dir(kind) if re.fullmatch(r"_repr_\w+_|_ipython_display_", n)}
    return {n: f for n, f in found.items() if getattr(f, "__module__", "").startswith("lesion_seg")}


class _Skeleton(HTMLParser):
    "Elements with their attributes, comments and declarations, in the order of the text."
    def __init__(self, html: str):
        super().__init__()
        self.parts: list[Any] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs): self.parts.append((tag, *attrs))
    def handle_endtag(self, tag): self.parts.append(("/", tag))
    def handle_data(self, data): self.text += data
    def handle_comment(self, data): self.parts.append(("comment", data))
    def handle_decl(self, decl): self.parts.append(("declaration", decl))
    def handle_pi(self, data): self.parts.append(("instruction", data))
    def unknown_decl(self, data): self.parts.append(("declaration", data))


def skeleton(name: str, shown: Any) -> Any:
    "What a display is made of, apart from its texts and pixels: elements and attributes, or the format of a picture and what it says of itself."
    if isinstance(shown, bytes):
        with Image.open(io.BytesIO(shown)) as picture:
            picture.load()
            return picture.format, sorted(picture.info)
    if not isinstance(shown, str): raise TypeError(f"{name} gives a {type(shown).__name__}, which nobody here can read")
    if name == "_repr_markdown_":
        if link := re.search(r"(?i)www\.|://|\w@\w", shown): raise AssertionError(f"a link without brackets: {link[0]}")
        shown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(shown)
    return _Skeleton(shown).parts
