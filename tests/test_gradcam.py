"Grad-CAM against pytorch-grad-cam, on the shipped model and the classic U-Net."
import io
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM as Oracle
from pytorch_grad_cam.utils.image import scale_cam_image

from lesion_seg.bundle import Bundle
from lesion_seg.core import InputError
from lesion_seg.gradcam import cam_layers, explain, grad_cam, overlay_heat
from lesion_seg.phantom import make_phantom
from lesion_seg.unet import LesionUNet, UNet


def small_unet():
    torch.manual_seed(1)
    return UNet((4, 8, 8), 16, dropout=.1).eval()


MODELS = dict(shipped=lambda: Bundle.shipped().model(), unet=small_unet,
              resnet=lambda: LesionUNet('resnet18', decoder=[64, 32, 16, 16]).eval())


@pytest.fixture(scope='module', params=['shipped', 'unet', pytest.param('resnet', marks=pytest.mark.slow)])
def model(request): return MODELS[request.param]()


@pytest.fixture(scope='module')
def image(): return torch.from_numpy(make_phantom(3, (128, 160)).image).permute(2, 0, 1)[None] / 127.5 - 1


def oracle(model, layer, image, pixels):
    "The heat map of pytorch-grad-cam for the mean logit over `pixels`."
    where = torch.from_numpy(pixels)
    with Oracle(model, [model.get_submodule(layer)]) as cam: return cam(image,
                                                                        [lambda logits: logits[0][where].mean()])[0]


def test_equals_pytorch_grad_cam(model, image):
    with torch.no_grad(): z = model(image)[0, 0].numpy()
    for layer in [*cam_layers(model), 'head']:
        for target in ('lesion', (64, 80)):
            ours = grad_cam(model, image, layer, target, threshold=1 / (1 + np.exp(-np.quantile(z, .8))))
            assert abs(ours.pixels.sum() - (4096 if target == 'lesion' else 1)) <= (8 if target == 'lesion' else 0)
            theirs = oracle(model, layer, image, ours.pixels)
            scaled = scale_cam_image(scale_cam_image(ours.raw[None], image.shape[:-3:-1]))[0]
            np.testing.assert_allclose(scaled, theirs, atol=2e-3, err_msg=f'{layer} {target}')


def test_two_layers_differ(model, image):
    first, last = (grad_cam(model, image, n, (64, 80)).heat for n in (cam_layers(model)[0], cam_layers(model)[-1]))
    assert np.abs(first - last).max() > .1


@pytest.mark.slow
def test_threads_do_not_hear_each_other():
    model, photos = Bundle.shipped().model(), [make_phantom(s, 96).image for s in range(6)]
    alone = [explain(None, p, model=model).raw for p in photos]
    found = [None] * 6
    def work(i): found[i] = explain(None, photos[i], model=model).raw
    threads = [threading.Thread(target=work, args=[i]) for i in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    for a, b in zip(alone, found, strict=True): np.testing.assert_allclose(a, b, atol=1e-5)


# Pictures of the answer

@pytest.fixture(scope='module')
def cam(): return explain(None, make_phantom(4, (120, 150)).image)


def test_overlay_needs_no_photograph_again(cam, tmp_path):
    photo = make_phantom(4, (120, 150)).image
    assert cam.overlay().shape == (120, 150, 3)
    np.testing.assert_array_equal(cam.overlay(), overlay_heat(photo, cam.heat))
    Image.fromarray(photo).save(tmp_path / 'mole.png')
    for source in (tmp_path / 'mole.png', str(tmp_path / 'mole.png'), (tmp_path / 'mole.png').read_bytes(), photo):
        np.testing.assert_array_equal(cam.overlay(source), cam.overlay())
    assert cam.overlay(photo[::2, ::2]).shape == (60, 75, 3)  # a picture of another size gets the heat at its size
    with pytest.raises(InputError, match='does not exist'): cam.overlay(tmp_path / 'gone.png')


def test_a_tensor_has_no_photograph(image):
    model = Bundle.shipped().model()
    answer = grad_cam(model, image)
    with pytest.raises(InputError, match='the photograph: is not known'): answer.overlay()
    assert answer.overlay(make_phantom(3, (128, 160)).image).shape == (128, 160, 3)


def test_another_size(cam):
    small = cam.resized((60, 75))
    assert small.heat.shape == (60, 75) and small.overlay().shape == (60, 75, 3) and small.raw is cam.raw
    np.testing.assert_allclose(small.heat, cam.heat.reshape(60, 2, 75, 2).mean((1, 3)), atol=.02)
    with pytest.raises(InputError, match='height and a width'): cam.resized((0, 9))


def test_rich_display_is_a_small_picture_of_the_whole(cam):
    huge = cam.resized((3000, 4000))
    for answer in (cam, huge, replace(cam, photograph=None),
                   replace(cam, pixels=cam.pixels & False, raw=cam.raw * 0, heat=cam.heat * 0)):
        png = answer._repr_png_()
        with Image.open(io.BytesIO(png)) as im: assert max(im.size) < 600 and len(png) < 200_000
    titles = [ax.get_title() for ax in cam.plot().axes[:2]]
    assert titles == ['what is explained: lesion', f'what spoke for it in {cam.layer}']
    assert cam.plot().axes[2].get_ylabel() == 'fraction of the largest value'  # the legend
    hostile = replace(cam, layer='<img src=x onerror=alert(1)> $\\frac{')
    assert hostile._repr_png_()[1:4] == b'PNG'
    assert not hasattr(hostile, '_repr_html_') and not hasattr(hostile, '_repr_markdown_')


def test_a_threshold_in_percent_is_refused(image):
    with pytest.raises(InputError, match='threshold 50: is not within'):
        grad_cam(Bundle.shipped().model(), image, threshold=50)


def test_the_bundle_may_be_named(cam):
    np.testing.assert_array_equal(explain('shipped', make_phantom(4, (120, 150)).image).raw, cam.raw)
