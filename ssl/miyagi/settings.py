"""The models that every setting is read into: frozen, typed, and closed to keys they do not know.

A method's, a source's, a protocol's and an encoder's own settings are a `class Settings` in its own file; what
they share is here. Nothing in this file imports torch.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """The base of every settings model. Values are checked strictly: `lr: "0.1"` and `epochs: 2.5` are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class Runtime(Frozen):
    """How the machine is used. Every field is part of a training's fingerprint."""

    threads: int = Field(2, ge=1, description="torch's threads; 1 and 2 differ in the last bits of a result")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast, master weights in fp32")


class Crop(Frozen):
    """Random resized crop (Szegedy 2014): area as a share of the image, and aspect ratio width / height."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ordered(self) -> "Crop":
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {list(self.scale)} must be [low, high] with 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {list(self.ratio)} must be [low, high] with 0 < low <= high")
        return self


class Jitter(Frozen):
    """Colour jitter: each strength s draws a factor from [1 - s, 1 + s] (hue: a shift from [-s, s] of the circle)."""

    p: Fraction = 0.8
    brightness: Fraction = 0.4
    contrast: Fraction = 0.4
    saturation: Fraction = 0.4
    hue: float = Field(0.1, ge=0, le=0.5)


class Blur(Frozen):
    """Gaussian blur with a standard deviation, in pixels, drawn from `sigma`."""

    p: Fraction = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)

    @model_validator(mode="after")
    def _ordered(self) -> "Blur":
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma {list(self.sigma)} must be [low, high] with 0 < low <= high")
        return self


class ViewRecipe(Frozen):
    """How one view is made, in the order of the fields; an operation that is null or has p 0 is left out."""

    crop: Crop | None = None
    pad: int = Field(0, ge=0, le=7, description="pixels of reflected border before a random crop of the same size")
    flip: Fraction = 0.0
    jitter: Jitter | None = None
    gray: Fraction = 0.0
    blur: Blur | None = None
    solarize: Fraction = 0.0


class Head(Frozen):
    """The projection head; what downstream sees is the layer before it."""

    kind: Literal["none", "linear", "mlp"] = "mlp"
    width: int = Field(256, ge=1, description="units of each hidden layer (mlp)")
    depth: int = Field(1, ge=1, le=8, description="hidden layers (mlp)")
    out: int = Field(128, ge=1, description="units of the output")
    batch_norm: bool = Field(False, description="BatchNorm after each hidden layer")


class Monitor(Frozen):
    """The online kNN and the collapse monitor: what training shows, never what selects anything."""

    every: int = Field(1, ge=0, description="epochs between two looks; 0: never")
    images: int = Field(2000, ge=2, description="images of each of train and val that are looked at")
    k: int = Field(20, ge=1, description="neighbours of the online kNN")
    collapse_std: float = Field(0.01, ge=0, description="warn when the embedding's standard deviation is below")


class Pretrain(Frozen):
    """The optimisation that trained experiments share."""

    epochs: int = Field(3, ge=1)
    batch_size: int = Field(256, ge=2)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(2e-3, gt=0, description="peak learning rate")
    momentum: Fraction = Field(0.9, description="sgd only")
    weight_decay: float = Field(1e-4, ge=0, description="not applied to biases and normalisation layers")
    warmup_epochs: float = Field(0.5, ge=0, description="linear warm-up from 0")
    min_lr: float = Field(0.0, ge=0, description="where the cosine ends")
    monitor: Monitor = Monitor()

    @model_validator(mode="after")
    def _possible(self) -> "Pretrain":
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} is longer than epochs {self.epochs}")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is above lr {self.lr}")
        return self


class MethodSettings(Frozen):
    """The base of a method's own `Settings`."""

    trains: ClassVar[bool] = True
    """False for a method that keeps the encoder as it was initialised."""

    recipe: Name = Field("weak", description="the augmentation recipe that this method's views start from")


class Dataset(Frozen):
    """One data set: where it comes from and how it is split."""

    source: Name
    path: str = Field(min_length=1, description="the raw folder, or a built-in source's own module")
    size: int = Field(32, ge=8, le=1024, description="side of the stored square images, in pixels")
    val_fraction: float = Field(0.1, gt=0, lt=1, description="share of the training images held out for selection")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="only where the source has no test split of its own")
    train_limit: int | None = Field(None, ge=1, description="stratified limit; null: all")
    val_limit: int | None = Field(None, ge=1)
    test_limit: int | None = Field(None, ge=1)
    split_seed: int = Field(0, ge=0)


class Embed(Frozen):
    """The bank of frozen features."""

    tap_dimensions: int = Field(9216, ge=1, description="a map is pooled until it has at most this many dimensions")
    batch_size: int = Field(500, ge=1)


class Probe(Frozen):
    """The protocols that run on the bank of frozen features."""

    protocols: list[Name] = Field(min_length=1)


class Tracking(Frozen):
    """Where MLflow is."""

    uri: str | None = Field(None, description="null: MLFLOW_TRACKING_URI, else a local sqlite file")
    experiment: str = Field("miyagi", min_length=1, description="the MLflow experiment that holds all runs")


class Experiment(Frozen):
    """The total description of one training: what `runs/E/experiment.yaml` holds. No field is left to a default."""

    method: Name
    settings: dict[str, Any]
    encoder: dict[str, Any]
    views: list[ViewRecipe]
    pretrain: Pretrain | None
    runtime: Runtime
    dataset: Name
    code: str
