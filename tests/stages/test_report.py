"""The stage on small real files with known numbers, and the page in a real browser."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from miyagi.errors import UserError
from miyagi.files import digest, write_json
from miyagi.paths import Paths
from miyagi.registry import PROTOCOLS
from miyagi.settings import Dataset
from miyagi.stages import report
from miyagi.sweep.table import text as trials_csv
from miyagi.tracking import durations
from tests.report.browser import Browser
from tests.report.test_studies import STUDY, WAITING

MARKUP = "<script>alert(1)</script>"
CLASSES = [MARKUP, "Ünï côde & <b>bold</b>", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
METHODS = {
    "random": "random",
    "supervised": "supervised",
    "rotation": "rotation",
    "simclr": "simclr",
    "again": "simclr",
}
# Of 100 images, how many are right on test and on val. `again` is better on test, `simclr` on val.
TEST = {"random": 50, "supervised": 90, "rotation": 54, "simclr": 80, "again": 85}
VAL = {"random": 52, "supervised": 91, "rotation": 55, "simclr": 84, "again": 82}


@dataclass
class World:
    """A project's folder after every stage but the report, on scikit-learn's digits."""

    paths: Paths
    images: np.ndarray
    labels: np.ndarray
    seeds: list[int] = field(default_factory=lambda: [0])
    methods: dict[str, str] = field(default_factory=lambda: dict(METHODS))

    @property
    def params(self) -> Any:
        return SimpleNamespace(
            experiments={name: {"method": method} for name, method in self.methods.items()},
            seeds=self.seeds,
            dataset="digits",
            datasets={"digits": Dataset(source="digits", path="digits.py")},
            probe=SimpleNamespace(protocols=["knn", "linear"]),
            finetune=SimpleNamespace(experiments=[], protocols=[]),
            protocol=lambda name, family: PROTOCOLS.settings(name)(),
            dense=SimpleNamespace(datasets={}, experiments=[], protocols=[]),
        )

    def part(self, split: str) -> slice:
        return {"train": slice(0, 300), "val": slice(300, 400), "test": slice(400, 500)}[split]

    def read_images(self, path: Path, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        part = self.part(path.stem)
        return self.images[part][list(indices)], self.labels[part][list(indices)]

    def run(self) -> dict[str, dict[str, float]]:
        return report.run(self.params, self.paths, read_images=self.read_images)

    @property
    def summary(self) -> list[str]:
        return report.summary(self.params, self.paths, "mlflow ui")

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.paths.reports / "results.csv").open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))

    @property
    def html(self) -> str:
        return (self.paths.reports / "report.html").read_text(encoding="utf-8")

    def write(self) -> None:
        """Everything that the stage reads, for `self.seeds`."""
        manifest = {
            "classes": CLASSES,
            "counts": {split: {"total": self.part(split).stop - self.part(split).start} for split in report.SPLITS},
            "skipped": [{"file": "five/<img src=x>.png", "reason": "not an image"}],
        }
        _json(self.paths.manifest("digits"), manifest)
        for number, (name, method) in enumerate(self.methods.items()):
            self.paths.run(name, 0).mkdir(parents=True)
            described = {"method": method, "encoder": {"name": "conv4", "width": 64}, "settings": {"temperature": 0.5}}
            self.paths.experiment(name).write_text(yaml.safe_dump(described))
            self.paths.trials(name).write_text(trials_csv([], []))
            for seed in self.seeds:
                self._run(name, seed, number)

    def _run(self, name: str, seed: int, number: int) -> None:
        run = self.paths.run(name, seed)
        (run / "features").mkdir(parents=True)
        past = "epoch,loss,lr,knn,std,rank,accuracy\n"
        if name != "random":
            past += (
                f"1,5.5,0.002,{40 + number},0.05,20,\n2,5.0,0.001,,0.05,21,\n3,4.75,0.0,{60 + number + seed},0.06,22,\n"
            )
        (run / "history.csv").write_text(past)
        few = np.ascontiguousarray(self.images[:2])
        turned, answer = np.rot90(few, axes=(1, 2)).copy(), 255 - few[:, ::2, ::2]
        columns = {} if name == "random" else {"stored": few, f"turned & {MARKUP}": turned, "answer": answer}
        save_file(columns, run / "asked.safetensors", {"miyagi": json.dumps({"columns": list(columns)})})
        noise = np.random.default_rng(number).normal(scale=60 if name == "random" else 20, size=(500, 64))
        features = (self.images[:, 2::4, 2::4, 0].reshape(500, 64) + noise).astype(np.float32)
        bank = {f"{split}.encoder": features[self.part(split)] for split in report.SPLITS}
        bank |= {f"{split}.labels": self.labels[self.part(split)] for split in report.SPLITS}
        save_file(bank, self.paths.bank(name, seed, "digits"))
        layers = ["block1", "encoder"] if name == "random" else ["block1", "encoder", "head"]
        for protocol in ("knn", "linear"):
            rows, predictions = [], {}
            for split, right in (("test", TEST[name] + seed), ("val", VAL[name] - seed)):
                labels = self.labels[self.part(split)]
                predictions[f"digits.{split}.labels"] = labels
                for layer in layers:
                    wrong = np.arange(100) >= right  # the images after the first `right` are missed
                    predictions[f"digits.{split}.{layer}"] = np.where(wrong, (labels + 1) % 10, labels)
                    rows.append({
                        "experiment": name, "method": self.methods[name], "protocol": protocol,
                        "settings": digest(PROTOCOLS.settings(protocol)().model_dump(mode="json")), "dataset": "digits",
                        "split": split, "layer": layer, "metric": "top1", "condition": {}, "draw": None, "value": float(right), "low": right - 8.0,
                        "high": right + 7.0, "interval": "bootstrap over images, 95 %", "n": 100, "seed": seed,
                        "selection": "c chosen on val", "chosen": {"c": 0.1}, "data": "d" * 16, "code": "c" * 16,
                        "higher_is_better": True,
                    })  # fmt: skip
            _json(self.paths.rows(name, seed, protocol), {"summary": {}, "rows": rows})
            save_file(predictions, self.paths.predictions(name, seed, protocol))


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.repeat(np.repeat(found.images[:500] * 255 / 16, 4, axis=1), 4, axis=2).astype(np.uint8)
    return np.repeat(images[..., None], 3, axis=3), found.target[:500].astype(np.int64)


@pytest.fixture
def world(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> World:
    made = World(Paths(tmp_path), *digits)
    made.write()
    return made


def test_three_lines_choose_on_validation(world: World) -> None:
    assert world.summary == [
        "report: reports/report.html",
        "mlflow: mlflow ui",
        "best: simclr 80.00 % [72.00, 87.00] test top1 on digits, knn on encoder, n 100, seed 0 "
        "(chosen on validation: 84.00 %)",
    ]


def test_returns_headlines(world: World) -> None:
    numbers = world.run()
    assert list(numbers) == list(METHODS)
    assert numbers["simclr"]["test.linear.encoder.top1"] == 80.0
    assert numbers["simclr"]["test.linear.encoder.top1.vs_random"] == 30.0
    assert numbers["random"] == {"test.knn.encoder.top1": 50.0, "test.linear.encoder.top1": 50.0}


def test_results_are_complete_and_equal_in_every_run(world: World) -> None:
    world.run()
    first = (world.paths.reports / "results.csv").read_bytes()
    world.run()
    assert (world.paths.reports / "results.csv").read_bytes() == first
    assert len(world.rows) == 2 * 2 * (2 + 4 * 3)  # protocols x splits x (layers of random + layers of the others)
    (row,) = [
        r for r in world.rows
        if (r["experiment"], r["protocol"], r["layer"], r["split"]) == ("rotation", "linear", "encoder", "test")
    ]  # fmt: skip
    assert (row["value"], row["chosen"], row["higher_is_better"]) == ("54.0", '{"c": 0.1}', "true")
    assert (row["floor"], float(row["vs_random"])) == ("random", 4.0)
    assert 0 <= float(row["vs_random_low"]) < 4 < float(row["vs_random_high"])
    assert {r["vs_random"] for r in world.rows if r["experiment"] == "random"} == {""}
    assert {r["vs_random"] for r in world.rows if r["layer"] == "head"} == {""}  # random has no head to compare with


def test_seeds_are_averaged_under_their_lines(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    world = World(Paths(tmp_path), *digits, seeds=[0, 1])
    world.write()
    numbers = world.run()
    assert numbers["simclr"]["test.knn.encoder.top1"] == 80.5
    # s = 0.70711, t(0.975; 1) = 12.7062, half = 12.7062 * 0.70711 / sqrt(2) = 6.3531
    assert "best: simclr 80.50 % [74.15, 86.85]" in world.summary[2]
    assert world.html.count("mean of 2 seeds") == 2 * 2 * (5 + 5 + 4)  # in the line, and in what is said of its number
    assert "seed 1: loss 5.50 to 4.75, online kNN 43.00 % to 64.00 % in 3 epochs" in world.html


def test_floors_stand_in_every_layer_of_every_table(world: World) -> None:
    world.run()
    bodies = [
        body for table in _results(world.html) for body in re.findall(r"<tbody[^>]*>.*?</tbody>", table, re.DOTALL)
    ]
    assert len(bodies) == 2 * 3
    for body in bodies:
        assert re.findall(r'data-experiment="(\w+)" class="\w+ floor"', body) == ["random", "supervised"]
    assert sum("not measured" in body for body in bodies) == 2  # random's missing head, in both protocols


def test_two_settings_never_share_a_table_or_a_difference(world: World) -> None:
    path = world.paths.rows("simclr", 0, "linear")
    found = json.loads(path.read_text())
    for row in found["rows"]:
        row["settings"] = "e" * 16
    path.write_text(json.dumps(found))
    numbers = world.run()
    tables = _results(world.html)
    assert len(tables) == 3
    with_simclr = ['data-experiment="simclr" class="seed"' in table for table in tables]
    assert with_simclr == [True, False, True]  # knn; linear with its own; linear with e...
    assert 'data-experiment="rotation"' not in tables[2]
    assert numbers["simclr"][f"test.linear_{'e' * 16}.encoder.top1"] == 80.0
    stale = [r for r in world.rows if r["settings"] == "e" * 16]
    assert stale
    assert {r["vs_random"] for r in stale} == {""}


def test_names_are_escaped_and_nothing_is_fetched(world: World) -> None:
    world.run()
    html = world.html
    assert MARKUP not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>bold</b>" not in html
    assert "<img src=x>" not in html
    assert html.count("<script>") == 1
    assert "://" not in html
    assert not re.findall(r'(?:src|href)="(?!data:image/|#)', html)


def test_page_shows_all_its_parts(world: World) -> None:
    world.run()
    html = world.html
    assert html.count("<svg") == 4 + 2 * 5 + 5 + 5  # curves, panels of two tables by layer, confusions, maps
    assert "Not trained, hence without a curve: random." in html
    assert html.count('alt="simclr: image 2, answer"') == 1
    assert html.count('<th scope="col">stored</th>') == html.count(">turned &amp; &lt;script&gt;") == 4
    assert 'id="asked-simclr"' in html and 'id="asked-random"' not in html  # which trains nothing
    assert html.count('class="query"') == 5 * 8
    assert html.count('alt="neighbour 5: ') == 5 * 8
    assert html.count('<li class="hit">') + html.count('<li class="miss">') == 5 * 8 * 5
    assert html.count("<b>✓</b> ") == html.count('<li class="hit">')  # a mark beside the colour
    assert "not an image" in html
    for text in (">python<", ">torch<", ">ffcv<", ">dvc<", ">mlflow<", "temperature: 0.5", "d" * 16, "c" * 16):
        assert text in html
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_the_first_protocol_with_labels_shows_its_mistakes(world: World) -> None:
    world.run()
    assert "The protocol <em>knn</em> on the test split" in world.html
    for name in METHODS:
        save_file({"digits.test.encoder.top1.scores": np.zeros(100)}, world.paths.predictions(name, 0, "knn"))
    world.run()
    assert "The protocol <em>linear</em> on the test split" in world.html


def test_every_familys_settings_are_told_by_their_digest(world: World) -> None:
    params = world.params
    params.finetune.protocols, params.dense.protocols = ["lowlabel"], ["segmentation"]
    told = report._settings(params)
    for name in ("knn", "linear", "lowlabel", "segmentation"):
        settings = PROTOCOLS.settings(name)().model_dump(mode="json")
        assert yaml.safe_load(told[digest(settings)]) == settings


def test_says_when_there_is_nothing_but_floors(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    world = World(Paths(tmp_path), *digits, methods={"random": "random"})
    world.write()
    world.run()
    assert "best: none" in world.summary[2]
    assert "lacks that floor" in world.html


BREAKS: dict[str, tuple[Callable[[Paths], Path], str]] = {
    "rows": (lambda p: p.rows("simclr", 0, "knn"), "probe@simclr-0-knn"),
    "predictions": (lambda p: p.predictions("simclr", 0, "knn"), "probe@simclr-0-knn"),
    "history": (lambda p: p.run("simclr", 0) / "history.csv", "pretrain@simclr-0"),
    "pictures": (lambda p: p.asked("simclr", 0), "pretrain@simclr-0"),
    "description": (lambda p: p.experiment("simclr"), "sweep@simclr"),
    "bank": (lambda p: p.bank("simclr", 0, "digits"), "embed@simclr-0-digits"),
    "manifest": (lambda p: p.manifest("digits"), "prepare@digits"),
}


@pytest.mark.parametrize("content", [None, b"\xff\x00 nonsense", b"[1, 2]\n3\n"], ids=["missing", "binary", "wrong"])
@pytest.mark.parametrize("broken", BREAKS)
def test_bad_input_names_file_and_stage(world: World, broken: str, content: bytes | None) -> None:
    where, stage = BREAKS[broken]
    path = where(world.paths)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        world.run()
    message = str(caught.value)
    assert message.startswith(f"{path.relative_to(world.paths.root)} {'is missing' if content is None else 'cannot'}")
    assert message.endswith(f"dvc repro {stage}")
    assert "\n" not in message
    assert not world.paths.reports.exists()


@pytest.mark.parametrize("content", [b"\xff\x00 nonsense", b"[1, 2]\n3\n", b"<<<<<<< HEAD\n[]\n"])
def test_damaged_verdicts_are_named_with_the_way_out(world: World, content: bytes) -> None:
    write_json(world.paths.verdicts, [])
    world.paths.verdicts.write_bytes(content)
    with pytest.raises(UserError) as caught:
        world.run()
    message = str(caught.value)
    assert message.startswith("studies/verdicts.json cannot be read (")
    assert message.endswith("delete it and run: git checkout studies/verdicts.json")
    assert "\n" not in message


def test_a_project_without_verdicts_has_its_report(world: World) -> None:
    world.run()
    assert 'id="studies"' not in world.html


def test_a_row_without_its_stamp_is_refused(world: World) -> None:
    path = world.paths.rows("rotation", 0, "linear")
    found = json.loads(path.read_text())
    del found["rows"][0]["settings"]
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match="a row lacks settings"):
        world.run()


def test_a_bank_of_other_images_is_refused(world: World) -> None:
    world.labels = np.roll(world.labels, 1)
    with pytest.raises(UserError, match=r"made of other images than data/betons/digits/test\.beton; .* embed@random-0"):
        world.run()


def _results(html: str) -> list[str]:
    return re.findall(r'<table class="results">.*?</table>', html, re.DOTALL)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray]) -> World:
    """A world with its report, and with what DVC and the tracking leave behind."""
    made = World(Paths(tmp_path_factory.mktemp("reported")), *digits)
    made.write()
    (made.paths.root / "dvc.lock").write_text(yaml.safe_dump({"stages": LOCK}))
    durations.keep(made.paths, "pretrain", "script-0", 12.3)
    write_json(made.paths.verdicts, [STUDY | {"claim": f"Sharp {MARKUP}"}, WAITING])
    made.run()
    return made


@pytest.fixture
def page(reported: World, browser: Browser) -> Browser:
    """The report, newly opened in a real browser."""
    browser.open(reported.paths.reports / "report.html")
    return browser


LOCK = {
    "prepare@digits": {"outs": [{"path": "data/betons/digits/train.beton"}]},
    "pretrain@script-0": {
        "deps": [{"path": "data/betons/digits"}], "outs": [{"path": "runs/script/0/encoder.safetensors"}],
    },
}  # fmt: skip


@pytest.mark.integration
def test_opens_without_a_complaint_and_asks_nobody(page: Browser) -> None:
    assert page.complaints == []
    assert page.requested == [page.address]
    dom = page.run("document.documentElement.outerHTML")
    tables = _results(dom)
    assert len(tables) == 2
    for table in tables:
        assert table.count("<tr data-experiment=") == 3 * 5  # layers x experiments, with random's missing head
        assert len(re.findall("<th[^>]*><button", table)) == 9  # the page's own script ran, so its policy lets it
    assert MARKUP not in dom
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in dom
    assert page.run(f"[...document.querySelectorAll('.legend button')][0].textContent.trim() === {MARKUP!r}")
    assert (
        page.run("document.querySelector('script').textContent.includes('aria-sort') && document.scripts.length") == 1
    )


@pytest.mark.integration
def test_sorts_by_keyboard(page: Browser) -> None:
    order = "[...document.querySelector('.results tbody').rows].map(row => row.dataset.experiment).filter(Boolean)"
    page.run("document.querySelectorAll('.results thead button')[2].focus()")
    page.key("Enter")
    assert page.run("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    assert page.run(order) == ["supervised", "again", "simclr", "rotation", "random"]
    page.key("Enter")
    assert page.run("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    assert page.run(order) == ["random", "rotation", "simclr", "again", "supervised"]


@pytest.mark.integration
def test_filters_by_experiment_protocol_and_layer(page: Browser) -> None:
    shown = "[...document.querySelectorAll('.results tr[data-experiment]')].filter(row => row.checkVisibility()).length"
    assert page.run(shown) == 2 * 15
    page.run("document.getElementById('filter').focus()")
    page.type("rotation LINEAR")
    assert page.run(shown) == 3
    assert page.run("document.getElementById('found').textContent") == "3 lines"
    page.type(" block1")
    assert page.run(shown) == 1
    page.type(" nothing")
    assert page.run(shown) == 0
    page.run("filter.value = ''; filter.dispatchEvent(new Event('input'))")
    assert page.run(shown) == 2 * 15
    assert page.complaints == []


@pytest.mark.integration
def test_says_where_a_number_comes_from(page: Browser, reported: World) -> None:
    page.run("document.querySelector('tr[data-experiment=rotation] button.value').focus()")
    page.key("Enter")
    told = page.run("document.querySelector(':popover-open').innerText")
    row = next(
        row
        for row in reported.rows
        if (row["experiment"], row["protocol"], row["split"]) == ("rotation", "knn", "test")
    )
    for words in (row["settings"], row["data"], row["code"], "bootstrap over images", "c chosen on val", "k: 200"):
        assert words in told, words
    assert re.search(r"\bn\s+100\b", told)
    page.key("Escape")
    assert page.run("document.querySelector(':popover-open')") is None
    page.key("Enter")
    page.run("document.querySelector(':popover-open a').click()")
    assert page.run("document.querySelector(':popover-open')") is None
    assert "temperature: 0.5" in page.run("document.querySelector('#trained-rotation[open]').innerText")
    assert page.complaints == []


@pytest.mark.integration
def test_the_map_shows_an_images_picture_and_class(page: Browser) -> None:
    assert page.run("document.getElementById('tip').checkVisibility()") is False
    page.run("document.querySelector('.map').focus()")
    page.key("ArrowRight")
    tip = "document.querySelector('#tip .name').textContent"
    names = [page.run(tip)]
    for _ in range(3):
        page.key("ArrowRight")
        names.append(page.run(tip))
    assert set(names) <= set(CLASSES) and len(set(names)) > 1
    assert page.run("document.querySelector('#tip .thumb').style.backgroundPosition") == "-288px 0px"
    page.run("document.querySelectorAll('.legend button')[3].click()")
    faded = page.run("document.querySelectorAll('.map .faded').length")
    own = page.run("document.querySelectorAll('.map circle[data-label=\"3\"]').length")
    assert own > 0 and faded + own == page.run("document.querySelectorAll('.map circle').length")


@pytest.mark.integration
def test_shows_the_studies_on_a_phone_and_in_print(page: Browser) -> None:
    section = "document.querySelector('section[aria-labelledby=studies]')"
    told = page.run(f"{section}.innerText")
    for words in ("2. temperature: confirmed", f"Sharp {MARKUP}", "+5.00 [+2.50, +7.50]", "Not run: later."):
        assert words in told, words
    panels = f"[...{section}.querySelectorAll('figure')].filter(f => f.checkVisibility() && f.clientWidth > 100).length"
    assert page.run(panels) == 2
    assert page.run(f"{section}.querySelectorAll('.interval').length") == 5
    assert page.run(f"getComputedStyle({section}.querySelector('.interval')).stroke") != "none"
    assert page.run(f"{section}.querySelectorAll('thead th[scope=col]').length") == 5
    assert page.run(f"{section}.querySelectorAll('tbody th[scope=row]').length") == 3
    page.emulate(390, "light")
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.send("Emulation.setEmulatedMedia", media="print")
    assert page.run(panels) == 2
    page.send("Emulation.setEmulatedMedia", media="")
    assert page.complaints == []


@pytest.mark.integration
def test_fits_a_phone_and_goes_dark(page: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.run(background)
    page.emulate(390, "dark")
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run(background) != light
    assert "12 s" in page.run("document.querySelector('svg.dag').textContent")


@pytest.mark.integration
def test_the_policy_refuses_a_script_that_is_not_the_pages(reported: World, browser: Browser) -> None:
    file = reported.paths.reports / "changed.html"
    file.write_text(reported.html.replace("</body>", "<script>document.title = 'taken over'</script></body>"))
    browser.open(file)
    assert browser.run("document.title").startswith("Miyagi: report")
    assert any("Content Security Policy" in line for line in browser.complaints)
