"lesion_seg.tiff and the TIFFs of lesion_seg.data: which picture is meant, deep colours by hand and by tifffile, hostile files."
import io
import struct
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from lesion_seg import data, tiff
from lesion_seg.core import InputError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (45, 61, 3), np.uint16)


def make(*pictures, order='<'):
    "An uncompressed TIFF of (array, tags, 'main' or 'below'); one below hangs under the directory before it."
    body, directories = b'\0' * 8, []
    for a, extra, where in pictures:
        samples = 1 if a.ndim == 2 else a.shape[2]
        is_planar = extra.get(284) == 2
        raw = (np.moveaxis(a, 2, 0) if is_planar else a).astype(a.dtype.newbyteorder(order)).tobytes()
        parts = samples if is_planar else 1
        tags = {256: [a.shape[1]], 257: [a.shape[0]], 258: [a.dtype.itemsize * 8] * samples, 259: [1], 262: [2 if samples > 2 else 1],
                273: [len(body) + i * len(raw) // parts for i in range(parts)], 277: [samples], 278: [a.shape[0]],
                279: [len(raw) // parts] * parts}
        body += raw + b'\0' * (len(raw) % 2)
        directories.append((tags | {k: [v] for k, v in extra.items()}, where))
    places = [0] * len(directories)
    for _ in range(2):
        out = body
        for i, (tags, where) in enumerate(directories):
            later = list(zip(places, directories, strict=True))[i + 1:]
            below = [later[0][0]] if later and later[0][1][1] == 'below' else []
            follows = next((p for p, (_, w) in later if w == 'main'), 0) if where == 'main' else 0
            tags = dict(sorted((tags | ({330: below} if below else {})).items()))
            places[i] = len(out)
            entries, behind, after = b'', b'', len(out) + 6 + 12 * len(tags)
            for tag, values in tags.items():
                packed = struct.pack(f'{order}{len(values)}I', *values)
                if len(packed) > 4: packed, behind = struct.pack(order + 'I', after + len(behind)), behind + packed
                entries += struct.pack(order + 'HHI', tag, 4, len(values)) + packed
            out += struct.pack(order + 'H', len(tags)) + entries + struct.pack(order + 'I', follows) + behind
    return struct.pack(order + '2sHI', b'II' if order == '<' else b'MM', 42, places[0]) + out[8:]


def quietly(f, *args):
    "The result, and the warnings."
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter('always')
        return f(*args), [str(w.message) for w in heard]


@pytest.fixture(scope='module')
def picture():
    y, x = np.mgrid[0:48, 0:64]
    return np.dstack([x * 3 + 40, y * 4 + 30, x + y + 20]).astype(np.uint8)


@pytest.mark.parametrize('order', '<>')
def test_never_the_thumbnail(picture, order):
    "A camera's file: a thumbnail first, the picture below it; and the other arrangements."
    small = picture[::4, ::4]
    for pictures in ([(small, {254: 1}, 'main'), (picture, {}, 'below')], [(small, {254: 1}, 'main'), (picture, {}, 'main')],
                     [(picture, {}, 'main'), (small, {254: 1}, 'main')], [(picture, {}, 'main'), (small, {255: 2}, 'below')],
                     [(small, {}, 'main'), (picture, {}, 'below')], [(picture, {}, 'main'), (small, {254: 4}, 'main')]):
        content = make(*pictures, order=order)
        assert np.array_equal(data.read_image(content), picture)
        assert data.image_size(content) == (48, 64)
    assert np.array_equal(data.read_image(make((small, {254: 1}, 'main'))), small)   # the only picture there is


def test_a_camera_raw_file_is_named(picture):
    content = make((picture[::4, ::4], {254: 1}, 'main'), (picture[..., 0].copy(), {262: 32803}, 'below'))
    with pytest.raises(InputError, match='is a camera raw file; develop it'): data.read_image(content)
    with pytest.raises(InputError, match='holds 2 pictures'): data.read_image(make((picture, {}, 'main'), (picture, {}, 'main')))


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('planar', [1, 2])
def test_sixteen_bits_by_hand(order, planar):
    "The high byte of every value, whichever way they lie, turned as the file says."
    want = (DEEP >> 8).astype(np.uint8)
    assert np.array_equal(data.read_image(make((DEEP, {284: planar}, 'main'), order=order)), want)
    turned = make((DEEP, {284: planar, 274: 8}, 'main'), order=order)
    assert np.array_equal(data.read_image(turned), np.rot90(want)) and data.image_size(turned) == (61, 45)


@pytest.mark.parametrize('kw', [dict(compression='zlib'), dict(compression='zlib', predictor=True), dict(tile=(32, 16)),
                                dict(compression='zlib', predictor=True, tile=(32, 16))], ids=str)
@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('order', '<>')
def test_deep_values_by_tifffile(kw, planar, order):
    tifffile = pytest.importorskip('tifffile')
    for values in (DEEP, (DEEP / 65535).astype(np.float32)):
        if values.dtype == np.float32 and 'predictor' in kw: continue   # needs another package to write
        stored = np.moveaxis(values, 2, 0) if planar == 'separate' else values
        tifffile.imwrite(f := io.BytesIO(), stored, photometric='rgb', planarconfig=planar, byteorder=order, **kw)
        directory = tiff.tiff_directories(io.BytesIO(f.getvalue()), 'x')[0]
        assert directory.is_deep and np.array_equal(tiff.deep_values(f.getvalue(), directory, 'x'), values)


def test_predictor_by_hand():
    "Differences of neighbours of the same colour are added up, by tiles as well."
    assert np.array_equal(data.read_image(make((DEEP, {317: 2}, 'main'))), (np.cumsum(DEEP, 1, dtype=np.uint16) >> 8).astype(np.uint8))


@pytest.mark.parametrize('bits', [8, 10, 12, 14])
def test_fewer_bits_in_sixteen(picture, bits):
    "White is the largest value of the camera, and a word says that this was a guess; a tag makes it certain."
    values = picture.astype(np.uint16) << bits - 8
    for content in (make((values, {}, 'main')), make((values, {284: 2}, 'main')), make((values[..., 0].copy(), {}, 'main'))):
        got, heard = quietly(data.read_image, content)
        assert np.array_equal(got[..., 0], picture[..., 0])
        assert len(heard) == 1 and f'read as {bits} bits in 16' in heard[0]
    got, heard = quietly(data.read_image, make((values, {281: (1 << bits) - 1}, 'main')))
    assert np.array_equal(got, picture) and heard == []
    assert quietly(data.read_image, values)[1] and np.array_equal(quietly(data.read_image, values)[0], picture)


def test_fewer_bits_in_a_png(picture):
    cv2 = pytest.importorskip('cv2')
    for bits in (8, 12, 16):
        content = cv2.imencode('.png', picture[..., ::-1].astype(np.uint16) << bits - 8)[1].tobytes()
        assert np.array_equal(quietly(data.read_image, content)[0], picture)


def test_float_colours(picture):
    for values in (picture / 255, picture.astype(float)):
        got, heard = quietly(data.read_image, make((values.astype(np.float32), {339: 3}, 'main')))
        assert np.abs(got.astype(int) - picture).max() <= 1 and len(heard) == (values.max() > 1)


def test_kinds_that_are_not_read_have_a_reason(picture):
    with pytest.raises(InputError, match=r'pixels of a kind that is not read \(3 x 64 bits'):
        data.read_image(make((picture.astype(np.float64), {339: 3}, 'main')))


def test_masks_of_sixteen_bits(picture):
    mask = picture[..., 0] > 100
    for top in (1, 255, 65535):
        colours = np.repeat(mask[..., None].astype(np.uint16) * top, 3, 2)
        for planar in (1, 2): assert np.array_equal(data.read_mask(make((colours, {284: planar}, 'main'))), mask)


# Hostile files

def refused_soon(content, says, seconds=1.):
    "A sentence, soon."
    start = time.process_time()
    for read in (data.read_image, data.read_mask, data.image_size):
        with pytest.raises(InputError, match=says): read(content)
    assert time.process_time() - start < 3 * seconds


def test_a_tile_larger_than_the_memory():
    "157 bytes cost 1.9 GB."
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 26_000, 323: 26_000, 324: 8, 325: 4}
    entries = b''.join(struct.pack('<HHII', k, 4, 1, v) for k, v in tags.items())
    bomb = struct.pack('<2sHIH', b'II', 42, 8, len(tags)) + entries + bytes(4)
    refused_soon(bomb, '26000 x 26000 pixels, more than the limit')
    refused_soon(bomb.replace(struct.pack('<I', 26_000), struct.pack('<I', 12_000)), 'claims 12000 x 12000 pixels in')


def test_chains_of_directories(picture):
    chain = b'II*\0\x08\0\0\0' + b''.join(struct.pack('<HI', 0, 14 + 6 * i) for i in range(170_000))
    refused_soon(chain, 'holds more than 1,000 directories')
    reduced = struct.pack('<HHHIII', 1, 254, 4, 1, 1, 0)
    chain = b'II*\0\x08\0\0\0' + b''.join(reduced[:-4] + struct.pack('<I', 8 + 18 * (i + 1)) for i in range(50_000))
    refused_soon(chain, 'holds more than 1,000 directories')
    many = struct.pack('<HHII', 330, 4, 50_000, 26) + b'\0' * 4
    refused_soon(b'II*\0\x08\0\0\0\x01\0' + many + struct.pack('<50000I', *range(26, 200_026, 4)), 'directories|damaged|tags')
    loop = bytearray(make((picture, {}, 'main')))
    at = struct.unpack_from('<I', loop, 4)[0]
    n = struct.unpack_from('<H', loop, at)[0]
    struct.pack_into('<I', loop, at + 2 + 12 * n, at)   # the next directory is this one
    assert np.array_equal(data.read_image(bytes(loop)), picture)


def test_directories_of_many_tags():
    tags = b''.join(struct.pack('<HHII', 65000, 4, 1, 1) for _ in range(60_000))
    refused_soon(struct.pack('<2sHIH', b'II', 42, 8, 60_000) + tags + bytes(4), 'holds more than 20,000 tags')


def test_damage_gives_a_sentence_or_a_picture(picture):
    rng = np.random.default_rng(1)
    content = make((DEEP, {284: 2}, 'main'), (picture, {254: 1}, 'below'))
    for _ in range(300):
        broken = bytearray(content)
        start = struct.unpack_from('<I', content, 4)[0]
        for at in [int(rng.integers(0, 8)), *rng.integers(start, len(content), 3)][int(rng.integers(0, 2)):]: broken[at] = rng.integers(256)
        try: assert quietly(data.read_image, bytes(broken))[0].dtype == np.uint8
        except InputError as e: assert '; ' in str(e)


def test_tiffs_that_pillow_writes(picture):
    for kw in ({}, dict(compression='tiff_lzw'), dict(compression='jpeg', quality=95), dict(compression='tiff_adobe_deflate')):
        Image.fromarray(picture).save(f := io.BytesIO(), 'TIFF', **kw)
        assert np.abs(data.read_image(f.getvalue()).astype(int) - picture).mean() < 3


def test_tiles_that_lie_on_each_other():
    "400 kB that stand for 78 million pixels of 16 bits: each of 50,000 tiles points to the same place."
    with pytest.raises(InputError, match="claims 26000 x 3000 pixels in 4[0-9]{2},[0-9]{3} bytes"): data.read_image(tiles_on_each_other(26_000, 3000, 50_000))
    assert data.read_image(tiles_on_each_other(64, 64, 16)).shape == (64, 64, 3)


def tiles_on_each_other(width, height, n):
    data = b"\x10\x27" * 256  # one tile of 16 x 16
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 277: 1, 322: 16, 323: 16}
    behind = 8 + len(data) + 2 + 12 * (len(tags) + 2) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in sorted(tags.items()))
    entries += struct.pack("<HHII", 324, 4, n, behind) + struct.pack("<HHII", 325, 4, n, behind + 4 * n)
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    return head + data + struct.pack("<H", len(tags) + 2) + entries + bytes(4) + struct.pack(f"<{n}I", *[8] * n) + struct.pack(f"<{n}I", *[512] * n)
