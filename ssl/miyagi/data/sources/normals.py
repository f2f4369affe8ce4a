"""Your own pictures with a map of surface normals each (NYUv2's layout): two folders side by side, see data/maps.py.

A map is a lossless RGB image: a unit vector n stands as round(127.5 (n + 1)), x, y, z in red, green, blue. Black pixels
are pixels of which nothing is known; they do not count.
"""

from pathlib import Path

import numpy as np

from miyagi.data.maps import Pairs, open_map, pairs
from miyagi.data.pictures import Listing
from miyagi.data.scene import Annotated, Scene, Scenes
from miyagi.paths import Paths
from miyagi.settings import AnnotatedDataset


def load(settings: AnnotatedDataset, paths: Paths) -> Annotated:
    """The pairs under `settings.path`; the digest is of all names and bytes.

    Raises:
        UserError: no such folders.
    """
    listing = Listing()
    found = pairs(paths.root / settings.path, "normals", _decode, listing)

    def scenes(own: Pairs) -> Scenes:
        return Scenes(len(own.files), lambda i: Scene(own.picture(i), normals=_decode(own.files[i])))

    parts = {split: scenes(own) for split, own in found.items()}
    return Annotated(
        {"normals": []}, parts["train"], parts.get("val"), parts.get("test"), listing.total.hexdigest(), listing.skipped
    )


def _decode(file: Path) -> np.ndarray:
    image = open_map(file)
    if image.mode != "RGB":
        raise ValueError(f"a map of normals is an RGB image with 8 bits a channel, this one is {image.mode}")
    return np.asarray(image)
