"""lightly is measured at its best: short trials find how many worker processes and threads are fastest."""

from typing import Any

from benchmarks.results import Records
from benchmarks.session import Session


def fastest(session: Session) -> dict[str, Any]:
    """lightly's fastest workers and threads for training, found by trials that are kept in a part of their own."""
    settings = session.settings
    part = "lightly"
    session.results.begin(part, session.common() | {"recipe": settings.data_path.recipes[0]})
    pairs = [
        (workers, threads)
        for workers in settings.lightly.workers
        # Without workers nothing else wants the cores.
        for threads in (settings.lightly.threads if workers else [settings.threads])
    ]
    rates = {
        (workers, threads): session.once(
            part, f"trial/lightly/workers {workers}, threads {threads}", "benchmarks.pretraining:lightly",
            **arguments(session, epochs=2), workers=workers, threads=threads, images=settings.lightly.trial_images,
        )["rate"]
        for workers, threads in pairs
    }  # fmt: skip
    workers, threads = max(rates, key=lambda pair: rates[pair])
    return {"workers": workers, "threads": threads}


def arguments(session: Session, epochs: int) -> dict[str, Any]:
    """What every training of lightly's takes, but workers and threads."""
    settings = session.settings
    return session.lightly() | {
        "recipe": settings.data_path.recipes[0],
        "width": settings.width,
        "epochs": epochs,
        "optimisation": settings.pretraining.optimisation(),
    }


def sentence(records: Records, systems: tuple[str, ...]) -> str:
    """One sentence on how the number of workers was chosen."""
    parts = []
    for system in systems:
        found = {
            key.split("/")[2]: record["rate"] for key, record in records.items() if key.startswith(f"trial/{system}/")
        }
        if found:
            listed = ", ".join(f"{name}: {rate:,.0f}/s" for name, rate in found.items())
            parts.append(f"{system}: {listed}; {max(found, key=lambda name: found[name])} was taken")
    return f"Trials. {'. '.join(parts)}." if parts else "No trials were needed."
