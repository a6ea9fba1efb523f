"""Benchmarks: ratios against peers and against a limit, all cases in one run and taking turns."""
