"""Damage that knows the format: a seed in, a slightly wrong file out, decided by the random generator alone."""

import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random

Mutator = Callable[[bytes, Random, bytes], bytes]  # a file, chance, and another file to splice with

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    127,
    128,
    255,
    256,
    1000,
    32767,
    32768,
    65535,
    65536,
    10**6,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -1,
)
WORDS = (
    "",
    "0",
    "-1",
    "1e999",
    "nan",
    "inf",
    "-0.0",
    "1_000",
    "0x10",
    "null",
    "true",
    "[]",
    "{}",
    "~",
    "\0",
    "\n",
    "\ufeff",
    "é",
    "‮gnp.exe",
    "a" * 5000,
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "%s%n",
    "{0}",
    "'",
    '"',
    ",",
    ";",
    "\t",
    "=cmd()",
    "train",
    "valid",
    "test",
    "9" * 400,
    "photo0.png",
)


def _at(data: bytes, rng: Random) -> int:
    return rng.randrange(len(data) + 1)


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    a = _at(data, rng)
    return a, min(len(data), a + int(rng.paretovariate(0.6)))


def flip(data: bytes, rng: Random, other: bytes) -> bytes:
    a = _at(data, rng)
    return data[:a] + bytes(b ^ 1 << rng.randrange(8) for b in data[a : a + 1]) + data[a + 1 :]


def overwrite(data: bytes, rng: Random, other: bytes) -> bytes:
    a, b = _span(data, rng)
    return data[:a] + rng.choice((bytes(b - a), b"\xff" * (b - a), rng.randbytes(min(b - a, 64)))) + data[b:]


def insert(data: bytes, rng: Random, other: bytes) -> bytes:
    a = _at(data, rng)
    return data[:a] + rng.randbytes(min(1000, int(rng.paretovariate(0.8)))) + data[a:]


def delete(data: bytes, rng: Random, other: bytes) -> bytes:
    a, b = _span(data, rng)
    return data[:a] + data[b:]


def double(data: bytes, rng: Random, other: bytes) -> bytes:
    a, b = _span(data, rng)
    return data[:b] + data[a:b] * rng.choice((1, 1, 2, 50)) + data[b:] if b - a < 4096 else data


def cut(data: bytes, rng: Random, other: bytes) -> bytes:
    return data[: _at(data, rng)]


def number(data: bytes, rng: Random, other: bytes) -> bytes:
    "A whole number in its place, of 1 to 8 bytes, in either order."
    n, a = rng.choice((1, 2, 2, 4, 4, 8)), _at(data, rng)
    value = (rng.choice(NUMBERS) & 256**n - 1).to_bytes(n, rng.choice(("little", "big")))
    return data[:a] + value + data[a + n :]


def head_number(data: bytes, rng: Random, other: bytes) -> bytes:
    "The same within the header, where it hurts most."
    return number(data[:200], rng, other)[:200] + data[200:]


def splice(data: bytes, rng: Random, other: bytes) -> bytes:
    (a, b), (c, d) = _span(data, rng), _span(other, rng)
    return rng.choice((data[:a] + other[c:d] + data[b:], data[:a] + other[c:]))


def digits(data: bytes, rng: Random, other: bytes) -> bytes:
    "Another number where one stands in digits."
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:100_000]))
    if not found:
        return data
    m = rng.choice(found)
    return data[: m.start()] + rng.choice((*(str(n) for n in NUMBERS), "1e400", "-0.5", "0.1")).encode() + data[m.end() :]


BYTES: tuple[Mutator, ...] = (flip, flip, overwrite, insert, delete, double, cut, number, head_number, splice, digits)


