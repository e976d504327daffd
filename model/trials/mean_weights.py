"""The mean of the weights of several networks (a *model soup*, arXiv:2203.05482), as `more_epochs.py` and `trials.py` use it.

Trainings that start from the same weights and then go different ways (another seed, another augmentation) mostly end in the same valley of the loss.
The mean of their weights often lies lower in it than each of them and costs nothing more to run. It was tried for the shipped model and refused
(see the page on trials), so it is not part of the package. Batch norm's statistics do not follow such a mean: measure them anew on training images.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from lesion_seg.bundle import Bundle
from lesion_seg.core import InputError


def mean_weights(
    bundles: Sequence[Bundle],  # of one architecture, at least one
    batches: Iterable[tuple[torch.Tensor, Any]] | None = None,  # images (N, 3, H, W) first, for batch norm's statistics; None: their mean as well
) -> nn.Module:  # in evaluation mode
    "The network whose weights are the mean of several."
    if not bundles: raise InputError("the mean of networks", "was given none", "give at least one")
    for b in bundles:
        if b.architecture != bundles[0].architecture:
            raise InputError(b.path, f"holds another architecture than {bundles[0].path}", "choose networks of one kind")
    model, states = bundles[0].model(), [b.model().state_dict() for b in bundles]
    mean = {k: torch.stack([s[k] for s in states]).mean(0) if v.is_floating_point() else v for k, v in states[0].items()}
    model.load_state_dict(mean)
    if batches is not None: update_bn(batches, model)
    return model.eval()
