"""The models that every setting is read into: frozen, typed, and closed to keys they do not know.

A method's, a source's, a protocol's and an encoder's own settings are a `class Settings` in its own file; what
they share is here. Nothing in this file imports torch.
"""

import json
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Frozen(BaseModel):
    """The base of every settings model. Values are checked strictly: `lr: "0.1"` and `epochs: 2.5` are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class Runtime(Frozen):
    """How the machine is used. Every field is part of a training's fingerprint."""

    threads: int = Field(2, ge=1, description="torch's threads; 1 and 2 differ in the last bits of a result")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="bf16: autocast, weights stay fp32; fp16: with a gradient scaler as well"
    )
    compile: bool = Field(False, description="torch.compile of the networks: minutes first, faster steps afterwards")
    processes: int = Field(1, ge=1, description="processes that share each batch; on GPUs one each")


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


class Rotate(Frozen):
    """Rotation about the centre by an angle from [-degrees, degrees]; what lies outside is black."""

    p: Fraction = 1.0
    degrees: float = Field(10.0, gt=0, le=180)


class ColorDrop(Frozen):
    """Colour dropping (Doersch 2015): one channel is kept, the other two become noise about grey or copies of it."""

    p: Fraction = 1.0
    fill: Literal["noise", "copies"] = "noise"


class Cutout(Frozen):
    """A square is covered (DeVries 2017) whose side, as a share of the image's, is drawn from `side`."""

    p: Fraction = 1.0
    side: tuple[Fraction, Fraction] = (0.5, 0.5)
    fill: Literal["gray", "mean"] = Field("gray", description="gray: 0.5; mean: the image's own colour")

    @model_validator(mode="after")
    def _ordered(self) -> "Cutout":
        if self.side[0] > self.side[1]:
            raise ValueError(f"side {list(self.side)} must be [low, high] with 0 <= low <= high <= 1")
        return self


Operation = Literal["crop", "pad", "flip", "rotate", "jitter", "gray", "color_drop", "blur", "solarize", "cutout"]


class ViewRecipe(Frozen):
    """How one view is made; an operation that is null or has p 0 is left out.

    The view gets its size where `crop` stands in the order, whether it crops or shows the whole centred square.
    """

    crop: Crop | None = None
    pad: int = Field(0, ge=0, le=7, description="pixels of reflected border before a random crop of the same size")
    flip: Fraction = 0.0
    rotate: Rotate | None = None
    jitter: Jitter | None = None
    gray: Fraction = 0.0
    color_drop: ColorDrop | None = None
    blur: Blur | None = None
    solarize: Fraction = 0.0
    solarize_threshold: Fraction = Field(0.5, description="what is at least as bright is inverted")
    cutout: Cutout | None = None
    order: tuple[Operation, ...] = Field(get_args(Operation), description="which operation comes after which")

    @model_validator(mode="after")
    def _each_once(self) -> "ViewRecipe":
        twice = sorted({name for name in self.order if self.order.count(name) > 1})
        if twice:
            raise ValueError(f"order names {twice[0]} twice")
        missing = [name for name in get_args(Operation) if self._on(name) and name not in self.order]
        if missing:
            raise ValueError(f"order leaves out {missing[0]}, which is on")
        return self

    def _on(self, name: str) -> bool:
        value = getattr(self, name)
        return bool(getattr(value, "p", value))

    def steps(self) -> list[str]:
        """The operations that are on, in order, and `crop` in any case."""
        order = self.order if "crop" in self.order else ("crop", *self.order)
        return [name for name in order if name == "crop" or self._on(name)]


class Head(Frozen):
    """The projection head; what downstream sees is the layer before it."""

    kind: Literal["none", "linear", "mlp"] = "mlp"
    width: int = Field(256, ge=1, description="units of each hidden layer (mlp)")
    depth: int = Field(1, ge=1, le=8, description="hidden layers (mlp)")
    out: int = Field(128, ge=1, description="units of the output")
    batch_norm: bool = Field(False, description="BatchNorm after each hidden layer")
    activation: Literal["relu", "gelu"] = Field("relu", description="after each hidden layer; DINO takes gelu")
    out_batch_norm: bool = Field(False, description="BatchNorm without scale and shift on the output (SimSiam)")


class Monitor(Frozen):
    """The online kNN and the collapse monitor: what training shows, never what selects anything."""

    every: int = Field(1, ge=0, description="epochs between two looks; 0: never")
    images: int = Field(2000, ge=2, description="images of each of train and val that are looked at")
    k: int = Field(20, ge=1, description="neighbours of the online kNN")
    pairs: int = Field(500, ge=0, description="validation images of which two augmented views are compared; 0: none")
    collapse_std: float = Field(
        0.01,
        ge=0,
        description="warn when the embedding's standard deviation is below; of up to 256 dimensions, less for more",
    )


