"""Tables to predictions, fused, measured and reported.

::

    fuse  train  predict    one run: 2D and codes; codes alone; new rows
    protocol/               which rows are reported, and who is fitted on which
    heads/  rules/          what predicts from codes; what fuses two predictions (trees: LightGBM for both)
    measures/               how good predictions are, and how sure that is: metrics, intervals, a table's figures
    report/                 terminal, CSV, LaTeX, HTML
    ablation/               a grid of runs as one table
    intermediate/           modules on a network's features and the codes (training/: what torch trainings share)
"""
