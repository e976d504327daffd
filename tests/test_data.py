"lesion_seg.data against values by hand, Pillow, scipy and properties."
import hashlib
import io
import json
import math
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from lesion_seg import data as d

ISIC = Path(__file__).parents[2] / 'shared/data'
isic = pytest.mark.skipif(not (ISIC / 'isic2017').exists(), reason='no ISIC sample')


def enc(im, fmt='PNG', **kw):
    b = io.BytesIO()
    (Image.fromarray(im) if isinstance(im, np.ndarray) else im).save(b, fmt, **kw)
    return b.getvalue()


def png(width, height, depth, colour, rows, *chunks):
    "A PNG by hand: rows are the raw bytes of each line; chunks go before (tuple) or after the pixels (list)."
    def chunk(kind, body): return len(body).to_bytes(4, 'big') + kind + body + zlib.crc32(kind + body).to_bytes(4, 'big')
    before = b''.join(chunk(*c) for c in chunks if isinstance(c, tuple))
    after = b''.join(chunk(*c) for c in chunks if isinstance(c, list))
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)) + before
            + chunk(b'IDAT', zlib.compress(b''.join(b'\0' + r for r in rows))) + after + chunk(b'IEND', b''))


def tiff(width, height, bits, photometric, pixels, order='<'):
    "An uncompressed one-strip TIFF by hand."
    n = len(bits)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, n, bits[0] if n == 1 else None), (259, 3, 1, 1), (262, 3, 1, photometric),
            (273, 4, 1, None), (277, 3, 1, n), (278, 4, 1, height), (279, 4, 1, len(pixels))]
    ifd, extra = 8, 8 + 2 + 12 * len(tags) + 4
    data = extra + (0 if n == 1 else 2 * n)
    out = struct.pack(order + '2sHI', b'II' if order == '<' else b'MM', 42, ifd) + struct.pack(order + 'H', len(tags))
    for tag, kind, count, value in tags:
        value = data if tag == 273 else extra if value is None else value
        out += struct.pack(order + 'HHI', tag, kind, count) + (struct.pack(order + 'HH', value,
            0) if kind == 3 and count == 1 else struct.pack(order + 'I', value))
    out += struct.pack(order + 'I', 0)
    if n > 1: out += struct.pack(order + f'{n}H', *bits)
    return out + pixels


@pytest.fixture(scope='module')
def photo():
    y, x = np.mgrid[0:90, 0:120]
    return np.stack([x * 2, y * 2, (x + y) % 256], -1).astype(np.uint8)


def dataset(folder, n=6, image='images/i{}.png', mask='masks/i{}.png', size=(8, 10)):
    "n pairs of drawn files; pair i has i % 5 + 1 lesion pixels in its first row."
    for i in range(n):
        for name, a in ((image, np.full((*size, 3), i, np.uint8)), (mask, (np.indices(size).sum(0) <= i % 5).astype(np.uint8) * 255)):
            if not name: continue
            p = folder / name.format(i)
            p.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(a).save(p)
    return folder


class TestLight:
    def test_import_brings_no_heavy_library(self):
        code = ('import sys; import lesion_seg.data; '
                'print([m for m in ("pandas", "torch", "fastai", "matplotlib", "scipy", "pyarrow", "fastcore") if m in sys.modules])')
        assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

    def test_import_leaves_pillow_alone(self):
        code = ('from PIL import Image, ImageFile; a = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES; import lesion_seg.data; '
                'print(a == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES))')
        assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'True'


class TestAtomic:
    def test_replaces_and_keeps_suffix(self, tmp_path):
        p = tmp_path / 'a.png'
        p.write_text('old')
        with d.atomic_path(p) as t:
            assert t.parent == tmp_path and t.suffix == '.png' and t != p
            t.write_text('new')
            assert p.read_text() == 'old'
        assert p.read_text() == 'new' and os.listdir(tmp_path) == ['a.png']

    def test_failure_keeps_old_and_leaves_nothing(self, tmp_path):
        p = tmp_path / 'a.png'
        p.write_text('old')
        with pytest.raises(KeyboardInterrupt), d.atomic_path(p) as t:
            t.write_text('half')
            raise KeyboardInterrupt
        assert p.read_text() == 'old' and os.listdir(tmp_path) == ['a.png']

    def test_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / 'file').touch()
        with pytest.raises(d.InputError, match='file is not a folder that can be made'), d.atomic_path(tmp_path / 'file' / 'a.png'): pass


class TestOrientation:
    A = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    BY_HAND = {1: A, 2: A[:, ::-1], 3: A[::-1, ::-1], 4: A[::-1], 5: A.transpose(1, 0, 2), 6: np.rot90(A, -1),
               7: A[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(A)}

    @pytest.mark.parametrize('fmt', ['PNG', 'WEBP', 'TIFF'])
    @pytest.mark.parametrize('o', range(1, 9))
    def test_all_eight(self, o, fmt):
        exif = Image.Exif()
        exif[274] = o
        b = enc(self.A, fmt, exif=exif, **({'lossless': True} if fmt == 'WEBP' else {}))
        np.testing.assert_array_equal(d.read_image(b), self.BY_HAND[o])
        np.testing.assert_array_equal(d.read_image(b), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(b)))))
        assert d.image_size(b) == self.BY_HAND[o].shape[:2]

    @pytest.mark.parametrize('o', range(1, 9))
    def test_jpeg_with_draft_and_mask(self, o, photo):
        exif = Image.Exif()
        exif[274] = o
        b = enc(photo, 'JPEG', quality=95, exif=exif)
        full = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(b))))
        np.testing.assert_array_equal(d.read_image(b), full)
        assert d.image_size(b) == full.shape[:2]
        draft = d.read_image(b, at_least=40)
        assert sorted(draft.shape[:2]) == [45, 60] and (draft.shape[0] > draft.shape[1]) == (o >= 5)
        assert np.abs(draft.astype(int) - full.reshape(draft.shape[0], 2, draft.shape[1], 2, 3).mean((1, 3))).mean() < 6
        m = np.zeros((6, 9), np.uint8)
        m[:2, :3] = 255
        b = enc(m, exif=exif)
        np.testing.assert_array_equal(d.read_mask(b), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(b)))) > 0)

    def test_png_exif_after_the_pixels(self):
        exif = Image.Exif()
        exif[274] = 6
        late = png(2, 1, 8, 0, [b'\x00\xff'], [b'eXIf', exif.tobytes()[6:]])
        assert d.image_size(late) == (2, 1) == d.read_image(late).shape[:2]

    def test_nonsense_exif_is_no_orientation(self, photo):
        exif = Image.Exif()
        exif[274] = 77
        np.testing.assert_array_equal(d.read_image(enc(photo, exif=exif)), photo)


