"""The configuration file in the repository, and the reference system's keys."""

from pathlib import Path

import pytest

from lesion_seg.config import Config, config_yaml, load_config
from lesion_seg.core import InputError

ROOT = Path(__file__).resolve().parent.parent

# The live keys of the system that we replace, with their defaults there; renamed ones with their name here.
REFERENCE = {
    "project.seed": 42, "data.image_size": 256, "data.train_split": 0.70, "data.val_split": 0.15, "data.test_split": 0.15, "data.batch_size": 16,
    "augmentation.reference.rotation_limit": 30, "augmentation.reference.horizontal_flip": True, "augmentation.reference.vertical_flip": True,
    "augmentation.reference.elastic_transform.alpha": 120, "augmentation.reference.elastic_transform.sigma": 6,
    "augmentation.reference.grid_distortion.num_steps": 5, "augmentation.reference.grid_distortion.distort_limit": 0.3,
    "augmentation.reference.brightness_contrast.brightness_limit": 0.2, "augmentation.reference.brightness_contrast.contrast_limit": 0.2,
    "augmentation.reference.random_crop.min_scale": 0.8, "augmentation.reference.random_crop.max_scale": 1.0,
    "model.encoder_channels": [64, 128, 256, 512], "model.bottleneck_channels": 1024, "training.epochs": 100, "training.learning_rate": 0.001,
    "training.loss_weights.dice": 0.5, "training.loss_weights.bce": 0.5, "training.early_stopping.patience": 15, "training.early_stopping.min_delta": 0.001,
    "training.reduce_lr.factor": 0.5, "training.reduce_lr.patience": 7, "training.reduce_lr.min_lr": 1e-6, "evaluation.confidence_interval": 0.95,
    "logging.level": "INFO",
}


def test_the_file_in_the_repository_is_the_defaults():
    path = ROOT / "configs" / "config.yaml"
    assert load_config(path) == Config()
    assert path.read_text() == config_yaml(Config()), "write it again: lesion_seg info --set project.seed=42 > configs/config.yaml"


@pytest.mark.parametrize("key,value", REFERENCE.items())
def test_reference_default(key, value):
    found = Config()
    for part in key.split("."): found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize("key", REFERENCE)
def test_each_key_is_checked(key):
    with pytest.raises(InputError, match=key.replace(".", r"\.")): load_config(overrides=[f"{key}={{no: such}}"])


def test_every_key_has_a_description():
    def walk(section):
        for name, info in type(section).model_fields.items():
            value = getattr(section, name)
            if hasattr(type(value), "model_fields"): yield from walk(value)
            else: yield name, info.description
    assert all(text for _, text in walk(Config()))
