"""What is measured of trained rows: calibration, robustness, interaction of modalities, cost, data efficiency."""