class Pretrain(Frozen):
    """The optimisation that trained experiments share."""

    epochs: int = Field(3, ge=1)
    batch_size: int = Field(256, ge=2, description="images a step of the optimiser, of all processes together")
    accumulate: int = Field(
        1, ge=1, description="parts that a batch is worked through in; negatives and BatchNorm see one part at a time"
    )
    checkpointing: bool = Field(
        False, description="keep only the encoder's block inputs and compute the rest again: less memory, more time"
    )
    optimizer: Literal["sgd", "adamw", "lars"] = "adamw"
    lr: float = Field(2e-3, gt=0, description="peak learning rate")
    momentum: Fraction = Field(0.9, description="sgd and lars only")
    weight_decay: float = Field(1e-4, ge=0, description="not applied to biases and normalisation layers")
    warmup_epochs: float = Field(0.5, ge=0, description="linear warm-up from 0")
    min_lr: float = Field(0.0, ge=0, description="where the cosine ends")
    monitor: Monitor = Monitor()
    stop_on_collapse: bool = Field(False, description="end the training where the monitor would warn of a collapse")

    @model_validator(mode="after")
    def _possible(self) -> "Pretrain":
        if self.stop_on_collapse and not self.monitor.every:
            raise ValueError("stop_on_collapse needs the monitor to look: monitor.every above 0")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} is longer than epochs {self.epochs}")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is above lr {self.lr}")
        self.part(1)
        return self

    def part(self, processes: int) -> int:
        """How many images each process takes at a time.

        Raises:
            ValueError: the batch cannot be shared out evenly, or leaves less than two images each.
        """
        shares = processes * self.accumulate
        if self.batch_size % shares or self.batch_size < 2 * shares:
            of = f"runtime.processes {processes} x accumulate {self.accumulate}"
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of {of}, with 2 images or more each")
        return self.batch_size // shares


class MethodSettings(Frozen):
    """The base of a method's own `Settings`."""

    trains: ClassVar[bool] = True
    """False for a method that keeps the encoder as it was initialised."""
    encoder_pair: ClassVar[bool] = False
    """True for a method that trains two half encoders, one on L and one on ab: its encoder is made a pair."""
    needs_color: ClassVar[bool] = False
    """True for a method that learns from colours: grey data is refused."""

    recipe: Name = Field("weak", description="the augmentation recipe that this method's views start from")


class ContrastiveSettings(MethodSettings):
    """What every method that contrasts a query with a positive and with negatives lets the user choose."""

    loss: Literal["info_nce", "nce", "n_pair", "margin", "triplet", "jsd", "dv"] = Field(
        "info_nce", description="info_nce is NT-Xent where both views are queries; n_pair, margin, triplet have no tau"
    )
    temperature: float = Field(0.2, gt=0, description="tau: 0.07 to 0.2 with l2_normalize, 10 to 100 without")
    l2_normalize: bool = True
    margin: float = Field(1.0, gt=0, description="m of margin and triplet")
    form: Literal["squared", "distance"] = Field("squared", description="margin and triplet: of d^2, or of d")
    beta: float = Field(0.0, ge=0, description="info_nce: how much more the nearer negatives weigh; 0: all alike")
    tau_plus: float = Field(0.0, ge=0, lt=1, description="info_nce: assumed share of false negatives, taken out")
    negatives: Literal["batch", "bank", "queue"] = "batch"
    number: int | None = Field(None, ge=1, description="negatives of a query, drawn anew at each step; null: all")
    queue: int = Field(65536, ge=1, description="keys that the queue holds")
    bank_momentum: Fraction = Field(0.5, description="m of the bank's features")

    @model_validator(mode="after")
    def _possible(self) -> "ContrastiveSettings":
        if self.loss != "info_nce" and (self.beta or self.tau_plus):
            raise ValueError(f"beta and tau_plus weigh the negatives of info_nce, not of {self.loss}")
        if self.tau_plus and not self.l2_normalize:
            raise ValueError("tau_plus needs vectors of unit length: l2_normalize: true")
        return self


class Split(Frozen):
    """How a data set's images are shared out: who is trained on, who chooses, who is tested on."""

    val_fraction: float = Field(0.1, gt=0, lt=1, description="share of the training images held out for selection")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="only where the source has no test split of its own")
    train_limit: int | None = Field(None, ge=1, description="stratified limit; null: all")
    val_limit: int | None = Field(None, ge=1)
    test_limit: int | None = Field(None, ge=1)
    split_seed: int = Field(0, ge=0)


