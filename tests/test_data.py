"lesion_seg.data against values by hand, Pillow, scipy and properties."
import base64
import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, features

from lesion_seg import core
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


class TestLight:
    def test_import_brings_no_heavy_library(self):
        code = ('import sys; import lesion_seg.data; '
                'print([m for m in ("pandas", "torch", "fastai", "matplotlib", "scipy", "pyarrow", "fastcore") if m in sys.modules])')
        assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

    def test_import_leaves_pillow_alone(self):
        code = ('from PIL import Image, ImageFile; a = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES; import lesion_seg.data; '
                'print(a == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES))')
        assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'True'


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

    @pytest.mark.parametrize('bits', [8, 10, 12, 14])
    def test_fewer_bits_in_16(self, bits):
        "The largest value says how many, and one more than that needs the next."
        top, step = (1 << bits) - 1, 1 << bits - 8
        v = (top, 0, step, 100 * step, 50 * step, 200 * step)
        with pytest.warns(d.PictureWarning, match=f'{bits} bits in 16'):
            got = d.read_image(png(2, 1, 16, 2, [struct.pack('>6H', *v)]))
        assert got.tolist() == [[[255, 0, 1], [100, 50, 200]]]
        for highest, white in ((top, top), (top + 1, 65535 if bits == 14 else (1 << bits + 2) - 1)):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                assert d.white_value(np.array([0, highest], np.uint16), 'x') == white

    def test_constant_skin_keeps_its_colour(self):
        skin = np.full((5, 5, 3), (200, 150, 130), np.uint8)
        np.testing.assert_array_equal(d.read_image(enc(skin)), skin)
        np.testing.assert_array_equal(d.read_image(skin.astype(np.uint16) * 257), skin)
        np.testing.assert_array_equal(d.read_image(skin / 255), skin)

    def test_float_tiff(self, photo):
        "In [0, 1], in [0, 255] with a word about it; what has no scale is refused."
        grey = photo[..., 0].astype(np.float32)
        for scale in (255, 1):
            with warnings.catch_warnings(record=True) as heard:
                got = d.read_image(enc(Image.fromarray(grey / scale), 'TIFF'))
            assert np.abs(got[..., 1].astype(int) - photo[..., 0]).max() <= 1
            assert [str(w.message).endswith('white is taken as 255') for w in heard] == [True] * (scale == 1)
        for bad in (grey - 9, np.where(grey > 100, np.nan, grey), grey * 1e4):
            with pytest.raises(d.InputError, match='give uint8, uint16, or float'): d.read_image(enc(Image.fromarray(bad), 'TIFF'))


class TestColour:
    def test_modes(self):
        assert d.read_image(enc(Image.new('1', (1, 1), 1)))[0, 0].tolist() == [255] * 3
        assert d.read_image(enc(Image.new('L', (1, 1), 99)))[0, 0].tolist() == [99] * 3
        assert d.read_image(enc(np.uint8([[[100, 0], [100, 255]]])))[0, :, 0].tolist() == [255, 100]
        half = d.read_image(enc(Image.new('RGBA', (1, 1), (0, 100, 200, 51))))[0, 0]
        np.testing.assert_allclose(half, [204, 224, 244], atol=1)  # 0.2 colour + 0.8 white
        assert d.read_image(enc(Image.new('CMYK', (1, 1), (0, 0, 0, 0)), 'TIFF'))[0, 0].tolist() == [255] * 3
        assert d.read_image(enc(Image.new('CMYK', (8, 8), (0, 255, 255, 0)), 'JPEG', quality=95))[0, 0, 0] > 240
        assert d.read_image(enc(Image.new('YCbCr', (8, 8), (128, 128, 128)), 'TIFF', compression='tiff_lzw'))[0, 0].tolist() == [128] * 3

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
        (b'%PDF-1.7', 'is a PDF'), (b'PK\x03\x04...', 'is a ZIP'), (b'GIF89a', 'is damaged'), (b'\0\0\0\x18ftypmp42', 'is a film; save one picture'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'is a pointer of Git LFS.*; run git lfs pull'),
        (b'\0' * 128 + b'DICM', 'holds no picture'), (b'<svg xmlns=""/>', 'is an SVG'), (bytes(range(50)), 'of an unknown format'),
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
        with pytest.raises(d.InputError, match='cut: is damaged or incomplete'): d.read_image(tmp_path / 'cut')

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
        monkeypatch.setattr(core, 'FORMATS', list(core.FORMATS))
        seen = []
        def read(src):
            seen.append(src)
            return np.full((2, 3), 7, np.uint8)
        mine = core.FileFormat('a file of mine', b'MYFORMAT', ('.mine',), core.Reader(read))
        for _ in range(2): core.register_format(mine)
        assert core.FORMATS.count(mine) == 1
        (tmp_path / 'x').write_bytes(b'MYFORMAT')
        assert d.read_image(tmp_path / 'x').tolist() == [[[7] * 3] * 3] * 2 and seen == [tmp_path / 'x']
        assert d.read_image(b'MYFORMAT').shape == (2, 3, 3) and seen[1] == b'MYFORMAT'
        assert d.image_size(b'MYFORMAT') == (2, 3)
        core.FORMATS[0] = mine._replace(reader=core.Reader(read, lambda src: (20, 30)))
        assert d.image_size(b'MYFORMAT') == (20, 30)

    def test_threads(self, photo):
        b, out = enc(photo, 'JPEG', icc_profile=TestColour().profile(True)), []
        ts = [threading.Thread(target=lambda: out.extend(d.read_image(b) for _ in range(20))) for _ in range(8)]
        for t in ts: t.start()
        for t in ts: t.join()
        assert len(out) == 160 and all((o == out[0]).all() for o in out)


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


