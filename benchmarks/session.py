"""One run of the benchmark: what every part needs to measure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.process import Call
from benchmarks.results import Record, Results
from benchmarks.settings import Settings


@dataclass(frozen=True)
class Session:
    """Settings, data, results, and how a measurement is called.

    Attributes:
        settings: benchmarks/params.yaml.
        name: of the data, as pages show it.
        images: the folder given with --images; None: Fashion-MNIST.
        folder: where data and results lie.
        results: the files of this data set.
        call: `process.fresh`, or `process.here` in tests.
    """

    settings: Settings
    name: str
    images: Path | None
    folder: Path
    results: Results
    call: Call

    @property
    def root(self) -> Path:
        """The project that holds the data of all parts but growth."""
        return self.folder / "data"

    def common(self) -> dict[str, Any]:
        """The settings that every rate depends on."""
        names = {"images", "test_images", "rate_images", "size", "width", "batch", "threads", "pretraining", "lightly"}
        return self.settings.model_dump(mode="json", include=names) | {"data": self.name}

    def once(self, part: str, key: str, target: str, *, watch: bool = False, **arguments: Any) -> Record:
        """Measure `key` of `part` by a call of `target`, unless it has been."""
        return self.results.once(part, key, lambda: self.call(target, watch=watch, **arguments))

    def prepare(self) -> None:
        """Make the data, unless they are there."""
        part = "preparation"
        self.results.begin(part, self.common())
        key, arguments = "prepare/0", self.data(self.root, self.settings.images, self.settings.test_images)
        if not data.exists(self.root):
            self.results.forget(part, key)
        self.once(part, key, "benchmarks.data:build", **arguments)

    def data(self, root: Path, images: int, test_images: int) -> dict[str, Any]:
        """The arguments of `data.build`."""
        folder = None if self.images is None else str(self.images.resolve())
        return {
            "root": str(root), "folder": folder, "images": images, "test_images": test_images,
            "size": self.settings.size,
        }  # fmt: skip

    def ours(self) -> dict[str, Any]:
        """The arguments that every measurement of ours takes."""
        return {"root": str(self.root), "width": self.settings.width, "threads": self.settings.threads}

    def lightly(self) -> dict[str, Any]:
        """The arguments that every measurement of lightly's and torchvision's loaders takes."""
        train = data.folders(self.root)["train"]
        return {"train": train, "size": self.settings.size, "batch": self.settings.batch}
