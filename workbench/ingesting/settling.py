"""Decides what becomes of each file that was given: nothing to do, refused, waiting for another run, or sent.

All in SQL within one transaction of the journal, so that two runs of one machine never send the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.ingesting.chunking import make_chunks
from workbench.ingesting.journal import Journal
from workbench.ingesting.options import Options


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What is left to do: own chunks, by id in their order, and files that others have under way."""

    chunks: tuple[str, ...]
    waiting: int


def sort_out_repeats(journal: Journal, run: str) -> None:
    """Of files with the same SOP Instance UID, keep one if they are identical, none if they are not.

    Nobody can say which of two contents is the right one, so both are failures that name each other.
    """
    with journal.transaction():
        journal.execute("DROP TABLE IF EXISTS temp.repeat")
        journal.execute(
            "CREATE TEMP TABLE repeat AS SELECT number, name, instance, content,"
            " first_value(name) OVER same AS first, row_number() OVER same AS place FROM given"
            " WHERE run = ? AND state = 'pending' AND instance IN (SELECT instance FROM given"
            " WHERE run = ? AND state = 'pending' GROUP BY instance HAVING count(*) > 1)"
            " WINDOW same AS (PARTITION BY instance, content ORDER BY name, number)",
            run,
            run,
        )
        # The first two contents of each instance are enough to name another one to every file: comparing
        # all with all would take hours where a device wrote one UID into each of its files.
        journal.execute("DROP TABLE IF EXISTS temp.variant")
        journal.execute(
            "CREATE TEMP TABLE variant AS SELECT * FROM (SELECT instance, content, min(name) AS name,"
            " row_number() OVER (PARTITION BY instance ORDER BY min(name), content) AS place"
            " FROM temp.repeat GROUP BY instance, content) WHERE place <= 2"
        )
        journal.execute("CREATE UNIQUE INDEX temp.variant_place ON variant (instance, place)")
        journal.execute(
            "UPDATE given SET state = 'failed', kind = 'ConflictingContent', reason ="
            " 'the same SOP Instance UID, with other content, as ' || r.other FROM (SELECT a.number,"
            " CASE a.content WHEN one.content THEN two.name ELSE one.name END AS other FROM temp.repeat a"
            " JOIN temp.variant one ON one.instance = a.instance AND one.place = 1"
            " JOIN temp.variant two ON two.instance = a.instance AND two.place = 2) r"
            " WHERE given.run = ? AND given.number = r.number",
            run,
        )
        journal.execute(
            "UPDATE given SET state = 'duplicate', kind = 'Duplicate', reason = r.first"
            " FROM temp.repeat r WHERE given.run = ? AND given.number = r.number AND r.place > 1"
            " AND given.state = 'pending'",
            run,
        )
        journal.execute("DROP TABLE temp.repeat")
        journal.execute("DROP TABLE temp.variant")


def image_sets_to_check(journal: Journal, run: str) -> Iterator[str]:
    """Image sets that are said to hold what was given."""
    rows = journal.all(
        "SELECT DISTINCT l.image_set_id FROM given JOIN ledger l ON l.instance = given.instance"
        " WHERE given.run = ? AND given.state = 'pending'",
        run,
    )
    return (row["image_set_id"] for row in rows)


def note_image_set(journal: Journal, image_set_id: str, *, version_id: int, is_primary: bool) -> None:
    """What an image set is now: other jobs may have extended it, and copies may have made it primary."""
    journal.execute(
        "UPDATE ledger SET newest_version_id = ?, is_primary = ? WHERE image_set_id = ?",
        *(version_id, is_primary, image_set_id),
    )


def forget_image_set(journal: Journal, image_set_id: str) -> None:
    """It is no longer in the datastore, so what it held is not in."""
    journal.execute("DELETE FROM ledger WHERE image_set_id = ?", image_set_id)


def settle(journal: Journal, run: str, options: Options, *, deidentified: bool, prefix: str) -> Settled:
    """Decide about every file of the run that is still open, and claim what goes up.

    Args:
        journal: The journal.
        run: Whose files.
        options: What a person chose.
        deidentified: Whether chunks are de-identified on their way.
        prefix: Where chunks go in the inbox, ending in a slash.
    """
    with journal.transaction():
        # First: what another machine brought in since a run was broken off is not gone on with.
        _what_is_in(journal, run, options)
        _take_over(journal, run, deidentified=deidentified)
        _what_is_in(journal, run, options)
        _what_is_under_way(journal, run, wait_for_other_content=options.replace or options.again)
        make_chunks(journal, run, options, deidentified=deidentified, prefix=prefix)
        chunks = journal.all(
            "SELECT id FROM open_chunk WHERE run = ? ORDER BY number, id",
            run,
        )
        waiting = journal.one(
            "SELECT count(*) FROM given WHERE run = ? AND (state = 'blocked' OR (state = 'waiting'"
            " AND chunk NOT IN (SELECT id FROM chunk WHERE run = ?)))",
            run,
            run,
        )
    return Settled(chunks=tuple(row["id"] for row in chunks), waiting=int(waiting[0]))


