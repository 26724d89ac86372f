"""The Athena workgroup and the queries that a newcomer wants first."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import aws_athena as athena
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.data.buckets import QUERY_RESULTS
from infra.repository import ROOT

QUERIES = ROOT / "infra" / "catalog" / "queries"
"""One file a named query: first line `-- <what it answers>`, then Trino SQL over the catalog's tables."""


class QueryWorkgroup(Construct):
    """A workgroup whose settings no client can override: encrypted results in one place, and a limit to
    what a query may scan.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        database_name: str,
        bucket: s3.IBucket,
        key: kms.IKey,
        scan_limit_gib: int,
        keep_history: bool,
    ) -> None:
        super().__init__(scope, id)
        self.workgroup = athena.CfnWorkGroup(
            self,
            "Workgroup",
            name=name,
            description="Queries over the DICOM headers of the archive",
            # Athena deletes a workgroup in which anybody has run or saved a query only if told to take these
            # along.
            recursive_delete_option=not keep_history,
            work_group_configuration=athena.CfnWorkGroup.WorkGroupConfigurationProperty(
                enforce_work_group_configuration=True,
                publish_cloud_watch_metrics_enabled=True,
                requester_pays_enabled=False,
                bytes_scanned_cutoff_per_query=scan_limit_gib * 2**30,
                engine_version=athena.CfnWorkGroup.EngineVersionProperty(
                    selected_engine_version="Athena engine version 3"
                ),
                result_configuration=athena.CfnWorkGroup.ResultConfigurationProperty(
                    output_location=bucket.s3_url_for_object(QUERY_RESULTS),
                    encryption_configuration=athena.CfnWorkGroup.EncryptionConfigurationProperty(
                        encryption_option="SSE_KMS", kms_key=key.key_arn
                    ),
                ),
            ),
        )
        for path in sorted(QUERIES.glob("*.sql")):
            title, statement = read_query(path)
            athena.CfnNamedQuery(
                self,
                "".join(word.capitalize() for word in path.stem.split("_")),
                name=path.stem.replace("_", " "),
                description=title,
                database=database_name,
                work_group=self.workgroup.ref,
                query_string=statement,
            )


def read_query(path: Path) -> tuple[str, str]:
    """What a query file answers, and its SQL."""
    first, _, statement = path.read_text(encoding="utf-8").partition("\n")
    if not first.startswith("-- ") or not statement.strip():
        raise ValueError(
            f"{path.name}: the first line must be a comment that says what the query answers, then SQL"
        )
    return first.removeprefix("-- ").strip(), statement.strip()
