"""Segment skin lesions in dermoscopic photographs: `from lesion_seg import Segmenter`."""
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesion_seg.bundle import Bundle
    from lesion_seg.core import InputError
    from lesion_seg.data import read_image, read_mask
    from lesion_seg.manifest import Manifest
    from lesion_seg.phantom import make_phantom
    from lesion_seg.predict import Segmentation, Segmenter

__version__ = "0.1.0"
__all__ = ['Bundle', 'InputError', 'Manifest', 'Segmentation', 'Segmenter', 'make_phantom', 'read_image', 'read_mask']

_HOMES = dict(Bundle='bundle', InputError='core', Manifest='manifest', Segmentation='predict', Segmenter='predict',
              make_phantom='phantom', read_image='data', read_mask='data')


if not TYPE_CHECKING: # a type checker should complain about names that are not there
    def __getattr__(name: str) -> Any:
        "A name of the front door, imported at first use, so that `import lesion_seg` costs nothing."
        if name not in _HOMES: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        value = getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    "What there is to use: the front door, the version and the modules; not what this file is made of."
    from pkgutil import iter_modules
    return sorted({*__all__, '__version__', '__doc__', '__path__',
                   *(m.name for m in iter_modules(__path__) if not m.name.startswith('_'))})