def _take_over(journal: Journal, run: str, *, deidentified: bool) -> None:
    """What a run left that was broken off.

    A chunk that is in S3 is imported: that was asked for, and its job may run already. One that is not is
    gone on with if all its files were given again, and dissolved otherwise.
    """
    for chunk in journal.all(
        "SELECT id, run, state, deidentified FROM open_chunk WHERE run <> ?",
        run,
    ):
        if journal.alive(chunk["run"]):
            continue
        begun = chunk["state"] not in ("planned", "uploading")
        if not begun and bool(chunk["deidentified"]) == deidentified:
            begun = _given_again(journal, run, chunk["id"])
        if begun:
            journal.execute("UPDATE chunk SET run = ? WHERE id = ?", run, chunk["id"])
        else:
            journal.execute("DELETE FROM chunk_file WHERE chunk = ?", chunk["id"])
            journal.execute("DELETE FROM chunk WHERE id = ?", chunk["id"])
    # Whoever waited for a chunk that is no more decides anew; so does who was kept from sending.
    journal.execute(
        "UPDATE given SET state = 'pending', chunk = NULL WHERE run = ? AND (state = 'blocked'"
        " OR (state = 'waiting' AND chunk NOT IN (SELECT id FROM chunk)))",
        run,
    )


def _given_again(journal: Journal, run: str, chunk: str) -> bool:
    missing = journal.one(
        "SELECT 1 FROM chunk_file f WHERE f.chunk = ? AND f.state IN ('planned', 'uploaded') AND NOT EXISTS"
        " (SELECT 1 FROM given g WHERE g.run = ? AND g.instance = f.instance AND g.content = f.content"
        " AND g.state IN ('pending', 'waiting')) LIMIT 1",
        chunk,
        run,
    )
    if missing is not None:
        return False
    # The same content may lie elsewhere by now.
    journal.execute(
        "UPDATE chunk_file SET place = g.place, path = g.path, member = g.member, stamp = g.stamp"
        " FROM given g WHERE chunk_file.chunk = ? AND g.run = ? AND g.instance = chunk_file.instance"
        " AND g.content = chunk_file.content AND g.state IN ('pending', 'waiting')",
        chunk,
        run,
    )
    return True


def _what_is_in(journal: Journal, run: str, options: Options) -> None:
    if not options.again:
        journal.execute(
            "UPDATE given SET state = 'already', image_set_id = h.image_set_id, version_id = h.version_id,"
            " is_primary = h.is_primary FROM held h WHERE given.run = ? AND given.state = 'pending'"
            " AND h.instance = given.instance AND h.content = given.content",
            run,
        )
    if not options.replace:
        journal.execute(
            "UPDATE given SET state = 'failed', kind = 'ConflictingContent', reason ="
            " 'image set ' || h.image_set_id || ' holds other content under this SOP Instance UID;"
            " --replace imports this one instead' FROM held h WHERE given.run = ?"
            " AND given.state = 'pending' AND h.instance = given.instance AND h.content <> given.content",
            run,
        )


def _what_is_under_way(journal: Journal, run: str, *, wait_for_other_content: bool) -> None:
    journal.execute(
        "UPDATE given SET state = 'waiting', chunk = c.chunk FROM claimed c WHERE given.run = ?"
        " AND given.state = 'pending' AND c.instance = given.instance AND c.content = given.content",
        run,
    )
    state, kind, reason = "blocked", "", ""
    if not wait_for_other_content:
        state, kind = "failed", "ConflictingContent"
        reason = "another ingest is importing other content under this SOP Instance UID"
    journal.execute(
        "UPDATE given SET state = ?, kind = ?, reason = ? WHERE run = ? AND state = 'pending'"
        " AND EXISTS (SELECT 1 FROM claimed c WHERE c.instance = given.instance)",
        *(state, kind, reason, run),
    )


def resolve(journal: Journal, run: str, chunk: str) -> None:
    """Carry what became of a chunk's files over to the files that were given."""
    with journal.transaction():
        journal.execute(
            "UPDATE given SET state = CASE WHEN f.state = 'imported' AND c.run <> given.run THEN 'already'"
            " ELSE f.state END, kind = f.kind, reason = f.reason, image_set_id = f.image_set_id,"
            " version_id = f.version_id, is_primary = f.is_primary"
            " FROM chunk_file f JOIN chunk c ON c.id = f.chunk"
            " WHERE given.run = ? AND given.chunk = ? AND given.state IN ('sent', 'waiting')"
            " AND f.chunk = given.chunk AND f.instance = given.instance",
            run,
            chunk,
        )


def resolve_waiting(journal: Journal, run: str) -> None:
    """The same for every chunk of others that has come to its end."""
    for row in journal.all(
        "SELECT DISTINCT g.chunk FROM given g JOIN chunk c ON c.id = g.chunk"
        " WHERE g.run = ? AND g.state = 'waiting' AND c.state IN ('done', 'failed')",
        run,
    ):
        resolve(journal, run, row["chunk"])


def give_up(journal: Journal, run: str, chunk: str, *, kind: str, reason: str) -> None:
    """This run ends without knowing what became of a chunk; the next one asks again."""
    with journal.transaction():
        journal.execute(
            "UPDATE given SET state = 'failed', kind = ?, reason = ? WHERE run = ? AND chunk = ?"
            " AND state IN ('sent', 'waiting')",
            *(kind, reason, run, chunk),
        )
        journal.execute(
            "UPDATE given SET state = 'failed', kind = ?, reason = ? WHERE run = ? AND state = 'blocked'"
            " AND instance IN (SELECT instance FROM chunk_file WHERE chunk = ?)",
            *(kind, reason, run, chunk),
        )
