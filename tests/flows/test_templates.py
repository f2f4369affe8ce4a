"""prefect.yaml and cluster/ against their schemas, and against each other."""

import inspect
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from flows.services import POOLS

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"


def closed(properties, required=()):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT, TEXTS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITIES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^[0-9]+(m|Ki|Mi|Gi)?$"}}
METADATA = closed({"name": {"type": "string", "pattern": "^[a-z0-9-]+$"}, "labels": TEXTS})
NAMED = closed({"name": TEXT, "optional": {"type": "boolean"}}, ["name"])
CONTAINER = closed({
    "name": TEXT, "image": TEXT, "args": {"type": "array", "items": TEXT},
    "envFrom": {"type": "array", "items": closed({"configMapRef": NAMED, "secretRef": NAMED})},
    "env": {"type": "array", "items": closed({
        "name": TEXT, "value": TEXT, "valueFrom": closed({"fieldRef": closed({"fieldPath": TEXT}, ["fieldPath"])}),
    }, ["name"])},
    "resources": closed({"requests": QUANTITIES, "limits": QUANTITIES}),
    "volumeMounts": {"type": "array", "items": closed({"name": TEXT, "mountPath": TEXT}, ["name", "mountPath"])},
}, ["name", "image"])  # fmt: skip
POD = closed({
    "terminationGracePeriodSeconds": {"type": "integer"},
    "containers": {"type": "array", "minItems": 1, "items": CONTAINER},
    "volumes": {"type": "array", "items": closed({
        "name": TEXT, "emptyDir": closed({"medium": {"enum": ["", "Memory"]}, "sizeLimit": TEXT}),
    }, ["name"])},
}, ["containers"])  # fmt: skip
KINDS = {
    ("v1", "ConfigMap"): closed({"apiVersion": TEXT, "kind": TEXT, "metadata": METADATA, "data": TEXTS}, ["metadata"]),
    ("apps/v1", "Deployment"): closed({
        "apiVersion": TEXT, "kind": TEXT, "metadata": METADATA,
        "spec": closed({
            "replicas": {"type": "integer", "minimum": 0},
            "selector": closed({"matchLabels": TEXTS}, ["matchLabels"]),
            "template": closed({"metadata": METADATA, "spec": POD}, ["metadata", "spec"]),
        }, ["selector", "template"]),
    }, ["metadata", "spec"]),
}  # fmt: skip
"""What cluster/kubernetes.yaml uses of the Kubernetes API (apps/v1 Deployment, core/v1 ConfigMap), closed."""


def test_deployments_are_flows_that_can_be_called_as_they_are_called():
    """Against Prefect's own model of prefect.yaml, and the code."""
    from prefect.cli.deploy._models import PrefectYamlModel
    from prefect.flows import load_flow_from_entrypoint

    given = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    model = PrefectYamlModel.model_validate(given)
    assert model.pull == [] and "pull" in given  # an empty list: no step is made up
    known = {"name", "description", "entrypoint", "work_pool"}
    assert all(deployment.keys() == known for deployment in given["deployments"])
    called = {}
    for deployment in model.deployments:
        assert deployment.work_pool.name in POOLS
        flow = load_flow_from_entrypoint(deployment.entrypoint, use_placeholder_flow=False)
        called[f"{flow.name}/{deployment.name}"] = flow
    assert {"pipeline/pipeline", *(f"run-stage/{pool}" for pool in POOLS)} <= called.keys()
    for flow in called.values():
        assert flow.persist_result is False
        assert list(inspect.signature(flow.fn).parameters)[:2] == ["repository", "revision"]


def test_kubernetes():
    documents = list(yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["ConfigMap", "Deployment", "Deployment"]
    for document in documents:
        jsonschema.validate(document, KINDS[document["apiVersion"], document["kind"]])
    pools = {}
    for deployment in documents[1:]:
        pod = deployment["spec"]["template"]
        assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
        (container,) = pod["spec"]["containers"]
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        pools[container["args"][0]] = container["resources"]["limits"]
    assert pools.keys() == set(POOLS)
    assert "nvidia.com/gpu" in pools["gpu"] and "nvidia.com/gpu" not in pools["cpu"]


OPTIONS = {"job-name": r"\w+", "array": r"\d+-\d+", "nodes": r"\d+", "ntasks": r"\d+", "gpus-per-task": r"\d+",
           "cpus-per-task": r"\d+", "mem": r"\d+[KMGT]", "time": r"\d+:\d\d:\d\d", "signal": r"[A-Z]+@\d+", "output": r"\S+"}  # fmt: skip
"""Options of sbatch (Slurm 23.11) and the form of their values."""


def test_slurm():
    text = (CLUSTER / "slurm.sbatch").read_text()
    subprocess.run(["sh", "-n", CLUSTER / "slurm.sbatch"], check=True)
    lines = text.splitlines()
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert directives and max(directives) < first  # sbatch reads no further than the first command
    for i in directives:
        name, _, value = lines[i].removeprefix("#SBATCH --").partition("=")
        assert re.fullmatch(OPTIONS[name], value), lines[i]
    assert "srun sh cluster/worker.sh gpu" in text


def test_a_worker_says_what_it_misses():
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}

    def refused(*arguments, **more):
        done = subprocess.run(
            ["sh", CLUSTER / "worker.sh", *arguments],
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2 or done.returncode == 1
        return done.stderr

    assert "which pool: cpu or gpu" in refused()
    assert "PREFECT_API_URL: names no server" in refused("gpu")


def test_containerfile():
    text = (CLUSTER / "Containerfile").read_text()
    joined = re.sub(r"\\\n", " ", text)
    steps = [line.split(None, 1) for line in joined.splitlines() if line and not line.startswith("#")]
    words = [word for word, _ in steps]
    assert words[0] == "FROM" and set(words) <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "ENTRYPOINT", "CMD"}
    for word, rest in steps:
        if word == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
        if word == "ENTRYPOINT":
            program, script = yaml.safe_load(rest)
            assert shutil.which(program) and (ROOT / script).is_file()
    python = re.search(r"python:(\d\.\d+)", text).group(1)
    assert f'requires-python = ">={python}"' in (ROOT / "pyproject.toml").read_text()
    # FFCV is built from source: what make setup installs for that is in the image too.
    packages = re.search(r"^PACKAGES = (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    of_the_image = {"g++", "python3-dev", "python3-venv"}  # the base image has a compiler and Python's headers
    for package in set(packages) - of_the_image - {"dataset-fashion-mnist"}:
        assert package in joined, package


@pytest.mark.parametrize("name", ["worker.sh", "slurm.sbatch", "kubernetes.yaml", "Containerfile"])
def test_every_template_is_told_of(name):
    assert f"cluster/{name}" in (ROOT / "docs" / "cluster.md").read_text()
