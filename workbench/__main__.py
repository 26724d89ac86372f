"""`python -m workbench` is the `monai-aws` command without an installed script."""

from workbench.main import run

if __name__ == "__main__":
    raise SystemExit(run())
