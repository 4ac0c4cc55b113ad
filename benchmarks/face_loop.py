"""One program of bench_extract.py: detect faces in the same images once for each line of stdin.

Needs a Python with mediapipe 1.x or any version of ig3d: ``face_loop.py KIND IMAGES.npy TASK``, where KIND is
``mediapipe`` or ``ig3d``. Prints a JSON object for each round: CPU time, wall time and number of faces.
"""

import json
import os
import sys
import time

import numpy as np

BATCH = 32


def mediapipe_loop(task):
    import mediapipe

    tasks = mediapipe.tasks
    options = tasks.vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_path=task),
        running_mode=tasks.vision.RunningMode.IMAGE,
        num_faces=5,
        output_face_blendshapes=True,
    )
    landmarker = tasks.vision.FaceLandmarker.create_from_options(options)

    def run(images):
        faces = 0
        for image in images:
            data = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            faces += len(landmarker.detect(data).face_landmarks)
        return faces

    return run


def ig3d_loop():
    from ig3d.extract.detectors import load_detector

    detect = load_detector("facemesh")

    def run(images):
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return sum(len(faces) for batch in batches for faces in detect(list(batch)))

    return run


def main():
    kind, images, task = sys.argv[1:]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # mediapipe writes its log to stderr
    run = mediapipe_loop(task) if kind == "mediapipe" else ig3d_loop()
    images = np.load(images)
    run(images[:BATCH])
    print("ready", flush=True)
    for _ in sys.stdin:
        clock, processor = time.perf_counter(), time.process_time()
        faces = run(images)
        took = {"processor": time.process_time() - processor, "clock": time.perf_counter() - clock}
        print(json.dumps({**took, "faces": faces}), flush=True)


if __name__ == "__main__":
    main()