def mutate_bytes(data: bytes, rng: Random, other: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(BYTES)(data, rng, other)
    return data


def mutate_words(data: bytes, rng: Random, other: bytes) -> bytes:
    "Words, numbers and lines of a text, replaced, doubled, swapped or dropped."
    text = data.decode("utf-8", "replace")
    words = list(re.finditer(r"[\w./+-]+", text[:50_000]))
    lines = text.split("\n")
    match rng.randrange(6):
        case 0 | 1 if words:
            m = rng.choice(words)
            text = text[: m.start()] + rng.choice(WORDS) + text[m.end() :]
        case 2:
            a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[a], lines[b] = lines[b], lines[a]
            text = "\n".join(lines)
        case 3:
            text = "\n".join(line for i, line in enumerate(lines) if i != rng.randrange(len(lines)))
        case 4:
            line = rng.choice(lines)
            text = "\n".join([*lines, *[line] * rng.choice((1, 2, 30))])
        case _:
            extra = other.decode("utf-8", "replace").split("\n")
            at = rng.randrange(len(lines) + 1)
            text = "\n".join(lines[:at] + extra[rng.randrange(len(extra)) :][: rng.choice((1, 3, 50))] + lines[at:])
    out = text.encode("utf-8", "replace")
    return rng.choice((out, out, out, out, mutate_bytes(out, rng, other), text.encode("utf-16")))


YAML = (
    "a: &a [x, x]\nb: *a\n",
    "- " * 200 + "x",
    "{" * 500,
    "[" * 3000,
    "!!python/object/apply:os.system ['true']\n",
    "!!binary aGVsbG8=\n",
    "? [1, 2]\n: x\n",
    "<<: {epochs: 3}\n",
    "--- 1\n--- 2\n",
    "%YAML 1.1\n---\n",
    "key: !!timestamp 2001-99-99\n",
    "x: 2001-13-45\n",
    "training: 1\n",
    "training:\n  - 1\n",
    "? {a: b}\n: c\n",
    "1: 2\n",
    "null: 3\n",
    "training: {epochs: 1e3}\n",
    "data: {image_size: 1" + "0" * 5000 + "}\n",
    "x: 0b" + "1" * 20000 + "\n",
    "x: 190:20:30\n",
    "logging: {format: '%(nope)s'}\n",
    "logging: {format: '%(levelname)999999999s'}\n",
    "a: |\n  " + "x" * 10_000,
    "\x85",
    "\t",
)


def mutate_yaml(data: bytes, rng: Random, other: bytes) -> bytes:
    if rng.random() < 0.3:
        at = rng.choice([0, len(data), *(m.end() for m in re.finditer(rb"\n|: ", data))])
        return data[:at] + rng.choice(YAML).encode() + data[at:]
    return mutate_words(data, rng, other)


def _odd(rng: Random) -> object:
    deep: object = rng.choice(NUMBERS)
    for _ in range(rng.choice((1, 50, 2000))):
        deep = [deep]
    return rng.choice(
        (
            None,
            True,
            False,
            "",
            rng.choice(WORDS),
            rng.choice(NUMBERS),
            1e308,
            float("nan"),
            float("inf"),
            -1.5,
            [],
            {},
            [None],
            [1, 2, 3],
            {"a": 1},
            deep,
        )
    )


def _places(value: object, path: tuple = ()) -> list[tuple]:
    inner = () if len(path) > 20 else value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for k, v in list(inner)[:200] for p in _places(v, (*path, k)))]


def mutate_json(data: bytes, rng: Random, other: bytes) -> bytes:
    "A value replaced by an odd one, a key dropped or renamed; or plain text damage."
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_words(data, rng, other)
    if rng.random() < 0.25:
        return mutate_words(data, rng, other)
    for _ in range(rng.choice((1, 1, 2))):
        *path, last = rng.choice(_places(value)[1:] or [(None,)])
        if last is None:
            return json.dumps(_odd(rng)).encode()
        inside = value
        for key in path:
            inside = inside[key]
        what = rng.random()
        if what < 0.7:
            inside[last] = _odd(rng)
        elif what < 0.85:
            inside.pop(last)
        elif isinstance(inside, dict):
            inside[rng.choice(WORDS)] = inside.pop(last)
        else:
            inside += inside[:50]
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"[" * 5000


def mutate_png(data: bytes, rng: Random, other: bytes) -> bytes:
    "Chunks changed, doubled, dropped or moved, with right checksums."
    chunks, at = [], 8
    while at + 12 <= len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + n]])
        at += n + 12
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not chunks:
            break
        i = rng.randrange(len(chunks))
        kind, body = chunks[i]
        match rng.randrange(8):
            case 0:
                chunks[i][1] = mutate_bytes(body, rng, other)
            case 1 if kind == b"IDAT":
                try:
                    chunks[i][1] = zlib.compress(mutate_bytes(zlib.decompress(body), rng, other))
                except zlib.error:
                    pass
            case 1 | 2:
                chunks[0][1] = number(chunks[0][1], rng, other)
            case 3:
                chunks.insert(rng.randrange(len(chunks)), list(chunks[i]))
            case 4:
                chunks.pop(i)
            case 5:
                chunks[i][0] = rng.choice(
                    (b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"cHRM", b"sRGB")
                )
            case 6:
                chunks.insert(rng.randrange(1, len(chunks) + 1), [b"zTXt", b"k\0\0" + zlib.compress(bytes(rng.choice((10, 10**6, 10**8))))])
            case _:
                chunks.insert(1, [b"iCCP", b"icc\0\0" + zlib.compress(rng.randbytes(rng.choice((3, 128, 200))))])
    parts = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return data[:8] + b"".join(parts)