class Dataset(Split):
    """One data set: where it comes from and how it is split."""

    source: Name
    path: str = Field(min_length=1, description="the raw folder, or a built-in source's own module")
    size: int = Field(32, ge=8, le=1024, description="side of what an encoder is shown, in pixels")
    shorter_side: int | None = Field(
        None, ge=8, le=4096, description="null: stored as squares of `size`; else in their shape, shrunk to this"
    )
    jpeg_quality: int | None = Field(90, ge=1, le=100, description="where shapes are kept; null: stored raw")
    disjoint: bool = Field(False, description="imagefolder: test/ (and val/) have classes of their own, for few-shot")
    group: Name | None = Field(None, description="the report averages over a group's data sets: VTAB's natural, ...")

    @model_validator(mode="after")
    def _possible(self) -> "Dataset":
        if self.disjoint and self.source != "imagefolder":
            raise ValueError(f"disjoint: true is for folders of one's own (imagefolder), not for {self.source}")
        if self.shorter_side is not None and self.shorter_side < self.size:
            raise ValueError(f"shorter_side {self.shorter_side} is below size {self.size}: views would be enlarged")
        return self


class AnnotatedDataset(Split):
    """Pictures with boxes, masks or normals, for the dense protocols. They are stored in their own shape."""

    source: Name
    path: str = Field(min_length=1, description="the raw folder; of `scenes` what `of` has: a folder, or its module")
    shorter_side: int = Field(128, ge=16, le=2048, description="pixels that larger pictures are shrunk to")
    jpeg_quality: int | None = Field(90, ge=1, le=100, description="of pictures above 64 x 64; null: stored raw")
    ignore: int | None = Field(255, ge=0, le=65535, description="masks: the label of pixels that do not count")
    of: Name | None = Field(None, description="scenes: the source whose labelled images are pasted")
    objects: int = Field(3, ge=1, le=20, description="scenes: at most so many objects a canvas")
    scale: tuple[Fraction, Fraction] = Field((0.25, 0.5), description="scenes: an object's side, as a share")
    cut_out: bool = Field(True, description="scenes: an object is what is not black in its image; false: all of it")

    @model_validator(mode="after")
    def _possible(self) -> "AnnotatedDataset":
        if (self.source == "scenes") != (self.of is not None):
            raise ValueError("source scenes, and no other, names in `of` whose images it pastes, e.g. of: digits")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {list(self.scale)} must be [low, high] with 0 < low <= high <= 1")
        return self


class Embed(Frozen):
    """The bank of frozen features."""

    tap_dimensions: int = Field(9216, ge=1, description="a map is pooled until it has at most this many dimensions")
    batch_size: int = Field(500, ge=1)
    transforms: list[Literal["rotation", "gray", "noise", "sobel"]] = Field(
        [], description="transformed copies that the bank holds as well, for the protocol invariance"
    )
    transform_images: int = Field(1000, ge=2, description="images of each split that are copied")


class Probe(Frozen):
    """The protocols that run on the bank of frozen features."""

    protocols: list[Name] = Field(min_length=1)


class Finetune(Frozen):
    """The protocols that train or attack the encoder itself, and whose encoders."""

    experiments: list[Name] = Field(description="each costs its trainings; `random` is training from scratch")
    protocols: list[Name]


class Grid(Frozen):
    """What is tried; validation chooses."""

    lr: list[Positive] = Field(min_length=1, description="peak learning rates")
    steps: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, description="lengths of a training, in batches")


class Descent(Frozen):
    """How the steps of a training go; what is tried stands in a `Grid`."""

    optimizer: Literal["sgd", "adamw"] = "adamw"
    momentum: Fraction = Field(0.9, description="sgd only")
    weight_decay: float = Field(1e-4, ge=0, description="not applied to biases and normalisation layers")
    batch_size: int = Field(64, ge=2)
    schedule: Literal["cosine", "step"] = Field("cosine", description="step: a tenth after 60 % and after 80 %")
    warmup: float = Field(0.1, ge=0, lt=1, description="cosine: share of the steps that the rate rises")
    looks: int = Field(2, ge=1, description="looks at validation, evenly spaced; the best one is kept")


class Optimization(Descent):
    """How a classifier on an encoder is trained."""

    recipe: Name = Field("weak", description="augmentation; its first view is taken")
    augment: dict[str, Any] = Field({}, description="changes to the recipe, e.g. {flip: 0.0} for digits")


