"""Images to codes: datasets, reading, detectors, crops, regressors, and the run that ties them.

``read → detect → crop → regress → write`` is written once, in :mod:`ig3d.extract.stages`.
"""