class TestDepth:
    def test_grey_16(self):
        rows = [struct.pack('>5H', 0, 255, 256, 0x8000, 0xffff)]
        want = np.repeat(np.array([[0, 0, 1, 128, 255]], np.uint8)[..., None], 3, 2)
        np.testing.assert_array_equal(d.read_image(png(5, 1, 16, 0, rows)), want)
        for order in '<>':
            b = tiff(5, 1, [16], 1, struct.pack(order + '5H', 0, 255, 256, 0x8000, 0xffff), order)
            np.testing.assert_array_equal(d.read_image(b), want)

    def test_grey_16_white_is_zero(self):
        b = tiff(3, 1, [16], 0, struct.pack('<3H', 0, 0x8000, 0xffff))
        assert d.read_image(b)[0, :, 0].tolist() == [255, 127, 0]

    def test_grey_12_bits(self):
        packed = bytes([0xff, 0xf0, 0x00])  # 4095, 0
        assert d.read_image(tiff(2, 1, [12], 1, packed))[0, :, 0].tolist() == [255, 0]

    def test_rgb_16(self):
        v = (0, 0x0100, 0xffff, 0x7fff, 0x80ff, 0xc8c8)
        want = [[[0, 1, 255], [127, 128, 200]]]
        assert d.read_image(png(2, 1, 16, 2, [struct.pack('>6H', *v)])).tolist() == want
        for order in '<>':
            assert d.read_image(tiff(2, 1, [16] * 3, 2, struct.pack(order + '6H', *v), order)).tolist() == want

    def test_constant_skin_keeps_its_colour(self):
        skin = np.full((5, 5, 3), (200, 150, 130), np.uint8)
        np.testing.assert_array_equal(d.read_image(enc(skin)), skin)
        np.testing.assert_array_equal(d.read_image(skin.astype(np.uint16) * 257), skin)
        np.testing.assert_array_equal(d.read_image(skin / 255), skin)

    def test_float_tiff_is_refused(self):
        with pytest.raises(d.InputError, match='8 or 16 bits'): d.read_image(enc(Image.new('F', (3, 3)), 'TIFF'))


