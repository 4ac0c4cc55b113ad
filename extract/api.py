"""Codes of the faces of images, videos and a webcam, in Python: :func:`load_regressor`."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL.Image import Image

from ..errors import DatasetError, Ig3dError, UsageError, require
from ..features.pose import is_axis_angle, pose_degrees
from ..features.values import Block, Face
from .config import ExtractConfig, build, resolve_config
from .crop import prepare
from .datasets.videos import is_video, video_id
from .detectors import Detector, in_order
from .engine import unpadded_single_rows
from .image_formats import is_image_name
from .plugins import check_codes, check_faces
from .read import Unreadable, bounded_images, read_image, rgb_of
from .regressors import Regressor
from .sources.remote import is_remote
from .sources.video import read_index

ImageLike = np.ndarray | str | Path
# Batch size of a call with several images, and of frames() for files and videos. frames() processes the images of a
# webcam or an iterable one by one, so that each is returned at once.
_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class FaceCodes:
    """A face in an image, with its codes.

    Attributes
    ----------
    codes : dict of block name to (width,) float32 array
    xyxy : (4,) float32, pixels
        Box x0, y0, x1, y1; it may leave the image.
    score : float in [0, 1]
        Confidence of the detector; NaN where it gives none.
    landmarks : (p, 2 or 3) float32, pixels, or None
    pose_degrees : (3,) float64 or None
        Yaw, pitch and roll, degrees (:func:`ig3d.features.pose.pose_degrees`); None if the regressor has no pose.
    """

    codes: dict[str, np.ndarray]
    xyxy: np.ndarray
    score: float
    landmarks: np.ndarray | None
    pose_degrees: np.ndarray | None

    def __repr__(self) -> str:
        box = ", ".join(f"{value:.0f}" for value in self.xyxy)
        pose = (
            ""
            if self.pose_degrees is None
            else " yaw {:.0f} pitch {:.0f} roll {:.0f}".format(*self.pose_degrees)
        )
        codes = ", ".join(f"{name} ({len(values)})" for name, values in self.codes.items())
        return f"<FaceCodes xyxy ({box}) score {self.score:.2f}{pose}: {codes}>"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An image of a source, with its faces.

    Attributes
    ----------
    id : str
        ``clip#000123`` for a frame of a video; for a file of a folder its path in the folder without suffix; for a
        single file its name without suffix; for a webcam or an iterable the position, from 0.
    time : float
        Seconds from the first frame of the video, or since the webcam was opened; NaN for images.
    image : (H, W, 3) uint8 RGB
    faces : list of FaceCodes
        The largest confident face first.
    """

    id: str
    time: float
    image: np.ndarray
    faces: list[FaceCodes]

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"<Frame {self.id} time {self.time:.2f} image {width} x {height}: {self.faces}>"


def load_regressor(
    name: str = "facemesh",
    *,
    detector: str | None = None,
    also: Sequence[str] = (),
    device: str = "auto",
    precision: str = "fp32",
) -> FaceRegressor:
    """Load a regressor with its face detector, to call it on images.

    Parameters
    ----------
    name : str
        As for ``ig3d extract --regressor``.
    detector : str, optional
        As for ``ig3d extract --detector``; by default the first available one that the regressor prefers.
    also : sequence of str
        Optional blocks to compute in addition, such as ``landmarks`` for ``facemesh``.
    device : str
        ``auto`` (CUDA if available), ``cpu``, ``cuda`` or ``cuda:1``.
    precision : str
        Arithmetic of the regressor's networks: ``fp32``, ``fp64``, ``bf16``, ``fp16``.

    Returns
    -------
    FaceRegressor

    Raises
    ------
    UsageError : the regressor, detector, block, precision or device does not exist.
    MissingExtra, WeightsError : a package or a weights file is missing.

    Examples
    --------
    ::

        regressor = ig3d.load_regressor("facemesh")
        faces = regressor("photo.jpg")
        faces[0].codes["expression"]  # (30,) float32
    """
    config = ExtractConfig(
        regressor=name, detector=detector, also=tuple(also), device=device, precision=precision
    )
    config, _ = resolve_config(config)
    return FaceRegressor(*build(config))