def mutate_jpeg(data: bytes, rng: Random, other: bytes) -> bytes:
    "Segments changed, doubled, dropped, or made of another kind, with right lengths; sizes in the frame header."
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        n = int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append([data[at + 1], data[at + 4 : at + 2 + n]])
        at += n + 2
    rest = data[at:]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not segments:
            break
        i = rng.randrange(len(segments))
        match rng.randrange(6):
            case 0:
                segments[i][1] = mutate_bytes(segments[i][1], rng, other)[:65000]
            case 1:
                for s in segments:
                    if 0xC0 <= s[0] <= 0xC2:
                        s[1] = number(s[1], rng, other)
            case 2:
                segments.insert(rng.randrange(len(segments) + 1), list(segments[i]))
            case 3:
                segments.pop(i)
            case 4:
                segments[i][0] = rng.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE))
            case _:
                rest = mutate_bytes(rest, rng, other)
    return data[:2] + b"".join(bytes((0xFF, k)) + struct.pack(">H", len(b) + 2) + b for k, b in segments) + rest


def mutate_dicom(data: bytes, rng: Random, other: bytes) -> bytes:
    "Header values that a decoder rests on, transfer syntaxes that lie, sequences that nest."
    import pydicom
    from pydicom import uid

    syntaxes = [v for v in uid.AllTransferSyntaxes if not v.is_private]
    names = (
        "Rows",
        "Columns",
        "NumberOfFrames",
        "SamplesPerPixel",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PlanarConfiguration",
        "PhotometricInterpretation",
        "WindowCenter",
        "WindowWidth",
        "RescaleSlope",
        "RescaleIntercept",
        "PixelSpacing",
        "RedPaletteColorLookupTableDescriptor",
        "RedPaletteColorLookupTableData",
        "ICCProfile",
        "PixelData",
        "SOPClassUID",
        "SpecificCharacterSet",
        "VOILUTFunction",
        "PresentationLUTShape",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(io.BytesIO(data), force=True)
            for _ in range(rng.choice((1, 1, 2, 3))):
                present = [e for e in ds if e.keyword] or [None]
                name = rng.choice((rng.choice(names), getattr(rng.choice(present), "keyword", "Rows")))
                what, old = rng.random(), ds.get(name)
                if what < 0.15:
                    ds.pop(name, None)
                elif what < 0.3:
                    ds.file_meta.TransferSyntaxUID = rng.choice(syntaxes)
                elif what < 0.35 and name != "PixelData":
                    ds.AnatomicRegionSequence = [pydicom.Dataset()] * rng.choice((1, 300))
                elif isinstance(old, bytes):
                    ds[name].value = mutate_bytes(old, rng, other)
                elif name == "PhotometricInterpretation":
                    ds.PhotometricInterpretation = rng.choice(("RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "MONOCHROME1", "YBR_RCT", "X"))
                elif name in ds and isinstance(old, int):
                    ds[name].value = rng.choice(NUMBERS) & 0xFFFF
                elif name in ds:
                    ds[name].value = rng.choice((*WORDS[:14], "1", "0", "-5", "1e-300", "1\\2\\3", "3\\0\\16"))
                else:
                    ds.add_new(
                        name, pydicom.datadict.dictionary_VR(name), rng.choice((1, 5, 65535)) if pydicom.datadict.dictionary_VR(name) == "US" else "1"
                    )
            ds.save_as(out := io.BytesIO(), enforce_file_format=False)
        return out.getvalue()
    except Exception:
        return mutate_bytes(data, rng, other)  # what pydicom refuses to write is damaged by hand


def mutate_tfrecord(data: bytes, rng: Random, other: bytes) -> bytes:
    "The payload of a frame changed, with right checksums."
    from lesion_seg.tfrecord import frame

    if rng.random() < 0.3 or len(data) < 16:
        return mutate_bytes(data, rng, other)
    n = int.from_bytes(data[:8], "little")
    payload = data[12 : 12 + n]
    return frame(mutate_bytes(payload, rng, other)) + data[16 + n :]


def mutate_safetensors(data: bytes, rng: Random, other: bytes) -> bytes:
    "The JSON header changed, with a right length; or the bytes."
    n = int.from_bytes(data[:8], "little")
    if rng.random() < 0.5 or n > len(data):
        return mutate_bytes(data, rng, other)
    head = mutate_json(data[8 : 8 + n], rng, other)
    return struct.pack("<Q", len(head)) + head + data[8 + n :]


def mutate_onnx(data: bytes, rng: Random, other: bytes) -> bytes:
    "Nodes, weights, shapes and metadata of a graph changed; or the bytes."
    import onnx

    if rng.random() < 0.4:
        return mutate_bytes(data, rng, other)
    try:
        model = onnx.load_from_string(data)
    except Exception:
        return mutate_bytes(data, rng, other)
    graph = model.graph
    for _ in range(rng.choice((1, 1, 3))):
        node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
        match rng.randrange(8):
            case 0:
                node.op_type = rng.choice(("Relu", "Add", "Conv", "Resize", "Loop", "If", "Identity", "Nope", "NonZero", "Shape", "Softmax"))
            case 1:
                tensor.dims[:] = [rng.choice((0, 1, 3, 10**6, 2**31)) for _ in range(rng.randrange(5))]
            case 2:
                tensor.raw_data = mutate_bytes(tensor.raw_data, rng, other)
            case 3 if node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(graph.node).output[0]
            case 4 if node.attribute:
                a = rng.choice(node.attribute)
                a.i, a.ints[:] = rng.choice((0, 1, -1, 1000, 2**40)), [rng.choice((0, 1, -1, 999, 2**33)) for _ in a.ints]
            case 5 if model.metadata_props:
                rng.choice(model.metadata_props).value = rng.choice(WORDS)
            case 6:
                tensor.data_type = rng.choice((1, 2, 6, 7, 8, 9, 10, 11, 16, 99))
            case _:
                side = rng.choice((graph.input, graph.output))[0].type.tensor_type
                side.elem_type = rng.choice((1, 2, 7, 11))
                if side.shape.dim:
                    rng.choice(side.shape.dim).dim_value = rng.choice((0, 1, 7, 2**31))
    return model.SerializeToString()


def mutate_zip(data: bytes, rng: Random, other: bytes) -> bytes:
    "Members with hostile names, kinds, sizes and methods; or the bytes."
    if rng.random() < 0.4:
        return mutate_bytes(data, rng, other)
    names = (
        "../x.png",
        "/etc/x.png",
        "a/../../x.png",
        "..\\x.png",
        "C:\\x.png",
        "x.png\0.txt",
        ".hidden.png",
        "con.png",
        "x.PNG",
        "x.png",
        "é.png",
        "x" * 300 + ".png",
        "dir/",
        "x.exe",
        "x.txt",
        "a/b/c/d.jpg",
        "‮gnp.jpg",
        " .png",
        "-.png",
    )
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as z:
        warnings.simplefilter("ignore")
        for _ in range(rng.randrange(1, 6)):
            info = zipfile.ZipInfo(rng.choice(names))
            info.external_attr = rng.choice((0o100644, 0o120777, 0o40755, 0o60660, 0)) << 16
            info.compress_type = rng.choice((0, 8, 8, 12, 14))
            z.writestr(info, rng.choice((b"", b"x", other[:5000], bytes(rng.choice((10**6, 2 * 10**7))))))
    made = out.getvalue()
    return mutate_bytes(made, rng, other) if rng.random() < 0.4 else made


BY_SUFFIX: dict[str, Mutator] = {
    ".png": mutate_png,
    ".jpg": mutate_jpeg,
    ".dcm": mutate_dicom,
    ".tfrecord": mutate_tfrecord,
    ".yaml": mutate_yaml,
    ".csv": mutate_words,
    ".json": mutate_json,
    ".safetensors": mutate_safetensors,
    ".onnx": mutate_onnx,
    ".zip": mutate_zip,
    ".txt": mutate_words,
    ".index": mutate_words,
}


def mutate(name: str, data: bytes, rng: Random, other: bytes) -> bytes:
    "One damaged version of a file: mostly by its format, sometimes by bytes alone."
    shaped = BY_SUFFIX.get(name[name.rfind(".") :], mutate_bytes)
    return (shaped if rng.random() < 0.65 else mutate_bytes)(data, rng, other)