class TestColour:
    def test_modes(self):
        assert d.read_image(enc(Image.new('1', (1, 1), 1)))[0, 0].tolist() == [255] * 3
        assert d.read_image(enc(Image.new('L', (1, 1), 99)))[0, 0].tolist() == [99] * 3
        assert d.read_image(enc(Image.new('LA', (1, 1), (100, 0))))[0, 0].tolist() == [255] * 3
        half = d.read_image(enc(Image.new('RGBA', (1, 1), (0, 100, 200, 51))))[0, 0]
        np.testing.assert_allclose(half, [204, 224, 244], atol=1)  # 0.2 colour + 0.8 white
        assert d.read_image(enc(Image.new('CMYK', (1, 1), (0, 0, 0, 0)), 'TIFF'))[0, 0].tolist() == [255] * 3
        assert d.read_image(enc(Image.new('CMYK', (8, 8), (0, 255, 255, 0)), 'JPEG', quality=95))[0, 0, 0] > 240
        assert d.read_image(enc(Image.new('YCbCr', (1, 1), (128, 128, 128)), 'TIFF'))[0, 0].tolist() == [128] * 3

    def test_palette_and_its_transparency(self):
        im = Image.new('P', (2, 1))
        im.putpalette([10, 20, 30, 200, 100, 50])
        im.putdata([0, 1])
        assert d.read_image(enc(im)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert d.read_image(enc(im, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
            assert d.read_image(enc(im, transparency=bytes([255, 0]))).tolist() == [[[10, 20, 30], [255, 255, 255]]]

    def test_transparent_colour(self):
        b = enc(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8), transparency=(9, 9, 9))
        assert d.read_image(b).tolist() == [[[1, 2, 3], [255, 255, 255]]]

    def profile(self, swap):
        p = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
        if swap:
            at = {bytes(p[i:i + 4]): i for i in range(132, 132 + 12 * int.from_bytes(p[128:132], 'big'), 12)}
            r, g = at[b'rXYZ'], at[b'gXYZ']
            p[r + 4:r + 12], p[g + 4:g + 12] = p[g + 4:g + 12], p[r + 4:r + 12]
        return bytes(p)

    @pytest.mark.parametrize('fmt', ['PNG', 'JPEG', 'TIFF', 'WEBP'])
    def test_icc_by_known_values(self, fmt):
        kw = {'PNG': {}, 'TIFF': {}, 'JPEG': dict(quality=100, subsampling=0), 'WEBP': dict(lossless=True)}[fmt]
        im = Image.new('RGB', (16, 16), (200, 50, 20))
        got = d.read_image(enc(im, fmt, icc_profile=self.profile(True), **kw))
        np.testing.assert_allclose(got[5, 5], (50, 200, 20), atol=2)
        got = d.read_image(enc(im, fmt, icc_profile=self.profile(False), **kw))
        np.testing.assert_allclose(got[5, 5], (200, 50, 20), atol=fmt == 'JPEG')

    def test_icc_with_alpha_and_palette(self):
        p = self.profile(True)
        got = d.read_image(enc(Image.new('RGBA', (2, 2), (200, 50, 20, 255)), icc_profile=p))
        np.testing.assert_allclose(got[0, 0], (50, 200, 20), atol=2)
        im = Image.new('P', (1, 1))
        im.putpalette([200, 50, 20])
        np.testing.assert_allclose(d.read_image(enc(im, icc_profile=p))[0, 0], (50, 200, 20), atol=2)

    def test_wide_gamut_by_the_formula(self):
        "AdobeRGB-like: its red is outside sRGB, its neutral greys stay; the matrix is worked out here."
        prim = {b'rXYZ': (0.60974, 0.31111, 0.01947), b'gXYZ': (0.20528, 0.62567, 0.06087), b'bXYZ': (0.14919, 0.06322, 0.74457)}  # D50
        p = bytearray(self.profile(False))
        for i in range(132, 132 + 12 * int.from_bytes(p[128:132], 'big'), 12):
            if (xyz := prim.get(bytes(p[i:i + 4]))) is not None:
                at = int.from_bytes(p[i + 4:i + 8], 'big')
                p[at + 8:at + 20] = b''.join(round(v * 65536).to_bytes(4, 'big', signed=True) for v in xyz)
        adobe = np.array([prim[b'rXYZ'], prim[b'gXYZ'], prim[b'bXYZ']]).T
        srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
        rgb = np.array([150, 120, 100])
        c = rgb / 255
        lin = np.linalg.solve(srgb, adobe @ np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92))
        want = 255 * np.where(lin > 0.0031308, 1.055 * lin ** (1 / 2.4) - 0.055, 12.92 * lin)
        assert np.abs(want - rgb).max() > 8
        got = d.read_image(enc(Image.new('RGB', (1, 1), tuple(rgb)), icc_profile=bytes(p)))[0, 0]
        np.testing.assert_allclose(got, want, atol=1.5)

    @pytest.mark.parametrize('mode,icc', [('RGB', b'rubbish'), ('RGB', b''), ('L', 'swapped'), ('CMYK', 'swapped'), ('RGB', 'cut')])
    def test_broken_or_foreign_profile_is_passed_over_silently(self, mode, icc):
        icc = {'swapped': self.profile(True), 'cut': self.profile(True)[:300]}.get(icc, icc)
        im = Image.new(mode, (4, 4), {'RGB': (1, 2, 3), 'L': 7, 'CMYK': (0, 0, 0, 0)}[mode])
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            got = d.read_image(enc(im, 'TIFF', icc_profile=icc))
        assert got[0, 0].tolist() == {'RGB': [1, 2, 3], 'L': [7] * 3, 'CMYK': [255] * 3}[mode]


class TestDraft:
    def test_twelve_megapixels(self):
        y, x = np.mgrid[0:3000, 0:4000].astype(np.float32)
        a = np.stack([128 + 60 * np.sin(x / 90) * np.cos(y / 70), 120 + 50 * np.sin((x + y) / 150), 90 + 0 * x], -1).astype(np.uint8)
        a[((x - 2000) ** 2 + (y - 1500) ** 2) < 600 ** 2] //= 2
        b = enc(a, 'JPEG', quality=92)
        draft, full = d.read_image(b, at_least=256), d.read_image(b)
        assert draft.shape == (375, 500, 3) and full.shape == (3000, 4000, 3)
        diff = np.abs(d.resize_image(draft, 256).astype(int) - d.resize_image(full, 256))
        assert diff.mean() < 1 and np.percentile(diff, 99) < 8

    @pytest.mark.parametrize('at_least,want', [(None, (90, 120)), (91, (90, 120)), (46, (90, 120)), (45, (45, 60)), (12, (23, 30)), (11,
        (12, 15)), (1, (12, 15))])
    def test_both_sides_stay(self, photo, at_least, want):
        got = d.read_image(enc(photo, 'JPEG'), at_least=at_least).shape[:2]
        assert got == want and min(got) >= min(at_least or 90, 90)

    def test_other_formats_come_whole(self, photo): assert d.read_image(enc(photo), at_least=8).shape == photo.shape

    def test_grey_and_cmyk(self, photo):
        for mode in ('L', 'CMYK'):
            b = enc(Image.fromarray(photo).convert(mode), 'JPEG', quality=95)
            whole, small = d.read_image(b).astype(float), d.read_image(b, at_least=40)
            assert small.shape == (45, 60, 3) and abs(small.mean() - whole.mean()) < 2


class TestSources:
    def test_all_kinds_of_source(self, photo, tmp_path):
        b = enc(photo)
        (tmp_path / 'wrong.jpg').write_bytes(b)  # a PNG by content
        for src in (b, bytearray(b), memoryview(b), io.BytesIO(b), tmp_path / 'wrong.jpg', str(tmp_path / 'wrong.jpg'), photo,
            Image.fromarray(photo)):
            np.testing.assert_array_equal(d.read_image(src), photo)
            assert d.image_size(src) == photo.shape[:2]
        with open(tmp_path / 'wrong.jpg', 'rb') as f: np.testing.assert_array_equal(d.read_image(f), photo)

    def test_result_is_the_callers_own(self, photo):
        d.read_image(photo)[:] = 0
        assert photo.any()
        assert d.read_image(enc(photo)).flags.writeable

    @pytest.mark.parametrize('content,says', [
        (b'', r'is empty \(0 bytes\)'), (b'hello, I am a note', 'is a text file'), (b'\n <!doctype HTML><p>404', 'is a web page'),
            (b'<html>', 'is a web page'),
        (b'%PDF-1.7', 'is a PDF'), (b'PK\x03\x04...', 'is a ZIP'), (b'\0\0\0\x18ftypheic', 'is a HEIC'), (b'GIF89a', 'is a GIF'),
        (b'\0' * 128 + b'DICM', 'lesion_seg.dicom'), (b'<svg xmlns=""/>', 'is an SVG'), (bytes(range(50)), 'of an unknown format'),
        (b'\xff\xd8\xff\xe0', 'is damaged'), (b'\x89PNG\r\n\x1a\n', 'is damaged'), (b'II*\0\x08\0\0\0', 'is damaged'),
            (b'RIFF\x04\0\0\0WEBP', 'is damaged')])
    @pytest.mark.filterwarnings('ignore:Corrupt EXIF')
    def test_not_an_image(self, content, says, tmp_path):
        p = tmp_path / 'mole.jpg'
        p.write_bytes(content)
        for f in (d.read_image, d.read_mask, d.image_size):
            with pytest.raises(d.InputError, match=says) as e: f(p)
            assert str(p) in str(e.value) and ': ' in str(e.value)

    @pytest.mark.parametrize('fmt', ['JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP'])
    @pytest.mark.parametrize('keep', [0.3, 0.9])
    def test_truncated(self, fmt, keep, photo, tmp_path):
        noise = np.random.default_rng(0).integers(0, 255, photo.shape).astype(np.uint8)
        b = enc(noise, fmt)
        (tmp_path / 'cut').write_bytes(b[:int(len(b) * keep)])
        with pytest.raises(d.InputError, match='cut is damaged or incomplete'): d.read_image(tmp_path / 'cut')

    def test_missing_folder_text_and_rubbish(self, tmp_path):
        with pytest.raises(d.InputError, match='does not exist'): d.read_image(tmp_path / 'no.jpg')
        with pytest.raises(d.InputError, match='is a folder'): d.read_image(tmp_path)
        (tmp_path / 't').write_text('x')
        with open(tmp_path / 't') as f, pytest.raises(d.InputError, match="mode 'rb'"): d.read_image(f)
        for src in (None, 0, 3.5):
            with pytest.raises(d.InputError, match='give a path'): d.read_image(src)
        with pytest.raises(d.InputError): d.read_image('a\0b')

    def test_gigapixel_header_is_refused_before_decoding(self):
        b = png(50_000, 50_000, 8, 2, [b'\0'])
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            for f in (d.read_image, d.read_mask, d.image_size):
                with pytest.raises(d.InputError, match='50000 x 50000 pixels, more than the limit'): f(b)

    def test_limit_is_ours_not_pillows(self, photo, monkeypatch):
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            np.testing.assert_array_equal(d.read_image(enc(photo)), photo)
        monkeypatch.setattr(d, 'MAX_PIXELS', 90 * 120 - 1)
        with pytest.raises(d.InputError, match='120 x 90'): d.read_image(enc(photo))

    @pytest.mark.parametrize('fmt', ['PNG', 'WEBP', 'TIFF'])
    def test_several_pictures_are_refused(self, fmt, photo):
        b = io.BytesIO()
        Image.fromarray(photo).save(b, fmt, save_all=True, append_images=[Image.fromarray(photo[::-1].copy())])
        with pytest.raises(d.InputError, match='holds 2 pictures'): d.read_image(b.getvalue())

    def test_phone_jpeg_with_a_hidden_second_picture(self, photo):
        "MPO: what a phone saves as .jpg with a preview behind it; every viewer shows the first picture."
        b = io.BytesIO()
        Image.fromarray(photo).save(b, 'MPO', save_all=True, append_images=[Image.fromarray(photo[::-1].copy())], quality=95)
        assert np.abs(d.read_image(b.getvalue()).astype(int) - photo).mean() < 8

    def test_pyramid_level_is_not_a_second_picture(self, photo):
        b, small = io.BytesIO(), Image.fromarray(photo).resize((60, 45))
        small.encoderinfo = {'tiffinfo': {254: 1}}
        Image.fromarray(photo).save(b, 'TIFF', save_all=True, append_images=[small])
        np.testing.assert_array_equal(d.read_image(b.getvalue()), photo)

    def test_registered_reader(self, monkeypatch, tmp_path):
        monkeypatch.setattr(d, '_READERS', [])
        seen = []
        def read(src):
            seen.append(src)
            return np.full((2, 3), 7, np.uint8)
        for _ in range(2): d.register_reader(lambda_sniff, read)
        assert len(d._READERS) == 1
        (tmp_path / 'x').write_bytes(b'MYFORMAT')
        assert d.read_image(tmp_path / 'x').tolist() == [[[7] * 3] * 3] * 2 and seen == [tmp_path / 'x']
        assert d.read_image(b'MYFORMAT').shape == (2, 3, 3) and seen[1] == b'MYFORMAT'
        assert d.image_size(b'MYFORMAT') == (2, 3)
        monkeypatch.setattr(d, '_READERS', [])
        d.register_reader(lambda_sniff, read, lambda src: (20, 30))
        assert d.image_size(b'MYFORMAT') == (20, 30)

    def test_threads(self, photo):
        b, out = enc(photo, 'JPEG', icc_profile=TestColour().profile(True)), []
        ts = [threading.Thread(target=lambda: out.extend(d.read_image(b) for _ in range(20))) for _ in range(8)]
        for t in ts: t.start()
        for t in ts: t.join()
        assert len(out) == 160 and all((o == out[0]).all() for o in out)


def lambda_sniff(head): return head.startswith(b'MYFORMAT')


class TestMask:
    M = np.zeros((40, 50), bool)
    M[10:25, 5:30] = True

    @pytest.mark.parametrize('a', [M, M.astype(np.uint8), M * np.uint8(255), M.astype(np.uint16) * 65535, M.astype(np.uint16) * 255,
        M.astype(int),
                                   M.astype(np.float32), M * 255.0, M[..., None], np.repeat(M[..., None] * np.uint8(255), 3, 2)])
    def test_codings_as_arrays(self, a): np.testing.assert_array_equal(d.read_mask(a), self.M)

    @pytest.mark.parametrize('mode', ['1', 'L', 'RGB', 'P', 'LA', 'RGBA'])
    def test_codings_as_files(self, mode):
        np.testing.assert_array_equal(d.read_mask(enc(Image.fromarray(self.M * np.uint8(255)).convert(mode))), self.M)

    def test_more_files(self):
        np.testing.assert_array_equal(d.read_mask(enc(self.M.astype(np.uint8))), self.M)
        np.testing.assert_array_equal(d.read_mask(enc(self.M.astype(np.uint16))), self.M)  # 0/1 in 16 bits
        np.testing.assert_array_equal(d.read_mask(enc(self.M.astype(np.uint16) * 65535)), self.M)
        np.testing.assert_array_equal(d.read_mask(enc(self.M * np.uint8(255), 'JPEG', quality=30)), self.M)
        np.testing.assert_array_equal(d.read_mask(enc(Image.fromarray(self.M * np.uint8(255)).convert('RGB'), 'JPEG', quality=30)), self.M)

    def test_threshold_is_above_128(self):
        assert d.read_mask(np.array([[0, 127, 128, 129, 255]], np.uint8)).tolist() == [[False, False, False, True, True]]

    def test_palettes(self):
        im = Image.fromarray(self.M.astype(np.uint8)).convert('P')
        im.putpalette([0, 0, 0, 128, 0, 0])
        np.testing.assert_array_equal(d.read_mask(enc(im)), self.M)
        im.putpalette([255, 255, 255, 0, 0, 0])  # grey palette, upside down: the shades count
        np.testing.assert_array_equal(d.read_mask(enc(im)), ~self.M)

    def test_layers(self):
        def rgba(rgb, bg, alpha):
            return np.dstack([np.where(self.M[..., None], rgb, bg), alpha]).astype(np.uint8)
        A, opaque = self.M * 255, np.full(self.M.shape, 255)
        for colour in ((0, 0, 0), (255, 255, 255), (90, 0, 0)): np.testing.assert_array_equal(d.read_mask(rgba(colour, (7, 7, 7), A)),
            self.M)
        np.testing.assert_array_equal(d.read_mask(rgba((255,) * 3, (0,) * 3, opaque)), self.M)
        corner = opaque.copy()
        corner[:5] = 0  # white on black with a transparent strip
        np.testing.assert_array_equal(d.read_mask(rgba((255,) * 3, (0,) * 3, corner)), self.M)
        assert not d.read_mask(np.zeros((4, 4, 4), np.uint8)).any()

    def test_empty_and_full_are_valid(self):
        assert not d.read_mask(enc(np.zeros((5, 5), np.uint8))).any()
        assert not d.read_mask(enc(np.zeros((64, 64), np.uint8), 'JPEG')).any()
        assert d.read_mask(np.full((5, 5), 255, np.uint8)).all()

    @pytest.mark.parametrize('a,says', [
        (np.array([[0, np.nan]]), 'NaN'), (np.array([[0, np.inf]]), 'not numbers'), (np.array([[0, 1, 2]], np.uint8), 'from 0 to 2'),
        (np.array([[0, 128]], np.uint8), 'from 0 to 128'), (np.array([[-1, 1]]), 'from -1'), (np.array([[0, 70000]]), '70000'),
        (np.array([[0, 300]], np.uint16), '300'), (np.zeros((0, 5)), 'no pixels'), (np.zeros(5), 'is not a mask'), (np.array([['a']]),
            'not numbers')])
    def test_refused(self, a, says):
        with pytest.raises(d.InputError, match=says): d.read_mask(a)

    def test_photograph_is_no_mask(self, photo):
        with pytest.raises(d.InputError, match='in colour'): d.read_mask(enc(photo))


class TestResize:
    @given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2 ** 32 - 1))
    @settings(max_examples=60, deadline=None)
    def test_mask_is_exact_area(self, h, w, nh, nw, seed):
        m = np.random.default_rng(seed).random((h, w)) < 0.5
        big = np.kron(m, np.ones((nh, nw), int))                                # every new pixel is now h x w whole cells
        mean2 = 2 * big.reshape(nh, h, nw, w).sum((1, 3))
        np.testing.assert_array_equal(d.resize_mask(m, (nh, nw)), mean2 >= h * w)

    def test_image(self, photo):
        np.testing.assert_array_equal(d.resize_image(photo, (30, 20)), np.asarray(Image.fromarray(photo).resize((20, 30),
            Image.Resampling.BILINEAR)))
        assert d.resize_image(photo, 17).shape == (17, 17, 3)


