"""face-alignment's detector and points, batched, against the package itself; all weights are made up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import face_alignment
import numpy as np
import pytest
import torch
from face_alignment.detection.sfd import FaceDetector
from face_alignment.detection.sfd.net_s3fd import s3fd
from face_alignment.models import FAN
from face_alignment.utils import get_preds_fromhm
from stage_rows import rows_of

from ig3d.errors import MissingExtra, UsageError, WeightsError
from ig3d.extract.crop import prepare
from ig3d.extract.detectors import choose_face, load_detector
from ig3d.extract.detectors import fan as fan_module
from ig3d.extract.detectors import sfd as sfd_module
from ig3d.extract.detectors.fan import peaks
from ig3d.extract.detectors.sfd import MIN_SCORE, Sfd, SfdBox, _of_one_size
from ig3d.extract.regressors import Regressor
from ig3d.features.values import Block, CropSpec, FaceBatch, LandmarkSpec, Status

# of the released network 4; half of it takes half the time
STAGES = 2


def pictures(count: int, size: tuple[int, int] = (96, 128), seed: int = 0) -> list[np.ndarray]:
    """Blotches of colour, (height, width)."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 6, 8)))
    fine = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return [*fine.permute(0, 2, 3, 1).round().numpy().astype(np.uint8)]


def randomise(network: torch.nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """A smaller FAN, and the package's own functions as they are written: compiling them takes ten seconds."""
    assert fan_module.STAGES == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fan_module, "STAGES", STAGES)
        for name in ("_get_preds_fromhm", "transform_np"):
            patch.setattr(face_alignment.utils, name, getattr(face_alignment.utils, name).py_func)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a detector that finds a few faces in blotches, and a FAN, as the package's cache keeps them."""
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    torch.manual_seed(0)
    detector = s3fd().eval()
    randomise(detector)
    with torch.no_grad():
        outputs = detector(
            torch.from_numpy(np.stack(pictures(4, seed=9))).permute(0, 3, 1, 2).flip(1) - 117.0
        )
        heads = [name for name, _ in detector.named_children() if name.endswith("conf")]
        for name, logits, offsets in zip(heads, outputs[::2], outputs[1::2], strict=True):
            head, boxes = getattr(detector, name), getattr(detector, name.replace("conf", "loc"))
            difference = logits[:, 1] - logits[:, 0]
            rare = torch.quantile(difference, 1 - 6 / difference.numel())
            spread = difference.std()
            head.weight /= spread
            head.bias[-1] = -rare / spread
            boxes.weight /= offsets.std()
    torch.save(detector.state_dict(), folder / "s3fd-619a316812.pth")
    fan = FAN(STAGES)
    randomise(fan)
    torch.save(fan.state_dict(), folder / "2DFAN4-11f355bf06.pth.tar")
    return folder


@pytest.fixture(scope="module")
def detector(files: Path) -> Sfd:
    return Sfd("cpu", path=files / "s3fd-619a316812.pth", fan_path=files / "2DFAN4-11f355bf06.pth.tar")


def test_boxes_are_the_packages(files: Path) -> None:
    images = [*pictures(4), *pictures(2, (150, 90), seed=1)]
    theirs = FaceDetector("cpu", path_to_detector=str(files / "s3fd-619a316812.pth"))
    wanted = [np.array(theirs.detect_from_image(image)).reshape(-1, 5) for image in images]
    found = SfdBox("cpu", path=files / "s3fd-619a316812.pth")(images)
    assert sum(map(len, found)) > 5
    for faces, rows in zip(found, wanted, strict=True):
        ours = np.array([[*face.xyxy, face.score] for face in faces]).reshape(-1, 5)
        assert np.allclose(ours, rows, atol=1e-3)
        assert all(face.score > MIN_SCORE for face in faces)


@pytest.mark.parametrize(("shift", "count"), [(0.5, 1), (1.0, 2)], ids=["overlap .318", "overlap .278"])
def test_overlap_counts_the_last_pixel_of_a_box(
    files: Path, monkeypatch: pytest.MonkeyPatch, shift: float, count: int
) -> None:
    """Boxes of 16 pixels, d = 8 + 1.6 shift aside: they share (17 - d) * 17 of a union of 2 * 17² - (17 - d) * 17."""
    box = SfdBox("cpu", path=files / "s3fd-619a316812.pth")
    outputs = [torch.zeros(1, size, 64 >> scale, 64 >> scale) for scale in range(6) for size in (2, 4)]
    outputs[0][0, 1, 5, [5, 7]] = torch.tensor([5.0, 4.0])
    outputs[1][0, 0, 5, 7] = shift
    monkeypatch.setattr(box, "_network", lambda pixels: outputs)
    (faces,) = box([np.zeros((256, 256, 3), np.uint8)])
    assert len(faces) == count
    assert faces[0].xyxy.tolist() == [14, 14, 30, 30]


