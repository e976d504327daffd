"""The configuration file in the repository, and the reference system's keys."""

import json
import re
from pathlib import Path

import pytest

from lesion_seg.config import Config, config_yaml, load_config
from lesion_seg.core import InputError

ROOT = Path(__file__).resolve().parent.parent

# The live keys of the system that we replace, with their defaults there; renamed ones with their name here.
REFERENCE = {
    "project.seed": 42,
    "data.train_split": 0.70,
    "data.val_split": 0.15,
    "data.test_split": 0.15,
    "data.batch_size": 16,
    "augmentation.reference.rotation_limit": 30,
    "augmentation.reference.horizontal_flip": True,
    "augmentation.reference.vertical_flip": True,
    "augmentation.reference.elastic_transform.alpha": 120,
    "augmentation.reference.elastic_transform.sigma": 6,
    "augmentation.reference.grid_distortion.num_steps": 5,
    "augmentation.reference.grid_distortion.distort_limit": 0.3,
    "augmentation.reference.brightness_contrast.brightness_limit": 0.2,
    "augmentation.reference.brightness_contrast.contrast_limit": 0.2,
    "augmentation.reference.random_crop.min_scale": 0.8,
    "augmentation.reference.random_crop.max_scale": 1.0,
    "model.encoder_channels": [64, 128, 256, 512],
    "model.bottleneck_channels": 1024,
    "training.loss_weights.dice": 0.5,
    "training.loss_weights.bce": 0.5,
    "training.early_stopping.patience": 15,
    "training.early_stopping.min_delta": 0.001,
    "training.reduce_lr.factor": 0.5,
    "training.reduce_lr.patience": 7,
    "training.reduce_lr.min_lr": 1e-6,
    "evaluation.confidence_interval": 0.95,
    "logging.level": "INFO",
}

# Keys that it had as well, with the values that we advise instead: those of the shipped model.
ADVISED = {
    "data.image_size": 224, "augmentation.preset": "robust", "training.epochs": 30, "training.learning_rate": 0.002,
    "training.schedule": "one_cycle", "training.encoder_lr": 0.3, "training.average": 0.995, "training.start": "auto",
}


def test_the_file_in_the_repository_is_the_defaults():
    path = ROOT / "configs" / "config.yaml"
    assert load_config(path) == Config()
    assert path.read_text() == config_yaml(Config()), (
        "write it again: lesion_seg info --set project.seed=42 > configs/config.yaml"
    )


@pytest.mark.parametrize("key,value", (REFERENCE | ADVISED).items())
def test_default(key, value):
    found = Config()
    for part in key.split("."): found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize("key", REFERENCE | ADVISED)
def test_each_key_is_checked(key):
    with pytest.raises(InputError, match=key.replace(".", r"\.")): load_config(overrides=[f"{key}={{no: such}}"])


def test_every_key_has_a_description():
    def walk(section):
        for name, info in type(section).model_fields.items():
            value = getattr(section, name)
            if hasattr(type(value), "model_fields"): yield from walk(value)
            else: yield name, info.description
    assert all(text for _, text in walk(Config()))


@pytest.mark.parametrize("text,reason", [
    ("yes", "a whole number, not 'yes'"), ("010", "a whole number, not '010'"), ("1:30", "a whole number, not '1:30'"),
    ("true", "a whole number, not True"),
    ("'5'", "a whole number, not '5'"), ("5.5", "a whole number, not 5.5"),
    ("1" + "0" * 20, "less than or equal to 100000, not 1"), ("0x10", "not '0x10'"),
])
def test_numbers_are_written_as_numbers(text, reason, tmp_path):
    "YAML 1.1 reads `yes` as true, `010` as 8 and `1:30` as 90."
    (file := tmp_path / "c.yaml").write_text(f"training: {{epochs: {text}}}\n")
    for load in (lambda: load_config(file), lambda: load_config(overrides=[f"training.epochs={text}"])):
        with pytest.raises(InputError) as e: load()
        assert f"training.epochs: must be {reason}" in str(e.value) or reason in str(e.value)


def test_every_number_has_an_upper_bound():
    "A slip of the finger is refused by name, before memory is spent on it."
    def numbers(section, path=()):
        for name, info in type(section).model_fields.items():
            value = getattr(section, name)
            if hasattr(type(value), "model_fields"): yield from numbers(value, (*path, name))
            elif str(info.annotation) in ("<class 'int'>", "<class 'float'>", "int | None", "float | None"):
                yield ".".join((*path, name))
    keys = list(numbers(Config()))
    assert len(keys) > 30
    for key in keys:
        with pytest.raises(InputError, match=key.replace(".", r"\.") + ": must be less than"):
            load_config(overrides=[f"{key}={10**30}"])


def test_the_shipped_recipe():
    "configs/shipped.yaml trains what is in the shipped bundle's metadata."
    cfg = load_config(ROOT / "configs" / "shipped.yaml")
    shipped = json.loads((ROOT / "lesion_seg" / "shipped" / "bundle.json").read_text())
    made = shipped["training"]
    assert cfg.model.fits(shipped["architecture"]) and cfg.model.pretrained is True and cfg.training.start is None
    args = cfg.training.arguments()
    assert {
        k: args[k] for k in ("epochs", "lr", "schedule", "encoder_lr", "freeze_epochs", "average", "precision")
    } == {k: made[k] for k in ("epochs", "lr", "schedule", "encoder_lr", "freeze_epochs", "average", "precision")}
    assert (cfg.data.image_size, cfg.data.batch_size, cfg.project.seed, cfg.data.licence) == (
        made["size"],
        made["bs"],
        made["seed"],
        made["licence"],
    )
    assert cfg.augmentation.arguments() == made["augs"]
    from lesion_seg.loss import make_loss
    def parts(text): return re.findall(r"(\w+)=([\w.\[\], ]+?)(?=[,)]? *\w+=|\)|\n)", text.replace("1.0", "1"))
    ours, theirs = (dict(parts(text)) for text in (repr(make_loss(**cfg.training.loss_arguments())), made["loss"]))
    assert ours == theirs and theirs["alpha"] == theirs["beta"] == "1" and "0.5, 0.5" in theirs["weights"]


def test_the_remedy_for_a_broken_file_is_a_whole_command(tmp_path):
    (tmp_path / 'c.yaml').write_text('training: [')
    with pytest.raises(InputError, match=r'write one with `lesion_seg info --set project.seed=42`$'): load_config(tmp_path / 'c.yaml')


@pytest.mark.parametrize('key,near', [
    ('training.image_size', 'data.image_size'), ('training.epoch', 'epochs'), ('training.imagesize', 'data.image_size'),
    ('trainig.epochs', 'training'), ('prediction.temperature_of_the_room', '')])
def test_the_nearest_key_of_any_section(key, near):
    with pytest.raises(InputError) as e: load_config(overrides=[f'{key}=3'])
    assert (f'perhaps you mean {near};' in str(e.value)) if near else ('known keys are' in str(e.value))
