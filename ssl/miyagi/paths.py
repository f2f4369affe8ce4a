"""Where everything lies, relative to the project's root. `dvc.yaml` names the same places."""

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Paths:
    """The project's files. `root` is the folder that holds `params.yaml` and `dvc.yaml`."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def dag(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def scratch(self) -> Path:
        """What is neither an input nor an output: checkpoints, the tracking journal, the local MLflow store."""
        return self.root / ".miyagi"

    @property
    def raw(self) -> Path:
        return self.root / "data" / "raw"

    def beton(self, dataset: str, split: str) -> Path:
        return self.root / "data" / "betons" / dataset / f"{split}.beton"

    def manifest(self, dataset: str) -> Path:
        return self.root / "data" / "betons" / dataset / "manifest.json"

    def annotations(self, dataset: str, split: str) -> Path:
        return self.root / "data" / "betons" / dataset / f"{split}.annotations.safetensors"

    def experiment(self, experiment: str) -> Path:
        return self.root / "runs" / experiment / "experiment.yaml"

    def trials(self, experiment: str) -> Path:
        """What a sweep found; only a header where the experiment is not tuned."""
        return self.root / "runs" / experiment / "trials.csv"

    @property
    def studies(self) -> Path:
        """Journals of sweeps and what their trials are doing: resuming lies outside DVC."""
        return self.scratch / "studies"

    @property
    def verdicts(self) -> Path:
        """What `miyagi study verdict --all` found, for the report; in git, beside the studies."""
        return self.root / "studies" / "verdicts.json"

    def run(self, experiment: str, seed: int) -> Path:
        return self.root / "runs" / experiment / str(seed)

    def asked(self, experiment: str, seed: int) -> Path:
        return self.run(experiment, seed) / "asked.safetensors"

    def bank(self, experiment: str, seed: int, dataset: str) -> Path:
        return self.run(experiment, seed) / "features" / f"{dataset}.safetensors"

    def rows(self, experiment: str, seed: int, protocol: str) -> Path:
        return self.run(experiment, seed) / f"{protocol}.json"

    def predictions(self, experiment: str, seed: int, protocol: str) -> Path:
        return self.run(experiment, seed) / f"{protocol}.predictions.safetensors"

    @property
    def reports(self) -> Path:
        return self.root / "reports"
