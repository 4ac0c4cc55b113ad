"""Official files: found, recognised by what they hold, put in place, fetched; and everything that can be wrong."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended

from ig3d.errors import UsageError, WeightsError
from ig3d.extract import weights
from ig3d.extract.user_folders import cache_folder
from ig3d.extract.weights import WEIGHTS_FILES, check_weights, find_weights, folders, locate, weights_sha256
from ig3d.extract.weights_add import add_weights

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose data folder is ``tmp_path / "data"``; the weights folder in it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("IG3D_WEIGHTS", raising=False)
    return tmp_path / "data" / "ig3d" / "weights"


def zeros(**shapes: tuple[int, ...]) -> OrderedDict[str, Any]:
    return OrderedDict((name, torch.zeros(shape)) for name, shape in shapes.items())


def encoder(rows: int) -> dict[str, tuple[int, ...]]:
    return {"encoder.conv1.weight": (64, 3, 7, 7), "layers.2.weight": (rows, 1024)}


def smirk(path: Path, *, rows: int = 300, seed: int = 0) -> Path:
    prefix = "smirk_encoder."
    state = zeros(
        **{
            prefix + "pose_encoder.encoder.conv_stem.weight": (16, 3, 3, 3),
            prefix + "pose_encoder.pose_cam_layers.0.weight": (6, 576),
            prefix + "shape_encoder.shape_layers.0.weight": (rows, 960),
            prefix + "expression_encoder.expression_layers.0.weight": (55, 960),
        }
    )
    state[prefix + "pose_encoder.encoder.conv_stem.weight"] += seed
    torch.save(state, path)
    return path


def emoca(path: Path, *, expression: bool = True) -> Path:
    names = {"E_flame": 236, **({"E_expression": 50} if expression else {})}
    state = zeros(
        **{f"deca.{n}.{key}": shape for n, rows in names.items() for key, shape in encoder(rows).items()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 10, "state_dict": state, "callbacks": {}}, path)
    return path


def deca(path: Path) -> Path:
    content = {"E_flame": zeros(**encoder(236)), "E_detail": zeros(**encoder(128)), "batch_size": 6}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def flame(path: Path, *, vertices: int = 5023, extra: dict[str, Any] | None = None) -> Path:
    model = {
        "v_template": np.zeros((vertices, 3)),
        "f": np.zeros((9976, 3), np.uint32),
        "shapedirs": np.zeros((vertices, 3, 400), np.float16),
        "posedirs": np.zeros((vertices, 3, 36), np.float16),
        "weights": np.zeros((vertices, 5)),
        "J_regressor": np.zeros((5, vertices)),
        "kintree_table": np.zeros((2, 5), int),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(model | (extra or {}), 2))
    return path


def task(path: Path, *, seed: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("face_detector.tflite"), bytes([seed]) * 1000)
        archive.writestr(zipfile.ZipInfo("face_landmarks_detector.tflite"), b"y" * 1000)
    return path


def sfd(path: Path) -> Path:
    shapes = {"conv1_1.weight": (64, 3, 3, 3), "conv7_2_mbox_conf.weight": (2, 256, 3, 3)}
    torch.save(zeros(**shapes, **{"conv7_2_mbox_loc.weight": (4, 256, 3, 3)}), path)
    return path


def assets(folder: Path) -> None:
    """Files of SMIRK's ``assets``: the eyelids, and one that ig3d does not use."""
    (folder / "FLAME_masks").mkdir(parents=True)
    masks = {"lips": np.zeros(9, int)}
    (folder / "FLAME_masks" / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, 0))
    for side in "lr":
        np.save(folder / f"{side}_eyelid.npy", np.full((5023, 3), ord(side), float))


