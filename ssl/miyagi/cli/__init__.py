"""The command line: each command parses, calls one function, exits. `dvc.yaml` calls the stages.

Imports stand inside the commands: `miyagi --help` answers before torch could be loaded.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miyagi.cli import tools
from miyagi.errors import UserError
from miyagi.paths import Paths

if TYPE_CHECKING:
    from miyagi.tracking import Run

# Nobody is phoned from here, whatever a library's default is.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit 2 with a line or two for a mistake that the user can mend."""
    args = parser().parse_args(arguments)
    try:
        _only_stage()
        args.command(args, Paths(Path.cwd()))
    except UserError as error:
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # one of several processes leaves it to their launcher
            print(f"miyagi: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `miyagi list methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _only_stage() -> None:
    """A worker of a cluster was given one stage; what comes before it is another's, or would be made twice."""
    only, stage = os.environ.get("ONLY_STAGE"), os.environ.get("DVC_STAGE")
    if only and stage and only != stage:
        raise UserError(f"{stage} comes before {only} and is not in the DVC remote; run it first, and push its results")


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    root = argparse.ArgumentParser(
        "miyagi", description="Self-supervised learning on images: one DAG from raw images to a report."
    )
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, function: Any, line: str, *arguments: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=line, description=line)
        for argument in arguments:
            command.add_argument(argument, type=int if argument == "seed" else str)
        command.set_defaults(command=function)
        return command

    add("prepare", _prepare, "stage: raw images -> betons", "dataset")
    add("annotate", _annotate, "stage: pictures with boxes, masks or normals -> betons", "dataset")
    add("sweep", _sweep, "stage: resolve an experiment's settings", "experiment")
    add("pretrain", _pretrain, "stage: train an encoder", "experiment", "seed")
    add("embed", _embed, "stage: frozen features of a data set", "experiment", "seed", "dataset")
    add("probe", _probe, "stage: one protocol on the frozen features", "experiment", "seed", "protocol")
    add("finetune", _finetune, "stage: one protocol that trains the encoder", "experiment", "seed", "protocol")
    add("dense", _dense, "stage: one protocol on annotated pictures", "experiment", "seed", "protocol")
    add("report", _report, "stage: tables, figures and the page")
    add("sweep-worker", _sweep_worker, "run trials of a sweep that another process began", "experiment")
    dashboard = add("dashboard", _dashboard, "open optuna-dashboard on a sweep, the latest by default")
    dashboard.add_argument("experiment", nargs="?")
    dashboard.add_argument("--port", type=int, default=8080)
    add("summary", _summary, "where the report is, how to open MLflow, the best result")
    add("check", _check, "read params.yaml and say what is wrong with it")
    listing = add("list", _list, "what there is by name")
    listing.add_argument("kind", choices=("methods", "sources", "protocols", "encoders", "recipes"))
    listing.add_argument("--json", action="store_true", help="for scripts")
    track = add("track", _track, "MLflow: send what could not be sent (sync), or say how to open the UI (ui)")
    track.add_argument("action", choices=("sync", "ui"))
    tools.register(add)
    return root


def _run(
    paths: Paths, stage: str, target: str, experiment: str | None, fingerprint: str, params: Mapping[str, Any]
) -> "Run":
    from miyagi import tracking
    from miyagi.params import read_section
    from miyagi.settings import Tracking

    settings = read_section(paths.params, "tracking", Tracking)
    return tracking.Run(paths, settings, stage, target, experiment, fingerprint, params)


def _digest_of(file: Path) -> str:
    """The sha256 of a stage's input, or a UserError where no stage has written it."""
    from miyagi.files import file_digest

    try:
        return file_digest(file)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; check the names, or run `dvc repro`") from error


