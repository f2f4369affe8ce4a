"""The stage `report`: every experiment's rows -> reports/results.csv and reports/report.html."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from miyagi.errors import UserError
from miyagi.files import digest, write_text
from miyagi.params import Params
from miyagi.paths import SPLITS, Paths
from miyagi.report import asked, dag, figures, html, studies, sweeps, trials
from miyagi.report.activation import activations
from miyagi.report.agreement import agreements
from miyagi.report.averages import averages
from miyagi.report.confusion import Confusion, confusion
from miyagi.report.differences import against_floor, pairs
from miyagi.report.embedding import POINTS, Map, embedding_map, sprite
from miyagi.report.robustness import relative_errors
from miyagi.report.tables import HEADLINE, STAMP, VERSUS, Group, Line, Predictions, Row, finals, groups, to_csv
from miyagi.report.trends import trends
from miyagi.tracking import durations

Read = TypeVar("Read")
Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
ReadImages = Callable[[Path, Sequence[int]], Images]


def run(
    params: Params,
    paths: Paths,
    *,
    read_images: ReadImages | None = None,
) -> dict[str, dict[str, float]]:
    """Write the report.

    Args:
        params: experiments, seeds, dataset and the lists of experiments and protocols are read.
        paths: the project's files.
        read_images: (beton, indices) -> N x H x W x 3 uint8 images and N labels; None: miyagi.data.decode.

    Returns:
        Experiment -> its headline numbers on test: "test.PROTOCOL.encoder.top1" in percent and the same with
        ".vs_random" in points (means over seeds where there are several). A data set that is not the one trained on
        stands in front ("digits.test.linear.encoder.top1").

    Raises:
        UserError: an input is missing, cannot be read or contradicts another; it names the file and the stage.
    """
    names, seeds = list(params.experiments), list(params.seeds)
    rows = _all_rows(params, paths)
    stages = {protocol: stage for stage, _, _, protocol in _places(params)}
    described = {name: _read(paths, paths.experiment(name), f"sweep@{name}", _described) for name in names}
    methods = {name: described[name]["method"] for name in names}

    @cache
    def predictions(name: str, seed: int, protocol: str) -> Predictions:
        path = paths.predictions(name, seed, protocol)
        return _read(paths, path, f"{stages[protocol]}@{name}-{seed}-{protocol}", load_file)

    rows = against_floor(rows, predictions, {name: described[name]["encoder"] for name in names})
    # As params.yaml lists the protocols, on the data that was trained on first.
    listed = list(dict.fromkeys(protocol for *_, protocol in _places(params)))
    tables = sorted(
        groups(rows, methods), key=lambda table: (table.dataset != params.dataset, listed.index(table.protocol))
    )
    winner = best(tables, params.dataset)
    data = [
        _data(paths, name, "annotate" if name in params.dense.datasets else "prepare")
        for name in sorted({params.dataset, *(row["dataset"] for row in rows)})
    ]
    classes = next(entry.classes for entry in data if entry.name == params.dataset)
    images = read_images or _read_betons
    confused, confusions = _confusions(params, predictions, len(classes))
    maps, pictures = _maps(paths, names, seeds[0], params.dataset, images)
    page = html.Page(
        dataset=params.dataset,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        best=winner,
        methods=methods,
        intervals=sorted({row["interval"] for row in rows if row["interval"]}),
        groups=tables,
        pairs=pairs(rows, predictions, names),
        agreements=agreements(tables),
        averages=averages(tables, {name: dataset.group for name, dataset in params.datasets.items()}),
        relative=relative_errors(tables, predictions),
        curves=_curves(paths, names, seeds),
        neighbours=_neighbours(paths, names, seeds[0], params.dataset, classes, images),
        data=data,
        origins=sorted({html.Origin(*(row[key.name] for key in fields(html.Origin))) for row in rows}),
        descriptions={name: _text(paths.experiment(name)) for name in names},
        asked=_asked(paths, names, seeds[0]),
        settings=_settings(params),
        trends=trends(tables),
        maps=maps,
        sprite=pictures,
        confusions=confusions,
        confused=confused,
        dag=_dag(paths),
        activations=_activations(paths, names, seeds[0], params.dataset, classes, images),
        sweeps=_sweeps(paths, names),
        studies=_studies(paths),
    )
    write_text(paths.reports / "results.csv", to_csv(rows))
    write_text(paths.reports / "report.html", html.render(page))
    return headlines(tables, names, params.dataset)


def summary(params: Params, paths: Paths, mlflow_command: str) -> list[str]:
    """Three lines: where the report is, how to open the MLflow UI, the best result (chosen on validation).

    Raises:
        UserError: an input is missing; it names the file and the stage.
    """
    rows = [{**row, **dict.fromkeys(VERSUS)} for row in _all_rows(params, paths)]
    winner = best(groups(rows, {row["experiment"]: row["method"] for row in rows}), params.dataset)
    return [
        f"report: {(paths.reports / 'report.html').relative_to(paths.root)}",
        f"mlflow: {mlflow_command}",
        f"best: {winner or 'none: only floors were measured on both validation and test'}",
    ]


def best(tables: Sequence[Group], dataset: str) -> str | None:
    """The best experiment that is no floor, chosen by its validation value (the mean over seeds, where several ran).

    Only the layer and the metric of HEADLINE on `dataset` count, and only experiments that were tested as well; None
    where there are none. Equal values go to the first table's first line. The test value never takes part.
    """
    layer, metric = HEADLINE
    found = [
        (line.val * (1 if line.higher_is_better else -1), table, line)
        for table in tables
        if (table.dataset, table.metric) == (dataset, metric)
        for line in finals(table.layers.get(layer, ()))
        if not line.is_floor and line.test is not None and line.val is not None
    ]
    return _told(*max(found, key=lambda entry: entry[0])[1:]) if found else None


def headlines(tables: Sequence[Group], names: Sequence[str], dataset: str) -> dict[str, dict[str, float]]:
    """Experiment -> its test values on HEADLINE's layer and metric, and their differences to the floor; see `run`."""
    layer, metric = HEADLINE
    numbers: dict[str, dict[str, float]] = {name: {} for name in names}
    for table in tables:
        hashes = {other.settings for other in tables if other.protocol == table.protocol}
        protocol = table.protocol if len(hashes) == 1 else f"{table.protocol}_{table.settings}"
        front = "" if table.dataset == dataset else f"{table.dataset}."
        key = f"{front}test.{protocol}.{layer}.{metric}"
        for line in finals(table.layers.get(layer, ())) if table.metric == metric else ():
            if line.test:
                numbers[line.experiment][key] = line.test[0]
            if line.versus:
                numbers[line.experiment][f"{key}.vs_random"] = line.versus[0]
    return numbers


