"""Print the codes that differ most between two classes of a store.

    python examples/mean_codes_of_classes.py rafdb.h5 happy sad

The difference of the means is in standard deviations of the code (Cohen's d).
"""

import sys

import ig3d


def main(store: str, first: str, second: str) -> None:
    samples = ig3d.read_samples(store)
    codes = ig3d.read_codes(store, ["expression", "blendshapes"]).dropna()
    label = samples.loc[codes.index, "label"]
    one, other = codes[label == first], codes[label == second]
    spread = ((one.var() + other.var()) / 2) ** 0.5
    difference = (one.mean() - other.mean()) / spread
    with ig3d.CodeStore(store) as opened:
        names = opened.blocks["blendshapes"].columns
    print(f"{first} ({len(one)} rows) minus {second} ({len(other)} rows)")
    for code in difference.abs().sort_values(ascending=False).index[:8]:
        block, _, column = code.partition(":")
        name = names[int(column)] if block == "blendshapes" else code
        print(f"  {name} {difference[code]:+.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
