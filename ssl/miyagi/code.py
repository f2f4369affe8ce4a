"""Digests of code: what a number's code identity is made of.

A digest is taken of the syntax tree, so a comment or a line break changes no number's identity.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

PACKAGE = Path(__file__).parent


def code_digest(files: Iterable[Path]) -> str:
    """Digest of the syntax trees of `files`, with their paths inside the package; comments do not count."""
    total = hashlib.sha256()
    for file in sorted(set(files)):
        total.update(file.relative_to(PACKAGE).as_posix().encode())
        total.update(ast.dump(ast.parse(file.read_text(encoding="utf-8"))).encode())
    return total.hexdigest()[:16]


@cache
def imports(file: Path) -> frozenset[Path]:
    """The files of this package that `file` imports, anywhere in it."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.startswith("miyagi."):
                module = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
                if module.is_file():
                    found.add(module)
    return frozenset(found)


def closure(file: Path) -> set[Path]:
    """`file` and everything of this package that it imports, directly or not."""
    seen: set[Path] = set()
    todo = [file]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo.extend(imports(current))
    return seen


def declared(dag: Path, stage: str, item: dict[str, str] | None = None) -> set[Path]:
    """The Python files that `stage` declares as dependencies in `dvc.yaml`.

    Args:
        dag: the path of `dvc.yaml`.
        stage: the stage's name before the `@`.
        item: what `${item.KEY}` stands for in this stage's dependencies, e.g. {"protocol": "knn"}.
    """
    entry = yaml.safe_load(dag.read_text(encoding="utf-8"))["stages"][stage]
    files: set[Path] = set()
    for dep in entry.get("do", entry)["deps"]:
        for key, value in (item or {}).items():
            dep = dep.replace(f"${{item.{key}}}", value)
        if dep.startswith("ssl/miyagi/"):
            path = PACKAGE / dep.removeprefix("ssl/miyagi/")
            files.update(path.rglob("*.py") if path.is_dir() else [path])
    return files
