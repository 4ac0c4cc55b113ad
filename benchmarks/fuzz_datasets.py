"""Valid datasets for ``fuzz_inputs.py``, in the layouts that ``ig3d.extract.datasets`` reads."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from fuzz_readers import Reader, Shelf, extract, lines, picture

USES = ("Training", "PublicTest", "PrivateTest")


def datasets(shelf: Shelf) -> Iterator[Reader]:
    """Readers of datasets; the lists of labels are damaged, the images are not."""
    for name, (dataset, files) in forms().items():
        lists = tuple(file for file in files if not file.endswith((".jpg", ".png")))
        command = extract("DIR", "DIR/../out.h5", "--dataset", dataset)
        yield shelf.reader(f"dataset {name}", files, *command, damaged=lists)


def forms() -> dict[str, tuple[str, dict[str, bytes]]]:
    """Name of the layout -> dataset and files."""
    image = picture(0, "JPEG")
    pixels = " ".join(map(str, range(256)))
    fer = lines("emotion,pixels,Usage", *(f"{n % 7},{pixels},{USES[n % 3]}" for n in range(9)))
    votes = lines(
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF",
        *(f"{USES[n % 3]},fer{n:07d}.png,10,0,0,0,0,0,0,0,0,0" for n in range(9)),
    )
    raf = [f"{split}_{n:05d}" for split in ("train", "test") for n in range(1, 8)]
    wild = {"Train_Set": "v1", "Validation_Set": "v2"}
    layouts = {
        "fer2013": ("fer2013", {"fer2013.csv": fer}),
        "ferplus": ("ferplus", {"fer2013.csv": fer, "fer2013new.csv": votes}),
        "rafdb": (
            "rafdb",
            {
                "basic/EmoLabel/list_patition_label.txt": lines(
                    *(f"{name}.jpg {n % 7 + 1}" for n, name in enumerate(raf))
                ),
                **{f"basic/Image/aligned/{name}_aligned.jpg": image for name in raf},
            },
        ),
        "expw": (
            "expw",
            {
                "label/label.lst": lines(*(f"{n}.jpg 0 1 1 10 10 50.0 {n % 7}" for n in range(9))),
                **{f"image/origin/{n}.jpg": image for n in range(9)},
            },
        ),
        "affectnet arrays": (
            "affectnet",
            {
                **{f"{split}/images/{n}.jpg": image for split in ("train_set", "val_set") for n in range(3)},
                **{
                    f"{split}/annotations/{n}_{key}.npy": array(str(n) if key == "exp" else "0.5")
                    for split in ("train_set", "val_set")
                    for n in range(3)
                    for key in ("exp", "val", "aro", "lnd")
                },
            },
        ),
        "affectnet lists": (
            "affectnet",
            {
                **{f"Manually_Annotated_Images/1/{n}.jpg": image for n in range(4)},
                **{
                    f"Manually_Annotated_file_lists/{name}.csv": lines(
                        "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
                        "valence,arousal",
                        *(f"1/{n}.jpg,0,0,5,5,1;2,{n},0.1,0.2" for n in rows),
                    )
                    for name, rows in (("training", (0, 1)), ("validation", (2, 3)))
                },
            },
        ),
        "affwild2": (
            "affwild2",
            {
                **{
                    f"EXPR_Classification_Challenge/{split}/{video}.txt": lines(
                        "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other", "0", "1", "-1", "2"
                    )
                    for split, video in wild.items()
                },
                **{
                    f"cropped_aligned/{video}/{n:05d}.jpg": image
                    for video in wild.values()
                    for n in (1, 2, 4)
                },
            },
        ),
        "ckplus": (
            "ckplus",
            {f"Emotion/S00{n}/001/S00{n}_001_00000003_emotion.txt": b"   3.0000000e+00\n" for n in range(3)}
            | {
                f"cohn-kanade-images/S00{n}/001/S00{n}_001_{k:08d}.png": picture(k)
                for n in range(3)
                for k in (1, 2, 3)
            },
        ),
        "manifest": (
            "manifest",
            {
                "manifest.csv": lines(
                    "path,label,split,valence,x0,y0,x1,y1",
                    *(f"a/{n}.jpg,happy,train,0.1,1,1,9,9" for n in range(6)),
                ),
                **{f"a/{n}.jpg": image for n in range(6)},
            },
        ),
    }
    with suppress(ModuleNotFoundError):
        layouts["parquet"] = ("parquet", {"a.parquet": parquet(image)})
    return layouts


def array(value: str) -> bytes:
    handle = io.BytesIO()
    np.save(handle, np.array(value))
    return handle.getvalue()


def parquet(image: bytes) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    handle = io.BytesIO()
    table = {"label": [1, 2] * 5, "image": [{"bytes": image, "path": "x"}] * 10, "split": ["train"] * 10}
    pq.write_table(pa.table(table), handle, row_group_size=4)
    return handle.getvalue()
