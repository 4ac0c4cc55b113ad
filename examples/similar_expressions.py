"""Print the images of a store with the expressions most similar to that of a photograph.

    python examples/similar_expressions.py photo.jpg rafdb.h5

Expression codes describe the expression apart from pose and identity, so different persons are found.
"""

import sys

import numpy as np

import ig3d


def main(photo: str, store: str) -> None:
    faces = ig3d.load_regressor("facemesh")(photo)
    if not faces:
        sys.exit(f"{photo}: no face")
    codes = ig3d.read_codes(store, ["expression"]).dropna()
    distance = np.linalg.norm(codes - faces[0].codes["expression"], axis=1)
    paths = ig3d.read_samples(store).loc[codes.index, "path"]
    for row in distance.argsort()[:5]:
        print(f"{distance[row]:.2f}  {paths.iloc[row]}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