def _told(table: Group, line: Line) -> str:
    assert line.test is not None
    value, low, high = line.test
    seeds = ("seed " if len(line.seeds) == 1 else "mean of seeds ") + ", ".join(map(str, line.seeds))
    return (
        f"{line.experiment} {value:.2f} % [{low:.2f}, {high:.2f}] test {table.metric} on {table.dataset}, "
        f"{table.protocol} on {HEADLINE[0]}, n {line.n}, {seeds} (chosen on validation: {line.val:.2f} %)"
    )


def _read(paths: Paths, path: Path, stage: str, reader: Callable[[Path], Read], command: str = "dvc repro") -> Read:
    """What `reader` makes of `path`, or a UserError that names the file and how to get it back: `command` `stage`."""
    file = path.relative_to(paths.root)
    try:
        return reader(path)
    except FileNotFoundError:
        raise UserError(f"{file} is missing; run: {command} {stage}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{file} cannot be read ({reason}); delete it and run: {command} {stage}") from None


def _all_rows(params: Params, paths: Paths) -> list[Row]:
    """The rows of every experiment, seed, protocol and data set that params.yaml names now."""
    known = params.datasets.keys() | params.dense.datasets.keys()
    return [row for place in _places(params) for row in _rows(paths, *place) if row["dataset"] in known]


