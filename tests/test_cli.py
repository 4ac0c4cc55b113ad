"""The command line: each command once with valid and once with invalid input."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import FAKE, Ended, colour_folder, write_image
from slow_fakes import with_modules_of

from ig3d.features.store import CodeStore
from ig3d.features.values import CropSpec
from ig3d.learn.evaluate.figures import COLUMNS, figure
from ig3d.learn.evaluate.tables import read_table

Program = Callable[..., Ended]


def dataset(root: Path) -> Path:
    """Three classes that differ in colour, 40 images each, with noise enough to be mistaken at times."""
    rng = np.random.default_rng(0)
    for name, centre in {"happy": (170, 120, 90), "sad": (90, 120, 170), "fear": (120, 170, 110)}.items():
        for index in range(40):
            colour = tuple(int(value) for value in np.clip(rng.normal(centre, 30), 5, 250))
            write_image(root / name / f"{index:03d}.png", colour)
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ig3d.extract.config import ExtractConfig
    from ig3d.extract.datasets import list_samples
    from ig3d.extract.run import extract_codes

    out = tmp_path_factory.mktemp("store") / "a.h5"
    extract_codes(list_samples(data, "folder"), out, ExtractConfig(regressor=FAKE), jobs=1)
    return out


@pytest.fixture(scope="module")
def logits(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up 2D logits of the val and test rows, right more often than not."""
    rng = np.random.default_rng(1)
    with CodeStore(store) as opened:
        rows = opened.samples.split.cat.codes > 0
        labels = opened.samples.label.cat.codes[rows].to_numpy()
        ids = opened.samples.id[rows].to_numpy(str)
        classes = list(opened.info.classes)
    values = rng.normal(size=(len(ids), 3)) + 0.5 * np.eye(3)[labels]
    out = tmp_path_factory.mktemp("logits") / "x.npz"
    np.savez(out, ids=ids, logits=values, classes=classes)
    return out


def failed(ended: Ended, code: int, *words: str) -> None:
    """Check for a one-line error on stderr with these words, and no output on stdout."""
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last


def test_version_and_help(ig3d: Program) -> None:
    assert re.fullmatch(r"ig3d \d+\.\d+\.\d+\n", ig3d("--version").stdout)
    shown = ig3d("--help").stdout
    for command in ("extract", "inspect", "preview", "fuse", "train-2d", "logits"):
        assert command in shown


def test_unknown_commands_and_options_are_usage_errors(ig3d: Program) -> None:
    assert ig3d("extrakt").returncode == 2
    assert ig3d("inspect", "a.h5", "--colour").returncode == 2
    assert ig3d("extract", "somewhere").returncode == 2


def test_extract_says_what_it_understood(ig3d: Program, data: Path, tmp_path: Path) -> None:
    ended = ig3d("extract", data, "--out", tmp_path / "a.h5", "--regressor", FAKE, "--jobs", 1)
    assert ended.returncode == 0
    assert ended.stdout == f"{tmp_path / 'a.h5'}: 120 rows (ok 120)\n"
    assert "120 samples, 3 classes (fear, happy, sad)" in ended.stderr
    assert "stratified split 0.6/0.2/0.2" in ended.stderr
    again = ig3d("extract", data, "--out", tmp_path / "a.h5", "--regressor", FAKE, "--jobs", 1)
    assert again.stdout == ended.stdout
    assert "already complete" in again.stderr


