"""The official files by ig3d's names: where each lies, its licence, how to get it, its hash as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..features.unpickle import plain

_EMOCA = "https://download.is.tue.mpg.de/emoca/assets/EMOCA/models/"
_FAN = "https://www.adrianbulat.com/downloads/python-fan/"
_FLAME = "register at https://flame.is.tue.mpg.de, accept its licence and download"
_MPG = "non-commercial scientific research only (Max Planck Gesellschaft)"
_IN_SMIRK = "lies in SMIRK's repository (github.com/georgeretsi/smirk), under assets:"
_DERIVED = "derived from FLAME: its licence is unclear, treat it as FLAME's"


@dataclass(frozen=True, slots=True)
class Official:
    """One official file.

    Parameters
    ----------
    name : str
        ig3d's name of it.
    places : tuple of str
        Where it may lie under a weights folder, best first (glob patterns); the first is where ``add`` puts it.
    form : str
        Its kind, a name of :data:`.weight_forms.FORMS`.
    licence, how : str
        In words: what one may do with it, and how to get it.
    sha256 : str
        As published or reported; its beginning where no more is known; empty where nothing is.
    size : int
        Bytes; 0 where unknown.
    url : str
        Where it may be fetched without an account; empty where it may not.
    hint : str
        Regular expression over the names on its way that tells releases of the same form apart.
    torch_cache : bool
        Also looked for where torch.hub keeps downloads (face-alignment's).
    """

    name: str
    places: tuple[str, ...]
    form: str
    licence: str
    how: str
    sha256: str = ""
    size: int = 0
    url: str = ""
    hint: str = ""
    torch_cache: bool = False

    @property
    def place(self) -> str:
        """Path under a weights folder where ``add`` puts it."""
        return self.places[0]


def _emoca(name: str, release: str, hint: str) -> Official:
    return Official(
        name,
        places=(f"{release}/checkpoint.ckpt", f"{release}/**/*.ckpt"),
        form="emoca",
        licence=_MPG,
        how=f"register at https://emoca.is.tue.mpg.de and download {_EMOCA}{release}.zip",
        hint=hint,
    )


def _flame(name: str, place: str, page: str, hint: str, sha256: str = "", size: int = 0) -> Official:
    return Official(
        name,
        places=(place, place.rpartition("/")[2]) if "generic" not in place else (place,),
        form="flame",
        licence="registration; non-commercial scientific research only",
        how=f"{_FLAME} {page}",
        sha256=sha256,
        size=size,
        hint=hint,
    )


_TABLE = (
    Official(
        "smirk",
        places=("SMIRK_em1.pt", "pretrained_models/SMIRK_em1.pt"),
        form="smirk",
        licence="MIT (SMIRK's repository; parts of its code come from DECA and FLAME)",
        how="Google Drive file 1T65uEd9dVLHgVw5KiUYL66NUee-MCzoE (link in SMIRK's README and quick_install.sh)",
        sha256="26b234e3cc31a5de226bcba4321bb5d7343a2ad48234c028b57a1c2f8c2d22d0",
        size=140_495_895,
    ),
    _emoca("emoca", "EMOCA_v2_lr_mse_20", r"EMOCA_v2_lr_mse|=3\.25521111"),
    _emoca("emoca_v2_mp", "EMOCA_v2_mp", r"EMOCA_v2_mp|=3\.25273848"),
    _emoca("emoca_v2_cos", "EMOCA_v2_lr_cos_1.5", r"EMOCA_v2_lr_cos"),
    _emoca("emoca_v1", "EMOCA", r"^EMOCA(\.zip)?$|=9\.44489288"),
    Official(
        "deca",
        places=("deca_model.tar", "data/deca_model.tar"),
        form="deca",
        licence=_MPG,
        how="Google Drive file 1rp8kdyLPvErw2dTmqtjISRVvQLj6Yzje (link in DECA's README and fetch_data.sh)",
        sha256="e714ed293054cba5eea9c96bd3b6b57880074cd84b3fd00d606cbaf0bee7c5c2",
        size=434_142_943,
    ),
    Official(
        "facemesh",
        places=("face_landmarker.task", "assets/face_landmarker.task"),
        form="face-landmarker",
        licence="Apache-2.0 (Google)",
        how="ig3d weights get facemesh",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        size=3_758_596,
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    ),
    Official(
        "sfd",
        places=("s3fd-619a316812.pth",),
        form="sfd",
        licence="BSD-3 (face-alignment)",
        how="ig3d weights get sfd",
        sha256="619a316812",
        url=_FAN + "s3fd-619a316812.pth",
        torch_cache=True,
    ),
    Official(
        "fan2d",
        places=("2DFAN4-11f355bf06.pth.tar",),
        form="fan2d",
        licence="BSD-3 (face-alignment)",
        how="ig3d weights get fan2d",
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
        53_023_716,
    ),
    _flame(
        "flame2023",
        "FLAME2023/flame2023.pkl",
        "FLAME 2023",
        r"flame[ _-]?2023(?!.?open)",
        "8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0",
    ),
    Official(
        "flame2023_open",
        places=("FLAME2023_Open/flame2023_Open.pkl", "flame2023_Open.pkl"),
        form="flame-open",
        licence="reported as CC BY 4.0 in its readme; read it",
        how=f"{_FLAME} FLAME2023Open.zip",
        sha256="e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623",
    ),
    Official(
        "flame_landmarks",
        places=("landmark_embedding.npy",),
        form="landmark-table",
        licence=_DERIVED,
        how=f"{_IN_SMIRK} landmark_embedding.npy (DECA's data/ has the same file)",
        sha256="8095348e",
        size=31_292,
    ),
    Official(
        "mediapipe_landmarks",
        places=(
            "mediapipe_landmark_embedding.npz",
            "mediapipe_landmark_embedding/mediapipe_landmark_embedding.npz",
        ),
        form="mediapipe-table",
        licence=_DERIVED,
        how=f"{_IN_SMIRK} mediapipe_landmark_embedding/mediapipe_landmark_embedding.npz",
        sha256="8863363013fc",
        size=4_518,
    ),
    Official(
        "eyelid_left",
        places=("l_eyelid.npy",),
        form="eyelid",
        licence=_DERIVED,
        how=f"{_IN_SMIRK} l_eyelid.npy",
        hint=r"^l(eft)?_eyelid",
    ),
    Official(
        "eyelid_right",
        places=("r_eyelid.npy",),
        form="eyelid",
        licence=_DERIVED,
        how=f"{_IN_SMIRK} r_eyelid.npy",
        hint=r"^r(ight)?_eyelid",
    ),
    Official(
        "flame_masks",
        places=("FLAME_masks.pkl", "FLAME_masks/FLAME_masks.pkl"),
        form="masks",
        licence=_DERIVED,
        how=f"{_IN_SMIRK} FLAME_masks/FLAME_masks.pkl (or FLAME's download page)",
        sha256="ccefbe1a",
        size=215_062,
    ),
)
OFFICIAL: dict[str, Official] = {entry.name: entry for entry in _TABLE}


def official(name: str) -> Official:
    """The table's entry.

    Raises
    ------
    UsageError : there is no such name.
    """
    if name not in OFFICIAL:
        raise UsageError(f"weights: expected one of {', '.join(OFFICIAL)}, got {plain(name)!r}")
    return OFFICIAL[name]
