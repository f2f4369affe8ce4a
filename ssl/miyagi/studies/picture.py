"""The matrix of single operators (the diagonal) and pairs, drawn as SimCLR's figure 5 draws it (Chen et al., 2020).

There the order of two operators counts; ours have one order (`augment.order`), so the matrix is symmetric. The last
column is the mean of the row.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miyagi.files import replacing
from miyagi.studies.expand import experiments
from miyagi.studies.measured import Measured
from miyagi.studies.settings import Term


def accuracies(measured: Measured, grid: str) -> tuple[list[str], NDArray[np.float64]]:
    """The names of K changes, and their K x K test accuracies: each alone on the diagonal, pairs beside it."""
    values = experiments(measured.study.params["experiments"])[1][grid].values
    names = [parts[0] for parts in values.values() if len(parts) == 1]
    found = np.empty((len(names), len(names)))
    for experiment, parts in values.items():
        row, column = names.index(parts[0]), names.index(parts[-1])
        found[row, column] = found[column, row] = measured.scores(Term(experiment=experiment)).mean()
    return names, found


def matrix(measured: Measured, grid: str, file: Path) -> None:
    """Draw `accuracies` as a heat map with the numbers in it, into a PNG."""
    from matplotlib.figure import Figure

    names, found = accuracies(measured, grid)
    shown = np.column_stack([found, found.mean(1)])
    figure = Figure(figsize=(1.1 * len(names) + 2.2, 0.8 * len(names) + 1.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shown, cmap="viridis", aspect="auto")
    middle = (shown.min() + shown.max()) / 2
    for (row, column), value in np.ndenumerate(shown):
        dark = value < middle
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(names) + 1), [*names, "mean"], rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("second transformation (the diagonal: one alone)")
    axes.set_ylabel("first transformation")
    measure = measured.study.measure
    figure.colorbar(image, label=f"{measure.protocol} {measure.metric} on {measure.dataset}, %")
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
