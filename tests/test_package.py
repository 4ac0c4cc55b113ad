"""The package itself: what importing costs, what the wheel holds, which way imports point, what the docs promise."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import ig3d
from ig3d.errors import absent

ROOT = Path(ig3d.__file__).resolve().parent
# make that calls pytest hands its options down; ours starts afresh
OUTER = {
    name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"
}
HEAVY = ("torch", "sklearn", "pandas", "mediapipe", "cv2", "lightgbm", "matplotlib", "scipy", "PIL")


def modules() -> list[str]:
    inside = [name for _, name, _ in pkgutil.walk_packages([str(ROOT)], "ig3d.")]
    outside = (
        "ig3d.tests",
        "ig3d.scripts",
        "ig3d.benchmarks",
        "ig3d.ablations",
        "ig3d.build",
        "ig3d.examples",
        "ig3d.__main__",
    )
    return [name for name in inside if not name.startswith(outside)]


@pytest.mark.parametrize("what", ["import ig3d", "import ig3d.features.store", "import ig3d.cli"])
def test_imports_are_light(what: str) -> None:
    code = f"import sys; {what}; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_public_names_are_what_all_says() -> None:
    for name in ig3d.__all__:
        assert getattr(ig3d, name) is not None
    assert set(ig3d._PUBLIC) | {"__version__"} == set(ig3d.__all__)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        ig3d.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    if name == "ig3d.features.device":
        pytest.importorskip("torch")
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


# allowed imports between packages
MAY_IMPORT = {
    "features": {"features"},
    "faces": {"faces", "features"},
    "extract": {"extract", "faces", "features"},
    "learn": {"learn", "features"},
    "networks": {"networks", "extract", "learn", "faces", "features"},
}
# beside the rooms: what each of them may use
LEAVES = {"console", "errors", "workers"}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        here = ["ig3d", *path.relative_to(ROOT).with_suffix("").parts][:-1]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                target = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
                names = [target[1]] if len(target) > 1 and target[1] else [alias.name for alias in node.names]
                rooms = {name for name in names if (ROOT / name).is_dir()}
                files = {name for name in names if (ROOT / f"{name}.py").is_file()}
                assert rooms <= MAY_IMPORT[room] and files <= LEAVES, f"{path}: {names}"


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_no_room(leaf: str) -> None:
    tree = ast.parse((ROOT / f"{leaf}.py").read_text())
    ours = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.level or "ig3d" in str(node.module))
    }
    assert ours <= LEAVES


def extras() -> dict[str, set[str]]:
    """Import names of the packages of each extra in pyproject.toml; "" has those of the core."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {"scikit-learn": "sklearn", "opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
    listed = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {
            names.get(name, name.replace("-", "_"))
            for name in (re.split(r"[^\w-]", requirement)[0] for requirement in requirements)
        }
        for extra, requirements in listed.items()
    }


def third_party() -> dict[str, list[str]]:
    """Packages that ig3d's own modules import, anywhere in them or through ``require``, with the modules."""
    found: dict[str, list[str]] = {}
    for name in modules():
        path = Path(importlib.util.find_spec(name).origin or "")  # type: ignore[union-attr]
        for node in ast.walk(ast.parse(path.read_text())):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported = [node.module or ""]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("require", "import_module"):
                imported = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            for one in imported:
                package = str(one).partition(".")[0]
                if package and package not in sys.stdlib_module_names and package != "ig3d":
                    found.setdefault(package, []).append(name)
    return found


def test_every_import_belongs_to_the_core_or_to_the_extra_that_its_error_names() -> None:
    of = extras()
    assert "torch" in third_party()
    for package, users in third_party().items():
        if package in of[""] or package == "pytorch3d":  # which has no extra: it cannot be resolved on Linux
            continue
        line = str(absent(ModuleNotFoundError(name=package), wanted_by="x"))
        match = re.search(r"pip install 'ig3d\[(\w+)\]'", line)
        assert match, (package, users)
        assert package in of[match[1]], (package, users)


def test_the_default_needs_neither_torch_nor_mediapipe_and_the_extra_all_has_the_others() -> None:
    of = extras()
    assert not {"torch", "torchvision", "timm", "face_alignment", "mediapipe"} & (of[""] | of["extract"])
    (everything,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
        "all"
    ]
    named = set(re.split(r"[\[\],]", everything)[1:-1])
    assert named == set(of) - {"", "all", "dev", "dask", "docs", "ray"}


def test_an_unknown_package_is_named_without_an_extra() -> None:
    line = str(absent(ModuleNotFoundError(name="made_up.part"), wanted_by="regressor mine"))
    assert line.startswith("regressor mine: needs the package 'made_up'")
    assert "ig3d[" not in line


def test_wheel_and_source_distribution_are_complete(tmp_path: Path) -> None:
    # from a copy, so that no build/ is left behind and no stale one is used
    copy = shutil.copytree(
        ROOT,
        tmp_path / "copy",
        ignore=shutil.ignore_patterns(".*", "build", "__pycache__", "site", "demo", "data.local"),
    )
    # the wheel is built from the source distribution
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"ig3d/py.typed"}
    for folder in ("", "commands", "extract", "features", "faces", "learn", "networks"):
        pattern = "*.py" if not folder else "**/*.py"
        wanted |= {f"ig3d/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).glob(pattern)}
    wanted |= {f"ig3d/faces/{path.name}" for path in (ROOT / "faces").glob("*.npz")}
    wanted |= {f"ig3d/ablations/{path.name}" for path in (ROOT / "ablations").glob("*.yaml")}
    assert wanted <= inside
    assert not [name for name in inside if name.startswith(("ig3d/tests", "ig3d/.venv", "ig3d/scripts"))]

    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "CHANGES.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "SECURITY.md",
        "mkdocs.yml",
    }
    wanted |= {"requirements.lock", "README.md", "pyproject.toml"}
    for folder in ("tests", "docs", "ablations", "benchmarks", "examples", "scripts"):
        wanted |= {path.relative_to(copy).as_posix() for path in (copy / folder).rglob("*") if path.is_file()}
    assert wanted <= inside, sorted(wanted - inside)[:5]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == ig3d.__version__
    assert re.search(rf"^version: {re.escape(ig3d.__version__)}$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert f"## [{ig3d.__version__}]" in (ROOT / "CHANGES.md").read_text()


def test_make_without_a_target_lists_the_targets() -> None:
    listed = subprocess.check_output(["make"], cwd=ROOT, text=True, env=OUTER)
    for target in ("setup", "test", "check", "extract", "bench"):
        assert f"make {target}" in listed


def test_make_extract_without_data_says_what_to_do(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["make", "extract", "DATASET=rafdb", f"ROOT={tmp_path / 'rafdb'}"],
        cwd=ROOT, capture_output=True, text=True, check=False, env=OUTER,
    )  # fmt: skip
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("ig3d: ")]
    assert "rafdb: no dataset at" in line
    assert "ROOT=/path/to/it" in line


def test_an_old_python_is_one_line(tmp_path: Path) -> None:
    fake = tmp_path / "python-of-old"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1 && exit 0\nexit 1\n')
    fake.chmod(0o755)
    ended = subprocess.run(
        ["make", "setup", f"PYTHON={fake}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT, capture_output=True, text=True, check=False, env=OUTER,
    )  # fmt: skip
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("ig3d: ")]
    assert "needs Python 3.11 or later" in line
    assert "is Python 3.8.1" in line
