#!/usr/bin/env bash
# Run the whole workflow on synthetic faces, offline. Lines of the output that start with $ are commands that you can type.
#   scripts/demo.sh FOLDER   (environment: BIN, folder of the ig3d command; COUNT, number of faces)
set -euo pipefail
demo=${1:?usage: scripts/demo.sh FOLDER}
bin=${BIN:-.venv/bin}
count=${COUNT:-2400}

ig3d() {
  printf '\n\033[1m$ ig3d %s\033[0m\n' "$*"
  "$bin/ig3d" "$@"
}

mkdir -p "$demo"
started=$SECONDS
if [ -e "$demo/faces/basic/EmoLabel/list_patition_label.txt" ]; then
  printf '%s\n' "$demo/faces: the faces of an earlier demo are reused"
else
  # remove the folder of an interrupted demo, which has no list file
  if [ -e "$demo/faces" ]; then rm -r "$demo/faces/basic" && rmdir "$demo/faces"; fi
  ig3d synth "$demo/faces" --count "$count" --seed 7
fi
# one thread, so that the network does not depend on the number of cores; 20 epochs, to be fast
OMP_NUM_THREADS=1 ig3d train-2d "$demo/faces" --dataset rafdb --epochs 20 --out "$demo/2d.safetensors"
ig3d logits "$demo/faces" --dataset rafdb --network "$demo/2d.safetensors" --out "$demo/2d.npz"
ig3d extract "$demo/faces" --dataset rafdb --regressor facemesh --out "$demo/3d.h5" --restart
ig3d fuse --2d-logits "$demo/2d.npz" --3d-store "$demo/3d.h5" --out "$demo/fused" --plot "$demo/fused/gain.png"
ig3d preview "$demo/3d.h5" --out "$demo/faces.png"

cat <<END

The demo took $((SECONDS - started)) s (without installation). Look at
  $demo/fused/report.html      the report: open it in a browser first
  $demo/faces.png              synthetic faces with the detected contours
  $demo/fused/gain.png         plot of the gain of each rule, with confidence intervals
  $demo/fused/predictions.csv  predictions of all rules, by sample id
  $demo/fused/figures.csv      all metrics and differences, with their intervals
  $demo/fused/record.json      the rows on which each model was fitted

With your own data (train/CLASS/ and test/CLASS/; for RAF-DB and others see docs/datasets.md) and the logits of your own network:
  make extract DATASET=folder ROOT=/path/to/images OUT=mine.h5
  $bin/ig3d fuse --2d-logits logits.npz --3d-store mine.h5 --out fused
END
