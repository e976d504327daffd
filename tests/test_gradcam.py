"Grad-CAM against pytorch-grad-cam, on the shipped model and the classic U-Net."
import threading

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM as Oracle
from pytorch_grad_cam.utils.image import scale_cam_image

from lesion_seg.bundle import Bundle
from lesion_seg.gradcam import cam_layers, explain, grad_cam
from lesion_seg.phantom import make_phantom
from lesion_seg.unet import LesionUNet, UNet


def small_unet():
    torch.manual_seed(1)
    return UNet((4, 8, 8), 16, dropout=.1).eval()


MODELS = dict(shipped=lambda: Bundle.shipped().model(), unet=small_unet, resnet=lambda: LesionUNet('resnet18', decoder=[64, 32, 16, 16]).eval())


@pytest.fixture(scope='module', params=['shipped', 'unet', pytest.param('resnet', marks=pytest.mark.slow)])
def model(request): return MODELS[request.param]()


@pytest.fixture(scope='module')
def image(): return torch.from_numpy(make_phantom(3, (128, 160)).image).permute(2, 0, 1)[None] / 127.5 - 1


def oracle(model, layer, image, pixels):
    "The heat map of pytorch-grad-cam for the mean logit over `pixels`."
    where = torch.from_numpy(pixels)
    with Oracle(model, [model.get_submodule(layer)]) as cam: return cam(image, [lambda logits: logits[0][where].mean()])[0]


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
