"""Ratios against PyTorch, scikit-learn and our own plain path: `python -m benchmarks.step`."""
