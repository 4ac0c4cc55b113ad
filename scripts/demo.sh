#!/usr/bin/env bash
# The main job from nothing, offline: every line that starts with $ is a command you can type yourself.
#   scripts/demo.sh FOLDER   (BIN: where ig3d lies; COUNT: how many faces)
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
  printf '%s\n' "$demo/faces: faces of an earlier demo are used again"
else
  # an interrupted demo leaves a folder without list file; only such a folder is removed
  if [ -e "$demo/faces" ]; then rm -r "$demo/faces/basic" && rmdir "$demo/faces"; fi
  ig3d synth "$demo/faces" --count "$count" --seed 7
fi
# on one thread, so that any number of cores gives the same network; 20 epochs, which is soon done
OMP_NUM_THREADS=1 ig3d train-2d "$demo/faces" --dataset rafdb --epochs 20 --out "$demo/2d.safetensors"
ig3d logits "$demo/faces" --dataset rafdb --network "$demo/2d.safetensors" --out "$demo/2d.npz"
ig3d extract "$demo/faces" --dataset rafdb --regressor facemesh --out "$demo/3d.h5" --restart
ig3d fuse --2d-logits "$demo/2d.npz" --3d-store "$demo/3d.h5" --out "$demo/fused" --plot "$demo/fused/gain.png"
ig3d preview "$demo/3d.h5" --out "$demo/faces.png"

cat <<END

The demo took $((SECONDS - started)) s. Look at
  $demo/faces.png              synthetic faces with the detected points
  $demo/fused/gain.png         what each rule adds to the 2D network, with intervals
  $demo/fused/predictions.csv  every prediction of every rule, by id
  $demo/fused/metrics.json     every figure, what was assumed, what was fitted on which rows

With your own data (a folder per class; docs/datasets.md has RAF-DB and tables) and your own network's logits:
  make extract DATASET=folder ROOT=/path/to/images OUT=mine.h5
  $bin/ig3d fuse --2d-logits logits.npz --3d-store mine.h5 --out fused
END