# Formats that came later

# A gradient of 56 x 40 pixels, as a HEIC encoder wrote it.
HEIC = base64.b64decode(
    'AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERAAAEA'
    'AQAAAAABoQABAAAAAAAAAecAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmND'
    'AQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAA'
    'AAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADgAAAABAAAAKAAAAAH////4AAAA'
    'Av///+gAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAe9tZGF0AAAB4ygBrwY46hOQXo9VUd53Kb0G+WC4f6tO0ieVCA6p'
    'y6MfJg+hwxznu+CYmQalPuLDsb7y3/wT7f51rgFsgZwNuwp9u1GznKkHwE+nIi/6Nz2KS9QOWr4oRV8upjZN4o4AzFt45wXzU4EL5NymfnlnqQyT14nhpOAe'
    '3bH0noGK6HCY3KqWWTSyLp/idH1dA5INjFHqHBxV0kvH2rMj+47IcBaKGcDAKGuSBaAXAWoLUFYHwx0PV9q/NtuoY7ZBXaHwMCjf60gA+iGH+olb20wYQVy2'
    'Yy6ltSLvZMp8mbTCompPA1uIOxxC45Qy16vUqYk3X9H6u7NfvAVtX2Y92EUPpoLFFsx2WB85fuM89ciVRWRRKtU0Rsf6KdWN72QuDraLw8vdKmlLE11W2Pu6'
    'UEd2vcVrUKS84dkw3LmJEuotJHTqkksG859PYkdYJGWPNcQd2URuunSI+cQy+ZsTBpIPbdYUiRL5sM0zm9DbHsfuNHo42yQOJSgCpMOpqm7jHfpUonmmcupq'
    'fqwLrSVCDQfQEaFP3uvv4vKSwbm0PPk6GoNaKB+fIPhhqMYke5L7Yi7f/uK1hmw5QGabJJ5/Efoi1HgY5Xp8oBMAG4vDifMU7XrbpFpyvnP3sh33Fory9++K'
    'jgGbgA==')


def gradient():
    "What went into it."
    y, x = np.mgrid[0:40, 0:56]
    return np.dstack([x * 3 + 60, y * 4 + 40, 120 + 0 * x]).astype(np.uint8)


