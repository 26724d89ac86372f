"""The whole job on one environment, step by step: `python -m workbench.demo`."""
