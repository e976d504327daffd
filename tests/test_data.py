"lesion_seg.data against values by hand, Pillow, scipy and properties."
import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

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
        (b'%PDF-1.7', 'is a PDF'), (b'PK\x03\x04...', 'is a ZIP'), (b'\0\0\0\x18ftypheic', 'is a HEIC'), (b'GIF89a', 'is a GIF'),
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