class TestMoreFormats:
    def test_heic(self):
        pytest.importorskip('pi_heif', reason='no extra heic')
        assert np.abs(d.read_image(HEIC).astype(int) - gradient()).mean() < 2 and d.image_size(HEIC) == (40, 56)

    def test_heic_where_it_is_not_installed(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, 'pi_heif', None)
        monkeypatch.setitem(sys.modules, 'pi_heif.as_plugin', None)
        (tmp_path / 'IMG_1.HEIC').write_bytes(HEIC)
        for f in (d.read_image, d.read_mask, d.image_size):
            with pytest.raises(d.InputError, match=r"IMG_1.HEIC: is a HEIC file, .*run pip install 'lesion_seg\[heic\]'"): f(tmp_path / 'IMG_1.HEIC')

    @pytest.mark.parametrize('fmt, kw, off', [('AVIF', dict(quality=95), 3), ('JPEG2000', {}, 0), ('JPEG2000', dict(no_jp2=True), 0), ('GIF', {}, 12)])
    def test_others(self, fmt, kw, off):
        if fmt == 'AVIF' and not features.check('avif'): pytest.skip('Pillow without AVIF')
        content = enc(gradient(), fmt, **kw)
        assert np.abs(d.read_image(content).astype(int) - gradient()).mean() <= off and d.image_size(content) == (40, 56)

    def test_avif_is_turned(self):
        if not features.check('avif'): pytest.skip('Pillow without AVIF')
        exif = Image.Exif()
        exif[274] = 6
        content = enc(gradient(), 'AVIF', quality=95, exif=exif)
        assert np.abs(d.read_image(content).astype(int) - np.rot90(gradient(), -1)).mean() < 3 and d.image_size(content) == (56, 40)

    def test_masks_as_gif(self):
        for mode in ('1', 'L', 'P', 'RGB'):
            im = Image.fromarray(TestMask.M * np.uint8(255)).convert(mode)
            np.testing.assert_array_equal(d.read_mask(enc(im, 'GIF')), TestMask.M)
        b = io.BytesIO()
        Image.new('L', (9, 9)).save(b, 'GIF', save_all=True, append_images=[Image.new('L', (9, 9), 255)])
        with pytest.raises(d.InputError, match='holds several pictures; save the one'): d.read_mask(b.getvalue())

    def test_a_format_that_this_pillow_lacks(self, monkeypatch):
        monkeypatch.setattr(core.features, 'check', lambda feature: False)
        with pytest.raises(d.InputError, match='is a JPEG 2000 file, and this Pillow was built without jpg_2000'): d.read_image(enc(gradient(), 'JPEG2000'))


class TestUndecided:
    "255 beside labels is not lesion."
    LESION = np.zeros((40, 40), bool)
    LESION[10:30, 10:30] = True
    RING = np.zeros((40, 40), bool)
    RING[7:33, 7:33] = True
    RING &= ~LESION

    def map(self, lesion, ring, ground=0):
        return np.where(self.LESION, lesion, np.where(self.RING, ring, ground)).astype(np.uint8)

    @pytest.mark.parametrize('values', [(1, 255), (2, 255), (1, 255, 2), (255, 128), (255, 127), (1, 255, 1)])
    def test_refused(self, values):
        a = self.map(*values)
        palette = Image.fromarray(a).convert('P')
        palette.putpalette([0, 0, 0, 128, 0, 0] + [0] * 756 + [224, 224, 192])
        for src in (a, enc(a), enc(np.dstack([a] * 3)), enc(a, 'TIFF'), a.astype(np.uint16), a.astype(float), *([enc(palette)] if 1 in values else [])):
            if values == (1, 255, 1):   # two values: lesion everywhere but for the ring
                continue
            with pytest.raises(d.InputError, match=r'holds the values .* and \d+, as a label map does; recode it to 0 and 255'): d.read_mask(src)

    def test_what_stays(self):
        "Soft, resized and compressed masks are no label maps."
        mask = self.LESION * np.uint8(255)
        for kw in (dict(quality=30), dict(quality=75), dict(quality=95), dict(quality=100)):
            np.testing.assert_array_equal(d.read_mask(enc(mask, 'JPEG', **kw)), self.LESION)
            again = np.asarray(Image.open(io.BytesIO(enc(mask, 'JPEG', **kw))))
            np.testing.assert_array_equal(d.read_mask(enc(again)), self.LESION)
        half = np.asarray(Image.fromarray(mask).resize((20, 20), Image.Resampling.BOX))
        odd = np.asarray(Image.fromarray(mask[1:, 1:]).resize((20, 20), Image.Resampling.BILINEAR))
        for soft in (half, odd): assert d.read_mask(soft).any() and not d.read_mask(soft).all()
        np.testing.assert_array_equal(d.read_mask(mask), self.LESION)
        np.testing.assert_array_equal(d.read_mask(np.where(self.RING, 127, mask)[20:21]), (mask > 128)[20:21])   # one row: no area


