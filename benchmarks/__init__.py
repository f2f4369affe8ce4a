"""Miyagi beside lightly and torchvision, in one run: `make bench`, or `python -m benchmarks`.

Every number comes from a process of its own that ran alone; what is compared takes turns (A B A B); ratios are taken
pair by pair, and the median of them is what counts. `benchmarks/params.yaml` says what is measured.
"""
