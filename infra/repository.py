"""Where the assets are: the folders of this repository that stacks turn into images and function packages."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository. Every asset path and every file that synthesis reads starts here, so that the working
directory does not matter.
"""
