"""`python -m benchmarks.zoo [EXPERIMENT ...]`: every method at one small scale, in one table in docs/methods.md.

Each experiment and seed is a process of its own that calls the stages' own functions one after the other, in a project
under .miyagi/zoo; an interrupted zoo goes on where it was.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

from benchmarks.commandline import command, ending, named
from benchmarks.process import Call, fresh
from benchmarks.results import Record, Results
from benchmarks.settings import ROOT
from benchmarks.tables import number, table
from miyagi.errors import UserError, did_you_mean
from miyagi.files import write_text
from miyagi.params import Params, merge, read
from miyagi.paths import Paths
from miyagi.registry import METHODS
from miyagi.report.differences import against_floor
from miyagi.report.tables import Line, Predictions, Row, Span, finals, groups

MODULE = "benchmarks.zoo"  # not __name__, which is __main__ where this is the command
FILE = Path(__file__).with_name("zoo.yaml")
PROTOCOLS = ("knn", "layers")
BUILT_IN = {"source": "fashion_mnist", "path": "ssl/miyagi/data/sources/fashion_mnist.py"}


def main(arguments: Sequence[str] | None = None, call: Call = fresh) -> None:
    """Train and evaluate what is missing, then write the page of everything that there is.

    Args:
        arguments: of the command line.
        call: how an experiment is called.
    """
    args = parser().parse_args(arguments)
    with ending("zoo"):
        name, folder = named(args.images)
        root = (args.folder or ROOT / ".miyagi" / args.params.stem) / folder
        params, seeds, jobs = project(root, args.params, args.images)
        if strange := [experiment for experiment in args.experiments if experiment not in params.experiments]:
            raise UserError(f"{args.params.name}: there is no experiment '{strange[0]}'; "
                            f"{did_you_mean(strange[0], params.experiments)}")  # fmt: skip
        results = Results(root / "results", command("benchmarks.zoo", sys.argv[1:] if arguments is None else arguments))
        described = params.model_dump(mode="json", exclude={"experiments", "seeds", "tracking"})
        color = _once(results, "data", described | {"data": name}, f"{MODULE}:prepare", call, root=str(root))["color"]
        tasks = []
        for experiment in args.experiments or list(params.experiments):
            resolved = params.experiment(experiment)
            if METHODS.settings(resolved.method).needs_color and not color:
                print(f"zoo: {experiment} learns from colours, {name} has none; give it others by --images FOLDER")
                continue
            settings = described | {"experiment": resolved.model_dump(mode="json")}
            for seed in seeds.get(experiment, [0]):
                tasks.append(partial(_once, results, f"{experiment}-{seed}", settings, f"{MODULE}:run", call,
                                     root=str(root), name=experiment, seed=seed))  # fmt: skip
        _side_by_side(tasks, jobs)
        text = page(root, params, seeds, jobs, results, name, args.params.name)
        start, end = (f"<!-- {word}{args.params.stem} -->\n" for word in ("", "end of "))
        kept = args.out.read_text(encoding="utf-8") if args.out.is_file() else f"{start}{end}"
        before, _, rest = kept.partition(start)
        write_text(args.out, before + start + text + end + rest.partition(end)[2])
        print(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser("python -m benchmarks.zoo", description=__doc__)
    found.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="of zoo.yaml (default: all)")
    found.add_argument("--images", type=Path, help="FOLDER/{train,test}/<class>/* instead of Fashion-MNIST")
    found.add_argument("--params", type=Path, default=FILE, help="another zoo.yaml")
    found.add_argument("--out", type=Path, default=ROOT / "docs" / "methods.md", help="the page that holds the table")
    found.add_argument("--folder", type=Path, help="where all is kept (default: .miyagi/zoo, or as --params is called)")
    return found


def project(root: Path, file: Path, images: Path | None) -> tuple[Params, dict[str, list[int]], int]:
    """A project in `root`: params.yaml with what `file` changes, and dvc.yaml, by which code is identified.

    Returns:
        The parameters, the seeds of the experiments that have several, and how many run at a time.
    """
    try:
        own = yaml.safe_load(file.read_text(encoding="utf-8"))
        shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    zoo = own.pop("zoo")
    seeds: dict[str, list[int]] = zoo.pop("seeds")
    jobs: int = zoo.pop("jobs")
    data = BUILT_IN if images is None else {"source": "imagefolder", "path": str(images.resolve())}
    data = {name: str(ROOT / value) if name == "path" else value for name, value in data.items()}
    experiments = own.pop("experiments")
    merged = merge(shipped, own) | {
        "experiments": experiments,
        "dataset": "zoo",
        "datasets": {"zoo": data | zoo},
        "probe": {"protocols": list(PROTOCOLS)},
        "finetune": {"experiments": [], "protocols": []},
    }
    write_text(root / "params.yaml", yaml.safe_dump(merged, sort_keys=False))
    write_text(root / "dvc.yaml", (ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return read(root / "params.yaml"), seeds, jobs


def _side_by_side(tasks: Sequence[Callable[[], object]], jobs: int) -> None:
    """Call all, `jobs` at a time; where one fails, none is begun any more."""
    pool = ThreadPoolExecutor(jobs)
    try:
        for done in as_completed([pool.submit(task) for task in tasks]):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def prepare(root: str) -> Record:
    """The betons; whether their images have colours."""
    from miyagi.data.manifest import read_manifest
    from miyagi.stages import prepare as stage

    params, paths = read(Path(root) / "params.yaml"), Paths(Path(root))
    stage.run("zoo", params.dataset_settings("zoo"), paths)
    manifest = read_manifest(paths.manifest("zoo"))
    return {"color": manifest["color"], **{split: manifest["counts"][split]["total"] for split in ("train", "test")}}


def run(root: str, name: str, seed: int) -> Record:
    """Resolve, train, embed and probe one experiment with one seed.

    Returns:
        rates: samples/s of each epoch; last: the last epoch's figures.
    """
    from miyagi.stages import embed, pretrain, probe, sweep

    params, paths = read(Path(root) / "params.yaml"), Paths(Path(root))
    sweep.run(name, params, paths)
    rates: list[float] = []
    last = pretrain.run(name, seed, paths, lambda row, rate: rates.append(rate))
    embed.run(name, seed, "zoo", params.embed, paths)
    for protocol in PROTOCOLS:
        probe.run(name, seed, protocol, ["zoo"], params.protocol(protocol), paths)
    return {"rates": rates, "last": last}


def page(
    root: Path, params: Params, seeds: dict[str, list[int]], jobs: int, results: Results, name: str, file: str
) -> str:
    """The table of everything that was measured, and what it was measured with."""
    kept = {
        (experiment, seed): found
        for experiment in params.experiments
        for seed in seeds.get(experiment, [0])
        if (found := results.load(f"{experiment}-{seed}")) and found["records"]
    }
    if not kept:
        return "Nothing has been measured yet.\n"
    lines = compared(Paths(root), params, list(kept))
    best, last, near = (lines[table] for table in (("layers", "best"), ("layers", "encoder"), ("knn", "encoder")))
    body = []
    for experiment in sorted(best, key=lambda name: -(best[name].test or (0.0,))[0]):
        own = [found["records"]["run/0"] for (name, _), found in kept.items() if name == experiment]
        rates = [statistics.median(record["rates"][1:] or record["rates"]) for record in own if record["rates"]]
        layer = re.search(r"layer\W+(\w+)", best[experiment].chosen)
        body.append([
            f"`{experiment}`", str(len(own)), _span(best[experiment].test), layer.group(1) if layer else "several",
            _span(best[experiment].versus, "+"), _span(last[experiment].test).partition(" [")[0],
            _span(near[experiment].test), _span(near[experiment].versus, "+"),
            _pretext([record["last"] for record in own]), number(statistics.median(rates)) if rates else "-",
        ])  # fmt: skip
    header = [
        *("experiment", "seeds", "linear, best layer", "layer", "against random", "linear, last", "kNN"),
        *("against random", "pretext accuracy, %", "samples/s"),
    ]
    return "\n\n".join([table(header, body), *_notes(params, list(kept.values()), jobs, results, name, file)]) + "\n"


def compared(paths: Paths, params: Params, places: Sequence[tuple[str, int]]) -> dict[tuple[str, str], dict[str, Line]]:
    """(protocol, layer) -> experiment -> its line of the report: the mean over its seeds, or its only one."""
    rows: list[Row] = []
    for experiment, seed in places:
        for protocol in PROTOCOLS:
            rows += json.loads(paths.rows(experiment, seed, protocol).read_text(encoding="utf-8"))["rows"]

    @cache
    def predictions(experiment: str, seed: int, protocol: str) -> Predictions:
        return load_file(paths.predictions(experiment, seed, protocol))

    names = dict.fromkeys(experiment for experiment, _ in places)
    encoders = {name: params.experiment(name).encoder for name in names}
    methods = {name: params.experiments[name]["method"] for name in names}
    return {
        (group.protocol, layer): {line.experiment: line for line in finals(lines)}
        for group in groups(against_floor(rows, predictions, encoders), methods)
        for layer, lines in group.layers.items()
    }


def _notes(
    params: Params, kept: Sequence[dict[str, Any]], jobs: int, results: Results, name: str, file: str
) -> list[str]:
    first, prepared = kept[0], results.load("data")
    assert prepared is not None
    n, machine, settings = prepared["records"]["run/0"], first["conditions"]["machine"], params.pretrain
    loads = [found["load"] for found in kept]
    notes = [
        f"{name}, {n['train']:,} training and {n['test']:,} test images of {params.datasets['zoo'].size} pixels, "
        f"{settings.epochs} epochs, {settings.batch_size} images a batch, {settings.optimizer}, lr {settings.lr:g}; "
        f"conv4 where nothing else is said (`benchmarks/{file}`). Linear: logistic regression on the layer and with "
        "the regularisation that are best on validation; last: on the layer that downstream sees; kNN: k "
        f"{params.evaluate['knn']['k']}, T {params.evaluate['knn']['temperature']}. Top-1 of the test images in "
        "percent, read once; in brackets 95 % intervals: bootstrap over images, where there are several seeds t over "
        "them. Pretext accuracy: of the last epoch; R²: how much of its target's variance a reconstruction explains. "
        "Against random: points above the untrained encoder of the same kind, paired over images (seeds).",
        "One budget for every method and no setting tuned to it: a small scale says what learns at it, not which "
        f"method is better. samples/s: {jobs} run(s) at a time, each with {params.runtime.threads} thread(s) of torch. "
        f"Command: `{first['command']}`; {machine['processor']}, {machine['cores']} cores; load "
        f"average when runs began {min(loads):.1f} to {max(loads):.1f}; git {first['revision']}.",
    ]
    if len({found["conditions"]["code"] for found in kept}) > 1:
        notes.append("**Not one run:** some were measured with other code; run `make zoo` again.")
    return notes


def _pretext(last: Sequence[dict[str, float]]) -> str:
    """The mean accuracy over seeds, or what a reconstruction explains, in percent."""
    for figure, mark in (("accuracy", ""), ("explained", " (R²)")):
        if values := [100 * figures[figure] for figures in last if figure in figures]:
            return f"{statistics.mean(values):.1f}{mark}"
    return "-"


def _span(span: Span | None, sign: str = "") -> str:
    if span is None:
        return "-"
    value, low, high = (format(x, f"{sign}.2f") for x in span)
    return f"{value} [{low}, {high}]"


def _once(results: Results, part: str, settings: Any, target: str, call: Call, **arguments: Any) -> Record:
    results.begin(part, settings)
    return results.once(part, "run/0", lambda: call(target, **arguments))


if __name__ == "__main__":
    main()