def _prepare(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.files import digest
    from miyagi.params import read
    from miyagi.paths import SPLITS
    from miyagi.stages import prepare

    settings = read(paths.params).dataset_settings(args.dataset)
    described = settings.model_dump(mode="json")
    with _run(paths, "prepare", args.dataset, None, digest(["prepare", args.dataset, described]), described) as track:
        track.log(prepare.run(args.dataset, settings, paths), 0)
        track.outs([*(paths.beton(args.dataset, split) for split in SPLITS), paths.manifest(args.dataset)])


def _annotate(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.files import digest
    from miyagi.params import read
    from miyagi.paths import SPLITS
    from miyagi.stages import annotate

    settings = read(paths.params).annotated_settings(args.dataset)
    described = settings.model_dump(mode="json")
    with _run(paths, "annotate", args.dataset, None, digest(["annotate", args.dataset, described]), described) as track:
        track.log(annotate.run(args.dataset, settings, paths), 0)
        files = [name(args.dataset, split) for split in SPLITS for name in (paths.beton, paths.annotations)]
        track.outs([*files, paths.manifest(args.dataset)])


def _sweep(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.files import digest
    from miyagi.params import read
    from miyagi.stages import sweep

    params = read(paths.params)
    described = params.experiment(args.experiment).model_dump(mode="json")
    with _run(paths, "sweep", args.experiment, args.experiment, digest(described), described) as track:
        sweep.run(args.experiment, params, paths, _trial_run(args.experiment, paths))
        track.outs([paths.experiment(args.experiment), paths.trials(args.experiment)])


def _trial_run(experiment: str, paths: Paths) -> "Callable[[str, str, Mapping[str, Any]], Run]":
    """What tracks one trial of a sweep."""
    return lambda target, fingerprint, params: _run(paths, "trial", target, experiment, fingerprint, params)


def _sweep_worker(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.params import read
    from miyagi.stages import sweep

    sweep.work(args.experiment, read(paths.params), paths, _trial_run(args.experiment, paths))


def _dashboard(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.params import read
    from miyagi.sweep import dashboard

    dashboard.serve(read(paths.params), paths, args.experiment, args.port)


def _pretrain(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.stages import pretrain
    from miyagi.train import launch

    experiment = pretrain.read_experiment(paths.experiment(args.experiment))
    processes = pretrain.processes(experiment)
    if processes > 1 and not launch.inside():
        launch.launch(processes, ["pretrain", args.experiment, str(args.seed)])
        return
    with launch.reported():
        if launch.rank() > 0:  # the first of several processes tracks
            pretrain.run(args.experiment, args.seed, paths)
        else:
            _tracked_pretrain(args, paths, experiment.model_dump(mode="json"))


def _tracked_pretrain(args: argparse.Namespace, paths: Paths, described: dict[str, Any]) -> None:
    from miyagi.stages import pretrain

    folder = paths.run(args.experiment, args.seed)
    identity = pretrain.identity(args.experiment, args.seed, paths)
    params = {**described, "seed": args.seed, "code.pretrain": identity["code"], "data": identity["data"]}
    target = f"{args.experiment}-{args.seed}"
    with _run(paths, "pretrain", target, args.experiment, identity["fingerprint"], params) as track:

        def on_epoch(row: dict[str, float], rate: float) -> None:
            epoch = int(row["epoch"])
            shown = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
            print(f"{target}: epoch {epoch}  {shown}  {rate:.0f} samples/s", flush=True)
            track.log({**row, "samples_per_second": rate}, epoch)

        pretrain.run(args.experiment, args.seed, paths, on_epoch)
        track.outs(folder / name for name in pretrain.OUTS)


def _embed(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.files import digest
    from miyagi.params import read_section
    from miyagi.settings import Embed
    from miyagi.stages import embed

    settings = read_section(paths.params, "embed", Embed)
    encoder = _digest_of(paths.run(args.experiment, args.seed) / "encoder.safetensors")
    described = {**settings.model_dump(mode="json"), "dataset": args.dataset, "encoder": encoder, "seed": args.seed}
    target = f"{args.experiment}-{args.seed}-{args.dataset}"
    with _run(paths, "embed", target, args.experiment, digest(described), described) as track:
        track.log(embed.run(args.experiment, args.seed, args.dataset, settings, paths), 0)
        track.outs([paths.bank(args.experiment, args.seed, args.dataset)])


def _probe(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.files import digest
    from miyagi.params import read
    from miyagi.stages import probe

    params = read(paths.params)
    settings = params.protocol(args.protocol)
    banks = [_digest_of(paths.bank(args.experiment, args.seed, dataset)) for dataset in params.datasets]
    described = {
        **settings.model_dump(mode="json"),
        "seed": args.seed,
        "banks": dict(zip(params.datasets, banks, strict=True)),
    }
    target = f"{args.experiment}-{args.seed}-{args.protocol}"
    with _run(paths, "probe", target, args.experiment, digest([args.protocol, described]), described) as track:
        summary = probe.run(args.experiment, args.seed, args.protocol, list(params.datasets), settings, paths)
        track.log(summary, 0)
        track.headline(_headlines(args, settings, summary))
        names = paths.rows, paths.predictions
        track.outs(name(args.experiment, args.seed, args.protocol) for name in names)


def _finetune(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.params import read
    from miyagi.settings import FinetuneSettings
    from miyagi.stages import finetune

    params = read(paths.params)
    settings = params.protocol(args.protocol, "finetune")
    assert isinstance(settings, FinetuneSettings)
    _evaluated(args, paths, "finetune", settings, params.targets(args.protocol), finetune.run)


def _dense(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.params import read
    from miyagi.settings import DenseSettings
    from miyagi.stages import dense

    params = read(paths.params)
    settings = params.protocol(args.protocol, "dense")
    assert isinstance(settings, DenseSettings)
    _evaluated(args, paths, "dense", settings, params.scenes(args.protocol), dense.run)


def _evaluated(
    args: argparse.Namespace, paths: Paths, stage: str, settings: Any, datasets: list[str], run: Callable[..., Any]
) -> None:
    """Run and track a stage that evaluates an encoder on betons."""
    from miyagi.files import digest

    described = {
        **settings.model_dump(mode="json"),
        "seed": args.seed,
        "encoder": _digest_of(paths.run(args.experiment, args.seed) / "encoder.safetensors"),
        "data": {dataset: _digest_of(paths.manifest(dataset)) for dataset in datasets},
    }
    target = f"{args.experiment}-{args.seed}-{args.protocol}"
    with _run(paths, stage, target, args.experiment, digest([args.protocol, described]), described) as track:
        summary = run(args.experiment, args.seed, args.protocol, datasets, settings, paths)
        track.log(summary, 0)
        track.headline(_headlines(args, settings, summary))
        names = paths.rows, paths.predictions
        track.outs(name(args.experiment, args.seed, args.protocol) for name in names)


def _headlines(args: argparse.Namespace, settings: Any, summary: Mapping[str, float]) -> dict[str, float]:
    """What an experiment's own run shows of a protocol: with other settings it is another number, in another column."""
    from miyagi.files import digest

    stamp = digest(settings.model_dump(mode="json"))[:8]  # the beginning of what a row has as `settings`
    return {f"{args.protocol}_{stamp}.seed{args.seed}.{key}": value for key, value in summary.items()}


def _report(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi import tracking
    from miyagi.files import digest
    from miyagi.params import read
    from miyagi.stages import report

    params = read(paths.params)
    described = params.model_dump(mode="json", include={"dataset", "seeds", "probe", "finetune", "dense"})
    tracking.sync(paths, params.tracking)
    with _run(paths, "report", "report", None, digest(params.model_dump(mode="json")), described) as track:
        for experiment, figures in report.run(params, paths).items():
            track.log({f"{experiment}.{name}": value for name, value in figures.items()}, 0)
        track.outs([paths.reports / "report.html", paths.reports / "results.csv"])


def _summary(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi import tracking
    from miyagi.params import read
    from miyagi.stages import report

    params = read(paths.params)
    print("\n".join(report.summary(params, paths, tracking.ui_command(paths, params.tracking))))


def _check(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.params import read
    from miyagi.sweep.space import Space

    params = read(paths.params)
    for name in params.experiments:
        if sweep := params.sweep(name):
            Space(name, params, sweep)
    parts = {"experiment": len(params.experiments), "data set": len(params.datasets), "seed": len(params.seeds)}
    counts = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in parts.items())
    print(f"params.yaml: {counts}: ok")


def _list(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi import registry

    rows = registry.listing(args.kind)
    if args.json:
        import json

        print(json.dumps(rows, indent=1))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        family = f"{row['family']:8}  " if "family" in row else ""
        print(f"{row['name']:{width}}  {family}{row['line']}" + (f"  [{row['paper']}]" if row["paper"] else ""))


def _track(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi import tracking
    from miyagi.params import read_section
    from miyagi.settings import Tracking

    settings = read_section(paths.params, "tracking", Tracking)
    print(tracking.ui_command(paths, settings) if args.action == "ui" else tracking.sync(paths, settings))
