"""What became of every file that was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arrival.importing.job_output import FailedFile, FileWarning, ImportedFile
from workbench.errors import WorkbenchError
from workbench.ingesting.found import shown
from workbench.ingesting.journal import Journal

ENDS = ("imported", "already", "duplicate", "failed", "quarantined", "skipped")
"""Everything that can become of a file; every file becomes exactly one of them."""


class FilesUnaccounted(WorkbenchError):
    """The counts of a report do not add up to what was given: a defect, and no report is given."""


@dataclass(frozen=True, kw_only=True)
class ImageSetSummary:
    """One image set that an ingest made, extended, or found to hold what was given."""

    image_set_id: str
    version_id: int
    is_primary: bool
    instances: int


@dataclass(frozen=True, kw_only=True)
class DuplicateFile:
    """A file with the same instance and the same content as another one that was given."""

    file: str
    same_as: str


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Why an image set is not primary: in what it contradicts the primary image sets of its study."""

    image_set_id: str
    attributes: tuple[str, ...]
    """Keywords; empty where nothing differs now."""
    values: Mapping[str, tuple[str, str]]
    """By keyword: here, and in the study. Patients' data: empty unless asked for."""
    unknown: str = ""
    """Why it could not be looked up; empty where it was."""


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What became of every file that was given; files are named as the person named them."""

    datastore_id: str
    jobs: tuple[str, ...]
    imported: tuple[ImportedFile, ...]
    failed: tuple[FailedFile, ...]
    skipped: tuple[str, ...]
    """Files that are not DICOM and do not claim to be, and DICOMDIRs."""
    warnings: tuple[FileWarning, ...]
    already: tuple[ImportedFile, ...] = ()
    """Files whose content the datastore held before, with the image set that holds it."""
    duplicates: tuple[DuplicateFile, ...] = ()
    quarantined: tuple[FailedFile, ...] = ()
    """Files that de-identification does not let go; they were not uploaded."""
    conflicts: tuple[Conflict, ...] = ()
    deidentified: bool = False
    notes: tuple[str, ...] = ()
    """What is to be known beside the files: what could not be looked up, and files that were not given now
    and failed, since an ingest that was broken off had sent them.
    """

    @property
    def ok(self) -> bool:
        """True if there was something to import, and everything that is DICOM is in."""
        return bool(self.present) and not self.failed and not self.quarantined

    @property
    def present(self) -> tuple[ImportedFile, ...]:
        """Files that are in: imported now, or before."""
        return self.imported + self.already

    @property
    def given(self) -> int:
        """Number of files that were given, each counted once."""
        return (
            len(self.present)
            + len(self.duplicates)
            + len(self.failed)
            + len(self.quarantined)
            + len(self.skipped)
        )

    @property
    def image_sets(self) -> tuple[ImageSetSummary, ...]:
        """The image sets of the files that are in, each at its newest known version."""
        newest: dict[str, ImportedFile] = {}
        counts: dict[str, int] = {}
        for file in self.present:
            counts[file.image_set_id] = counts.get(file.image_set_id, 0) + 1
            known = newest.get(file.image_set_id)
            if known is None or file.version_id > known.version_id:
                newest[file.image_set_id] = file
        return tuple(
            ImageSetSummary(
                image_set_id=key,
                version_id=file.version_id,
                is_primary=file.is_primary,
                instances=counts[key],
            )
            for key, file in newest.items()
        )

    @property
    def non_primary(self) -> tuple[str, ...]:
        """Image sets that conflict with the rest of their study: DICOMweb does not show them."""
        return tuple(one.image_set_id for one in self.image_sets if not one.is_primary)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "datastoreId": self.datastore_id,
            "jobs": list(self.jobs),
            "deidentified": self.deidentified,
            "given": self.given,
            "imported": len(self.imported),
            "alreadyIn": len(self.already),
            "duplicates": [{"file": one.file, "sameAs": one.same_as} for one in self.duplicates],
            "imageSets": [
                {
                    "imageSetId": one.image_set_id,
                    "versionId": str(one.version_id),
                    "isPrimary": one.is_primary,
                    "instances": one.instances,
                }
                for one in self.image_sets
            ],
            "nonPrimary": list(self.non_primary),
            "conflicts": [
                {
                    "imageSetId": one.image_set_id,
                    "attributes": list(one.attributes),
                    **({"unknown": one.unknown} if one.unknown else {}),
                    **(
                        {"values": {key: list(both) for key, both in one.values.items()}}
                        if one.values
                        else {}
                    ),
                }
                for one in self.conflicts
            ],
            "failed": [{"file": one.file, "kind": one.kind, "reason": one.reason} for one in self.failed],
            "quarantined": [{"file": one.file, "reason": one.reason} for one in self.quarantined],
            "skipped": list(self.skipped),
            "warnings": [
                {"file": one.file, "code": one.code, "message": one.message} for one in self.warnings
            ],
            "notes": list(self.notes),
        }


def counts(journal: Journal, run: str) -> dict[str, int]:
    """Number of files by state."""
    rows = journal.all("SELECT state, count(*) AS files FROM given WHERE run = ? GROUP BY state", run)
    return {row["state"]: int(row["files"]) for row in rows}


def report_of(
    journal: Journal, run: str, *, given: int, known: int, datastore_id: str, deidentified: bool
) -> IngestReport:
    """The report of a run whose work is done.

    Args:
        journal: The journal.
        run: Whose report.
        given: Number of files that were given.
        known: Last entry of the ledgers when the run decided what goes up.
        datastore_id: The datastore.
        deidentified: Whether files were de-identified.

    Raises:
        FilesUnaccounted: A file became nothing, or two things.
    """
    found = counts(journal, run)
    if sum(found.values()) != given or set(found) - set(ENDS):
        told = ", ".join(f"{state} {files}" for state, files in sorted(found.items()))
        raise FilesUnaccounted(
            f"{given} files were given, and what became of them does not add up: {told}.",
            advice="This is a defect. Ingest again: what is in is not imported twice.",
        )

    def files(state: str) -> list[Any]:
        return journal.all("SELECT * FROM given WHERE run = ? AND state = ? ORDER BY name", run, state)

    def in_image_sets(state: str) -> tuple[ImportedFile, ...]:
        return tuple(
            ImportedFile(
                file=row["name"],
                image_set_id=row["image_set_id"],
                version_id=row["version_id"],
                is_primary=bool(row["is_primary"]),
            )
            for row in files(state)
        )

    def refused(state: str) -> tuple[FailedFile, ...]:
        return tuple(
            FailedFile(file=row["name"], kind=row["kind"], reason=row["reason"]) for row in files(state)
        )

    jobs = journal.all("SELECT job FROM chunk WHERE run = ? AND job IS NOT NULL ORDER BY number", run)
    return IngestReport(
        datastore_id=datastore_id,
        jobs=tuple(row["job"] for row in jobs),
        imported=in_image_sets("imported"),
        failed=refused("failed"),
        skipped=tuple(row["name"] for row in files("skipped")),
        warnings=_warnings(journal, run, known),
        already=in_image_sets("already"),
        duplicates=tuple(
            DuplicateFile(file=row["name"], same_as=row["reason"]) for row in files("duplicate")
        ),
        quarantined=refused("quarantined"),
        deidentified=deidentified,
        notes=_not_given(journal, run),
    )


def _not_given(journal: Journal, run: str) -> tuple[str, ...]:
    """Files that this run finished for one that was broken off, was not given, and that are not in.

    Nobody else would ever tell: the run that sent them has made no report.
    """
    rows = journal.all(
        "SELECT f.path, f.member, f.kind, f.reason FROM chunk_file f JOIN chunk c ON c.id = f.chunk"
        " WHERE c.run = ? AND f.state <> 'imported' AND NOT EXISTS (SELECT 1 FROM given g"
        " WHERE g.run = c.run AND g.chunk = f.chunk AND g.instance = f.instance) ORDER BY c.number, f.number",
        run,
    )
    notes = []
    for row in rows:
        name = "/".join(filter(None, (shown(row["path"]), row["member"])))
        why = ": ".join(filter(None, (row["kind"] or "its job has not ended", row["reason"])))
        notes.append(f"an ingest that was broken off had sent {name}, and it is not in: {why}")
    return tuple(notes)


def _warnings(journal: Journal, run: str, known: int) -> tuple[FileWarning, ...]:
    told = journal.all(
        "SELECT g.name, w.code, w.message FROM warning w JOIN chunk_file f ON f.chunk = w.chunk AND"
        " f.number = w.number JOIN given g ON g.chunk = f.chunk AND g.instance = f.instance AND g.run = ?"
        " ORDER BY g.name",
        run,
    )
    # Another machine imported other content of the same instance since this run looked what is in.
    contested = journal.all(
        "SELECT DISTINCT g.name, l.image_set_id FROM given g JOIN chunk c ON c.id = g.chunk JOIN ledger l"
        " ON l.instance = g.instance AND l.content <> g.content AND l.job <> c.job AND l.sequence > ?"
        " WHERE g.run = ? AND g.state = 'imported' ORDER BY g.name",
        known,
        run,
    )
    return tuple(
        FileWarning(file=row["name"], code=row["code"], message=row["message"]) for row in told
    ) + tuple(
        FileWarning(
            file=row["name"],
            code="ConflictingContent",
            message="another ingest imported other content under this SOP Instance UID at the same time,"
            f" into image set {row['image_set_id']}",
        )
        for row in contested
    )