class TestPictures:
    def test_contour_lies_on_the_border(self):
        from scipy.ndimage import distance_transform_edt as edt
        m = np.hypot(*np.mgrid[-50:50, -60:60]) < 30
        out = d.draw_contour(np.zeros((100, 120, 3), np.uint8), m, (255, 255, 255), width=3)[..., 0]
        dist = np.where(m, edt(m), edt(~m)) - 0.5
        assert (out[dist < 1] > 170).all() and (out[dist > 4] == 0).all()
        assert 0.8 * 3 < out.sum() / 255 / (2 * np.pi * 30) < 1.5 * 3  # ink per length of border

    def test_sheet_sizes_and_titles(self, photo):
        plain = d.contact_sheet([photo] * 5, cols=3, tile=60)
        assert plain.size == (4 + 3 * 64, 4 + 2 * (45 + 4))
        titled = d.contact_sheet([photo] * 5, [photo[..., 0] * 0] * 5, ['a very long title that does not fit'] * 5, cols=3, tile=60)
        assert titled.height == plain.height + 2 * 16
        white = np.asarray(titled)[4 + 45:4 + 45 + 16, :4]
        assert (white == 255).all()  # the cut title stays inside its tile
        assert d.contact_sheet([photo], [None]).width == 4 + 132


class TestLayouts:
    def check(self, folder, n=6, masks=True):
        m = d.Manifest.from_folder(folder)
        assert len(m) == n and m.check(strict=False) == [] if masks else len(m) == n
        return m

    @pytest.mark.parametrize('mask', ['i{}.png', 'i{}_mask.png', 'i{}_segmentation.png', 'i{}_Segmentation.PNG', 'i{}-mask.png'])
    def test_images_and_masks(self, tmp_path, mask):
        m = self.check(dataset(tmp_path, mask='masks/' + mask))
        assert [p.id for p in m] == [f'i{i}' for i in range(6)] and all(p.mask.stem.startswith(p.id) for p in m)

    def test_side_by_side(self, tmp_path):
        assert all(p.mask for p in self.check(dataset(tmp_path, image='i{}.png', mask='i{}_mask.png')))

    def test_images_alone(self, tmp_path):
        m = self.check(dataset(tmp_path, image='i{}.png', mask=''), masks=False)
        assert {p.kind for p in m.check(strict=False)} == {'no mask'}

    @pytest.mark.parametrize('images,masks,year,role', [
        ('ISBI2016_ISIC_Part1_Training_Data/ISIC_000{}.jpg', 'ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_000{}_Segmentation.png',
            '2016', 'train'),
        ('ISIC-2017_Validation_Data/ISIC_000{}.jpg', 'ISIC-2017_Validation_Part1_GroundTruth/ISIC_000{}_segmentation.png', '2017', 'valid'),
        ('ISIC-2017_Test_v2_Data/ISIC_000{}.jpg', 'ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_000{}_segmentation.png', '2017', 'test'),
        ('ISIC2018_Task1-2_Training_Input/ISIC_000{}.jpg', 'ISIC2018_Task1_Training_GroundTruth/ISIC_000{}_segmentation.png', '2018',
            'train')])
    def test_challenges(self, tmp_path, images, masks, year, role):
        dataset(tmp_path, image=images, mask=masks)
        Image.new('RGB', (4, 4)).save(tmp_path / Path(images).parent / 'ISIC_0000_superpixels.png')
        (tmp_path / 'ISIC-2017_Training_Part2_GroundTruth').mkdir()
        (tmp_path / Path(images).parent / 'LICENSE.txt').touch()
        m = self.check(tmp_path)
        assert {(p.meta['challenge'], p.meta['official_split']) for p in m} == {(year, role)}

    def test_two_roles_and_doubly_nested(self, tmp_path):
        for role in ('Training', 'Validation'):
            n = f'ISIC-2017_{role}_Data'
            dataset(tmp_path, 3, f'{n}/{n}/{role}{{}}.png', f'ISIC-2017_{role}_Part1_GroundTruth/{role}{{}}_segmentation.png')
        m = self.check(tmp_path)
        assert Counter(p.meta['official_split'] for p in m) == {'train': 3, 'valid': 3}

    def test_folder_with_nothing(self, tmp_path):
        with pytest.raises(d.InputError, match='holds no photographs'): d.Manifest.from_folder(tmp_path)
        with pytest.raises(d.InputError, match='is not a folder'): d.Manifest.from_folder(tmp_path / 'no')

    @isic
    def test_isic_sample(self):
        m = d.Manifest.load(ISIC / 'isic2017')
        assert len(m) == 2150 and all(p.mask.parent.name == 'masks' for p in m) and m.check() == []
        native = d.Manifest.load(ISIC / 'isic2017_native')
        assert len(native) == 21 and native.check() == []
        original = d.Manifest([d.LesionPair(p.image, p.mask.parents[1] / 'masks_original_resolution' / p.mask.name) for p in m[:5]])
        assert {p.kind for p in original.check(strict=False)} == {'sizes differ'} and original.check(resize_ok=True) == []


