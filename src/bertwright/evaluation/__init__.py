"""Numbers, plots and tables."""
