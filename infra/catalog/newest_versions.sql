-- The rows of each image set's highest version: of the compacted ones, and of the changes since. A version
-- without rows, and a deleted image set, hide what came before. In both: the compacted rows.
WITH newest AS (
    SELECT datastore_id,
           image_set_id,
           max(version_id) AS version_id,
           -- Compacted rows up to here do not count any more.
           max(CASE WHEN is_deleted THEN version_id ELSE version_id - 1 END) AS hides
    FROM {changes}
    GROUP BY datastore_id, image_set_id
),
merged AS (
    SELECT datastore_id, image_set_id, max(version_id) AS version_id
    FROM {compacted}
    GROUP BY datastore_id, image_set_id
)