def test_points_are_the_packages(files: Path, detector: Sfd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(files.parent))
    monkeypatch.setitem(
        face_alignment.api.models_urls,
        f"2DFAN-{STAGES}",
        "none://2DFAN4-11f355bf06.pth.tar/2DFAN4-11f355bf06.pth.tar",
    )
    theirs = face_alignment.FaceAlignment(
        face_alignment.LandmarksType.TWO_D,
        network_size=STAGES,
        device="cpu",
        flip_input=False,
        compile=False,
        face_detector_kwargs={"path_to_detector": str(files / "s3fd-619a316812.pth")},
    )
    images = pictures(2)
    compared = 0
    for image, faces in zip(images, detector(images), strict=True):
        if not faces:
            continue
        chosen = choose_face(faces)
        (wanted,) = theirs.get_landmarks_from_image(image, [np.array([*chosen.xyxy, chosen.score])])
        assert chosen.landmarks.shape == (68, 2)
        assert (
            chosen.landmarks == wanted
        ).mean() > 0.98  # a point on the edge of two pixels may fall to either
        assert np.abs(chosen.landmarks - wanted).max() <= 1
        assert [face.landmarks is None for face in faces] == [face is not chosen for face in faces]
        compared += 1
    assert compared > 1


def test_peaks_are_the_packages() -> None:
    heatmaps = np.random.default_rng(0).normal(size=(3, 68, 64, 64)).astype(np.float32)
    heatmaps[0, :5] = 0
    heatmaps[0, [0, 1, 2, 3], [0, 63, 30, 5], [9, 20, 0, 63]] = 1  # on the border
    wanted, _, _ = get_preds_fromhm(heatmaps.copy(), np.zeros(2), 1.0)
    assert np.array_equal(peaks(torch.from_numpy(heatmaps)).numpy(), wanted)


def test_batch_equals_one_by_one_whatever_the_sizes(detector: Sfd) -> None:
    images = [*pictures(1), *pictures(1, (150, 90), seed=1), *pictures(1, seed=2)]
    for faces, image in zip(detector(images), images, strict=True):
        (alone,) = detector([image])
        assert len(faces) == len(alone)
        for one, other in zip(faces, alone, strict=True):
            assert np.allclose(one.xyxy, other.xyxy, atol=1e-3)
            assert (one.landmarks is None) == (other.landmarks is None)
            if one.landmarks is not None:
                assert np.abs(one.landmarks - other.landmarks).max() <= 1


def test_images_go_together_by_size_and_in_bounds() -> None:
    small, other, large = (np.zeros(shape, np.uint8) for shape in ((9, 8, 3), (8, 9, 3), (1000, 1500, 3)))
    assert _of_one_size([small, other, small, large, large]) == [[0, 2], [1], [3], [4]]
    assert _of_one_size([]) == []


