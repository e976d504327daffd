"""Files whose frame is odd though each part is in order: programs write them, by chance alone, from nothing but phantoms."""

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from random import Random

import numpy as np
from mutate import NUMBERS, WORDS
from PIL import Image

from lesion_seg.phantom import make_phantom

Case = dict[str, bytes]
PHOTO = make_phantom(3, (46, 62)).image
MANY = (0, 1, 1, 2, 3, 10, 100, 1000, 20_000, 200_000)  # how often a part is repeated


def odd(rng: Random, usual: int, chance: float = 0.3) -> int:
    "A number that is mostly the usual one."
    return rng.choice(NUMBERS) & 0xFFFFFFFF if rng.random() < chance else usual


def encoded(image: np.ndarray, fmt: str, **options) -> bytes:
    Image.fromarray(image).save(f := io.BytesIO(), fmt, **options)
    return f.getvalue()


# ------------------------------------------------------------------------------------------------------------------------- TIFF
def tiff(directories: list[dict[int, tuple[int, list[int]]]], data: bytes, order: str = "<", links: list[int] | None = None, big: bool = False) -> bytes:
    """Data, then directories of tag -> (kind, values), each linked to the next one or to the one that `links` names (-1: none).

    A value below zero stands for the place of that directory: -1 for the first, -2 for the second."""
    offset, count, entry, size = ("Q", "Q", "HHQ", 8) if big else ("I", "H", "HHI", 4)
    head = 16 if big else 8
    at, places, blocks = head + len(data) + (len(data) & 1), [], []
    for d in directories:
        places.append(at)
        behind = at + struct.calcsize(order + count) + len(d) * (struct.calcsize(order + entry) + size) + size
        at = behind + sum(n for kind, v in d.values() if (n := len(v) * {1: 1, 3: 2, 4: 4, 13: 4, 16: 8}[kind]) > size)
        at += at & 1
    for k, d in enumerate(directories):
        behind = places[k] + struct.calcsize(order + count) + len(d) * (struct.calcsize(order + entry) + size) + size
        entries, values_behind = b"", b""
        for tag, (kind, values) in sorted(d.items()):
            values = [places[-1 - v] if v < 0 and -v <= len(places) else v for v in values]
            code, width = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 13: ("I", 4), 16: ("Q", 8)}[kind]
            packed = struct.pack(f"{order}{len(values)}{code}", *(v & 256**width - 1 for v in values))
            if len(packed) > size:
                packed, values_behind = struct.pack(order + offset, behind + len(values_behind)), values_behind + packed
            entries += struct.pack(order + entry, tag, kind, len(values)) + packed.ljust(size, b"\0")
        following = k + 1 if links is None else links[k]
        next_one = places[following] if 0 <= following < len(places) else 0
        blocks.append(struct.pack(order + count, len(d)) + entries + struct.pack(order + offset, next_one) + values_behind)
        blocks[-1] += b"\0" * (len(blocks[-1]) & 1)
    mark = b"II" if order == "<" else b"MM"
    first = places[0] if places else 0
    start = mark + (struct.pack(order + "HHHQ", 43, 8, 0, first) if big else struct.pack(order + "HI", 42, first))
    return start + data + b"\0" * (len(data) & 1) + b"".join(blocks)


