"""Measures of trained models: calibration, robustness, interactions of modalities, cost, data efficiency."""