def test_images_of_any_size_and_without_a_face(detector: Sfd, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = pictures(1, (20, 40))[0]
    filled = np.full((32, 40, 3), (123, 117, 104), np.uint8)  # the colour that the network takes for nothing
    filled[:20] = tiny
    for faces in detector([tiny, filled]):
        assert faces
        assert np.allclose(faces[0].xyxy, detector([filled])[0][0].xyxy, atol=1e-3)
    monkeypatch.setattr(sfd_module, "MIN_SCORE", 1.0)
    assert detector([tiny, np.zeros((1, 1, 3), np.uint8), filled]) == [[], [], []]
    assert detector([]) == []


class Extent(Regressor):
    """A regressor that is fed crops; it gives back where they lie."""

    name = "extent"
    needs = CropSpec(size=8, scale=1.25, points_factor=1.1)
    detectors = ("sfd",)
    blocks = {"mean": Block(1, "1", "test", "Mean grey.")}  # noqa: RUF012

    def __call__(self, faces: FaceBatch) -> dict[str, np.ndarray]:
        return {"mean": faces.crops.reshape(len(faces), -1).mean(1, keepdims=True).astype(np.float32)}


def test_the_crop_is_that_of_the_points(detector: Sfd, tmp_path: Path) -> None:
    from PIL import Image

    files, images = [], pictures(2)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        files.append((f"{number}.png", -1))
    rows = rows_of(files, tmp_path, detector, Extent())
    ok = rows.status == Status.ok
    assert ok.any()
    for row in np.flatnonzero(ok):
        faces = detector([images[row]])[0]
        points = choose_face(faces).landmarks
        extent = np.ptp(points, axis=0).mean()
        x0, _, x1, _ = rows.crop_box[row]
        assert np.isclose(x1 - x0, int(extent * 1.1 * 1.25))
        assert np.array_equal(rows.landmark_box[row], [*points.min(axis=0), *points.max(axis=0)])
        assert rows.count[row] == len(faces)
        assert rows.score[row] > MIN_SCORE


def test_points_of_another_kind_are_a_wrong_setting(detector: Sfd) -> None:
    image = pictures(1)[0]
    face = choose_face(detector([image])[0])
    with pytest.raises(UsageError, match="finds 68 landmarks per face, and this regressor needs 478"):
        prepare([image], [face], LandmarkSpec(478))


def test_what_is_used_is_on_record(files: Path, detector: Sfd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(files))
    described = Sfd.describe("cpu")
    assert described["name"] == "sfd"
    assert len(described["weights_sha256"]) == len(described["fan2d_sha256"]) == 64
    assert re.fullmatch(r"face_alignment \S+ torch \S+ cpu, openvino \S+ cpu", described["runtime"])
    assert detector._points._network.runtime in described["runtime"]
    assert "fan2d_sha256" not in SfdBox.describe("cpu")


def test_weights_are_found_in_torchs_cache_and_never_downloaded(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    for name in ("IG3D_WEIGHTS", "XDG_DATA_HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with pytest.raises(WeightsError, match=r"^sfd: .*s3fd-619a316812.pth"):
        load_detector("sfd")
    cache = tmp_path / "TORCH_HOME/hub/checkpoints"
    cache.mkdir(parents=True)
    (cache / "s3fd-619a316812.pth").symlink_to(files / "s3fd-619a316812.pth")
    assert isinstance(load_detector("sfd-box"), SfdBox)
    with pytest.raises(WeightsError, match=r"^fan2d: .*2DFAN4-11f355bf06.pth.tar"):
        load_detector("sfd")


def test_another_networks_file_is_refused_in_one_line(files: Path, tmp_path: Path) -> None:
    fan, sfd = files / "2DFAN4-11f355bf06.pth.tar", files / "s3fd-619a316812.pth"
    torch.save({"conv1_1.weight": torch.zeros(3), "epoch": 3}, tmp_path / "odd.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "cut.pth").write_bytes(sfd.read_bytes()[:5000])
    for path, message in (
        (fan, r"^sfd .*: the tensors are not the 65 of the official networks: 65 missing"),
        (tmp_path / "odd.pth", "64 missing .*; 1 unknown .sfd.epoch.; 1 of another shape"),
        (tmp_path / "list.pth", "65 missing"),
        (tmp_path / "cut.pth", "no checkpoint"),
        (tmp_path / "none.pth", "No such file"),
    ):
        with pytest.raises(WeightsError, match=message) as info:
            SfdBox("cpu", path=path)
        assert "\n" not in str(info.value)
    with pytest.raises(WeightsError, match=r"^fan2d .*official networks"):
        Sfd("cpu", path=sfd, fan_path=sfd)
    with pytest.raises(UsageError, match="choose auto, cpu, cuda"):
        load_detector("sfd-box", device="tpu")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "ig3d.extract.detectors.sfd")
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    monkeypatch.setitem(sys.modules, "face_alignment.detection.sfd.net_s3fd", None)
    with pytest.raises(MissingExtra, match="face_alignment"):
        load_detector("sfd")


def test_the_device_that_is_asked_for_reaches_the_detector(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IG3D_WEIGHTS", str(files))
    assert load_detector("sfd-box", device="cpu").device == "cpu"
    with pytest.raises(UsageError, match=r"cuda:99 is not available"):
        load_detector("sfd-box", device="cuda:99")
    assert load_detector("none", device="cuda:99").name == "none"