def publish(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Make this file the published one."""
    entry = replace(WEIGHTS_FILES[name], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(weights.WEIGHTS_FILES, name, entry)


# ---- finding


def test_each_name_has_what_the_list_says() -> None:
    assert len({entry.target for entry in WEIGHTS_FILES.values()}) == len(WEIGHTS_FILES)
    for entry in WEIGHTS_FILES.values():
        assert entry.licence
        assert entry.instructions
        assert not Path(entry.target).is_absolute()
        assert set(entry.sha256) <= set("0123456789abcdef")


def test_the_variable_comes_before_the_users_folder(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(parents=True)
    smirk(home / "SMIRK_em1.pt")
    assert find_weights("smirk") == home / "SMIRK_em1.pt"
    first, second = tmp_path / "first", tmp_path / "second"
    (second / "pretrained_models").mkdir(parents=True)
    monkeypatch.setenv("IG3D_WEIGHTS", f"{first}{os.pathsep}{second}")
    assert folders() == [first, second, home]
    assert find_weights("smirk") == home / "SMIRK_em1.pt"
    other = smirk(second / "pretrained_models" / "SMIRK_em1.pt")
    assert find_weights("smirk") == other


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home, as one who is a mere number in a container."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", unknown)


@pytest.mark.usefixtures("no_home")
def test_a_user_without_a_home_has_the_folders_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(tmp_path / "weights"))
    assert folders() == [tmp_path / "weights"]
    (added,) = add_weights(smirk(tmp_path / "SMIRK_em1.pt"))
    assert find_weights("smirk") == added.path == tmp_path / "weights" / "SMIRK_em1.pt"
    assert locate("sfd") is None  # which torch's cache may hold


@pytest.mark.usefixtures("no_home")
def test_a_user_without_a_home_is_told_to_name_a_folder(tmp_path: Path, ig3d: Callable[..., Ended]) -> None:
    assert folders() == []
    with pytest.raises(WeightsError, match=r"found no SMIRK_em1.pt .* in \$IG3D_WEIGHTS"):
        find_weights("smirk")
    with pytest.raises(WeightsError, match="IG3D_WEIGHTS is not set, and this user has no home"):
        add_weights(smirk(tmp_path / "SMIRK_em1.pt"))
    ended = ig3d("weights")
    assert ended.returncode == 0
    assert "searched: no folder: IG3D_WEIGHTS is not set" in ended.stderr
    with pytest.raises(FileNotFoundError, match="no home folder"):  # which callers take as "no cache"
        cache_folder()


def test_a_missing_file_is_one_line(home: Path) -> None:
    with pytest.raises(WeightsError) as info:
        find_weights("smirk")
    text = str(info.value)
    assert "\n" not in text
    for part in ("SMIRK_em1.pt", str(home), "26b234e3cc31", "Google Drive", "ig3d weights add"):
        assert part in text
    with pytest.raises(WeightsError, match="ig3d weights get facemesh"):
        find_weights("facemesh")
    with pytest.raises(UsageError, match=r"'smurk' .* choose one of smirk, emoca, "):
        find_weights("smurk")


def test_emocas_checkpoint_is_found_as_unpacked_and_the_best_is_chosen(home: Path) -> None:
    detail = home / "EMOCA_v2_lr_mse_20" / "detail" / "checkpoints"
    emoca(home / "EMOCA_v2_lr_mse_20" / "coarse" / "x=0.5.ckpt")
    emoca(detail / "deca-epoch=03-val_loss" / "dataloader_idx_0=12.5.ckpt")
    best = emoca(detail / "deca-epoch=10-val_loss" / "dataloader_idx_0=3.25521111.ckpt")
    assert find_weights("emoca") == best
    assert locate("emoca_v1") is None


def test_face_alignments_files_are_found_in_torchs_cache(tmp_path: Path) -> None:
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    path = sfd(cache / "s3fd-619a316812.pth")
    assert find_weights("sfd") == path
    assert check_weights("sfd").state == "other"


# ---- checking


def test_states_of_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_weights("smirk").state == "missing"
    home.mkdir(parents=True)
    path = smirk(home / "SMIRK_em1.pt")
    other = check_weights("smirk")
    assert other.state == "other"
    assert "is not the published 26b234e3cc31" in other.message
    publish(monkeypatch, "smirk", path)
    found = check_weights("smirk")
    assert (found.state, found.path) == ("published", path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(b"a later SMIRK, unlike what we know")
    publish(monkeypatch, "smirk", path)
    assert check_weights("smirk").state == "published"  # its authors' word counts more than ours
    assert names(add_weights(path)) == ["smirk"]
    smirk(path)
    assert names(add_weights(path)) == ["smirk"]
    monkeypatch.setitem(weights.WEIGHTS_FILES, "smirk", replace(WEIGHTS_FILES["smirk"], sha256=""))
    assert check_weights("smirk").state == "sound"


def test_a_file_that_changed_since_first_use_is_refused(home: Path) -> None:
    path = emoca(home / "EMOCA" / "checkpoint.ckpt")
    assert find_weights("emoca_v1") == path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"has sha256 [0-9a-f]{12}..., on first use it had "):
        find_weights("emoca_v1")
    assert check_weights("emoca_v1").state == "changed"
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert find_weights("emoca_v1") == path  # the old file is back
    add_weights(emoca(home.parent / "EMOCA" / "new.ckpt", expression=True), name="emoca_v1")
    assert check_weights("emoca_v1").state == "sound"


def test_a_file_is_hashed_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir(parents=True)
    path = smirk(home / "SMIRK_em1.pt")
    digest = weights_sha256(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()

    def never(*_: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr(hashlib, "file_digest", never)
    assert weights_sha256(path) == digest
    assert find_weights("smirk") == path
    os.utime(path, (1, 1))
    with pytest.raises(AssertionError, match="hashed again"):
        weights_sha256(path)


def test_a_broken_record_is_as_none(home: Path) -> None:
    home.mkdir(parents=True)
    path = smirk(home / "SMIRK_em1.pt")
    for text in ("{", "[]", "\xff"):
        path.with_name("SMIRK_em1.pt.ig3d.json").write_text(text, encoding="latin1")
        assert find_weights("smirk") == path


def test_wrong_contents_under_the_right_name(home: Path) -> None:
    home.mkdir(parents=True)
    path = smirk(home / "SMIRK_em1.pt", rows=100)
    found = check_weights("smirk")
    assert found.state == "wrong"
    assert "shape_layers.0.weight is 100 x 960, not 300 x 960" in found.message
    path.write_bytes(deca(home / "x").read_bytes())
    path.with_name(path.name + ".ig3d.json").unlink()
    assert "is DECA's checkpoint, not the file smirk" in check_weights("smirk").message
    path.write_bytes(b"<html>log in</html>")
    path.with_name(path.name + ".ig3d.json").unlink()
    assert "a web page" in check_weights("smirk").message
    task(home / "face_landmarker.task")
    data = bytearray((home / "face_landmarker.task").read_bytes())
    data[500] ^= 1
    (home / "face_landmarker.task").write_bytes(data)
    assert "of the task file is damaged" in check_weights("facemesh").message


# ---- adding


def names(added: list[Any]) -> list[str]:
    return [one.name for one in added]


@pytest.mark.parametrize(
    ("make", "name", "place"),
    [
        (smirk, "smirk", "SMIRK_em1.pt"),
        (deca, "deca", "deca_model.tar"),
        (sfd, "sfd", "s3fd-619a316812.pth"),
    ],
    ids=["smirk", "deca", "sfd"],
)
def test_a_file_is_recognised_whatever_its_name(
    tmp_path: Path, home: Path, make: Callable[[Path], Path], name: str, place: str
) -> None:
    source = make(tmp_path / "download (1).bin")
    (added,) = add_weights(source)
    assert (added.name, added.path) == (name, home / place)
    assert added.path.read_bytes() == source.read_bytes()
    assert find_weights(name) == added.path
    assert check_weights(name).state in ("other", "sound")
    assert not list(home.glob(".*"))
    assert names(add_weights(added.path)) == [name]  # in place already


def test_releases_of_one_form_are_told_by_hash_then_by_name(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(add_weights(flame(tmp_path / "FLAME2020" / "generic_model.pkl"))) == ["flame2020"]
    assert names(add_weights(flame(tmp_path / "FLAME2017" / "generic_model.pkl"))) == ["flame2017"]
    assert names(add_weights(flame(tmp_path / "flame2023.pkl"))) == ["flame2023"]
    opened = flame(tmp_path / "FLAME2020" / "x.pkl", extra={"supr_expression_metadata": {"n_expr": 100}})
    assert names(add_weights(opened)) == ["flame2023_open"]
    unclear = flame(tmp_path / "model.pkl", extra={"bs_type": "lrotmin"})
    with pytest.raises(WeightsError, match="--as with one of flame2017, flame2020, flame2023"):
        add_weights(unclear)
    assert names(add_weights(unclear, name="flame2017")) == ["flame2017"]
    publish(monkeypatch, "flame2020", unclear)
    assert names(add_weights(unclear)) == ["flame2020"]
    with pytest.raises(WeightsError, match="add the generic model"):
        add_weights(flame(tmp_path / "FLAME2017" / "male_model.pkl"))
    with pytest.raises(WeightsError, match="is a FLAME model, not deca"):
        add_weights(unclear, name="deca")


def test_the_zips_as_distributed(tmp_path: Path, home: Path) -> None:
    inner = "EMOCA_v2_mp/detail/checkpoints/deca-epoch=11-val_loss/dataloader_idx_0=3.25273848.ckpt"
    with zipfile.ZipFile(tmp_path / "EMOCA_v2_mp.zip", "w") as archive:
        archive.write(emoca(tmp_path / "a.ckpt"), inner)
        archive.writestr("EMOCA_v2_mp/cfg.yaml", "detail: 1\n")
        archive.writestr("EMOCA_v2_mp/readme.txt", "x")
    (added,) = add_weights(tmp_path / "EMOCA_v2_mp.zip")
    assert added.path == find_weights("emoca_v2_mp") == home / "EMOCA_v2_mp" / "checkpoint.ckpt"
    assert (home / "EMOCA_v2_mp" / "cfg.yaml").read_text() == "detail: 1\n"
    with zipfile.ZipFile(tmp_path / "FLAME2020.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, extra in (("male_model.pkl", 1), ("generic_model.pkl", 2), ("female_model.pkl", 3)):
            archive.write(flame(tmp_path / name, extra={"which": extra}), f"../../FLAME2020/{name}")
        archive.writestr("Readme.pdf", "x")
    for chosen in (None, "flame2017"):
        (added,) = add_weights(tmp_path / "FLAME2020.zip", name=chosen)
        assert added.name == (chosen or "flame2020")
        assert pickle.loads(added.path.read_bytes())["which"] == 2
    assert not list(home.glob(".*"))


def test_a_folder_as_smirk_lays_it_out(tmp_path: Path, home: Path) -> None:
    assets(tmp_path / "assets")
    found = {one.name: one.path for one in add_weights(tmp_path / "assets")}
    assert set(found) == {"eyelid_left", "eyelid_right"}
    assert np.load(find_weights("eyelid_left"))[0, 0] == ord("l")
    assert np.load(find_weights("eyelid_right"))[0, 0] == ord("r")
    assert all(check_weights(name).state in ("sound", "other") for name in found)


def test_what_is_not_recognised_is_refused_with_what_was_seen(tmp_path: Path, home: Path) -> None:
    cases: list[tuple[str, Callable[[Path], object], str]] = [
        ("a.pt", lambda p: torch.save({"w": torch.ones(2), "b": 1}, p), r"a table of 2 entries \(w, b\)"),
        ("smpl.pkl", lambda p: flame(p, vertices=6890), r"v_template is 6890 x 3, not 5023 x 3"),
        ("s.pt", lambda p: smirk(p, rows=100), "SMIRK's checkpoint, but its entry .* is 100 x 960"),
        ("deca.ckpt", lambda p: emoca(p, expression=False), "DECA in EMOCA's layout"),
        ("x.npy", lambda p: np.save(p, np.zeros((2, 5))), "is an array of 2 x 5"),
        ("evil.pkl", lambda p: p.write_bytes(b"cos\nsystem\n(S'true'\ntR."), "an object of os.system"),
        ("page.zip", lambda p: p.write_bytes(b"<html>"), "a web page"),
        ("cut.pt", lambda p: smirk(p).write_bytes(p.read_bytes()[:5000]), "damaged, or no checkpoint"),
        ("text.txt", lambda p: p.write_text("hello"), "damaged, or no checkpoint"),
    ]
    for name, make, message in cases:
        make(tmp_path / name)
        with pytest.raises(WeightsError, match=message) as info:
            add_weights(tmp_path / name)
        assert str(info.value).isprintable()
    with pytest.raises(WeightsError, match="No such file"):
        add_weights(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="none of the files"):
        add_weights(tmp_path / "empty")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.write(tmp_path / "a.pt", "x/a.pt")
    with pytest.raises(WeightsError, match=r"a\.pt: .* not one of the files that ig3d weights lists"):
        add_weights(tmp_path / "other.zip")
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_damaged_or_huge_zip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.pkl", bytes(1000))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"the zip archive is damaged \(Bad CRC"):
        add_weights(path)
    monkeypatch.setattr("ig3d.extract.weights_add.MAX_BYTES", 100)
    with pytest.raises(WeightsError, match="its contents have 1000 bytes"):
        add_weights(path)


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = add_weights(smirk(tmp_path / "a.pt"))[0].path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ig3d.extract.weights_add.shutil.copyfile", full)
    with pytest.raises(WeightsError, match="No space left on device"):
        add_weights(smirk(tmp_path / "b.pt", seed=1))
    assert (home / "SMIRK_em1.pt").read_bytes() == old
    assert find_weights("smirk")
    assert not list(home.glob(".*"))


# ---- the commands


def test_commands(
    ig3d: Callable[..., Any],
    tmp_path: Path,
    home: Path,
) -> None:
    done = ig3d("weights", "add", smirk(tmp_path / "x.pt"), deca(tmp_path / "y.tar"))
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["smirk", "deca"]
    done = ig3d("weights")
    assert done.returncode == 0
    assert f"smirk: other · {home / 'SMIRK_em1.pt'}" in done.stdout
    assert "flame2020: missing" in done.stdout
    assert "register at https://flame.is.tue.mpg.de" in done.stdout
    assert str(home) in done.stderr
    assert all(f"{name}: " in done.stdout for name in WEIGHTS_FILES)


def test_commands_that_fail(ig3d: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    for arguments, code, message in (
        (("add", tmp_path / "pipe"), 1, "is a device, a pipe"),
        (("add", "/dev/zero"), 1, "is a device, a pipe"),
        (("add", tmp_path / "x"), 1, "ig3d: "),
        (("add", tmp_path / "x", "--as", "y"), 2, "choose one of smirk"),
        (("get", "smirk"), 1, "without an account"),
        (("get", "y"), 2, "choose one of smirk"),
        (("add",), 2, "Missing argument"),
        (("bogus",), 2, "No such command"),
    ):
        done = ig3d("weights", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert message in done.stderr
        assert not done.stdout


def test_the_page_lists_every_file() -> None:
    page = (Path(__file__).parents[1] / "docs" / "weights.md").read_text(encoding="utf-8")
    for entry in WEIGHTS_FILES.values():
        assert f"`{entry.name}`" in page
        assert f"`{entry.target.removesuffix('checkpoint.ckpt')}`" in page