class TestTables:
    @pytest.mark.parametrize('name', ['m.csv', 'm.parquet', 'sub/m.csv'])
    def test_round_trip(self, tmp_path, name):
        m = d.Manifest.load(dataset(tmp_path, 12))
        m = d.Manifest([d.LesionPair(p.image, p.mask, p.id, f'g{i // 2}', '', {'age': str(i), 'note': 'a, "b"\nc'}) for i,
            p in enumerate(m)]).split()
        got = d.Manifest.load(m.save(tmp_path / name))
        assert [(p.id, p.group, p.split, p.meta) for p in got] == [(p.id, p.group, p.split, p.meta) for p in m]
        assert all(os.path.samefile(a.image, b.image) and os.path.samefile(a.mask, b.mask) for a, b in zip(got, m, strict=True))
        assert got.digest == m.digest and got.check() == []
        assert not any(x.name.startswith('.') for x in tmp_path.rglob('*'))

    def test_saved_paths(self, tmp_path):
        m = d.Manifest.load(dataset(tmp_path / 'set', 4))
        text = m.save(tmp_path / 'runs' / 'm.csv').read_text()
        assert text.splitlines()[:2] == ['image,mask,id,group,split', '../set/images/i0.png,../set/masks/i0.png,i0,i0,']
        (tmp_path / 'set').rename(tmp_path / 'set2')
        assert {p.kind for p in d.Manifest.load(tmp_path / 'runs' / 'm.csv').check(strict=False)} == {'missing photograph', 'missing mask'}

    @pytest.mark.skipif(os.name == 'nt', reason='POSIX paths')
    def test_only_the_root_shared_is_absolute(self):
        assert d._relative(Path('/data/isic/a.jpg'), Path('/home/me')) == '/data/isic/a.jpg'
        assert d._relative(Path('/data/isic/a.jpg'), Path('/data/runs')) == '../isic/a.jpg'

    def test_table_moves_with_its_folder(self, tmp_path):
        d.Manifest.load(dataset(tmp_path / 'a', 4)).save(tmp_path / 'a' / 'manifest.csv')
        (tmp_path / 'a').rename(tmp_path / 'b')
        m = d.Manifest.load(tmp_path / 'b')
        assert m.check() == [] and all(str(tmp_path / 'b') in str(p.image) for p in m)

    def test_absolute_paths_stay_absolute_on_reading(self, tmp_path):
        f = dataset(tmp_path / 'set', 1) / 'images' / 'i0.png'
        (tmp_path / 'm.csv').write_text(f'image\n{f}\n')
        assert d.Manifest.load(tmp_path / 'm.csv')[0].image == f

    def test_patient_column_makes_the_group(self, tmp_path):
        (tmp_path / 'm.csv').write_text('image,patient_id,lesion_id\na.jpg,P1,\nb.jpg,P1,L1\nc.jpg,,L1\nd.jpg,,L2\ne.jpg,,\n')
        assert [p.group for p in d.Manifest.load(tmp_path / 'm.csv')] == ['P1', 'P1', 'P1', 'L2', 'e']

    def test_no_collision_of_patient_and_lesion_numbers(self, tmp_path):
        (tmp_path / 'm.csv').write_text('image,patient_id,lesion_id\na.jpg,7,\nb.jpg,,7\n')
        m = d.Manifest.load(tmp_path / 'm.csv')
        assert m[0].group != m[1].group

    @pytest.mark.parametrize('text,says', [
        ('', 'is empty'), ('image\n', 'has no rows'), ('file,mask\na,b\n', r'no column "image" \(it has file, mask\)'),
        ('image,mask\na.jpg\n', '1 fields in line 2')])
    def test_bad_tables(self, tmp_path, text, says):
        (tmp_path / 'm.csv').write_text(text)
        with pytest.raises(d.InputError, match=says) as e: d.Manifest.load(tmp_path / 'm.csv')
        assert str(tmp_path / 'm.csv') in str(e.value)

    def test_bad_files(self, tmp_path):
        (tmp_path / 'l1.csv').write_bytes('image\nmüller.jpg\n'.encode('latin-1'))
        with pytest.raises(d.InputError, match='not UTF-8'): d.Manifest.load(tmp_path / 'l1.csv')
        (tmp_path / 'm.parquet').write_text('no')
        with pytest.raises(d.InputError, match='Parquet'): d.Manifest.load(tmp_path / 'm.parquet')
        with pytest.raises(d.InputError, match='cannot be opened'): d.Manifest.load(tmp_path / 'none.csv')

    @pytest.mark.parametrize('change', [lambda t: t[:-1], lambda t: [t[0], t[1].replace('train', 'test').replace('valid', 'test'), *t[2:]],
                                        lambda t: [t[0], t[1].replace(',i0,i0,', ',i0,other,'), *t[2:]]])
    def test_changed_split_is_noticed(self, tmp_path, change):
        m = d.Manifest.load(dataset(tmp_path, 12)).split((0.5, 0.5, 0))
        lines = m.save(tmp_path / 'm.csv').read_text().splitlines()
        (tmp_path / 'm.csv').write_text('\n'.join([lines[0], *lines[:0:-1]]))
        assert d.Manifest.load(tmp_path / 'm.csv').digest == m.digest  # another order is the same split
        (tmp_path / 'm.csv').write_text('\n'.join(change(lines)))
        with pytest.raises(d.InputError, match=r'm.csv was changed .* delete the column split_digest'): d.Manifest.load(tmp_path / 'm.csv')

    def test_digest_by_hand(self):
        m = d.Manifest([d.LesionPair('b.jpg', split='test'), d.LesionPair('a.jpg', group='g', split='train')])
        assert m.digest == hashlib.sha256(b'[["a", "g", "train"], ["b", "b", "test"]]').hexdigest()

    def test_frame_slice_subset(self, tmp_path):
        m = d.Manifest.load(dataset(tmp_path, 20)).split()
        f = m.frame()
        assert list(f.columns) == ['image', 'mask', 'id', 'group', 'split'] and len(f) == 20 and len(m[:3]) == 3
        assert sum(len(m.subset(s)) for s in d.SPLITS) == 20 and m[:3] == d.Manifest(m.pairs[:3])
        with pytest.raises(d.InputError, match='train, valid, test'): m.subset('val')


