"""What people query: `series`, `instances`, `studies` and `patients`, in the form in which Athena itself
writes views to Glue.

`series` and `instances` show of every image set the highest version that was written, wherever it is now: in
the changes or in the compacted tables. `studies` and `patients` are views over `series`: a study's rows come
from several image sets, and an image set is all that the index function knows when it writes.

CloudFormation has no type for a view of Athena; `CREATE VIEW` stores a Glue table whose text is the base64 of
Trino's view definition (trino: ConnectorViewDefinition), and so does this.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from aws_cdk import aws_glue as glue
from constructs import Construct

from infra.catalog.columns import COLUMNS, Column
from infra.repository import ROOT

VIEWS = ROOT / "infra" / "catalog" / "views"
"""One file a view, `<name>.sql`: Trino SQL over the tables of the same database."""

NEWEST_VERSIONS = ROOT / "infra" / "catalog" / "newest_versions.sql"
"""How the views over changes and compacted rows begin: which of them count. In place of the tables' names:
`{changes}` and `{compacted}`.
"""


@dataclass(frozen=True, kw_only=True)
class Halves:
    """The two tables in which rows of one kind are."""

    changes: str
    compacted: str


@dataclass(frozen=True, kw_only=True)
class SqlView:
    """A view of the catalog: its SQL is in `views/<name>.sql`."""

    name: str
    description: str
    columns: tuple[Column, ...]
    halves: Halves | None = None
    """Of a view that shows the highest versions in two tables."""

    @property
    def sql(self) -> str:
        own = (VIEWS / f"{self.name}.sql").read_text(encoding="utf-8").strip()
        if self.halves is None:
            return own
        opening = NEWEST_VERSIONS.read_text(encoding="utf-8")
        return opening.format(changes=self.halves.changes, compacted=self.halves.compacted) + own

    def definition(self, database: str) -> dict[str, Any]:
        """What Trino reads; tables without a database in the SQL are those of `database`."""
        return {
            "originalSql": self.sql,
            "catalog": "awsdatacatalog",
            "schema": database,
            "columns": [{"name": column.name, "type": column.trino_type} for column in self.columns],
        }

    def table(
        self, scope: Construct, *, database: glue.CfnDatabase, name: str, account: str
    ) -> glue.CfnTable:
        """The Glue table that Athena takes for this view, in the database called `name`."""
        table = glue.CfnTable(
            scope,
            self.name.capitalize(),
            catalog_id=account,
            database_name=name,
            table_input=glue.CfnTable.TableInputProperty(
                name=self.name,
                description=self.description,
                table_type="VIRTUAL_VIEW",
                parameters={"presto_view": "true", "comment": "Presto View"},
                view_original_text=view_text(self.definition(name)),
                view_expanded_text="/* Presto View */",
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    columns=[
                        glue.CfnTable.ColumnProperty(
                            name=column.name, type=column.type, comment=column.comment
                        )
                        for column in self.columns
                    ],
                    # Athena writes an empty one, and refuses to read a view without any
                    # (HIVE_METASTORE_ERROR). The CDK leaves out what is empty.
                    serde_info=glue.CfnTable.SerdeInfoProperty(name="-", serialization_library="-"),
                ),
            ),
        )
        table.add_resource_dependency(database)
        return table


def view_text(definition: dict[str, Any]) -> str:
    """A view definition as the text of a Glue table."""
    encoded = base64.b64encode(json.dumps(definition).encode("utf-8")).decode("ascii")
    return f"/* Presto View: {encoded} */"


def _column(name: str, type_: str, comment: str) -> Column:
    return Column(name=name, type=type_, comment=comment)


SERIES = SqlView(
    name="series",
    description="One row for each series of an image set, as it is now in the data store",
    columns=COLUMNS["series"],
    halves=Halves(changes="series_changes", compacted="compacted_series"),
)

INSTANCES = SqlView(
    name="instances",
    description="One row for each DICOM instance of an image set, as it is now in the data store",
    columns=COLUMNS["instances"],
    halves=Halves(changes="instance_changes", compacted="compacted_instances"),
)

_COUNTS = (
    _column("number_of_image_sets", "bigint", "All image sets, those in conflict included"),
    _column("image_sets_in_conflict", "bigint", "Image sets that are not primary; other numbers omit them"),
)

PATIENTS = SqlView(
    name="patients",
    description=(
        "One row for each patient ID (0010,0020) of a data store, from its image sets as they are now. "
        "Modalities, dates and numbers are those of primary image sets, which DICOMweb shows; image sets in "
        "conflict only add to the last two columns, so a patient who has nothing else is still here. "
        "Two people with one patient ID cannot be told apart (the rows have no issuer): where sex or birth "
        "date differ, demographics_differ is true and what differs is null. Studies without a patient ID are "
        "not put together: each has a row whose patient_id is null."
    ),
    columns=(
        _column("datastore_id", "string", "HealthImaging datastore"),
        _column("patient_id", "string", "(0010,0020), null for a study that has none"),
        _column("patient_sex", "string", "(0010,0040), null when image sets differ"),
        _column("patient_birth_date", "date", "(0010,0030), null when image sets differ"),
        _column("demographics_differ", "boolean", "Sex or birth date differ: perhaps two people"),
        _column("modalities", "array<string>", "Distinct (0008,0060), sorted"),
        _column("number_of_studies", "bigint", "Distinct (0020,000D)"),
        _column("number_of_series", "bigint", "Distinct (0020,000E)"),
        _column("number_of_instances", "bigint", "DICOM instances"),
        _column("first_study_date", "date", "Earliest (0008,0020)"),
        _column("last_study_date", "date", "Latest (0008,0020)"),
        *_COUNTS,
    ),
)

STUDIES = SqlView(
    name="studies",
    description=(
        "One row for each study instance UID of a data store, from its image sets as they are now. "
        "Description, modalities and numbers are those of primary image sets, which DICOMweb shows; image "
        "sets in conflict only add to patient_ids and to the last two columns. Patients are never merged: "
        "where the study occurs with several patient IDs, patient_ids has them all and patient_id is null. "
        "Everything of a patient: contains(patient_ids, ...)."
    ),
    columns=(
        _column("datastore_id", "string", "HealthImaging datastore"),
        _column("study_instance_uid", "string", "(0020,000D)"),
        _column("patient_id", "string", "(0010,0020), null when there are none or several"),
        _column("patient_ids", "array<string>", "Distinct (0010,0020) of all image sets, sorted"),
        _column("study_date", "date", "(0008,0020)"),
        _column("study_id", "string", "(0020,0010)"),
        _column("accession_number", "string", "(0008,0050)"),
        _column("study_description", "string", "(0008,1030)"),
        _column("modalities", "array<string>", "Distinct (0008,0060), sorted"),
        _column("has_segmentation", "boolean", "Has a series of modality SEG"),
        _column("number_of_series", "bigint", "Distinct (0020,000E)"),
        _column("number_of_instances", "bigint", "DICOM instances"),
        *_COUNTS,
    ),
)

SQL_VIEWS = (SERIES, INSTANCES, PATIENTS, STUDIES)