class TestAlpha:
    def test_an_alpha_that_hides_everything_is_none(self, photo):
        layer = np.dstack([photo, np.zeros(photo.shape[:2], np.uint8)])
        for src in (layer, enc(layer), enc(layer, 'TIFF'), enc(layer, 'WEBP', lossless=True, exact=True)):
            np.testing.assert_array_equal(d.read_image(src), photo)
        b = bytearray(enc(np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]), 'BMP'))
        start = int.from_bytes(b[10:14], 'little')
        b[start + 3::4] = bytes(len(b[start + 3::4]))
        np.testing.assert_array_equal(d.read_image(bytes(b)), photo)

    def test_masks_with_such_an_alpha(self):
        mask = TestMask.M
        layer = np.dstack([*[mask * np.uint8(255)] * 3, mask * np.uint8(0)])
        np.testing.assert_array_equal(d.read_mask(layer), mask)
        assert not d.read_mask(np.zeros((5, 5, 4), np.uint8)).any()


class TestImplausible:
    @pytest.mark.parametrize('image, reason', [
        (np.zeros((64, 64, 3), np.uint8), 'is black everywhere'), (np.full((64, 64, 3), 250, np.uint8), 'is white everywhere'),
        (np.full((64, 64, 3), (200, 150, 130), np.uint8), 'has the same colour everywhere'), (np.zeros((8, 99, 3), np.uint8), 'has only 99 x 8 pixels')])
    def test_named(self, image, reason): assert d.implausible(image) == reason

    def test_photographs_are_plausible(self, photo):
        from lesion_seg.phantom import make_phantom
        assert d.implausible(photo) == '' and [d.implausible(make_phantom(i, 64).image) for i in range(40)] == [''] * 40
        assert 'nearly black' in d.implausible(photo // 8)


class TestSourcesAgain:
    def test_a_file_that_was_read_before(self, photo, tmp_path):
        (tmp_path / 'a.png').write_bytes(enc(photo))
        with open(tmp_path / 'a.png', 'rb') as f:
            for _ in range(3): np.testing.assert_array_equal(d.read_image(f), photo)
            f.read()
            assert d.image_size(f) == photo.shape[:2] and f.tell() == (tmp_path / 'a.png').stat().st_size

    def test_a_closed_picture(self, photo):
        im = Image.open(io.BytesIO(enc(photo)))
        im.close()
        for f in (d.read_image, d.read_mask):
            with pytest.raises(d.InputError, match='has been closed; open it again'): f(im)

    @pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
    def test_pipes_and_devices(self, tmp_path):
        os.mkfifo(tmp_path / 'a.jpg')
        for path in (tmp_path / 'a.jpg', '/dev/zero'):
            for f in (d.read_image, d.read_mask, d.image_size):
                with pytest.raises(d.InputError, match='is not a regular file'): f(path)


class TestWorkIsBounded:
    def soon(self, content, says):
        start = time.process_time()
        for f in (d.read_image, d.read_mask):
            with pytest.raises(d.InputError, match=says): f(content)
        assert time.process_time() - start < 1

    def test_chunks_of_a_png(self, photo):
        plain = enc(photo)
        empty = bytes(4) + b'teXt' + zlib.crc32(b'teXt').to_bytes(4, 'big')
        self.soon(plain[:33] + empty * 90_000 + plain[33:], 'very many chunks')
        self.soon(plain[:33] + plain[33:-12] + empty * 90_000 + plain[-12:], 'very many chunks')
        np.testing.assert_array_equal(d.read_image(plain[:33] + empty * 500 + plain[33:]), photo)

    def test_scans_of_a_jpeg(self, photo):
        b = enc(photo, 'JPEG', progressive=True)
        assert d.read_image(b).shape == photo.shape
        at = b.index(b'\xff\xda')
        self.soon(b[:-2] + b[at:-2] * 1000, r'holds \d+ scans')
        self.soon(b[:2] + b'\xff\xfe\0\x02' * 250_000 + b[2:], 'very many segments')
