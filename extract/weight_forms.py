"""What each kind of official file holds: how ``ig3d weights`` recognises a file, whatever its name."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..features.unpickle import plain, read_arrays

Shape = tuple[int | None, ...]  # None: any length


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of file: ``marks`` are entries that only it has, ``shapes`` are those that it must have.

    Entries are named by their keys, joined by ``/`` (``E_flame/layers.2.weight``).
    """

    name: str
    title: str
    marks: tuple[str, ...]
    shapes: Mapping[str, Shape] = field(default_factory=dict)


_EMOCA = "state_dict/deca.E_flame."
_FLAME: dict[str, Shape] = {
    "v_template": (5023, 3),
    "f": (None, 3),
    "shapedirs": (5023, 3, 400),
    "posedirs": (5023, 3, 36),
    "weights": (5023, 5),
    "J_regressor": (5, 5023),
    "kintree_table": (2, 5),
}
_BODY = ("v_template", "shapedirs", "posedirs", "J_regressor")

FORMS = (
    Form(
        "smirk",
        "SMIRK's checkpoint",
        ("smirk_encoder.pose_encoder.encoder.conv_stem.weight",),
        {
            "smirk_encoder.pose_encoder.pose_cam_layers.0.weight": (6, 576),
            "smirk_encoder.shape_encoder.shape_layers.0.weight": (300, 960),
            "smirk_encoder.expression_encoder.expression_layers.0.weight": (55, 960),
        },
    ),
    Form(
        "emoca",
        "an EMOCA checkpoint",
        (_EMOCA + "layers.2.weight", "state_dict/deca.E_expression.layers.2.weight"),
        {
            _EMOCA + "encoder.conv1.weight": (64, 3, 7, 7),
            _EMOCA + "layers.2.weight": (236, 1024),
            "state_dict/deca.E_expression.layers.2.weight": (None, 1024),
        },
    ),
    Form("emoca-deca", "DECA in EMOCA's layout (ig3d reads deca_model.tar)", (_EMOCA + "layers.2.weight",)),
    Form(
        "deca",
        "DECA's checkpoint",
        ("E_flame/layers.2.weight", "E_detail/layers.2.weight"),
        {
            "E_flame/encoder.conv1.weight": (64, 3, 7, 7),
            "E_flame/layers.2.weight": (236, 1024),
            "E_detail/layers.2.weight": (128, 1024),
        },
    ),
    Form(
        "face-landmarker",
        "MediaPipe's Face Landmarker task",
        ("face_detector.tflite", "face_landmarks_detector.tflite"),
    ),
    Form(
        "sfd",
        "face-alignment's SFD detector",
        ("conv1_1.weight", "conv7_2_mbox_loc.weight"),
        {"conv1_1.weight": (64, 3, 3, 3), "conv7_2_mbox_conf.weight": (2, 256, 3, 3)},
    ),
    Form(
        "fan2d",
        "face-alignment's 2-D landmark network",
        ("conv1.weight", "l3.weight", "bn_end3.weight"),
        {"conv1.weight": (64, 3, 7, 7), "l3.weight": (68, 256, 1, 1)},
    ),
    Form("flame-open", "FLAME 2023 Open", (*_BODY, "supr_expression_metadata/n_expr"), _FLAME),
    Form("flame", "a FLAME model", _BODY, _FLAME),
    Form(
        "landmark-table",
        "FLAME's table of 68 landmarks",
        ("dynamic_lmk_faces_idx", "full_lmk_faces_idx"),
        {
            "static_lmk_faces_idx": (51,),
            "static_lmk_bary_coords": (51, 3),
            "dynamic_lmk_faces_idx": (79, 17),
            "dynamic_lmk_bary_coords": (79, 17, 3),
            "full_lmk_faces_idx": (1, 68),
            "full_lmk_bary_coords": (1, 68, 3),
        },
    ),
    Form(
        "mediapipe-table",
        "FLAME's table of 105 MediaPipe landmarks",
        ("lmk_face_idx", "lmk_b_coords", "landmark_indices"),
        {"lmk_face_idx": (105,), "lmk_b_coords": (105, 3), "landmark_indices": (105,)},
    ),
    Form("eyelid", "SMIRK's eyelid offsets", ("array of 5023 x 3",)),
    Form(
        "masks",
        "FLAME's vertex masks",
        ("eye_region", "left_eyeball", "scalp", "lips"),
        {"left_eyeball": (546,), "right_eyeball": (546,), "face": (None,)},
    ),
)


def recognise(path: Path) -> Form:
    """The kind of an official file, by what it holds; executes nothing of it.

    Raises
    ------
    WeightsError : it is none of :data:`FORMS`, or of one with other shapes, or unreadable; says what was seen.
    """
    entries = _entries(path)
    for form in FORMS:
        if all(mark in entries for mark in form.marks):
            _check_shapes(path, form, entries)
            return form
    raise WeightsError(f"{path}: expected an official file of ig3d weights, got {_describe(entries)}")


def _check_shapes(path: Path, form: Form, entries: Mapping[str, Any]) -> None:
    for key, wanted in form.shapes.items():
        found = getattr(entries.get(key), "shape", None)
        if (
            found is None
            or len(found) != len(wanted)
            or any(want not in (None, have) for want, have in zip(wanted, found, strict=True))
        ):
            shape = " x ".join("n" if size is None else str(size) for size in wanted)
            got = "none" if found is None else " x ".join(map(str, found)) or "a number"
            raise WeightsError(f"{path}: expected {form.title} with {key} of {shape}, got {got}")


def _entries(path: Path) -> dict[str, Any]:
    """Everything of the file by its keys, two levels deep; of a task bundle the names of its parts."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if any(name.endswith(".tflite") for name in names):
                    damaged = archive.testzip()
                    if damaged is not None:
                        raise WeightsError(
                            f"{path}: expected a sound task file, got a damaged {plain(damaged)}"
                        )
                    return dict.fromkeys(names)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise WeightsError(f"{path}: expected a sound zip archive, got: {plain(error)}") from error
    content = read_arrays(path)
    if not isinstance(content, dict):
        shape = getattr(content, "shape", None)
        return {"" if shape is None else f"array of {' x '.join(map(str, shape)) or 'one number'}": content}
    entries = {str(key): value for key, value in content.items()}
    for key, value in content.items():
        if isinstance(value, dict):
            entries |= {f"{key}/{inner}": deep for inner, deep in value.items()}
    return entries


def _describe(entries: Mapping[str, Any]) -> str:
    """What was seen, for a refusal."""
    (key, content), *others = entries.items() or [("", {})]
    if not others and key.startswith("array of "):
        return f"an {key}"
    if not others and not key:
        name = getattr(content, "name", "")
        return f"an object of {plain(name)}" if name else f"a {type(content).__name__}"
    some = ", ".join(plain(key, 60) for key in list(entries)[:3])
    return f"a table of {len(entries)} entries ({some}{', ...' if len(entries) > 3 else ''})"
