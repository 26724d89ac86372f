-- The newest rows of each image set: those of its highest version, and of this version those that were written
-- last. A version without rows, and a deleted image set, hide what came before. In the changes: `newest`; among
-- the compacted rows: `merged`. What cannot be told apart, or does not say when it was written, is compacted.
WITH newest AS (
    SELECT datastore_id,
           image_set_id,
           max(version_id) AS version_id,
           max_by(indexed_at, version_id) AS indexed_at
    FROM {changes}
    GROUP BY datastore_id, image_set_id
),
merged AS (
    SELECT datastore_id, image_set_id, max(version_id) AS version_id, max(indexed_at) AS indexed_at
    FROM {compacted}
    GROUP BY datastore_id, image_set_id
)
