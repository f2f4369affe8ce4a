"""`miyagi embed-images`: an encoder's features of any folder of images, with the paths that its rows belong to."""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from miyagi.commands.encoders import trained
from miyagi.data.betons import square
from miyagi.data.loader import Raw
from miyagi.data.pictures import Listing, examined, text
from miyagi.data.sources.imagefolder import image_files
from miyagi.errors import UserError
from miyagi.files import canonical, replacing, write_json
from miyagi.params import Params
from miyagi.paths import Paths
from miyagi.progress import progress
from miyagi.train.features import features
from miyagi.train.setup import set_up

BATCH = 256
TOLD = 10
"""Broken images that are named on the terminal; the file of paths names all."""


def run(params: Params, paths: Paths, folder: str, name: str, seed: int | None, out: Path | None) -> tuple[Path, Path]:
    """Write `features` (N x D float32) to `out`, and what its rows are to `<out's stem>.paths.json` beside it.

    Rows have the order of the sorted relative paths, whatever the file system's. An image is shown as `prepare` stores
    it: its largest centred square, at the size that the encoder was trained with.

    A broken image is left out, named and counted, as `prepare` does it: one bad file among a million should not cost
    the others, and since the paths are written as they were embedded, no row can slip.

    Args:
        params, paths: the project.
        folder: where the images are, at any depth; hidden files, and files without an image's suffix, are ignored.
        name, seed: of the encoder; no seed: the first one.
        out: None: `FOLDER-NAME-SEED.safetensors` here.

    Returns:
        The two files.

    Raises:
        UserError: no encoder, no folder, or no image in it that can be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"there is no folder {folder}")
    own = trained(params, paths, name, seed)
    out = out or Path(f"{root.resolve().name}-{name}-{own.seed}.safetensors")
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the file is written as safetensors, so let its name end in .safetensors")
    device = set_up(own.experiment.runtime)
    encoder = own.encoder.to(device)
    listing = Listing()
    found = list(image_files(root, listing))
    kept: list[str] = []
    rows: list[np.ndarray] = []
    files = iter(found)
    batches = iter(lambda: list(islice(files, BATCH)), [])
    for batch in progress(batches, -(-len(found) // BATCH), f"embedding {root.name}", f"batches of {BATCH}"):
        names, read = examined(root, [(path, text(path.relative_to(root).as_posix())) for path in batch], listing)
        if names:
            images = np.stack([square(read(i), own.size) for i in range(len(names))])
            index = torch.arange(len(names))
            raw = Raw(torch.from_numpy(images).permute(0, 3, 1, 2), torch.zeros_like(index), index)
            rows.append(features(encoder, [raw])[0])
            kept += names
    if not kept:
        raise UserError(f"{folder} has no image that can be read{listing.first}")
    _tell(listing)
    stamp = {"experiment": name, "seed": own.seed, "encoder": own.digest, "size": own.size}
    with replacing(out) as temporary:
        save_file({"features": np.concatenate(rows)}, str(temporary), metadata={"miyagi": canonical(stamp)})
    listed = out.with_suffix(".paths.json")
    write_json(listed, {"paths": kept, "skipped": listing.skipped})
    return out, listed


def _tell(listing: Listing) -> None:
    for entry in listing.skipped[:TOLD]:
        print(f"miyagi: left out: {entry['file']}: {entry['reason']}", file=sys.stderr)
    if listing.skipped:
        print(f"miyagi: warning: {len(listing.skipped)} image(s) could not be read and were left out", file=sys.stderr)
