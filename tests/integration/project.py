"""A checkout of this project in a folder of its own, cut down to what a test can wait for, and its stages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
EXPERIMENTS = ("random", "simclr")


class Project:
    """A checkout in a folder of its own; its code, not the installed one, is what runs."""

    def __init__(self, root):
        self.root = root
        self.env = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(root / "ssl"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        # A newcomer's shell: no server of ours, and no make around theirs, which would tell of its folders at the end.
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
            self.env.pop(name, None)

    def run(self, *command, check=True, timeout=600):
        done = subprocess.run(
            command, cwd=self.root, env=self.env, capture_output=True, text=True, check=False, timeout=timeout
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def start(self, *command):
        """A process group of its own, for a test to kill."""
        return subprocess.Popen(
            command, cwd=self.root, env=self.env, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def repro(self, *arguments):
        """`dvc repro`; the set of stages that it executed."""
        return set(re.findall(r"^Running stage '(.+)':$", self.run("dvc", "repro", *arguments).stdout, re.MULTILINE))

    def edit(self, change):
        params = yaml.safe_load((self.root / "params.yaml").read_text())
        change(params)
        (self.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    @property
    def outs(self):
        """Every out of dvc.lock -> (md5, size)."""
        lock = yaml.safe_load((self.root / "dvc.lock").read_text())
        return {out["path"]: (out["md5"], out["size"]) for stage in lock["stages"].values() for out in stage["outs"]}


def processes(folder, within=""):
    """Whatever works in `folder` or below; with `within`, only where that is part of its path."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)) and within in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


def commands(name):
    """The lines of a page's blocks of commands, which have no language, unlike its blocks of YAML."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    return [line.split("#")[0].strip() for language, block in blocks if not language for line in block.splitlines()]


def made(command):
    """A page's command with the environment that runs this test, instead of one that make would have to install."""
    return (
        f"{command} VENV={BIN.parent} --assume-old {BIN.parent}/installed" if command.startswith("make ") else command
    )


def checkout(root):
    """Copy what git knows or would add, and make it a repository of its own."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout  # fmt: skip
    for name in files.decode().split("\0"):
        if name and (ROOT / name).is_file() and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    project = Project(root)
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-qm", "start")
    return project


DIGITS = {
    "digits": {
        "source": "digits", "path": "ssl/miyagi/data/sources/digits.py", "size": 32,
        "train_limit": 256, "val_limit": 64, "test_limit": 200,
    }
}  # fmt: skip


def shrink(params):
    params["dataset"] = "digits"
    params["datasets"] = DIGITS
    params["experiments"] = {name: params["experiments"][name] for name in EXPERIMENTS}
    params["encoder"]["width"] = 8
    params["pretrain"] |= {"epochs": 2, "batch_size": 64}
    params["pretrain"]["monitor"]["images"] = 64
    params["embed"]["tap_dimensions"] = 64
    params["probe"]["protocols"] = ["knn", "linear"]
    params["evaluate"]["knn"]["k"] = 20
    params["finetune"] = {"experiments": ["simclr"], "protocols": ["lowlabel"]}
    params["evaluate"]["lowlabel"] |= {
        "fractions": [0.1], "finetune": {"lr": [0.01], "steps": [5]}, "optimization": {"batch_size": 32, "looks": 1},
    }  # fmt: skip


def stages(*names):
    """Names of stages from patterns: {E} stands for each experiment."""
    return {name.format(E=e) for name in names for e in EXPERIMENTS}


ALL = stages("prepare@digits", "sweep@{E}", "pretrain@{E}-0", "embed@{E}-0-digits", "probe@{E}-0-knn",
             "probe@{E}-0-linear", "finetune@simclr-0-lowlabel", "report")  # fmt: skip
OF_SIMCLR = {s for s in ALL if "simclr" in s}
