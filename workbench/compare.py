"""Shows model packages side by side, and says which of them may be compared at all: those that were measured
on the same patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.registry import ModelPackage, newest_packages, read_package
from workbench.training.evaluation import Evaluation, counted_patients

LARGEST = 20
"""Packages that fit side by side, or nearly."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Packages, the newest first, or in the order in which they were named."""

    packages: tuple[ModelPackage, ...]
    groups: tuple[str, ...]
    """A letter for each package: those with the same letter were measured on the same cases; "" was not."""

    @property
    def comparable(self) -> bool:
        """Whether all of them were measured on the same cases."""
        return len(set(self.groups)) == 1 and "" not in self.groups

    def to_json(self) -> dict[str, object]:
        return {
            "comparable": self.comparable,
            "packages": [
                {**package.to_json(), "measuredOn": group or None}
                for package, group in zip(self.packages, self.groups, strict=True)
            ],
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows for a screen: a column for each package."""
        header = ["", *(_name(one) for one in self.packages)]
        metrics = dict.fromkeys(
            name for one in self.packages if one.evaluation for name in one.evaluation.metrics
        )
        rows = [
            ["status", *(one.status for one in self.packages)],
            ["created", *(one.created.strftime("%Y-%m-%d %H:%M") for one in self.packages)],
            ["bundle", *(_of(one, _bundle) for one in self.packages)],
        ]
        rows += [
            [name.replace("_", " "), *(_metric(one.evaluation, name) for one in self.packages)]
            for name in metrics
        ]
        rows += [
            ["measured on", *(_of(one, _measured_on) for one in self.packages)],
            ["same cases", *(group or "-" for group in self.groups)],
            ["manifest", *(one.manifest_uri.rpartition("/")[2] for one in self.packages)],
            ["training job", *(one.training_job for one in self.packages)],
            ["weights", *(_of(one, _weights) for one in self.packages)],
        ]
        return header, rows

    def notes(self) -> list[str]:
        """What the table does not say by itself."""
        notes = [f"{_name(one)}: {one.problem}" for one in self.packages if one.problem]
        if len(self.packages) > 1 and not self.comparable:
            notes.append(
                "Scores with different letters under `same cases` were measured on different cases: their "
                "difference says nothing about the models."
            )
        if any(one.evaluation and one.evaluation.held_out is False for one in self.packages):
            notes.append("A score on patients seen in training says nothing about new ones.")
        return notes


def compare(
    deployment: Deployment,
    packages: Sequence[str] = (),
    *,
    task: str | None = None,
    limit: int = 5,
) -> Comparison:
    """Read packages and their evaluations.

    Args:
        deployment: The environment's stacks.
        packages: ARNs, or version numbers of the task's packages; none takes the newest.
        task: The training task; None takes the only one. ARNs need none.
        limit: How many of the newest.

    Raises:
        WorkbenchError: There is no package, or more than fit.
    """
    if max(len(packages), limit) > LARGEST:
        raise WorkbenchError(
            f"{max(len(packages), limit)} packages do not fit side by side.",
            advice=f"Name at most {LARGEST}, or give a smaller --limit.",
        )
    if packages:
        arns = tuple(_arn(deployment, one, task) for one in packages)
    else:
        chosen = deployment.task(task)
        arns = newest_packages(deployment, chosen, limit=limit)
        if not arns:
            raise WorkbenchError(
                f"Task {chosen.name} has no model package yet.",
                advice=f"Train one: monai-aws train {chosen.name} --data MANIFEST",
            )
    read = tuple(read_package(deployment, arn) for arn in arns)
    return Comparison(packages=read, groups=_groups(read))


def _arn(deployment: Deployment, name: str, task: str | None) -> str:
    if name.startswith("arn:"):
        return name
    chosen = deployment.task(task)
    newest = newest_packages(deployment, chosen, limit=1)
    if not name.isdecimal() or not newest:
        raise WorkbenchError(
            f"{name!r} is no package of task {chosen.name}.",
            advice="Name packages by ARN, or by the number of their version.",
        )
    return f"{newest[0].rpartition('/')[0]}/{name}"


def _groups(packages: Sequence[ModelPackage]) -> tuple[str, ...]:
    letters: dict[tuple[str, str], str] = {}
    groups = []
    for package in packages:
        evaluation = package.evaluation
        # The hash is of the manifest that was measured on; older evaluations have only its name.
        manifest = (evaluation.manifest_sha256 or package.manifest_uri) if evaluation else ""
        if evaluation is None or not manifest:
            groups.append("")
            continue
        groups.append(letters.setdefault((manifest, evaluation.split), chr(ord("A") + len(letters))))
    return tuple(groups)


def _name(package: ModelPackage) -> str:
    return f"version {package.version}" if package.version else package.arn.rpartition("/")[2]


def _of(package: ModelPackage, show: Callable[[Evaluation], str]) -> str:
    return show(package.evaluation) or "-" if package.evaluation else "-"


def _metric(evaluation: Evaluation | None, name: str) -> str:
    if evaluation is None or name not in evaluation.metrics:
        return "-"
    value = evaluation.metrics[name]
    interval = evaluation.intervals.get(name)
    shown = "not defined" if value is None else f"{value:.4g}"
    return f"{shown} ({interval.low:.3g} to {interval.high:.3g})" if interval else shown


def _measured_on(evaluation: Evaluation) -> str:
    if evaluation.patients is None:
        return evaluation.split
    return f"{evaluation.split}: {counted_patients(evaluation)}"


def _bundle(evaluation: Evaluation) -> str:
    return evaluation.bundle


def _weights(evaluation: Evaluation) -> str:
    return ", ".join(sha256[:12] for sha256 in sorted(set(evaluation.weights.values())))