def _places(params: Params) -> list[tuple[str, str, int, str]]:
    """(stage, experiment, seed, protocol) of every `P.json`."""
    families = [
        ("probe", list(params.experiments), params.probe.protocols),
        ("finetune", params.finetune.experiments, params.finetune.protocols),
        ("dense", params.dense.experiments, params.dense.protocols),
    ]
    return [
        (stage, name, seed, protocol)
        for stage, names, protocols in families
        for name in names
        for seed in params.seeds
        for protocol in protocols
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _described(path: Path) -> dict[str, Any]:
    """An experiment's description; KeyError where it lacks what the report needs."""
    found = yaml.safe_load(_text(path))
    return {**found, "method": str(found["method"]), "encoder": found["encoder"]}


def _rows(paths: Paths, stage: str, name: str, seed: int, protocol: str) -> list[Row]:
    def reader(path: Path) -> list[Row]:
        rows: list[Row] = json.loads(_text(path))["rows"]
        for row in rows:
            if lacking := [key for key in STAMP if key not in row]:
                raise ValueError(f"a row lacks {', '.join(lacking)}")
        return rows

    return _read(paths, paths.rows(name, seed, protocol), f"{stage}@{name}-{seed}-{protocol}", reader)


def _data(paths: Paths, name: str, stage: str) -> html.Data:
    def reader(path: Path) -> html.Data:
        found = json.loads(_text(path))
        skipped = [f"{entry['file']}: {entry['reason']}" for entry in found["skipped"]]
        counts = {split: int(found["counts"][split]["total"]) for split in SPLITS}
        return html.Data(name, counts, [str(label) for label in found["classes"]], skipped)

    return _read(paths, paths.manifest(name), f"{stage}@{name}", reader)


def _curves(paths: Paths, names: Sequence[str], seeds: Sequence[int]) -> list[html.Curve]:
    """The curves of the experiments that trained; the untrained floor's history has no epochs."""
    histories: dict[str, dict[int, figures.History]] = {}
    for name in names:
        for seed in seeds:
            path = paths.run(name, seed) / "history.csv"
            past = _read(paths, path, f"pretrain@{name}-{seed}", lambda p: figures.history(_text(p)))
            if past.get("epoch"):
                histories.setdefault(name, {})[seed] = past
    limits = figures.knn_limits([past for pasts in histories.values() for past in pasts.values()])
    return [
        html.Curve(name, figures.curves(name, pasts, limits), [
            f"seed {seed}: {figures.summary(past)}" for seed, past in pasts.items()
        ])
        for name, pasts in histories.items()
    ]  # fmt: skip


def _asked(paths: Paths, names: Sequence[str], seed: int) -> dict[str, asked.Asked]:
    """Experiment -> pictures of its task, for the experiments that trained."""
    found = {name: _read(paths, paths.asked(name, seed), f"pretrain@{name}-{seed}", asked.read) for name in names}
    return {name: pictures for name, pictures in found.items() if pictures.rows}


def _sweeps(paths: Paths, names: Sequence[str]) -> list[sweeps.Sweep]:
    """What the page shows of each experiment that was tuned."""
    found = {name: _read(paths, paths.trials(name), f"sweep@{name}", lambda p: trials.read(_text(p))) for name in names}
    return [sweeps.sweep(name, tried, reproducible) for name, (tried, reproducible) in found.items() if tried]


def _studies(paths: Paths) -> list[studies.Verdict]:
    """The verdicts on studies; none where their file is missing, which DVC insists on, but nothing else here needs."""
    if not paths.verdicts.is_file():
        return []
    return _read(paths, paths.verdicts, "studies/verdicts.json", lambda p: studies.read(_text(p)), "git checkout")


def _neighbours(
    paths: Paths, names: Sequence[str], seed: int, dataset: str, classes: Sequence[str], read_images: ReadImages
) -> dict[str, list[figures.Query]]:
    """Experiment -> test images with their nearest train images, by the bank of frozen features."""
    stages = {name: f"embed@{name}-{seed}-{dataset}" for name in names}
    banks = {name: paths.bank(name, seed, dataset) for name in names}
    found = {
        name: _read(paths, bank, stages[name], lambda path: figures.look_up(path, HEADLINE[0]))
        for name, bank in banks.items()
    }

    def pictures(split: str, wanted: set[int]) -> dict[int, str]:
        order, beton = sorted(wanted), paths.beton(dataset, split)
        images, labels = _read(paths, beton, f"prepare@{dataset}", lambda path: read_images(path, order))
        for name in names:
            if order[-1] >= len(found[name].labels[split]) or (found[name].labels[split][order] != labels).any():
                bank, file = (path.relative_to(paths.root) for path in (banks[name], beton))
                raise UserError(f"{bank} was made of other images than {file}; run: dvc repro {stages[name]}")
        return {index: figures.picture(image) for index, image in zip(order, images, strict=True)}

    tests = pictures("test", {index for entry in found.values() for index in entry.queries.tolist()})
    trains = pictures("train", {index for entry in found.values() for index in entry.near.ravel().tolist()})
    return {name: entry.shown(tests, trains, classes) for name, entry in found.items()}


def _settings(params: Params) -> dict[str, str]:
    """The digest that a row has of its protocol's settings -> the settings, as YAML."""
    families = {
        "probe": params.probe.protocols, "finetune": params.finetune.protocols, "dense": params.dense.protocols,
    }  # fmt: skip
    found = [
        params.protocol(name, family).model_dump(mode="json") for family, names in families.items() for name in names
    ]
    return {digest(settings): yaml.safe_dump(settings, sort_keys=True) for settings in found}


def _maps(
    paths: Paths, names: Sequence[str], seed: int, dataset: str, read_images: ReadImages
) -> tuple[dict[str, Map], figures.Image | None]:
    """Experiment -> its map of the first test images, and their pictures; nothing where they have several labels."""
    manifest = json.loads(_text(paths.manifest(dataset)))
    if manifest.get("several_labels"):
        return {}, None
    maps = {
        name: _read(paths, paths.bank(name, seed, dataset), f"embed@{name}-{seed}-{dataset}",
                    lambda path: embedding_map(path, HEADLINE[0]))
        for name in names
    }  # fmt: skip
    first = range(min(POINTS, int(manifest["counts"]["test"]["total"])))
    images, _ = _read(paths, paths.beton(dataset, "test"), f"prepare@{dataset}", lambda path: read_images(path, first))
    return maps, sprite(list(images))


def _activations(
    paths: Paths, names: Sequence[str], seed: int, dataset: str, classes: Sequence[str], read_images: ReadImages
) -> dict[str, tuple[str, int, list[tuple[str, figures.Image]]]]:
    """See `Page.activations`; experiments whose banks hold no maps are left out."""
    found = {
        name: _read(paths, paths.bank(name, seed, dataset), f"embed@{name}-{seed}-{dataset}", activations)
        for name in names
    }
    shown = {}
    for name, maps in found.items():
        if maps is not None:
            order = sorted(maps.queries.tolist())
            images = dict(zip(order, read_images(paths.beton(dataset, "test"), order)[0], strict=True))
            labels = [classes[label] for label in maps.labels]
            shown[name] = (maps.layer, maps.grid, list(zip(labels, maps.pictures(images), strict=True)))
    return shown


def _confusions(
    params: Params, predictions: Callable[[str, int, str], Predictions], classes: int
) -> tuple[str, dict[str, Confusion]]:
    """The first protocol listed that predicted labels, and experiment -> its confusion matrix on the first seed."""
    for protocol in params.probe.protocols:
        found = {
            name: confusion(predictions(name, params.seeds[0], protocol), params.dataset, HEADLINE[0], classes)
            for name in params.experiments
        }
        if matrices := {name: matrix for name, matrix in found.items() if matrix}:
            return protocol, matrices
    return "", {}


def _dag(paths: Paths) -> dag.Dag | None:
    """What DVC wrote down so far; None where the report was asked for without DVC."""
    lock = paths.root / "dvc.lock"
    if not lock.is_file():
        return None
    return _read(paths, lock, "", lambda path: dag.read(_text(path), durations.read(paths)))


def _read_betons(path: Path, indices: Sequence[int]) -> Images:
    from miyagi.data.decode import read_images  # torch takes seconds to import

    return read_images(path, indices)
