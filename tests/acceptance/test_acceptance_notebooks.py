"""The notebooks run from their first cell to their last against the deployed platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from arrivals import Arrival

from workbench import environment
from workbench.deployment import Deployment

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(
    notebook: Path, deployment: Deployment, study: Arrival, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "load_environment", lambda name: deployment.session.environment)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{notebook.name}#{cell['id']}", "exec"), names)  # noqa: S102 - running the notebook is the test
            assert not cell["outputs"], "outputs are not committed: they may show patients"
    # The notebook opens the largest CT of the archive: the study's, or one that came later.
    assert names["volume"].array.shape == (names["first"]["number_of_instances"], 48, 64)
    assert names["first"]["number_of_instances"] >= len(study.images)