class TestCheck:
    def test_everything_together_by_name(self, tmp_path):
        dataset(tmp_path, 8)
        (tmp_path / 'images/i0.png').write_bytes(b'')
        (tmp_path / 'images/i1.png').write_text('<html>')
        (tmp_path / 'masks/i2.png').unlink()
        Image.new('L', (3, 3)).save(tmp_path / 'masks/i3.png')
        noise = enc(np.random.default_rng(0).integers(0, 255, (8, 10, 3)).astype(np.uint8))
        (tmp_path / 'images/i4.png').write_bytes(noise[:150])
        Image.new('L', (10, 8), 77).save(tmp_path / 'masks/i5.png')
        Image.new('L', (10, 8)).save(tmp_path / 'masks/orphan_mask.png')
        Image.new('L', (10, 8)).save(tmp_path / 'masks/i6_mask.png')
        m = d.Manifest.load(tmp_path)
        quick = {p.id: p.kind for p in m.check(strict=False)}
        assert quick == {'i0': 'unreadable photograph', 'i1': 'unreadable photograph', 'i2': 'no mask', 'i3': 'sizes differ',
                         'orphan': 'mask without a photograph', 'i6': 'several masks'}
        full = {p.id: p.kind for p in m.check(full=True, strict=False)}
        assert full == {**quick, 'i4': 'unreadable photograph', 'i5': 'unreadable mask'}
        with pytest.raises(d.InputError) as e: m.check(full=True)
        assert len(e.value.problems) == 8 and all(n in str(e.value) for n in ('i0.png', 'i1.png', 'i2', 'i3.png', 'i4.png', 'i5.png',
            'orphan', 'i6'))

    def test_table_problems(self, tmp_path):
        dataset(tmp_path, 3)
        rows = 'images/i0.png,masks/i0.png,x,g,train', 'images/i1.png,masks/i1.png,x,g,test', 'images/i2.png,masks/i2.png,y,h,holdout'
        (tmp_path / 'm.csv').write_text('\n'.join(['image,mask,id,group,split', *rows]))
        got = d.Manifest.load(tmp_path / 'm.csv').check(strict=False)
        assert {p.kind for p in got} == {'id twice', 'group in several splits', 'unknown split'}

    def test_long_lists_are_counted(self, tmp_path):
        m = d.Manifest([d.LesionPair(f'{i}.jpg', 'm.png') for i in range(50)])
        with pytest.raises(d.InputError, match=r'missing photograph \(50\)') as e: m.check()
        assert 'and 30 more' in str(e.value) and len(e.value.problems) == 100

    def test_one_missing_mask_shifts_nothing(self, tmp_path):
        dataset(tmp_path, 6)
        (tmp_path / 'masks/i2.png').unlink()
        assert [p.mask and p.mask.name for p in d.Manifest.load(tmp_path)] == ['i0.png', 'i1.png', None, 'i3.png', 'i4.png', 'i5.png']

    @isic
    def test_fast(self):
        import time
        m = d.Manifest.load(ISIC / 'isic2017')
        t = time.perf_counter()
        m.check()
        assert time.perf_counter() - t < 10


