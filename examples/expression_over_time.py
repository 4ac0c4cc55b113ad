"""Write the blendshape scores of a video's largest face over time to a CSV.

    python examples/expression_over_time.py clip.mp4 scores.csv 5

The last argument is the number of frames per second to take.
"""

import sys

import pandas as pd

import ig3d


def main(video: str, table: str, fps: float) -> None:
    regressor = ig3d.load_regressor("facemesh")
    names = regressor.blocks["blendshapes"].columns
    rows = []
    for frame in regressor.frames(video, fps=fps):
        scores = frame.faces[0].codes["blendshapes"] if frame.faces else [float("nan")] * len(names)
        rows.append({"id": frame.id, "time": frame.time, **dict(zip(names, scores, strict=True))})
    pd.DataFrame(rows).to_csv(table, index=False)
    print(f"{table}: {len(rows)} frames")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
