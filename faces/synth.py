"""Synthetic faces: random codes of the face model, painted and written in RAF-DB's official layout with the true codes.

A face depends only on ``(seed, index)``, so the number of workers does not change the faces. The list file, which makes
the folder a dataset, is written last, so that an interrupted run is not mistaken for a finished one.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import Ig3dError, UsageError
from ..features.classes import PRESETS
from .head import FOLDS, Head, head, opencv
from .model import FaceModel, load
from .paint import Look, paint

CLASSES = PRESETS["rafdb"]
# Shares of the classes: unbalanced as in real datasets, but less than in RAF-DB (2 % fear, 39 % happiness).
SHARES = np.array([0.14, 0.07, 0.09, 0.26, 0.15, 0.11, 0.18])
# Factors on the measured class means and on the measured standard deviation within a class, and depth of a full fold of
# the skin. Chosen with seed 51 such that a small 2D network and the codes are about equally accurate and make different
# errors (docs/face_model.md); the demo's seed, 7, was not used.
SEPARATION, SPREAD, DEPTH = 1.3, 0.85, 0.6
CHUNK = 32
LIST_FILE = "basic/EmoLabel/list_patition_label.txt"
_GOLDEN = (5**0.5 - 1) / 2
# From the model's axes (y down, z away from the camera) to the store's (y up, z towards it): rotation by pi about x.
_TO_FLAME = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True, slots=True)
class SynthConfig:
    """Options of a set of synthetic faces.

    Attributes
    ----------
    count : int
        Number of faces in both splits.
    size : int
        Side of the square images, pixels; 48 to 1024.
    seed : int >= 0
    test_share : float in [0, 1]
        Fraction of the faces in the test split.
    jobs : int
        Worker processes; no influence on the faces.
    """

    count: int = 1000
    size: int = 224
    seed: int = 0
    test_share: float = 0.25
    jobs: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("count", 1, 99_999),
            ("size", 48, 1024),
            ("seed", 0, 2**32 - 1),
            ("jobs", 1, 1024),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"{name} is {value}; it must be a whole number from {low} to {high}")
        if not 0 <= self.test_share <= 1:
            raise UsageError(f"test share is {self.test_share}; it must be a number from 0 to 1")


@dataclass(frozen=True, slots=True)
class Codes:
    """True codes of n faces.

    Attributes
    ----------
    label : (n,) int
        Index into :data:`CLASSES`.
    pose : (n, 3)
        Rotation vector from the mean face to the head, rad; axes x right, y down, z away from the camera.
    camera : (n, 3)
        Pixels per unit of the model, and position of the model's origin in the image (x, y; pixels).
    shape, expression : (n, ks), (n, ke)
        In standard deviations, see :class:`~ig3d.faces.model.FaceModel`.
    """

    label: np.ndarray
    pose: np.ndarray
    camera: np.ndarray
    shape: np.ndarray
    expression: np.ndarray


def synthesize(out: Path, config: SynthConfig, *, progress: Callable[[int], None] | None = None) -> Path:
    """Draw faces and write them in RAF-DB's layout.

    Parameters
    ----------
    out : Path
        New or empty folder. Written are ``basic/Image/aligned/train_00001_aligned.jpg`` ...,
        ``basic/EmoLabel/list_patition_label.txt`` (last), ``codes.csv`` (true codes by sample id, with columns
        ``block:column`` in the units and axes of a store) and ``synth.json`` (configuration and name of the model).
    config : SynthConfig
    progress : function that is called with the number of faces written since its last call

    Returns
    -------
    Path of the list file.

    Raises
    ------
    UsageError : the folder is not empty.
    Ig3dError : a file cannot be written, for instance because the disk is full.
    """
    opencv()
    out = Path(out)
    names = file_names(config)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                f"{out}: it exists and is not an empty folder; choose another folder, or remove it"
            )
        images = out / "basic" / "Image" / "aligned"
        images.mkdir(parents=True, exist_ok=True)
        codes = _write_images(images, names, config, progress)
        _write_tables(out, names, codes, config)
        lines = [f"{name}.jpg {label + 1}" for name, label in zip(names, codes.label, strict=True)]
        list_file = out / LIST_FILE
        list_file.parent.mkdir(parents=True, exist_ok=True)
        list_file.write_text("\n".join(lines), encoding="ascii", newline="\n")
    except OSError as exc:
        advice = "free some space" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "check the folder"
        raise Ig3dError(
            f"{out}: {config.count} faces cannot be written: {exc.strerror or exc}; {advice}, remove the "
            "unfinished folder and repeat"
        ) from exc
    return list_file


def file_names(config: SynthConfig) -> list[str]:
    """Names in the list file, without extension: train faces first, numbered as in RAF-DB."""
    test = round(config.count * config.test_share)
    train = [f"train_{k + 1:05d}" for k in range(config.count - test)]
    return train + [f"test_{k + 1:04d}" for k in range(test)]


def draw_codes(config: SynthConfig, indices: np.ndarray, *, model: FaceModel | None = None) -> Codes:
    """True codes of the faces with these indices; they depend only on seed, size and index."""
    model = model or load()
    faces = [_draw_code(config, int(index), model) for index in indices]
    return Codes(*(np.array([getattr(face, name) for face in faces]) for name in Codes.__dataclass_fields__))


def render(config: SynthConfig, indices: np.ndarray) -> tuple[list[np.ndarray], Codes]:
    """Images (size, size, 3) uint8 RGB of the faces with these indices, and their codes."""
    scene = head()
    codes = draw_codes(config, indices, model=scene.model)
    rngs = [np.random.default_rng([config.seed, int(index), 1]) for index in indices]
    looks = [draw_look(rng, int(label), scene.model) for rng, label in zip(rngs, codes.label, strict=True)]
    points = pose_points(scene, codes, hair=np.array([look.hair_volume for look in looks]))
    images = [paint(scene, points[k], looks[k], size=config.size, rng=rngs[k]) for k in range(len(indices))]
    return images, codes


def pose_points(scene: Head, codes: Codes, *, hair: np.ndarray) -> np.ndarray:
    """(n, v, 3) vertices of the heads in the image, pixels; the first 478 are the points of the model."""
    from scipy.spatial.transform import Rotation

    vertices = scene.shell(scene.model.decode(codes.shape, codes.expression), hair)
    points = np.einsum("nij,nvj->nvi", Rotation.from_rotvec(codes.pose).as_matrix(), vertices)
    points *= codes.camera[:, :1, None]
    points[..., :2] += codes.camera[:, None, 1:]
    return points


def _draw_code(config: SynthConfig, index: int, model: FaceModel) -> Codes:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng([config.seed, index, 0])
    # Additive recurrence: any range of indices contains the classes in nearly the right shares.
    label = int(np.searchsorted(np.cumsum(SHARES), (0.5 + config.seed * 0.37 + index * _GOLDEN) % 1))
    label = min(label, len(SHARES) - 1)
    angles = np.clip(rng.standard_normal(3), -2.4, 2.4) * np.radians([8.0, 13.0, 7.0])
    pitch, yaw, roll = angles
    pose = Rotation.from_euler("ZYX", [roll, yaw, pitch]).as_rotvec()
    unit = config.size * rng.uniform(0.54, 0.66) / 0.142
    middle = config.size * (np.array([0.5, 0.52]) + np.clip(0.02 * rng.standard_normal(2), -0.05, 0.05))
    shape = 0.9 * np.clip(rng.standard_normal(len(model.shape_basis)), -2.5, 2.5)
    deviation = (
        SPREAD * np.clip(rng.standard_normal(len(model.class_mean[0])), -2.5, 2.5) @ model.class_spread.T
    )
    expression = SEPARATION * model.class_mean[label] + deviation
    return Codes(np.array(label), pose, np.array([unit, *middle]), shape, expression)


# Depth of each fold (head.FOLDS) in each class. The comments list the action units of a class, and those that often
# occur with them (Du, Tao and Martinez, "Compound facial expressions of emotion", PNAS 2014, Table 1). The depths
# themselves are not from the literature.
_CLASS_FOLDS = np.array(
    [  # forehead grief frown crow cheek nose corner bag chin
        [0.90, 0.00, 0.00, 0.00, 0.10, 0.00, 0.00, 0.00, 0.00],  # surprise: 1 2 25 26
        [0.60, 0.40, 0.50, 0.00, 0.10, 0.00, 0.20, 0.10, 0.00],  # fear: 1 4 20 25, often 2
        [0.00, 0.00, 0.30, 0.10, 0.70, 0.70, 0.00, 0.30, 0.40],  # disgust: 9 10 17, often 4
        [0.00, 0.00, 0.00, 0.60, 0.80, 0.00, 0.00, 0.50, 0.00],  # happiness: 12 25, often 6
        [0.10, 0.70, 0.30, 0.00, 0.15, 0.00, 0.60, 0.20, 0.60],  # sadness: 4 15, often 1 6 17
        [0.00, 0.00, 0.90, 0.00, 0.20, 0.20, 0.00, 0.30, 0.50],  # anger: 4 7 24, often 10 17
        [0.00, 0.00, 0.05, 0.00, 0.05, 0.00, 0.05, 0.05, 0.00],  # neutral
    ]
)
# Depth of the folds of an old face at rest; added in every class.
_AGE_FOLDS = np.array([0.5, 0.0, 0.3, 0.4, 0.4, 0.0, 0.4, 0.5, 0.1])
_SKIN = np.array(
    [[0.93, 0.76, 0.66], [0.86, 0.67, 0.54], [0.78, 0.58, 0.45], [0.62, 0.43, 0.32], [0.45, 0.30, 0.22]]
)
_HAIR = np.array(
    [[0.08, 0.06, 0.06], [0.20, 0.13, 0.09], [0.36, 0.22, 0.13], [0.62, 0.47, 0.27], [0.55, 0.53, 0.51]]
)
_IRIS = np.array([[0.20, 0.11, 0.06], [0.33, 0.20, 0.10], [0.30, 0.40, 0.48], [0.30, 0.38, 0.22]])


def draw_look(rng: np.random.Generator, label: int, model: FaceModel) -> Look:
    """Random appearance of a face of this class, apart from its geometry.

    The depth of the folds depends on the class, the skin and its age. Given the class it is independent of the codes,
    so that a network on pixels and a head on codes make errors on different faces.
    """
    skin = _between(rng, _SKIN)
    hair = _between(rng, _HAIR) if skin[0] > 0.7 and rng.random() < 0.8 else _HAIR[0] * rng.uniform(0.6, 2.0)
    long_hair = rng.random() < 0.4
    fringe = rng.random() < 0.25
    strength, age = rng.uniform(0.4, 1.1), rng.beta(1, 2)  # folds vary between skins; few faces are old
    folds = strength * _CLASS_FOLDS[label] + age * _AGE_FOLDS + 0.12 * rng.standard_normal(len(FOLDS))
    grey = 0.8 * np.clip(rng.standard_normal(len(model.grey_basis)), -2, 2) + model.class_grey[label]
    grey[0] *= 0.5
    return Look(
        skin=skin,
        hair=hair,
        lips=np.clip(skin * [0.92, 0.55, 0.55] + rng.uniform(-0.06, 0.06, 3), 0, 1),
        iris=_between(rng, _IRIS if skin[0] > 0.75 else _IRIS[:2]),
        shirt=0.5 * rng.uniform(0.05, 0.9) + 0.5 * rng.uniform(0.05, 0.9, 3),
        hair_volume=float(rng.uniform(0.8, 1.4) if long_hair else rng.choice([0.2, 0.6, 0.8, 1.0, 1.2])),
        hairline=np.array(
            [
                rng.uniform(-0.058, -0.048) if fringe else rng.uniform(-0.079, -0.066),
                rng.uniform(-0.15, 0.15),
                rng.uniform(1.0, 6.0) if fringe else rng.uniform(6.0, 14.0),
            ]
        ),
        beard=0.0 if long_hair or rng.random() < 0.6 else float(rng.uniform(0.1, 0.65)),
        grey=grey,
        folds=np.clip(folds, 0, 1.2) * DEPTH,
        blush=float(np.clip(0.08 + 0.08 * rng.standard_normal(), 0, 0.3)),
        light=np.array([rng.normal(0, 0.5), rng.normal(-0.35, 0.3), -1.0]),
        ambient=float(rng.uniform(0.35, 0.65)),
        shine=float(rng.uniform(0.0, 0.12)),
        background=_draw_background(rng),
        teeth=float(rng.uniform(0.75, 1.0)),
        monochrome=float(rng.random() < 0.3),
        blur=float(rng.uniform(0.45, 1.1)),
        contrast=float(rng.uniform(0.85, 1.15) * (0.8 / skin[0]) ** 0.45),  # exposure of the camera
        brightness=float(rng.normal(0, 0.05)),
        noise=float(rng.uniform(1, 6)),
        long_hair=bool(long_hair),
    )


def _draw_background(rng: np.random.Generator) -> np.ndarray:
    """(6, 6, 3) float32: a dull colour with a gradient and random blotches."""
    tint = 0.7 * rng.uniform(0.1, 0.9) + 0.3 * rng.uniform(0.1, 0.9, 3)
    y, x = np.mgrid[-1:1:6j, -1:1:6j]
    slope = rng.uniform(-0.12, 0.12) * x + rng.uniform(-0.15, 0.15) * y
    blotches = rng.uniform(0, 0.14) * rng.standard_normal((6, 6, 1)) + 0.03 * rng.standard_normal((6, 6, 3))
    return np.clip(tint + slope[..., None] + blotches, 0, 1).astype(np.float32)


def _between(rng: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    """Random colour, interpolated between two neighbours in a list of colours."""
    position = rng.uniform(0, len(colours) - 1)
    low = min(int(position), len(colours) - 2)
    return colours[low] + (position - low) * (colours[low + 1] - colours[low])


def _write_images(
    folder: Path, names: list[str], config: SynthConfig, progress: Callable[[int], None] | None
) -> Codes:
    from joblib import Parallel, delayed

    chunks = [range(start, min(start + CHUNK, config.count)) for start in range(0, config.count, CHUNK)]
    tasks = (delayed(_write_chunk)(folder, [names[k] for k in chunk], chunk, config) for chunk in chunks)
    parts = []
    for part in Parallel(n_jobs=min(config.jobs, len(chunks)), return_as="generator")(tasks):
        parts.append(part)
        if progress is not None:
            progress(len(part.label))
    return Codes(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Codes.__dataclass_fields__)
    )


def _write_chunk(folder: Path, names: list[str], chunk: range, config: SynthConfig) -> Codes:
    cv2 = opencv()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        images, codes = render(config, np.array(chunk))
        for name, image, index in zip(names, images, chunk, strict=True):
            quality = int(np.random.default_rng([config.seed, index, 2]).integers(70, 96))
            _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            (folder / f"{name}_aligned.jpg").write_bytes(data.tobytes())
    finally:
        cv2.setNumThreads(before)
    return codes


def _write_tables(out: Path, names: list[str], codes: Codes, config: SynthConfig) -> None:
    import pandas as pd

    half = config.size / 2
    truth = {
        "pose": (codes.pose * _TO_FLAME, "xyz"),
        "camera": (codes.camera / half - [0, 1, 1], ("scale", "tx", "ty")),
        "shape": (codes.shape, range(codes.shape.shape[1])),
        "expression": (codes.expression, range(codes.expression.shape[1])),
    }
    columns = {
        "id": [f"basic/Image/aligned/{name}" for name in names],
        "label": [CLASSES[label] for label in codes.label],
        "split": [name.split("_")[0] for name in names],
    }
    columns |= {
        f"{block}:{name}": values[:, k]
        for block, (values, labels) in truth.items()
        for k, name in enumerate(labels)
    }
    frame = pd.DataFrame(columns)
    frame.to_csv(out / "codes.csv", index=False, float_format="%.6g", lineterminator="\n")
    description = {"model": load().basis, "classes": CLASSES, **asdict(config)}
    del description["jobs"]
    (out / "synth.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