class FaceRegressor:
    """Detects all faces of images and computes the codes of each.

    Constructed by :func:`load_regressor`. Codes agree with those of ``ig3d extract`` within 1e-5.

    Attributes
    ----------
    name : str
    blocks : dict of block name to Block
        Width, unit and meaning of the codes.
    """

    def __init__(self, regressor: Regressor, detector: Detector) -> None:
        self._regressor, self._detector = regressor, detector
        self.name = regressor.name
        self.blocks: dict[str, Block] = dict(regressor.blocks)

    def __repr__(self) -> str:
        blocks = ", ".join(f"{name} ({block.width})" for name, block in self.blocks.items())
        return f"<FaceRegressor {self.name}: {blocks}>"

    @overload
    def __call__(self, images: ImageLike) -> list[FaceCodes]: ...

    @overload
    def __call__(self, images: list[ImageLike] | tuple[ImageLike, ...]) -> list[list[FaceCodes]]: ...

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> list[FaceCodes] | list[list[FaceCodes]]:
        """Faces of an image, or of several.

        Parameters
        ----------
        images : array, Pillow image or path, or a sequence of these
            An array is RGB (H, W, 3), grey (H, W) or RGBA (H, W, 4), uint8 or floats in [0, 1]; an array (n, H, W, 3)
            has n images. A path may also name a member of an archive (``archive.zip!member.jpg``) or a frame of a video
            (``clip.mp4#000123``).

        Returns
        -------
        list of FaceCodes, or for several images a list of such lists
            Faces of the image, the largest confident one first; empty if none is detected or none has codes.

        Raises
        ------
        UsageError : an array is not an image.
        DatasetError : a file cannot be read.

        Warns
        -----
        RuntimeWarning
            The codes of a face cannot be computed or are not finite; the face is left out.
        """
        if _is_one(images):
            return self._faces([_as_pixels(images)], [_name(images, 0)])[0]
        if not isinstance(images, Iterable) or isinstance(images, bytes | bytearray):
            raise UsageError(
                f"{type(images).__name__}: is no image; pass an array, a Pillow image, a path, or a list of these"
            )
        names, pixels = [], []
        for number, image in enumerate(images):
            names.append(_name(image, number))
            pixels.append(_as_pixels(image))
        return [
            faces
            for start in range(0, len(pixels), _BATCH)
            for faces in self._faces(pixels[start : start + _BATCH], names[start : start + _BATCH])
        ]

    def frames(
        self, source: int | ImageLike | Iterable[ImageLike], *, fps: float | None = None
    ) -> Iterator[Frame]:
        """Iterate over the images of a source, in order.

        Parameters
        ----------
        source : path of a video, image or folder; index of a webcam; or iterable of arrays or paths of images
            From a folder, all images and videos in it and its sub-folders.
        fps : float, optional
            Frames per second that are taken from videos; by default, all frames. Ignored for other sources.

        Yields
        ------
        Frame

        Raises
        ------
        DatasetError : the file does not exist, or is not an image or video; or the folder has none.
        UsageError : the webcam cannot be opened, or ``fps`` is not a number above 0.

        Warns
        -----
        RuntimeWarning
            A frame, or a file of a folder or an iterable, cannot be read and is left out; or the codes of a face cannot
            be computed or are not finite, and the face is left out.
        """
        if fps is not None and not (isinstance(fps, int | float | np.number) and 0 < fps < float("inf")):
            raise UsageError(f"fps is {fps!r}; it must be a number above 0")
        if isinstance(source, int):
            images, batch_size = _webcam(source), 1
        elif isinstance(source, str | Path):
            images, batch_size = _files(str(source), fps), _BATCH
        elif _is_one(source):
            raise UsageError("frames: the source is one image; call the regressor on it instead")
        elif isinstance(source, Iterable):
            images, batch_size = _iterated(source), 1
        else:
            raise UsageError(
                f"frames: {type(source).__name__} is no source; pass a path, the index of a webcam, or images"
            )
        return self._frames(images, batch_size)

    def _frames(
        self, images: Generator[tuple[str, float, np.ndarray], None, None], batch_size: int
    ) -> Iterator[Frame]:
        with closing(images):  # releases the webcam, also if the caller stops early
            while batch := list(islice(images, batch_size)):
                names, times, pixels = zip(*batch, strict=True)
                for name, time, image, faces in zip(
                    names, times, pixels, self._faces(pixels, names), strict=True
                ):
                    yield Frame(name, time, image, faces)

    def _faces(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[list[FaceCodes]]:
        """Faces of images: detect → crop → regress, as in an extraction. Warnings contain the name of the image."""
        with unpadded_single_rows():  # a batch of one row is not padded to a full batch
            checked = check_faces(self._detector, self._detector(images), len(images))
            detected = [in_order(faces) for faces in checked]
            pairs = [
                (name, image, face)
                for name, image, faces in zip(names, images, detected, strict=True)
                for face in faces
            ]
            codes = iter(self._codes(pairs))
        return [
            [coded for face in faces if (coded := self._with_codes(face, next(codes), name))]
            for name, faces in zip(names, detected, strict=True)
        ]

    def _codes(self, items: Sequence[tuple[str, np.ndarray, Face]]) -> list[dict[str, np.ndarray]]:
        """Codes of each item (name of the image, pixels, face); an empty dict and a warning if they fail."""
        if not items:
            return []
        names, images, faces = zip(*items, strict=True)
        try:
            whole = self._detector.crop == "full image"
            batch = prepare(images, faces, self._regressor.needs, whole=whole)
            codes = check_codes(self._regressor, self._regressor(batch), len(items))
            return [{name: codes[name][row] for name in self.blocks} for row in range(len(items))]
        except Ig3dError:
            raise
        except Exception as exc:
            if len(items) > 1:
                return [codes for item in items for codes in self._codes([item])]
            problem = f"{type(exc).__name__}: {exc}"
            warnings.warn(f"{names[0]}: a face is left out: {problem}", RuntimeWarning, stacklevel=2)
            return [{}]

    def _with_codes(self, face: Face, codes: dict[str, np.ndarray], name: str) -> FaceCodes | None:
        """The face with its codes; None if it has none, or, with a warning, if some are not finite."""
        if not codes:
            return None
        if not all(np.isfinite(values).all() for values in codes.values()):
            warnings.warn(
                f"{name}: a face is left out: its codes are not finite", RuntimeWarning, stacklevel=2
            )
            return None
        block = self.blocks.get("pose")
        degrees = pose_degrees(codes["pose"]) if block is not None and is_axis_angle(block) else None
        return FaceCodes(codes, face.xyxy, face.score, face.landmarks, degrees)


def _is_one(images: Any) -> bool:
    """Whether this is a single image: a path, an array, or an image of Pillow."""
    return isinstance(images, str | Path | Image) or (isinstance(images, np.ndarray) and images.ndim < 4)


def _name(image: Any, number: int) -> str:
    """Name of an image in warnings: its path, or its position."""
    return str(image) if isinstance(image, str | Path) else f"image {number}"


def _as_pixels(image: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a path or an array.

    Raises
    ------
    UsageError : an array is not an image.
    DatasetError : a file cannot be read.
    """
    if isinstance(image, str | Path):
        return _read(str(image))
    if isinstance(image, Image):
        image = rgb_of(image)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not pixels.ndim:
        raise UsageError(f"{type(image).__name__}: is no image; pass an array, a Pillow image or a path")
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or not pixels.size:
        raise UsageError(
            f"an image has shape {pixels.shape}; pass RGB (H, W, 3), grey (H, W) or RGBA (H, W, 4)"
        )
    if pixels.dtype.kind == "f":
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise UsageError(
                f"an image of {pixels.dtype} has values from {pixels.min():g} to {pixels.max():g}; pass floats in "
                "[0, 1], or uint8"
            )
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UsageError(f"an image is an array of {pixels.dtype}; pass uint8, or floats in [0, 1]")
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    elif pixels.shape[2] == 4:  # composited on white, in the same way as transparent files
        alpha = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _read(path: str) -> np.ndarray:
    if not is_remote(path) and (is_video(path) or Path(path).is_dir()):
        kind = "a video" if is_video(path) else "a folder"
        raise DatasetError(f"{path}: is {kind}, not an image; iterate over it with frames({path!r})")
    try:
        with bounded_images():
            return read_image(path).pixels
    except (FileNotFoundError, Unreadable) as exc:
        raise DatasetError(f"{path}: {exc}") from exc


def _files(path: str, fps: float | None) -> Generator[tuple[str, float, np.ndarray], None, None]:
    """Id, time in seconds and pixels of an image, of the frames of a video, or of all files in a folder."""
    if not is_remote(path) and Path(path).is_dir():
        files = sorted(
            file.relative_to(path).as_posix()
            for file in Path(path).rglob("*")
            if (is_image_name(file.name) or is_video(file.name)) and file.is_file()
        )
        if not files:
            raise DatasetError(f"{path}: the folder has no images or videos")
        return _readable(path, files, fps)
    if is_video(path):
        folder, _, name = path.rpartition("/")
        return _video(folder or ".", name, fps)
    return (image for image in [(Path(path).stem, np.nan, _read(path))])


def _iterated(images: Iterable[ImageLike]) -> Generator[tuple[str, float, np.ndarray], None, None]:
    """Images of an iterable, without the files that cannot be read."""
    for number, image in enumerate(images):
        try:
            yield str(number), np.nan, _as_pixels(image)
        except DatasetError as exc:
            warnings.warn(f"left out: {exc}", RuntimeWarning, stacklevel=2)


def _readable(
    folder: str, files: Sequence[str], fps: float | None
) -> Generator[tuple[str, float, np.ndarray], None, None]:
    """Files of a folder, without those that cannot be read."""
    for file in files:
        try:
            if is_video(file):
                yield from _video(folder, file, fps)
            else:
                yield file.rpartition(".")[0], np.nan, _read(f"{folder}/{file}")
        except DatasetError as exc:
            warnings.warn(f"left out: {exc}", RuntimeWarning, stacklevel=2)


def _video(folder: str, path: str, fps: float | None) -> Generator[tuple[str, float, np.ndarray], None, None]:
    """Frames of a video."""
    try:
        index = read_index(f"{folder}/{path}")
    except (FileNotFoundError, Unreadable) as exc:
        raise DatasetError(f"{folder}/{path}: {exc}") from exc
    for number in index.at_rate(fps).tolist():
        member = index.member(number)
        try:
            pixels = _read(f"{folder}/{path}#{member}")
        except DatasetError as exc:
            warnings.warn(f"left out: {exc}", RuntimeWarning, stacklevel=2)
            continue
        yield f"{video_id(path)}#{member}", float(index.seconds[number]), pixels


@contextmanager
def _quiet_opencv(cv2: Any) -> Iterator[None]:
    """No log messages of OpenCV; without effect before OpenCV 4.13."""
    logging = getattr(cv2.utils, "logging", None)
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _webcam(index: int) -> Generator[tuple[str, float, np.ndarray], None, None]:
    """Position, time in seconds and pixels of the frames of a webcam, until it is unplugged or the caller stops."""
    require("cv2", wanted_by="webcam")
    import time

    import cv2

    with _quiet_opencv(cv2):  # the error below is enough
        camera = cv2.VideoCapture(index)
    if not camera.isOpened():
        raise UsageError(
            f"webcam {index} cannot be opened; check that it is connected, or pass another index"
        )

    def frames() -> Generator[tuple[str, float, np.ndarray], None, None]:
        start, number = time.monotonic(), 0
        try:
            while True:
                received, picture = camera.read()
                if not received:
                    return
                yield str(number), time.monotonic() - start, np.ascontiguousarray(picture[..., ::-1])
                number += 1
        finally:
            camera.release()

    return frames()
