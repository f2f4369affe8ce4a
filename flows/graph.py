"""`dvc.yaml` as frozen values: which stages there are, what each needs, and which are stale.

The only module that touches DVC's Python objects; `tests/flows/test_graph.py` pins what is relied on.

DVC asks each stage for itself and hashes what it depends on again and again, which takes 8 s at 200 stages. Here every
file is hashed and every parameter file is read once, and a stage compares the result with what `dvc.lock` says of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from miyagi.errors import UserError, did_you_mean
from miyagi.settings import Frozen

Pool = Literal["cpu", "gpu"]


class Meta(Frozen):
    """What `meta:` of a stage in `dvc.yaml` may say. Changing it reruns nothing."""

    pool: Pool = "cpu"
    retries: int = Field(0, ge=0, description="how often a stage that failed is run again")
    slots: int = Field(1, ge=1, description="GPUs that it fills: as many as it has processes")
    timeout: float | None = Field(None, gt=0, description="seconds after which it is ended; null: never")


@dataclass(frozen=True)
class Stage:
    """One stage of the plan.

    Attributes:
        name: as DVC calls it, "pretrain@simclr-0".
        needs: the stages of the plan whose outs it depends on.
        meta: where and how it runs.
        stale: why it has to run, or None. A stage that only follows a stale one may turn out to be up to date.
    """

    name: str
    needs: tuple[str, ...]
    meta: Meta
    stale: str | None


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each stands behind what it needs."""

    stages: tuple[Stage, ...]

    @property
    def stale(self) -> tuple[Stage, ...]:
        """Those that have to run."""
        return tuple(stage for stage in self.stages if stage.stale)


def plan(root: Path, targets: Sequence[str] = (), *, force: bool = False, missing: bool = False) -> Plan:
    """Read the DAG under `root`, cut it down to `targets` and what they need, and say what is stale.

    Args:
        root: the folder that holds dvc.yaml.
        targets: names of stages, or of groups ("pretrain" for all "pretrain@..."); none means all stages.
        force: every stage has to run.
        missing: outs that are not there, as in a fresh clone, are what `dvc.lock` says of them.

    Raises:
        UserError: dvc.yaml or params.yaml cannot be read, a target or a `meta:` is not known.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            names = {stage: _name(stage, Path(repo.root_dir)) for stage in graph if stage.cmd}
            found = {name: stage for stage, name in names.items()}
            needs = {
                name: tuple(sorted(names[other] for other in graph.successors(stage) if other in names))
                for stage, name in names.items()
            }
            state = _Workspace(
                {out.fs_path: out.hash_info for stage in found.values() for out in stage.outs if missing}
            )
            order = _order(needs, _wanted(needs, targets))
            planned: dict[str, Stage] = {}
            for name in order:
                stale = "forced" if force else state.changed(found[name]) or _follows(planned, needs[name])
                planned[name] = Stage(name, needs[name], _meta(name, found[name].meta), stale)
    except DvcException as error:
        raise UserError(" ".join(f"dvc.yaml: {error}".split())) from error
    return Plan(tuple(planned.values()))


def _name(stage: Any, root: Path) -> str:
    """As DVC calls it in the folder `root`; `stage.addressing` is relative to wherever the process happens to be."""
    file = Path(stage.path).relative_to(root).as_posix()
    return str(stage.name) if file == "dvc.yaml" else f"{file}:{stage.name}"


def _wanted(needs: dict[str, tuple[str, ...]], targets: Sequence[str]) -> set[str]:
    if not targets:
        return set(needs)
    todo: list[str] = []
    for target in targets:
        matched = [name for name in needs if name == target or name.startswith(f"{target}@")]
        if not matched:
            raise UserError(f"dvc.yaml has no stage '{target}'; {did_you_mean(target, needs)}")
        todo += matched
    wanted: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += needs[name]
    return wanted


def _order(needs: dict[str, tuple[str, ...]], wanted: Collection[str]) -> list[str]:
    return list(TopologicalSorter({name: needs[name] for name in needs if name in wanted}).static_order())


def _follows(planned: dict[str, Stage], needs: tuple[str, ...]) -> str | None:
    return next((f"after {name}" for name in needs if planned[name].stale), None)


def _meta(name: str, given: Any) -> Meta:
    try:
        return Meta.model_validate(given or {})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("meta", *first["loc"])))
        raise UserError(
            f"dvc.yaml: stage {name}: {key}: {first['msg']}; known: {', '.join(Meta.model_fields)}"
        ) from error


class _Workspace:
    """What files and parameters are now, each looked at once; `absent` stands for outs that are not there."""

    def __init__(self, absent: dict[str, Any]) -> None:
        self._absent = absent
        self._hashes: dict[str, Any] = {}
        self._params: dict[str, Any] = {}

    def changed(self, stage: Any) -> str | None:
        """The first difference between a stage and its entry in `dvc.lock`, in DVC's own order."""
        if not all(out.hash_info for out in stage.outs):
            return "never run"
        if stage.changed_stage():
            return "its command changed"
        for dep in stage.deps:
            if dep.hash_name == "params":
                values = self._values(dep)
                for key in dep.params:
                    if key not in (dep.hash_info.value or {}) or _lookup(values, key) != dep.hash_info.value[key]:
                        return f"changed: {dep.def_path}: {key}"
            elif self._hash(dep) != dep.hash_info:
                return f"changed: {dep.def_path}"
        for out in stage.outs:
            if self._hash(out) != out.hash_info:
                return f"changed: {out.def_path}"
            if not self._absent and out.changed_cache():
                return f"not in the cache: {out.def_path}"
        return None

    def _hash(self, item: Any) -> Any:
        if item.fs_path not in self._hashes:
            self._hashes[item.fs_path] = item.get_hash() if item.exists else self._absent.get(item.fs_path)
        return self._hashes[item.fs_path]

    def _values(self, dep: Any) -> Any:
        from dvc.utils.serialize import load_path

        if dep.fs_path not in self._params:
            self._params[dep.fs_path] = load_path(dep.fs_path, dep.fs) if dep.exists else {}
        return self._params[dep.fs_path]


_MISSING = object()


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return _MISSING
        values = values[part]
    return values