class FinetuneSettings(Frozen):
    """The base of the `Settings` of a protocol that trains or attacks the encoder."""

    others: ClassVar[bool] = False
    """True for a protocol that looks at the data sets that the encoder was not pretrained on."""

    datasets: list[Name] | None = Field(None, description="null: the one pretrained on, or for transfer all others")


class Dense(Frozen):
    """The protocols on pictures with boxes, masks or normals, whose encoders they train, and those pictures."""

    datasets: dict[Name, AnnotatedDataset]
    experiments: list[Name] = Field(description="each costs its trainings; `random` is training from scratch")
    protocols: list[Name]


class DenseSettings(Frozen):
    """The base of the `Settings` of a dense protocol."""

    datasets: list[Name] | None = Field(None, description="of dense.datasets; null: all that have what it needs")
    finetune: Grid = Field(Grid(lr=[3e-4, 1e-3], steps=[1000]), description="for a pretrained encoder")
    scratch: Grid = Field(Grid(lr=[1e-3, 3e-3], steps=[2000]), description="for the floor from scratch")
    optimization: Descent = Descent(batch_size=16)
    flip: Fraction = Field(0.5, description="share of the training pictures that are mirrored; 0 for digits")


class Tracking(Frozen):
    """Where MLflow is."""

    uri: str | None = Field(None, description="null: MLFLOW_TRACKING_URI, else a local sqlite file")
    experiment: str = Field("miyagi", min_length=1, description="the MLflow experiment that holds all runs")


class Dimension(Frozen):
    """One dimension of a search space: a range, both ends included, or a list of choices."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = Field(False, description="drawn evenly in the logarithm")
    step: int | float | None = Field(None, gt=0, description="only low, low + step, low + 2 step, ...")
    choices: list[Any] | None = Field(None, min_length=1, description="any values; null and whole sections too")
    when: dict[str, Any] = Field({}, description="only where other dimensions have these values")

    @model_validator(mode="after")
    def _possible(self) -> "Dimension":
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("either choices, or low and high with log or step")
            texts = [json.dumps(value, sort_keys=True) for value in self.choices]
            if len(set(texts)) < len(texts):
                raise ValueError(f"choices name something twice: {', '.join(texts)}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a dimension has low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("either log or step")
        return self

    @property
    def ends(self) -> tuple[int | float, int | float]:
        """low and high, of a range."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high


class Objective(Frozen):
    """What a trial is judged by, after a short training of its own."""

    metric: Literal["knn", "linear", "rankme", "alignment_uniformity"] = Field(
        "knn", description="knn, linear: top-1 on validation, in percent; the other two need no labels"
    )
    seconds: bool = Field(False, description="the training's seconds as a second objective; a Pareto front results")
    epochs: int | None = Field(None, ge=1, description="of a trial; null: the experiment's own")
    train_limit: int | None = Field(None, ge=2, description="images a trial trains on; null: all")
    k: int = Field(20, ge=1, description="neighbours of knn")
    c: float = Field(0.1, gt=0, description="inverse regularisation of linear")


class Sweep(Frozen):
    """How an experiment is tuned before it is trained: the `sweep:` block of its entry."""

    space: dict[str, Dimension] = Field(min_length=1, description="by the dotted path of any key of the experiment")
    trials: int = Field(ge=1, description="trial 0 has the experiment's own values")
    objective: Objective = Objective()
    sampler: Literal["tpe", "gp", "qmc", "grid", "random"] = Field("tpe", description="tpe is multivariate")
    pruner: Literal["none", "median", "hyperband"] = Field("none", description="on the metric after each epoch")
    fresh_seeds: int = Field(2, ge=1, description="that the best 3 trials and trial 0 are scored again on")
    timeout: float | None = Field(None, gt=0, description="seconds after which no trial is begun")
    jobs: int = Field(1, ge=1, description="processes on this machine that run trials")
    storage: str | None = Field(
        None,
        pattern="^postgresql://",
        description="null: a journal file; libpq reads the password from PGPASSWORD or ~/.pgpass",
    )
    heartbeat: int = Field(20, ge=1, description="seconds between a trial's signs of life on Postgres; dead after 3")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> "Sweep":
        if self.objective.seconds and self.pruner != "none":
            raise ValueError(f"pruner {self.pruner} compares one number; with seconds there are two: pruner: none")
        if self.objective.epochs is not None and "pretrain.epochs" in self.space:
            raise ValueError("objective.epochs is what every trial trains, so space cannot hold pretrain.epochs")
        return self

    @property
    def reproducible(self) -> bool:
        """Whether the same seed gives the same trials: no clock and no other process has a part in them."""
        return not (self.objective.seconds or self.timeout or self.jobs > 1 or self.storage)


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