groups_st = st.lists(st.integers(0, 40), min_size=3, max_size=120).filter(lambda g: len(set(g)) >= 3).map(lambda g: [f'p{x}' for x in g])
fractions_st = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)).map(lambda t: tuple(x / sum(t) for x in t))


class TestSplit:
    @given(groups_st, fractions_st, st.integers(0, 99), st.randoms())
    @settings(max_examples=150, deadline=None)
    def test_properties(self, groups, fractions, seed, rnd):
        areas = [(hash_area(g) + i % 3) / 100 for i, g in enumerate(groups)]
        got = d.split_groups(groups, areas, fractions, seed)
        assert got == d.split_groups(groups, areas, fractions, seed)
        side = {}
        for g, s in zip(groups, got, strict=True): assert side.setdefault(g, s) == s           # no group is divided
        order = list(range(len(groups)))
        rnd.shuffle(order)
        again = d.split_groups([groups[i] for i in order], [areas[i] for i in order], fractions, seed)
        assert again == [got[i] for i in order]                                                 # the order of rows is nothing
        n, largest = Counter(got), max(Counter(groups).values())
        for s, f in zip(d.SPLITS, fractions, strict=True):
            assert (n[s] > 0) == (f > 0)                                                        # filled where asked for
            assert n[s] - f * len(groups) <= max(largest, 1)

    @pytest.mark.parametrize('n', [*range(3, 40), 100, 997])
    def test_single_files_come_as_close_as_can_be(self, n):
        got = Counter(d.split_groups([str(i) for i in range(n)]))
        for s, f in zip(d.SPLITS, (0.7, 0.15, 0.15), strict=True): assert abs(got[s] - f * n) < 1 or n <= 6 and got[s] >= 1

    @given(st.lists(st.integers(1, 6), min_size=3, max_size=7), st.integers(0, 9))
    @settings(max_examples=60, deadline=None)
    def test_no_single_move_would_be_better(self, sizes, seed):
        groups = [f'g{i}' for i, n in enumerate(sizes) for _ in range(n)]
        got, f = dict(zip(groups, d.split_groups(groups, seed=seed), strict=True)), np.array((0.7, 0.15, 0.15)) * len(groups)
        def off(where): return sum(abs(sum(sizes[int(g[1:])] for g, s in where.items() if s == t) - f[k]) for k, t in enumerate(d.SPLITS))
        for g in got:
            for s in d.SPLITS:
                moved = {**got, g: s}
                assert len(set(moved.values())) < 3 or off(moved) >= off(got) - 1e-9

    def test_stratified_by_area(self):
        rng = np.random.default_rng(0)
        area, groups = rng.beta(1, 4, 1000), [f'p{i}' for i in range(1000)]
        def spread(a): return max(abs(np.mean([x for x, g in zip(area, a, strict=True) if g == s]) - area.mean()) for s in d.SPLITS)
        plain = np.mean([spread(d.split_groups(groups, seed=s)) for s in range(5)])
        assert np.mean([spread(d.split_groups(groups, area, seed=s)) for s in range(5)]) < 0.6 * plain
        fifth = np.searchsorted(np.quantile(area, [.2, .4, .6, .8]), area)
        for k in range(5): assert Counter(s for s, b in zip(d.split_groups(groups, area), fifth,
            strict=True) if b == k)['test'] in range(28, 33)

    def test_strata_by_mean_area_of_the_group(self):
        names = [f'g{i:02}' for i in range(20)]
        groups = names * 2
        areas = [0.9 - i / 25 for i in range(20)] + [0.1 + 3 * i / 25 for i in range(20)]  # the mean grows with i, the first falls
        assert d._strata(names, groups, areas).tolist() == [0] * 10 + [1] * 10

    def test_unknown_areas(self):
        area = [math.nan if i % 2 else 0.1 * i for i in range(40)]
        got = d.split_groups([str(i) for i in range(40)], area)
        assert Counter(s for s, a in zip(got, area, strict=True) if a != a)['test'] == 3

    @pytest.mark.parametrize('f', [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (math.nan, 0.5, 0.5), (0, 0, 0)])
    def test_fractions_are_checked(self, f):
        with pytest.raises(d.InputError, match='sum to 1'): d.split_groups(list('abcd'), fractions=f)

    def test_too_few_groups(self):
        with pytest.raises(d.InputError, match='1 groups cannot fill 3'): d.split_groups(['a'] * 50)
        with pytest.raises(d.InputError): d.split_groups([])
        assert d.split_groups(['a'] * 5, fractions=(0, 0, 1)) == ['test'] * 5

    def test_pinned(self):
        "A split must stay the same from release to release."
        got = d.split_groups([f'p{i}' for i in range(12)], [i / 12 for i in range(12)])
        assert ''.join(s[1] for s in got) == PINNED

    @given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
    @settings(max_examples=60, deadline=None)
    def test_components_against_scipy(self, n, links):
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
        links = [(a % n, b % n) for a, b in links]
        rows = np.array(links, int).reshape(-1, 2)
        _, want = connected_components(coo_matrix((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), (n, n)), directed=False)
        got = d._components(n, links)
        first = {}
        assert got == [first.setdefault(w, i) for i, w in enumerate(want)]


