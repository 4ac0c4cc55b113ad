"""What every part shares: values, class names, code blocks, the store, predictions, the join.

Needs numpy and h5py only; pandas is imported when a table file is read.
"""
