"""`python -m benchmarks [PART ...]`: measure what is not measured yet, print the page, write docs/benchmarks.md."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import data_path, growth, orchestration, pretraining, report, stages, time_to_accuracy
from benchmarks.commandline import command, ending, named
from benchmarks.process import Call, fresh
from benchmarks.results import Results
from benchmarks.session import Session
from benchmarks.settings import FILE, ROOT, read
from miyagi.errors import UserError, did_you_mean

PARTS = {
    "data_path": data_path.run,
    "pretraining": pretraining.run,
    "time_to_accuracy": time_to_accuracy.run,
    "stages": stages.run,
    "growth": growth.run,
    "orchestration": orchestration.run,
}


def main(arguments: Sequence[str] | None = None, call: Call = fresh) -> None:
    """Run the parts that are named, or all, and write the page of everything that has been measured.

    Args:
        arguments: of the command line.
        call: how a measurement is called.
    """
    args = parser().parse_args(arguments)
    with ending("benchmarks"):
        name, folder = named(args.images)
        folder = args.folder / folder
        results = Results(folder, command("benchmarks", sys.argv[1:] if arguments is None else arguments))
        parts = args.parts or list(PARTS)
        for part in parts:
            if part not in (*PARTS, "report"):
                raise UserError(f"there is no part '{part}'; {did_you_mean(part, [*PARTS, 'report'])}")
        if parts != ["report"]:
            if importlib.util.find_spec("lightly") is None:
                raise UserError("the benchmark compares with lightly, which is not installed: pip install '.[bench]'")
            session = Session(read(args.params), name, args.images, folder, results, call)
            session.prepare()
            for part in parts:
                if part != "report":
                    PARTS[part](session)
        print(report.write(results, name, args.out))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    found.add_argument(
        "parts", nargs="*", metavar="PART",
        help=f"{', '.join(PARTS)} (default: all), or report: only write the page again",
    )  # fmt: skip
    found.add_argument("--images", type=Path, help="FOLDER/{train,test}/<class>/* instead of Fashion-MNIST")
    found.add_argument("--params", type=Path, default=FILE, help="another params.yaml of the benchmark")
    found.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page")
    found.add_argument(
        "--folder", type=Path, default=ROOT / ".miyagi" / "bench", help="where data and results are kept"
    )
    return found


if __name__ == "__main__":
    main()
