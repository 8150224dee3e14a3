"""Measurements: retrieval, robustness, calibration, published benchmarks, and the pages that show them."""
