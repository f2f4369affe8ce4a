"""What Miyagi knows by name: one line a method, source, protocol, encoder and recipe.

An entry's key is its file's name: `METHODS["simclr"]` lives in `miyagi/methods/simclr.py`. Nothing here imports
torch: listing costs nothing, and `settings_of` reads a file's `class Settings` without importing the file.
"""

import ast
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from miyagi.errors import UserError, did_you_mean

PACKAGE = Path(__file__).parent
LIGHT = ("__future__", "typing", "pydantic", "miyagi.settings")
"""What a `class Settings` may use; everything else that its file imports stays unimported."""


@dataclass(frozen=True)
class Entry:
    """One line of a family's list.

    Attributes:
        line: what it is.
        paper: where it comes from.
        family: of a protocol: the stage that runs it, "probe" (on the bank of frozen features), "finetune" or "dense";
            of a source: "annotated" where it gives boxes, masks or normals, for the protocols of the family "dense".
        needs: of a protocol: what must not be empty under `embed` in params.yaml.
    """

    line: str
    paper: str = ""
    family: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Family:
    """A family of modules under one package, each found by its name."""

    singular: str
    package: str
    entries: Mapping[str, Entry]

    def check(self, name: str, key: str) -> None:
        """Raise a UserError that names `key` and the nearest known name, unless `name` is known."""
        if name not in self.entries:
            raise UserError(f"{key}: there is no {self.singular} '{name}'; {did_you_mean(name, self.entries)}")

    def file(self, name: str) -> Path:
        return PACKAGE.joinpath(*self.package.split(".")) / f"{name}.py"

    def load(self, name: str) -> ModuleType:
        """Import the module called `name`; the pattern of names keeps this inside the package."""
        if not name.isidentifier():
            raise UserError(f"'{name}' is not a {self.singular}'s name")
        return importlib.import_module(f"miyagi.{self.package}.{name}")

    def settings(self, name: str) -> type[Any]:
        """The `class Settings` of the module called `name`, without importing what the module imports."""
        return settings_of(self.file(name))


