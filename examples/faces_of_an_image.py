"""Print the pose and the strongest blendshapes of each face of an image.

python examples/faces_of_an_image.py photo.jpg
"""

import sys

import ig3d


def main(path: str) -> None:
    regressor = ig3d.load_regressor("facemesh")
    names = regressor.blocks["blendshapes"].columns
    faces = regressor(path)
    if not faces:
        print(f"{path}: no face")
    for number, face in enumerate(faces):
        yaw, pitch, roll = face.pose_degrees
        print(f"face {number}: yaw {yaw:.0f}, pitch {pitch:.0f}, roll {roll:.0f} degrees")
        scores = face.codes["blendshapes"]
        for index in scores.argsort()[::-1][:5]:
            print(f"  {names[index]} {scores[index]:.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