def compressed(rng: Random, raw: bytes, how: int) -> bytes:
    if how in (8, 32946): return zlib.compress(raw, 9)
    if how == 32773: return b"".join(bytes((129, raw[0] if raw else 0)) for _ in range(len(raw) // 128 + 1))
    return raw


def tiles(rng: Random) -> Case:
    "A TIFF of tiles or strips, whose sizes, numbers and lengths are odd."
    width, height = (rng.choice((1, 16, 62, 62, 62, 300, 300, 3000, 26_000)) for _ in range(2))
    samples, bits = rng.choice(((3, 8), (3, 8), (3, 8), (3, 16), (1, 8), (1, 16), (1, 1), (4, 8), (1, 32), (5, 8), (3, 32), (3, 1)))
    how = rng.choice((1, 1, 5, 8, 8, 32773, 7, 2, 3, 4, 34925, 50000, 34712, 6))
    planar, order, big = rng.choice((1, 1, 1, 2)), rng.choice("<>"), rng.random() < 0.2
    is_tiled = rng.random() < 0.75
    across, down = ([rng.choice((16, 16, 64, 256, 1024, 4096, 26_000, 65_520)) for _ in range(2)]) if is_tiled else (width, rng.choice((1, 8, height, 2**31)))
    pixels = min(across, 1 << 16) * min(down, 1 << 16) * bits * (1 if planar == 2 else samples) // 8
    raw = bytes(min(pixels, rng.choice((10, 1000, 300_000, 300_000, 300_000, 20_000_000 if how in (8, 32946) else 300_000))))
    block = encoded(np.zeros((16, 16, 3), np.uint8), "JPEG") if how == 7 else compressed(rng, raw, how)[:1_000_000]
    needed = (-(-width // max(across, 1))) * (-(-height // max(down, 1))) * (samples if planar == 2 else 1)
    n = min(odd(rng, min(needed, 50_000), 0.2), 100_000)
    head = 16 if big else 8
    amiss = rng.choice((0, 0, 0.02, 0.5))
    places, lengths = [odd(rng, head, amiss) for _ in range(n)], [odd(rng, len(block), amiss) for _ in range(n)]
    d = {254: (4, [rng.choice((0, 0, 0, 1, 2, 4))]), 256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * samples), 259: (3, [how]),
         262: (3, [odd(rng, 6 if how == 7 else 2 if samples >= 3 else rng.choice((0, 1)), 0.05)]), 277: (3, [samples]), 284: (3, [planar])}
    if rng.random() < 0.1: d[317] = (3, [rng.choice((1, 2, 3))])
    if rng.random() < 0.1: d[339] = (3, [rng.choice((1, 2, 3, 4))] * samples)
    if rng.random() < 0.2: d[274] = (3, [rng.randrange(10)])
    if is_tiled: d |= {322: (4, [across]), 323: (4, [down]), 324: (4, places), 325: (4, lengths)}
    else: d |= {278: (4, [down]), 273: (4, places), 279: (4, lengths)}
    for tag in list(d):
        if rng.random() < 0.003: d.pop(tag)
        elif rng.random() < 0.01: d[tag] = (4, [odd(rng, v) for v in d[tag][1]])
    return {"photo.tif": tiff([d], block, order, big=big)}


def small_directory(rng: Random, place: int, n: int) -> dict[int, tuple[int, list[int]]]:
    w, h = rng.choice(((62, 46), (62, 46), (31, 23), (1, 1)))
    return {254: (4, [rng.choice((0, 1, 1, 1, 2, 4))]), 256: (4, [w]), 257: (4, [h]), 258: (3, [8] * 3), 259: (3, [1]), 262: (3, [2]),
            273: (4, [place]), 277: (3, [3]), 278: (4, [h]), 279: (4, [n])}


def chains(rng: Random) -> Case:
    "A TIFF of many directories that follow, hold and repeat each other; or such a chain inside the EXIF part of a JPEG or PNG."
    pixels, order = PHOTO.tobytes(), rng.choice("<>")
    n = rng.choice((1, 2, 3, 10, 100, 900, 1001, 3000))
    directories = [small_directory(rng, 8, len(pixels)) for _ in range(n)]
    for d in directories:
        chance = rng.random()
        if chance < 0.2: d[330] = (rng.choice((4, 13)), [-1 - rng.randrange(n) for _ in range(rng.choice((1, 1, 2, 20)))])
        elif chance < 0.25: d[rng.choice((34665, 34853, 40965))] = (4, [-1 - rng.randrange(n)])
        elif chance < 0.27: d[rng.choice((700, 33723, 34377, 50000))] = (1, list(rng.randbytes(rng.choice((1, 1000, 60_000)))))
    links = rng.choice((None, [rng.randrange(-1, n) for _ in range(n)], [k // 2 for k in range(n)], [-1] * n))
    if rng.random() < 0.1: directories[0][330] = (4, [-1 - k % n for k in range(rng.choice(MANY))])
    made = tiff(directories, pixels, order, links)
    if rng.random() < 0.7: return {"photo.tif": made}
    exif = tiff(directories[: rng.choice((1, 5, 300))], b"", order, links)[:65_000]
    kind = rng.choice(("JPEG", "PNG", "WEBP"))
    return {f"photo.{kind[:3].lower().replace('jpe', 'jpg').replace('web', 'webp')}": encoded(PHOTO, kind, exif=b"Exif\0\0" + exif)}


# ----------------------------------------------------------------------------------------------------------------- JPEG and PNG
def png(rng: Random) -> bytes:
    "Chunks of few bytes, many times, or chunks that grow when they are unpacked."
    def chunk(kind: bytes, body: bytes) -> bytes: return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    side = rng.choice((1, 16, 62, 1000, 5000))
    rows = zlib.compress(b"".join(b"\0" + bytes(side) for _ in range(side)), 9)
    step = rng.choice((len(rows), len(rows), 1, 3))
    idat = b"".join(chunk(b"IDAT", rows[i : i + step]) for i in range(0, len(rows), step))
    kind = rng.choice((b"IDAT", b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"IHDR", b"teSt", b"tRNS", b"gAMA"))
    bomb = b"k\0\0" + zlib.compress(bytes(rng.choice((0, 10, 10**6))), 9)
    body = rng.choice((b"", b"", b"k\0v", bomb, bytes(13), rng.randbytes(26)))
    extra = chunk(kind, body) * (rng.choice(MANY) // (1 + len(body) // 64))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, rng.choice((0, 0, 1))))
    parts = rng.choice(((head, extra, idat), (head, idat, extra), (extra, head, idat)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + rng.choice((chunk(b"IEND", b""), b""))


def jpeg(rng: Random) -> bytes:
    "Scans, tables, marks and comments, many times."
    side = rng.choice(((46, 62), (46, 62), (500, 700), (1500, 2000)))
    picture = np.resize(PHOTO, (*side, 3)) if rng.random() < 0.3 else np.zeros((*side, 3), np.uint8)
    data = encoded(picture, "JPEG", progressive=rng.random() < 0.75, quality=rng.choice((5, 90)), restart_marker_blocks=rng.choice((0, 0, 1)))
    scans = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    at = rng.choice(scans)
    end = min([s for s in scans if s > at], default=len(data) - 2)
    what = rng.choice(("scan", "scan", "empty scan", "comment", "table", "mark", "all"))
    repeated = {"scan": data[at:end], "empty scan": data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")], "comment": b"\xff\xfe\0\2",
                "table": b"\xff\xdb\0\x43\0" + bytes(range(1, 65)), "mark": b"\xff" * 3 + b"\xd0", "all": data[scans[0] : -2]}[what]
    most = max(1, rng.choice((10_000, 400_000, 2_000_000)) // len(repeated))
    return data[:end] + repeated * min(rng.choice(MANY), most) + data[end:]


def scans(rng: Random) -> Case:
    "Pictures of which few bytes are to be decoded often: scans of JPEG, chunks of PNG, frames of WebP."
    which = rng.random()
    if which < 0.5: return {"photo.jpg": jpeg(rng)}
    if which < 0.9: return {"photo.png": png(rng)}
    side = rng.choice((1, 62, 500))
    frames = [Image.new("RGB", (side, side), (k % 256, 0, 0)) for k in range(rng.choice((1, 2, 30)))]
    frames[0].save(f := io.BytesIO(), "WEBP", save_all=True, append_images=frames[1:], duration=rng.choice((0, 1, 9999)))
    return {"photo.webp": f.getvalue()}


# ------------------------------------------------------------------------------------------------------------------------ DICOM
def element(tag: tuple[int, int], vr: bytes, value: bytes, length: int | None = None) -> bytes:
    n = len(value) if length is None else length
    head = struct.pack("<HH", *tag) + vr
    return head + (struct.pack("<HI", 0, n) if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC") else struct.pack("<H", n & 0xFFFF)) + value


def nested(rng: Random, depth: int) -> bytes:
    "Sequences in sequences, with lengths or open ends."
    inner = element((8, 0x100), b"SH", b"T ")
    is_open = rng.random() < 0.7
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", 0xFFFFFFFF if is_open else len(inner)) + inner + (b"\xfe\xff\x0d\xe0\0\0\0\0" if is_open else b"")
        body = item + (b"\xfe\xff\xdd\xe0\0\0\0\0" if is_open else b"")
        inner = element((8, 0x2218), b"SQ", body, 0xFFFFFFFF if is_open else None)
    return inner


def elements(rng: Random) -> Case:
    "A DICOM file of many elements, items, depths and fragments."
    h, w = PHOTO.shape[:2]
    jpeg_inside = rng.random() < 0.5
    syntax = b"1.2.840.10008.1.2.4.50" if jpeg_inside else b"1.2.840.10008.1.2.1\0"
    what = rng.choice(("empty", "private", "items", "depth", "fragments", "text", "numbers", "unknown", "none"))
    n, extra = rng.choice(MANY), b""
    if what == "empty": extra = b"".join(element((0x0021, 0x1000 + k % 0xEFFF), b"LO", b"") for k in range(min(n, 0xEFFF)))
    if what == "private": extra = b"".join(element((9 + 2 * (k // 200), 0x10 + k % 200), b"LO", b"OWNER ") for k in range(min(n, 20_000)))
    if what == "items":
        body = b"\xfe\xff\x00\xe0\0\0\0\0" * n
        extra = element((8, 0x2218), b"SQ", body)
    if what == "depth": extra = nested(rng, min(n, 2000))
    if what == "text": extra = element((0x10, 0x4000), b"UT", b"\\".join([b"x"] * n) + b" " * (1 - n % 2))
    if what == "numbers": extra = element((0x28, 0x3006), b"OW", bytes(2 * n)) + element((0x18, 0x9445), b"UN", b"\\1" * n)
    if what == "unknown": extra = element((0x11, 0x1001), b"UN", nested(rng, 3) * min(n, 2000), 0xFFFFFFFF)
    picture = [element((0x28, 2), b"US", struct.pack("<H", odd(rng, 3, 0.05) & 0xFFFF)), element((0x28, 4), b"CS", b"YBR_FULL_422" if jpeg_inside else b"RGB "),
               element((0x28, 6), b"US", b"\0\0"), element((0x28, 8), b"IS", str(odd(rng, 1, 0.1)).encode().ljust(12)[:12]),
               element((0x28, 0x10), b"US", struct.pack("<H", h)), element((0x28, 0x11), b"US", struct.pack("<H", w)),
               element((0x28, 0x100), b"US", b"\x08\0"), element((0x28, 0x101), b"US", b"\x08\0"), element((0x28, 0x102), b"US", b"\x07\0"),
               element((0x28, 0x103), b"US", b"\0\0")]
    pixels = element((0x7FE0, 0x10), b"OW", PHOTO.tobytes())
    if jpeg_inside:
        frame = encoded(PHOTO, "JPEG")
        frame += b"\0" * (len(frame) & 1)
        empty = b"\xfe\xff\x00\xe0\0\0\0\0" * (n if what == "fragments" else 0)
        table = b"\xfe\xff\x00\xe0" + struct.pack("<I", 4 * (k := rng.choice((0, 0, 1, 1000)))) + bytes(4 * k)
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(frame)) + frame
        pixels = element((0x7FE0, 0x10), b"OB", table + rng.choice((empty + item, item + empty, item)) + b"\xfe\xff\xdd\xe0\0\0\0\0", 0xFFFFFFFF)
    ids = element((8, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.77.1.4.1") + element((8, 0x18), b"UI", b"1.2.3.4\0") + element((8, 0x60), b"CS", b"XC")
    meta = element((2, 0x10), b"UI", syntax)
    middle = [extra, *picture] if extra[:1] < b"\x28" else [*picture, extra]
    head = bytes(128) + b"DICM" + element((2, 0), b"UL", struct.pack("<I", len(meta))) + meta
    return {"photo.dcm": head + ids + b"".join(middle) + (pixels if rng.random() < 0.95 else b"")}


# ------------------------------------------------------------------------------------------------------------------------- ONNX
def graphs(rng: Random, size: int = 32) -> bytes:
    "A network that takes a photograph and gives a map, with odd nodes between: sizes known from the file, or only when it runs."
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, n = [], [], 0

    def constant(values) -> str:
        nonlocal n
        n += 1
        tensors.append(numpy_helper.from_array(np.asarray(values), f"c{n}"))
        return f"c{n}"

    def node(op: str, *inputs: str, **settings) -> str:
        nonlocal n
        n += 1
        nodes.append(helper.make_node(op, list(inputs), [f"t{n}"], **settings))
        return f"t{n}"

    def whole(values: list[int]) -> str:
        "Numbers that the file holds, or that come out of the photograph."
        if rng.random() < 0.6: return constant(np.array(values, np.int64))
        zero = node("Mul", node("ReduceMax", start, keepdims=0), constant(np.float32(0)))
        return node("Cast", node("Add", zero, constant(np.array(values, np.float32))), to=TensorProto.INT64)

    x = start = node("Div", node("Cast", "image", to=TensorProto.FLOAT), constant(np.float32(255)))
    many = rng.choice((1, 1, 2, 2, 3, 8, 40))
    for _ in range(many):
        k = rng.choice((1, 1, 2, 3, 8, 50, 1000, 10_000, 2**20))
        match rng.randrange(15):
            case 0: x = node(rng.choice(("Relu", "Sigmoid", "Erf", "Exp", "Neg", "Sqrt", "Identity", "Softmax", "Softplus", "Tanh")), x)
            case 1: x = node(rng.choice(("Add", "Mul", "Div", "Pow", "Min")), x, constant(np.float32(rng.choice((0, 1, -1, 1e30, np.nan)))))
            case 2: x = node("Concat", x, x, axis=rng.choice((0, 1, 2, 3)))
            case 3: x = node("Tile", x, whole([1, k, 1, 1]))
            case 4: x = node("Expand", x, whole([k, 1, 1, 1]))
            case 5: x = node("Add", x, node("ConstantOfShape", whole([k, 1, 1, 1])))
            case 6: x = node("Pad", x, whole([0, k, 0, 0, 0, k, 0, 0]), mode=rng.choice(("constant", "edge", "reflect")))
            case 7: x = node("Resize", x, "", "", whole([1, k, 64, 3]), mode=rng.choice(("nearest", "linear")))
            case 8: x = node("Mul", x, node("Unsqueeze", node("Cast", node("Range", constant(0), whole([k]) if rng.random() < 0.2 else constant(k),
                                                                        constant(1)), to=1), constant([0, 1, 2])))
            case 9: x = node("ConvTranspose", x, constant(np.ones((rng.choice((1, 3, 32)), 1, 1, 1), np.float32)), strides=[k % 4096 + 1, 1])
            case 10: x = node("MatMul", node("Reshape", x, whole([-1, 1])), node("Reshape", x, whole([1, -1])))
            case 11: x = node("Gather", x, node("ConstantOfShape", whole([k]), value=numpy_helper.from_array(np.zeros(1, np.int64))), axis=1)
            case 12: x = node(rng.choice(("MaxPool", "AveragePool")), x, kernel_shape=[k % 200 + 1] * 2, pads=[k % 100] * 4)
            case 13: x = node("Conv", x, constant(np.ones((k % 512 + 1, rng.choice((1, 3, 32)), 1, 1), np.float32)), dilations=[k, 1])
            case _:
                body = helper.make_graph([helper.make_node("Identity", [x], ["y"])], "b", [], [helper.make_tensor_value_info("y", 1, None)])
                if rng.random() < 0.2: x = node("If", node("Cast", node("ReduceMax", x, keepdims=0), to=9), then_branch=body, else_branch=body)
                else: x = node(rng.choice(("ScatterElements", "NonZero", "Loop", "Shape", "TopK", "Trilu", "OneHot", "Nope")), x)
    if rng.random() < 0.8:  # whatever came out becomes a map
        x = node("Add", node("Mul", node("ReduceMean", x, keepdims=0), constant(np.float32(0))),
                 node("ReduceMean", start, constant(np.array([3])), keepdims=0))
        x = node("Unsqueeze", x, constant([1])) if rng.random() < 0.1 else x
    nodes.append(helper.make_node("Identity", [x], ["probability"]))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", size, size, 3])],
                              [helper.make_tensor_value_info("probability", 1, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


# ----------------------------------------------------------------------------------------------------------------------- tables
def cell(rng: Random) -> str:
    which = rng.random()
    if which < 0.4: return rng.choice(("p0", "p1", "p2", "p3", "photo0.png", "p0_mask.png", "train", "valid", "1", "0.5", "NA"))
    if which < 0.8: return rng.choice(WORDS)
    return rng.choice(("x" * rng.choice((300, 5000, 140_000)), "\r\n".join(["a"] * 50), '""', '"', "a,b", "a;b\tc", "\x1b[2J", "\u2028", "１２", "1e5", "0x", "٣"))


NAMES = ("image", "mask", "id", "group", "split", "patient_id", "lesion_id", "sex", "age", "isic_id", "image_a", "image_b", "jaccard", "dice", "sensitivity",
         "specificity", "accuracy", "Image Path", "IMAGE", " image", "image ", "", "\ufeffimage", "unnamed: 0", "bytes", "split_digest")


def rows_of(rng: Random) -> tuple[list[str], list[list[str]]]:
    n, wide = rng.choice((0, 1, 2, 4, 4, 4, 30, 3000)), rng.choice((0, 1, 3, 5, 6, 9, 500))
    columns = [rng.choice(NAMES) if rng.random() < 0.85 else cell(rng) for _ in range(wide)]
    usual = ["image", "mask", "id", "group", "split", "patient_id"]
    if rng.random() < 0.7: columns[: len(usual)] = usual[: len(columns)]
    rows = []
    for i in range(min(n, 30_000 // (wide + 1))):
        known = dict(image=f"p{i % 4}.png", mask=f"p{i % 4}_mask.png", id=f"p{i}", group=f"g{i % 3}", split="", jaccard="0.5", dice="0.6", image_a="p0", image_b="p1")
        row = [known.get(c, cell(rng)) if rng.random() < 0.97 else cell(rng) for c in columns]
        rows.append(row[: odd(rng, len(row), 0.02) % (len(row) + 1)] if rng.random() < 0.03 else row)
    return columns, rows


def table(rng: Random) -> bytes:
    "A CSV file whose quotes, separators, ends of line and encoding are odd."
    columns, rows = rows_of(rng)
    mark, end, quote = rng.choice(",,,;\t|"), rng.choice(("\n", "\n", "\r\n", "\r", "\n\n")), rng.choice(("smart", "smart", "all", "none", "open"))

    def written(c: str) -> str:
        if quote == "none": return c
        if quote == "open" and rng.random() < 0.01: return f'"{c}'
        return '"' + c.replace('"', '""') + '"' if quote == "all" or any(x in c for x in f'{mark}"\r\n') else c
    text = end.join(mark.join(map(written, row)) for row in (columns, *rows)) + rng.choice(("", end, "\0", '"'))
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "utf-7")), "replace")


def parquet(rng: Random) -> bytes:
    "A Parquet file whose columns have odd types."
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, rows = rows_of(rng)
    columns = list(dict.fromkeys(columns))
    kinds: tuple[Callable[[int, str], object], ...] = (
        lambda i, c: c, lambda i, c: c, lambda i, c: c, lambda i, c: i, lambda i, c: i / 3, lambda i, c: None, lambda i, c: c.encode(), lambda i, c: [c, c],
        lambda i, c: {"bytes": c.encode(), "path": c}, lambda i, c: i % 2 == 0, lambda i, c: np.datetime64(i, "s"), lambda i, c: float("nan"), lambda i, c: i << 40)
    made = {}
    for k, name in enumerate(columns):
        kind = rng.choice(kinds)
        made[name] = pa.array([kind(i, row[k] if k < len(row) else "") for i, row in enumerate(rows)])
    pq.write_table(pa.table(made), f := io.BytesIO(), compression=rng.choice(("none", "snappy", "zstd")))
    return f.getvalue()


def tables(rng: Random) -> Case:
    "A manifest, a table of metadata, a table of pairs and one of scores, beside four photographs with their masks."
    files = {}
    for i in range(4):
        p = make_phantom(i, 32)
        files |= {f"p{i}.png": encoded(p.image, "PNG"), f"p{i}_mask.png": encoded(p.mask.astype(np.uint8) * 255, "PNG")}
    good = "\n".join(["image,mask,id,group,split", *(f"p{i}.png,p{i}_mask.png,p{i},g{i % 2}," for i in range(4))]).encode()
    which = rng.choice(("manifest", "metadata", "pairs", "scores"))
    is_parquet = rng.random() < 0.25 and which != "scores"
    odd_one = parquet(rng) if is_parquet else table(rng)
    files |= {"manifest.csv": good, "metadata.csv": b"id,sex\np0,female\np1,male\np2,\np3,male\n", "pairs.csv": b"image_a,image_b\np0,p2\n", "scores.csv": b"id,group,jaccard\np0,a,0.5\n"}
    files.pop(f"{which}.csv")
    return files | {f"{which}.{'parquet' if is_parquet else 'csv'}": odd_one}


# --------------------------------------------------------------------------------------------------------------------- displays
def strings(rng: Random) -> Case:
    "Strings for every field of what a notebook shows: pieces of markup, put together by chance."
    pieces = ("<", ">", '"', "'", "&", "&lt;", "&#60;", "<b>", "</td>", "</table>", "<!--", "-->", "<script>", "onerror=", "javascript:", "|", "\n", "\n\n", "\n    ",
              "`", "```\n", "*", "_", "~~", "[", "](", ")", "![", "#", "- ", "1. ", "> ", "---\n", "\\", "\\\\", "$", "$$", "\\(", "http://", "www.", "a@b.c", "\0", "\x1b[",
              "\u202e", "\ud800", "<a href='x'>", "x", "mole", " ", "\t", "{{", "}}", "<?", "]]>", "&#", ";", "=", "x" * 2000, "\u00a0", "\u2028", ":", "|-|")
    made = ["".join(rng.choice(pieces) for _ in range(rng.choice((1, 2, 3, 5, 9, 30)))) for _ in range(rng.choice((1, 3, 12)))]
    return {"strings.json": json.dumps(dict(picture=rng.random() < 0.02, kind=rng.randrange(1000), strings=made)).encode()}


if __name__ == "__main__":
    for make in (tiles, chains, scans, elements, tables, strings):
        sizes = [sum(map(len, make(random.Random(i)).values())) for i in range(30)]
        print(make.__name__, sorted(sizes)[::5])