@cache
def settings_of(file: Path) -> type[Any]:
    """Execute a file's light imports and its `class Settings`, and nothing else.

    Importing torch takes seconds, and validating `params.yaml` or resolving an experiment should not wait for it;
    yet a method's settings belong in the method's file. docs/adr/0002-settings-without-torch.md.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    body: list[ast.stmt] = [
        node
        for node in tree.body
        if (isinstance(node, ast.ImportFrom) and node.module in LIGHT)
        or (isinstance(node, ast.ClassDef) and node.name == "Settings")
    ]
    namespace: dict[str, Any] = {"__name__": f"settings of {file.stem}"}
    exec(compile(ast.Module(body, []), str(file), "exec"), namespace)
    found: type[Any] = namespace["Settings"]
    return found


METHODS = Family(
    "method",
    "methods",
    {
        "random": Entry("floor: the encoder as it was initialised"),
        "supervised": Entry("floor: cross-entropy on all labels"),
        "rotation": Entry("predict which of four rotations was applied", "Gidaris et al., ICLR 2018"),
        "relative_patch": Entry("where a patch lies, seen from the one in the middle", "Doersch et al., ICCV 2015"),
        "jigsaw": Entry("in which of K orders nine tiles lie", "Noroozi and Favaro, ECCV 2016"),
        "colorization": Entry("the colours of a grey picture, as classes", "Zhang et al., ECCV 2016"),
        "split_brain": Entry("lightness from colours and colours from lightness", "Zhang et al., CVPR 2017"),
        "denoising_ae": Entry("an image from a corrupted copy, or at 0 from itself", "Vincent et al., ICML 2008"),
        "mae": Entry("three quarters of the patches from the others; needs a ViT", "He et al., CVPR 2022"),
        "deepcluster": Entry("which cluster of its own features, found anew each epoch", "Caron et al., ECCV 2018"),
        "bownet": Entry("the visual words of an image, from a perturbed copy", "Gidaris et al., CVPR 2020"),
        "simclr": Entry("two views agree, the batch gives the negatives (NT-Xent)", "Chen et al., ICML 2020"),
        "npid": Entry("each image a class, against a memory bank (softmax or NCE)", "Wu et al., CVPR 2018"),
        "pirl": Entry("an image and its jigsaw puzzle agree, by a memory bank", "Misra et al., CVPR 2020"),
        "cmc": Entry("lightness and colours of an image agree, two encoders", "Tian et al., ECCV 2020"),
        "exemplar": Entry("transformed copies of an image are a class", "Dosovitskiy et al., NeurIPS 2014"),
        "cpc": Entry("patches further down an image, from those above", "van den Oord et al., arXiv 1807.03748"),
        "deep_infomax": Entry("an image's vector tells what its map shows", "Hjelm et al., ICLR 2019"),
        "moco": Entry("a queue of keys from a momentum encoder; v1 and v2 by settings", "He et al., CVPR 2020"),
        "byol": Entry("predict a slowly moving copy of the network, no negatives", "Grill et al., NeurIPS 2020"),
        "simsiam": Entry("two views predict each other, a stopped gradient", "Chen and He, CVPR 2021"),
        "barlow_twins": Entry("the views' cross-correlation is the identity", "Zbontar et al., ICML 2021"),
        "vicreg": Entry("variance, invariance and covariance of two views", "Bardes et al., ICLR 2022"),
        "dino": Entry("a student answers for any crop what a slow teacher answers", "Caron et al., ICCV 2021"),
        "swav": Entry("predict another crop's prototypes, shared out evenly", "Caron et al., NeurIPS 2020"),
    },
)
SOURCES = Family(
    "source",
    "data.sources",
    {
        "fashion_mnist": Entry("70,000 articles of clothing, 28x28 grey, 10 classes", "Xiao et al., 2017"),
        "digits": Entry("1,797 handwritten digits, 8x8 grey; inside scikit-learn", "Alpaydin and Kaynak, 1998"),
        "cifar10": Entry("60,000 small photographs, 32x32, 10 classes", "Krizhevsky, 2009"),
        "cifar100": Entry("60,000 small photographs, 32x32, 100 classes", "Krizhevsky, 2009"),
        "stl10": Entry("13,000 labelled photographs, 96x96, 10 classes", "Coates et al., AISTATS 2011"),
        "svhn": Entry("99,289 house-number digits, 32x32, 10 classes", "Netzer et al., 2011"),
        "imagefolder": Entry("your own folder: train/<class>/*, test/<class>/*, or <class>/*"),
        "multilabel": Entry("your own folder with labels.csv: file, labels separated by ;, split"),
        "single_image": Entry("crops of one large picture, without labels", "Asano et al., ICLR 2020"),
        "scenes": Entry("labelled images of another source on canvases: boxes and masks", family="annotated"),
        "voc": Entry("your own boxes, laid out as PASCAL VOC", "Everingham et al., IJCV 2010", "annotated"),
        "masks": Entry("your own folders of pictures and masks, one label a pixel", family="annotated"),
        "normals": Entry("your own folders of pictures and maps of surface normals", family="annotated"),
    },
)
PROTOCOLS = Family(
    "protocol",
    "protocols",
    {
        "knn": Entry("weighted nearest neighbours on the frozen features", "Wu et al., CVPR 2018", "probe"),
        "linear": Entry("a linear classifier on the frozen features, chosen on validation", family="probe"),
        "svm": Entry("one-vs-rest linear SVMs: accuracy, or mAP on several labels", "Goyal et al., ICCV 2019", "probe"),
        "layers": Entry("the linear probe on every layer and on the head's output", "Zhang et al., ECCV 2016", "probe"),
        "fewshot": Entry("N-way K-shot episodes by three classifiers", "Chen et al., ICLR 2019", "probe"),
        "invariance": Entry(
            "which transformation can still be told, before and after the head",
            "Chen et al., ICML 2020",
            "probe",
            needs="transforms",
        ),
        "ood": Entry(
            "telling another data set's images apart, by kNN and Mahalanobis", "Sun et al., ICML 2022", "probe"
        ),
        "lowlabel": Entry("fine-tuning on a share of the labels", "Chen et al., ICML 2020", "finetune"),
        "linear_augmented": Entry(
            "the papers' linear layer, by SGD on augmented images", "He et al., CVPR 2020", "finetune"
        ),
        "corruptions": Entry(
            "19 corruptions of the test images at 5 severities", "Hendrycks and Dietterich, ICLR 2019", "finetune"
        ),
        "adversarial": Entry("accuracy under FGSM and PGD", "Madry et al., ICLR 2018", "finetune"),
        "transfer": Entry("other data sets, frozen and fine-tuned", "Zhai et al., arXiv 1910.04867", "finetune"),
        "segmentation": Entry("an FCN on the encoder's maps: mean IoU", "Long et al., CVPR 2015", "dense"),
        "detection": Entry("Faster R-CNN on the encoder's maps: COCO's AP", "Ren et al., NeurIPS 2015", "dense"),
        "surface_normals": Entry("dense regression: angles to the true normals", "Goyal et al., ICCV 2019", "dense"),
    },
)
ENCODERS = Family(
    "encoder",
    "nn.encoders",
    {
        "conv4": Entry("four blocks of 3x3 convolution, BatchNorm, ReLU, pool", "Vinyals et al., NeurIPS 2016"),
        "resnet18": Entry("residual network with 18 layers", "He et al., CVPR 2016"),
        "resnet50": Entry("residual network with 50 layers", "He et al., CVPR 2016"),
        "vit_tiny": Entry("vision transformer, 12 blocks of 192 channels", "Touvron et al., ICML 2021"),
        "pair": Entry("two half encoders, one on L and one on ab, concatenated", "Zhang et al., CVPR 2017"),
    },
)


def listing(kind: str) -> list[dict[str, str]]:
    """The rows of `miyagi list KIND`: name, line, paper; of a protocol its family as well.

    Args:
        kind: methods, sources, protocols, encoders or recipes.
    """
    from miyagi.recipes import RECIPES

    families: dict[str, Mapping[str, Any]] = {
        "methods": METHODS.entries,
        "sources": SOURCES.entries,
        "protocols": PROTOCOLS.entries,
        "encoders": ENCODERS.entries,
        "recipes": RECIPES,
    }
    return [
        {"name": name, "line": entry.line, "paper": entry.paper}
        | ({"family": entry.family} if kind == "protocols" else {})
        for name, entry in families[kind].items()
    ]
