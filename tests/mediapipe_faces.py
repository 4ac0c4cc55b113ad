"""MediaPipe's own Face Landmarker, as the reference for ig3d's: points and blendshapes of images.

``python tests/mediapipe_faces.py face_landmarker.task IMAGE...``, in an environment with mediapipe, writes
tests/data/facemesh.npz: the files' bytes, and the points and scores of each face that mediapipe detects at confidence
0.5. The recorded ones are of mediapipe 1.2.3, on faces of ``ig3d synth --seed 14``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

RECORD = Path(__file__).parent / "data" / "facemesh.npz"


def decode(content: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 pixels of an encoded image."""
    return np.asarray(Image.open(io.BytesIO(content.tobytes())).convert("RGB"))


def landmarks(
    images: Sequence[np.ndarray], task: Path, *, confidence: float = 0.5, faces: int = 5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(k, 478, 3) points in pixels and (k, 52) scores of the k faces of each image."""
    import mediapipe

    tasks = mediapipe.tasks
    options = tasks.vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_buffer=task.read_bytes()),
        running_mode=tasks.vision.RunningMode.IMAGE,
        num_faces=faces,
        min_face_detection_confidence=confidence,
        min_face_presence_confidence=confidence,
        output_face_blendshapes=True,
    )
    with tasks.vision.FaceLandmarker.create_from_options(options) as landmarker:
        for image in images:
            data = np.ascontiguousarray(image)
            result = landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=data))
            height, width = image.shape[:2]
            points = [
                [(p.x * width, p.y * height, p.z * width) for p in face] for face in result.face_landmarks
            ]
            scores = [[shape.score for shape in face] for face in result.face_blendshapes]
            yield (
                np.array(points, np.float32).reshape(-1, 478, 3),
                np.array(scores, np.float32).reshape(-1, 52),
            )


def record(files: Sequence[str], task: Path) -> None:
    contents = [np.frombuffer(Path(file).read_bytes(), np.uint8) for file in files]
    found = landmarks([decode(content) for content in contents], task)
    arrays = {}
    for k, (content, (points, scores)) in enumerate(zip(contents, found, strict=True)):
        arrays |= {f"image{k}": content, f"points{k}": points, f"blendshapes{k}": scores}
    np.savez_compressed(RECORD, **arrays)


if __name__ == "__main__":
    record(sys.argv[2:], Path(sys.argv[1]))