def test_extract_failures(ig3d: Program, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.h5"
    failed(ig3d("extract", tmp_path / "no", "--out", out), 1, "no does not exist; check the path")
    failed(ig3d("extract", data, "--out", out, "--dataset", "rafdb"), 1, "list_patition_label.txt")
    failed(ig3d("extract", data, "--out", out, "--regressor", "smirkk"), 2, "choose one of ")
    failed(ig3d("extract", data, "--out", out, "--detector", "none"), 2, "no landmarks")
    failed(ig3d("extract", data, "--out", out, "--split", "1,2"), 2, "three numbers")
    failed(ig3d("extract", data, "--out", out, "--split", "1,2,3"), 2, "sum to 1")
    failed(ig3d("extract", data, "--out", out, "--jobs", -2), 2, "jobs")
    failed(ig3d("extract", data, "--out", tmp_path / "z.txt"), 2, "z.txt does not end in .h5")
    failed(ig3d("extract", data, "--out", out, "--groups", r"xyz(\d)"), 2, r"the pattern 'xyz(\d)' does not")


def test_extract_without_detection(ig3d: Program, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.h5"
    assert (
        ig3d("extract", data, "--out", out, "--regressor", FAKE, "--detector", "none", "--jobs", 1).returncode
        == 0
    )
    with CodeStore(out) as store:
        assert store.info.crop == {**asdict(CropSpec(size=8, scale=1.0)), "whole_image": True}


def test_inspect_for_people_and_for_scripts(ig3d: Program, store: Path) -> None:
    shown = ig3d("inspect", store, "--verify")
    assert shown.returncode == 0
    assert "120 rows of folder" in shown.stdout
    assert re.search(r"fear +24 +8 +8", shown.stdout)
    assert "verified" in shown.stdout
    found = json.loads(ig3d("inspect", store, "--json", "--verify").stdout)
    assert found["verified"] is True
    assert found["splits"]["train"] == {"fear": 24, "happy": 24, "sad": 24, "no label": 0}
    assert found["blocks"]["colour"]["width"] == 3
    with CodeStore(store) as opened:
        red = opened.codes("colour")[:, 0].astype(float)
    assert found["blocks"]["colour"]["columns"]["red"]["mean"] == pytest.approx(red.mean())
    shown = re.search(r"red +1 +1 +([\d.]+) +([\d.]+) ", shown.stdout)
    assert shown and float(shown[2]) == pytest.approx(red.mean(), rel=1e-3)


def test_inspect_failures(ig3d: Program, store: Path, tmp_path: Path) -> None:
    failed(ig3d("inspect", tmp_path / "no.h5"), 1, "no such store")
    content = bytearray(store.read_bytes())
    where = content.index(b"the crop")
    content[where : where + 8] = b"THE CROP"
    (tmp_path / "changed.h5").write_bytes(content)
    failed(ig3d("inspect", tmp_path / "changed.h5", "--verify"), 1, "not a sound store")


def test_preview(ig3d: Program, store: Path, tmp_path: Path) -> None:
    ended = ig3d("preview", store, "--out", tmp_path / "sheets" / "sheet.png", "--count", 7)
    assert ended.stdout == f"{tmp_path / 'sheets' / 'sheet.png'}: 7 faces\n"
    failed(ig3d("preview", store, "--out", tmp_path / "sheet.gif"), 2, "--animate")
    failed(ig3d("preview", store, "--out", tmp_path / "sheet.png", "--size", 20), 2, "from 100 to 1000")
    failed(ig3d("preview", store, "--out", tmp_path / "sheet.png", "--fps", 5), 2, "pass --animate")
    failed(
        ig3d("preview", store, "--out", tmp_path / "a.gif", "--mesh", "--animate"), 2, "omit it or --animate"
    )
    failed(ig3d("preview", store, "--out", tmp_path / "sheet.png", "--count", 0), 2, "at least 1")
    failed(ig3d("preview", store, "--out", tmp_path / "sheet.png", "--root", tmp_path), 1, "--root")


def test_fuse_prints_and_writes_the_same_for_any_order_of_rows(
    ig3d: Program, store: Path, logits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = ("--2d-logits", logits, "--3d-store", store, "--head", "linear")
    only = ig3d("fuse", *files, "--rules", "mean", "--draws", 100)
    assert only.returncode == 0, only.stderr
    assert list(Path.cwd().iterdir()) == []
    assert re.search(r"^2d-recalibrated +\d", only.stdout, re.M)
    out = tmp_path / "run"
    ended = ig3d("fuse", *files, "--rules", "weighted,stack", "--draws", 200, "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in out.iterdir()} == {
        "confusion.csv",
        "figures.csv",
        "findings.json",
        "model.skops",
        "predictions.csv",
        "predictions.npz",
        "record.json",
        "reliability.csv",
        "report.html",
        "table.tex",
    }
    figures = read_table(out / "figures.csv", COLUMNS)
    # the codes are the colours that the classes differ in: they must add to random logits
    assert figure(figures, "weighted", "accuracy", versus="2d-recalibrated").low > 0
    control = figure(figures, "stack", "accuracy", condition="conditional", versus="2d-recalibrated")
    assert control.low <= 0 <= control.high
    # rows in another order, with their ids, change no figure
    with np.load(logits) as file:
        order = np.random.default_rng(3).permutation(len(file["ids"]))
        arrays = {name: file[name][order] for name in ("ids", "logits")}
        np.savez(tmp_path / "shuffled.npz", **arrays, classes=file["classes"])
    files = ("--2d-logits", tmp_path / "shuffled.npz", *files[2:])
    ended = ig3d("fuse", *files, "--rules", "weighted,stack", "--draws", 200, "--out", tmp_path / "other")
    assert ended.returncode == 0, ended.stderr
    for name in ("figures.csv", "predictions.csv"):
        assert (out / name).read_text() == (tmp_path / "other" / name).read_text()


def test_only_results_of_an_earlier_run_are_replaced(
    ig3d: Program, store: Path, logits: Path, tmp_path: Path
) -> None:
    command = ["fuse", "--2d-logits", logits, "--3d-store", store, "--head", "linear", "--rules", "mean"]
    command += ["--draws", 100, "--out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.csv").write_text("precious")
    failed(ig3d(*command, tmp_path / "mine"), 1, "has predictions.csv that ig3d did not write")
    assert (tmp_path / "mine" / "predictions.csv").read_text() == "precious"
    assert ig3d(*command, tmp_path / "run").returncode == 0
    before = (tmp_path / "run" / "record.json").read_bytes()
    assert ig3d(*command, tmp_path / "run").returncode == 0
    assert (tmp_path / "run" / "record.json").read_bytes() == before
    failed(ig3d(*command, tmp_path / "mine" / "predictions.csv"), 1, "is a file, not a folder")


def test_fuse_failures(ig3d: Program, store: Path, logits: Path, tmp_path: Path) -> None:
    failed(ig3d("fuse", "--2d-logits", logits), 2, "--3d-store")
    failed(ig3d("fuse", "--2d-logits", tmp_path / "no.npz", "--3d-store", store), 1, "no.npz")
    failed(
        ig3d("fuse", "--2d-logits", logits, "--3d-store", store, "--rules", "voting"),
        2,
        "rules: unknown rule voting",
    )
    failed(ig3d("fuse", "--2d-logits", logits, "--3d-store", store, "--blocks", "jaw"), 2, "jaw")
    np.save(tmp_path / "x.npy", np.zeros((5, 3)))
    failed(ig3d("fuse", "--2d-logits", tmp_path / "x.npy", "--3d-store", store), 1, "5")


def test_train_and_logits(ig3d: Program, data: Path, tmp_path: Path) -> None:
    network, out = tmp_path / "net.safetensors", tmp_path / "x.npz"
    trained = ig3d("train-2d", data, "--out", network, "--epochs", 2, "--size", 32)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith(
        f"{network}: timm model test_resnet for fear, happy, sad, trained on 72 train rows; epoch "
    )
    assert " on 24 val rows (optimistic: they chose the epoch)" in trained.stdout
    written = ig3d("logits", data, "--network", network, "--out", out)
    assert written.returncode == 0, written.stderr
    assert written.stdout == f"{out}: 48 rows (val 24, test 24)\n"
    with np.load(out) as file:
        assert file["logits"].shape == (48, 3)
        assert file["classes"].tolist() == ["fear", "happy", "sad"]


def test_train_and_logits_failures(ig3d: Program, data: Path, tmp_path: Path) -> None:
    network = tmp_path / "net.safetensors"
    failed(ig3d("train-2d", data, "--out", network, "--network", "resnet1000"), 2, "resnet1000")
    failed(ig3d("logits", data, "--network", network, "--out", tmp_path / "x.npz"), 1, "net.safetensors")
    network.write_bytes(b"no network")
    failed(ig3d("logits", data, "--network", network, "--out", tmp_path / "x.npz"), 1, "net.safetensors")
    small = colour_folder(tmp_path / "small", 1)
    ended = ig3d("train-2d", small, "--out", network)
    failed(ended, 2, "is no checkpoint of ig3d train-2d")
    assert "it is replaced" not in ended.stderr
    failed(ig3d("train-2d", small, "--out", tmp_path / "new.safetensors"), 1, "train rows cannot be split")


def test_defaults_of_the_command_are_those_of_the_function() -> None:
    import typer

    from ig3d.cli import app
    from ig3d.learn.config import FuseConfig
    from ig3d.networks.train_config import TrainConfig

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command, config in (("train-2d", TrainConfig()), ("fuse", FuseConfig())):
        for parameter in commands[command].params:
            if hasattr(config, parameter.name) and parameter.name not in ("jobs", "rules", "blocks"):
                assert parameter.default == getattr(config, parameter.name), (command, parameter.name)
    # lists that may be repeated: none given is the default of the function
    for name in ("rules", "blocks"):
        assert next(of for of in commands["fuse"].params if of.name == name).default is None


WITHOUT = {
    "filelock": ["extract", "DATA", "--out", "a.h5"],
    "openvino": ["extract", "DATA", "--out", "a.h5"],
    "numba": ["extract", "DATA", "--out", "a.h5"],
    "PIL": ["preview", "STORE", "--out", "a.png"],
    "torch": ["train-2d", "DATA", "--out", "b.safetensors"],
    "cv2": ["synth", "faces", "--count", "2"],
    "matplotlib": ["fuse", "--2d-logits", "LOGITS", "--3d-store", "STORE", "--plot", "a.png"],
    "pyarrow": ["export", "STORE", "--parquet", "a.parquet"],
    # imported after torch
    "face_alignment": ["extract", "DATA", "--out", "a.h5", "--detector", "sfd"],
    "timm": ["train-2d", "DATA", "--out", "a.safetensors"],
}
# One process per command, forked after the import of the program and, for the last two, of torch.
FORKS = """
import json, os, sys
from ig3d.cli import main
for package, words in json.load(sys.stdin).items():
    if package == "face_alignment":
        import torch
    if os.fork() == 0:
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(f"{package}.{name}", os.O_WRONLY | os.O_CREAT), number)
        sys.modules[package] = None
        sys.argv = words
        main()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.wait()[1])
    open(f"{package}.code", "w").write(str(code))
"""


@pytest.fixture(scope="module")
def ended_without(
    data: Path, store: Path, logits: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ended]:
    """How each command ended without the package."""
    folder = tmp_path_factory.mktemp("without")
    given = {"DATA": str(data), "STORE": str(store), "LOGITS": str(logits)}
    torch = find_spec("torch") is not None
    commands = {
        package: ["ig3d", *(given.get(word, word) for word in words)]
        for package, words in WITHOUT.items()
        if torch or package not in ("face_alignment", "timm")
    }
    subprocess.run(
        [sys.executable, "-c", FORKS], input=json.dumps(commands), text=True, cwd=folder, check=True
    )
    return {
        package: Ended(
            int((folder / f"{package}.code").read_text()),
            *((folder / f"{package}.{name}").read_text() for name in ("out", "err")),
        )
        for package in commands
    }


@pytest.mark.parametrize("package", WITHOUT)
def test_a_package_that_is_not_installed_is_one_line(package: str, ended_without: dict[str, Ended]) -> None:
    if package in ("face_alignment", "timm", "torch"):  # commands that use several of them name one
        pytest.importorskip("torch")
    failed(ended_without[package], 1, repr(package), "pip install 'ig3d[")
    assert ended_without[package].stdout == ""


def test_ctrl_c_during_a_fusion_is_one_line(ig3d, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ig3d.learn.fuse.fuse_files", stopped)
    ended = ig3d("fuse", "--2d-logits", "x.npz", "--3d-store", "y.h5")
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr.strip() == "interrupted"


def test_ctrl_c_ends_the_program_while_a_module_swallows_it(data: Path, tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
        "print('imported')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "ig3d", "extract", data, "--out", "a.h5", "--regressor", "deaf:Regressor"],
        cwd=tmp_path,
        env=with_modules_of(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 130 and "imported" not in ended.stdout
    assert ended.stderr.endswith("interrupted\n") and "Traceback" not in ended.stderr


@pytest.mark.parametrize("seconds", [30, 0])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("lose", ["Lost()", "np.int8(1) == Odd.member", "swallow()"])
def test_a_signal_whose_exception_is_discarded_is_not_lost(
    lose: str, number: signal.Signals, seconds: int
) -> None:
    """In a destructor, in NumPy while it looks up an attribute, or by another package."""
    script = (
        "import enum, os, signal, sys, time\n"
        "import numpy as np\n"
        "from ig3d import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "waiting = [1]\n"
        "def interrupt():\n"
        "    if waiting:\n"
        "        waiting.clear()\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        time.sleep(0.01)\n"
        "class Lost:\n"
        "    def __del__(self):\n"
        "        interrupt()\n"
        "class Meta(enum.EnumType):\n"
        "    def __getattr__(cls, name):\n"
        "        interrupt()\n"
        "        raise AttributeError(name)\n"
        "class Odd(enum.IntEnum, metaclass=Meta):\n"
        "    member = 1\n"
        "def swallow():\n"
        "    try:\n"
        "        interrupt()\n"
        "    except BaseException:\n"
        "        pass\n"
        "@cli.app.command('lose')\n"
        "def lose():\n"
        f"    {lose}\n"
        f"    time.sleep({seconds})\n"
        "sys.argv = ['ig3d', 'lose']\n"
        "cli.main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=25, check=False
    )
    assert ended.returncode == 128 + number
    assert ended.stderr == ""


def test_the_plot_is_drawn_and_its_name_checked_first(
    ig3d: Program, store: Path, logits: Path, tmp_path: Path
) -> None:
    command = [
        "fuse",
        "--2d-logits",
        logits,
        "--3d-store",
        store,
        "--head",
        "linear",
        "--draws",
        100,
        "--plot",
    ]
    assert ig3d(*command, tmp_path / "gain.png").returncode == 0
    assert (tmp_path / "gain.png").read_bytes()[1:4] == b"PNG"
    failed(ig3d(*command, tmp_path / "gain.txt"), 2, ".png, .pdf, .svg")
