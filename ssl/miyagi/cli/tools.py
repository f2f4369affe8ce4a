"""Commands outside the DAG: what a person asks for before, beside and after a run. One function of `commands/` each."""

import argparse
from collections.abc import Callable
from pathlib import Path

from miyagi.errors import UserError
from miyagi.paths import Paths

Add = Callable[..., argparse.ArgumentParser]


def register(add: Add) -> None:
    """Add the commands to the parser; see `miyagi.cli.parser`."""
    add("doctor", _doctor, "what this machine has of what is needed, and what to do about the rest")
    preview = add("preview", _preview, "what an experiment's network will be asked, as one picture")
    preview.add_argument("experiment", nargs="?", help="default: the first that trains")
    preview.add_argument("--data", type=Path, metavar="FOLDER", help="pictures of yours; default: its data set's")
    preview.add_argument("--out", type=Path, metavar="PNG", help="default: reports/preview_EXPERIMENT.png")
    add("estimate", _estimate, "time and disk of the DAG as configured, from a few measured steps")
    export = add("export", _export, "an encoder for other programs, with a model card", "experiment")
    export.add_argument("--seed", type=int, help="default: the first")
    export.add_argument("--format", choices=("state_dict", "torchscript", "onnx"), default="state_dict")
    export.add_argument("--out", type=Path, metavar="DIR", required=True)
    images = add("embed-images", _embed_images, "features of a folder of images", "folder", "experiment")
    images.add_argument("--seed", type=int, help="default: the first")
    images.add_argument("--out", type=Path, metavar="FILE.safetensors", help="default: FOLDER-EXPERIMENT-SEED")
    study = add("study", _study, "does a finding hold here? list, show, run NAME, verdict NAME (or --all)")
    study.add_argument("action", choices=("list", "show", "run", "verdict"))
    study.add_argument("name", nargs="?", help="of a file in studies/")
    study.add_argument("--all", action="store_true", help="verdict: for docs/findings.md and the report")


def _doctor(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.commands import doctor

    missing = 0
    for check in doctor.run(paths):
        print(check, flush=True)
        missing += check.status == "fail"
    if missing:
        raise UserError(f"{missing} thing{'s' * (missing > 1)} needed {'are' if missing > 1 else 'is'} not right")


def _preview(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.commands import preview
    from miyagi.params import read

    print(preview.run(read(paths.params), paths, args.experiment, args.data, args.out))


def _estimate(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.commands import estimate
    from miyagi.params import read

    params = read(paths.params)
    print("\n".join(estimate.told(estimate.run(params, paths), bool(params.dense.protocols))))


def _export(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.commands import export
    from miyagi.params import read

    params = read(paths.params)
    for file in export.run(params, paths, args.experiment, args.seed, args.format, args.out):
        print(file)


def _embed_images(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.commands import embed_images
    from miyagi.params import read

    for file in embed_images.run(read(paths.params), paths, args.folder, args.experiment, args.seed, args.out):
        print(file)


def _study(args: argparse.Namespace, paths: Paths) -> None:
    from miyagi.studies import findings, listing, run

    if args.action == "list":
        print("\n".join(listing.listed(paths)))
    elif args.action == "verdict" and args.all:
        print(f"written: {', '.join(str(file.relative_to(paths.root)) for file in findings.write(paths))}")
    elif args.name is None:
        raise UserError(f"study {args.action}: name one, e.g. `miyagi study {args.action} temperature`")
    elif args.action == "run":
        run.run(args.name, paths, lambda line: print(f"miyagi: {line}", flush=True))
    else:
        print("\n".join((listing.shown if args.action == "show" else findings.told)(args.name, paths)))
