"""Late and intermediate fusion: fit, measure and report predictions.

::

    fuse  train  predict    runs: 2D predictions with 3D; heads on codes alone; a saved model on new rows
    plan                    which rows are reported, and on which rows models are fitted
    heads/  rules/          estimators on codes; fusion rules of 2D and 3D predictions (trees: LightGBM for both)
    crossfit  conditions    fit the rules on the rows of the plan, with real and permuted codes
    evaluate/               metrics, intervals, tests
    report/                 terminal, CSV, LaTeX, HTML
    ablation/               a grid of runs as one table
    intermediate/           fusion modules on features of a network and the codes
    training/               training loop of the torch modules
"""
