"""Other people's networks, as runtimes of `lesion_seg.benchmark`: python benchmarks/onnx_speed.py runs them.

All have random weights, PyTorch in inference mode with channels_last, and are given the same photographs; the classic U-Net is our own.
"""

import torch

from lesion_seg.benchmark import Ready
from lesion_seg.bundle import Bundle
from lesion_seg.unet import UNet


def _ready(net: torch.nn.Module, threads: int, bytes_each: int = 4) -> Ready:
    "A network as a runtime; its size is that of its float32 weights."
    torch.set_num_threads(threads)
    net = net.eval().to(memory_format=torch.channels_last)
    def predict(batch):
        with torch.inference_mode(): return net(torch.from_numpy(batch).permute(0, 3, 1, 2) / 127.5 - 1).sigmoid().numpy()
    return Ready(predict, bytes_each * sum(p.numel() for p in net.parameters()))


def classic_unet(bundle: Bundle, threads: int) -> Ready:
    "The U-Net of 2015 with batch norm: 31 M parameters."
    return _ready(UNet(), threads)


def smp_unet(bundle: Bundle, threads: int) -> Ready:
    "segmentation_models.pytorch's U-Net over the same encoder."
    import segmentation_models_pytorch as smp
    return _ready(smp.Unet(f"tu-{bundle.architecture['encoder']}", encoder_weights=None, classes=1), threads)


def monai_unet(bundle: Bundle, threads: int) -> Ready:
    "MONAI's U-Net as its tutorials build it."
    from monai.networks.nets import UNet as MonaiUNet
    return _ready(MonaiUNet(spatial_dims=2, in_channels=3, out_channels=1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2), threads)


PEERS: dict[str, str] = {f.__name__.replace("_", " "): f"peers:{f.__name__}" for f in (classic_unet, smp_unet, monai_unet)}
