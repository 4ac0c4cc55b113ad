"""What a list of samples says, by id."""

from __future__ import annotations

from ig3d.features.samples import Sample, SampleList


def by_id(samples: SampleList) -> dict[str, Sample]:
    return {sample.id: sample for sample in samples.samples}


def words(samples: SampleList, sample_id: str) -> tuple[str, str]:
    """Class and split of a sample, in words."""
    sample = by_id(samples)[sample_id]
    return samples.classes[sample.label] if sample.label >= 0 else "none", sample.split.name