PINNED = 'aarererrrrrr'


def hash_area(g): return int(hashlib.sha256(g.encode()).hexdigest()[:4], 16) % 97


class TestMakeSplit:
    def manifest(self, n=20): return d.Manifest([d.LesionPair(f'{i:02}.jpg') for i in range(n)])

    def test_official_groups_and_duplicates(self):
        table = [{'isic_id': f'{i:02}.jpg', 'official': 'val' if i < 4 else 'train', 'patient_id': 'P' if i in (3, 10,
            11) else ''} for i in range(20)]
        m, r = d.make_split(self.manifest(), (0.75, 0.25, 0), stratify=False, table=table, official='official', as_split={'val': 'test'},
                            duplicates=[('00', '05'), ('05', '06'), ('07', '08'), ('07', 'elsewhere')])
        assert {p.id for p in m.subset('test')} == {'00', '01', '02', '03'}
        assert sorted(p.id for p in r.dropped) == ['05', '06', '10', '11'] and all('official' in p.detail for p in r.dropped)
        assert r.images == {'train': 9, 'valid': 3, 'test': 4} and r.digest == m.digest
        assert len({p.split for p in m if p.id in ('07', '08')}) == 1 and len({p.group for p in m if p.id in ('07', '08')}) == 1
        json.dumps(__import__('dataclasses').asdict(r))

    def test_two_fixed_splits_keep_the_more_held_out(self):
        table = [{'id': f'{i:02}', 'part': ('a', 'b', 'c')[i % 3]} for i in range(20)]
        m, r = d.make_split(self.manifest(), stratify=False, table=table, official='part', as_split={'a': 'train', 'b': 'valid',
            'c': 'test'},
                            duplicates=[('00', '01'), ('03', '05'), ('04', '08')])
        assert [p.id for p in r.dropped] == ['00', '03', '04'] and len(m) == 17

    def test_free_rows_go_between_the_other_splits(self):
        table = [{'id': f'{i:02}', 'part': 'v' if i < 3 else 't'} for i in range(20)]
        kw = dict(stratify=False, table=table, official='part', as_split={'v': 'test'})
        m, r = d.make_split(self.manifest(), **kw)
        assert r.images == {'train': 14, 'valid': 3, 'test': 3}  # 17 * 0.7/0.85, 17 * 0.15/0.85, the official three
        with pytest.raises(d.InputError, match='test is filled by the official split'): d.make_split(self.manifest(), (0.8, 0.1, 0.1), **kw)

    def test_all_fixed(self):
        m = d.Manifest([d.LesionPair(f'{i}.jpg', meta={'o': 'x'}) for i in range(3)])
        assert d.make_split(m, stratify=False, official='o', as_split={'x': 'test'})[1].images == {'train': 0, 'valid': 0, 'test': 3}

    @pytest.mark.parametrize('kw,says', [
        (dict(official='o', as_split={'dev': 'test'}), r"no pair has 'dev' in the column o \(it has train, val\)"), (dict(official='o'),
            'needs both'),
        (dict(as_split={'val': 'test'}), 'needs both'), (dict(official='o', as_split={'val': 'exam'}), "cannot become 'exam'"),
        (dict(group_by=['hospital']), 'no column hospital')])
    def test_mistakes(self, kw, says):
        m = d.Manifest([d.LesionPair(f'{i}.jpg', meta={'o': 'val' if i < 3 else 'train'}) for i in range(9)])
        with pytest.raises(d.InputError, match=says): d.make_split(m, stratify=False, **kw)

    def test_joins(self, tmp_path):
        m = self.manifest(3)
        (tmp_path / 't.csv').write_text('name,age\n00,50\n01.JPG,60\n02,70\n99,1\n')
        assert [p.meta['age'] for p in m.join(tmp_path / 't.csv', on='name')] == ['50', '60', '70']
        with pytest.raises(d.InputError, match='no column id or image_id'): m.join(tmp_path / 't.csv')
        with pytest.raises(d.InputError, match='two rows'): m.join([{'id': '00'}, {'id': '00'}])
        with pytest.raises(d.InputError, match='1 of 3 pairs .02.'): m.join([{'id': '00'}, {'id': '01'}])
        assert m.join([{'id': '00', 'a': 1}], partial=True)[1].meta == {}
        with pytest.raises(d.InputError, match='3 of 3'): m.join([{'id': 'z'}], partial=True)
        got = m.join([{'id': p.id, 'group': 'g', 'split': 'val'} for p in m])
        assert {(p.group, p.split) for p in got} == {('g', 'valid')}

    def test_group_by_hospital(self):
        m = d.Manifest([d.LesionPair(f'{i}.jpg', meta={'site': 'A' if i < 3 else 'B' if i < 6 else 'C'}) for i in range(9)])
        got, _ = d.make_split(m, (0.34, 0.33, 0.33), stratify=False, group_by=['site'])
        assert [p.group for p in got] == list('AAABBBCCC') and Counter(p.split for p in got) == {s: 3 for s in d.SPLITS}

    @isic
    def test_isic_sample(self):
        f = ISIC / 'isic2017'
        m, r = d.make_split(d.Manifest.load(f), (0.9, 0.1, 0), table=f / 'splits.csv', official='official_isic2017_split',
            as_split={'val': 'test'},
                            duplicates=f / 'near_duplicates.csv')
        assert sorted(p.id for p in r.dropped) == ['ISIC_0000171', 'ISIC_0012970']
        assert r.images['train'] + r.images['valid'] == 1998 and r.images['test'] == 150 and r.images['valid'] == 200
        assert {p.meta['official_isic2017_split'] for p in m.subset('test')} == {'val'}
        assert abs(r.area['train'] - r.area['valid']) < 0.01
