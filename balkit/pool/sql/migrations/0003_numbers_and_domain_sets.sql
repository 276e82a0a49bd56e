-- Examples and rationales get numbers, by which the rows of snapshots name them: a digest takes ten times the room.

ALTER TABLE examples ADD COLUMN number BIGINT;
UPDATE examples SET number = rowid;
ALTER TABLE rationales ADD COLUMN number BIGINT;
UPDATE rationales SET number = rowid;

CREATE TABLE snapshot_entries (
    snapshot_id VARCHAR NOT NULL, position BIGINT NOT NULL, row_id VARCHAR NOT NULL, stage BIGINT NOT NULL,
    example_number BIGINT, rationale_number BIGINT, copy BIGINT NOT NULL, domain VARCHAR NOT NULL,
    split VARCHAR NOT NULL, origin VARCHAR NOT NULL, added_in BIGINT NOT NULL
);

INSERT INTO snapshot_entries
SELECT r.snapshot_id, r.position, r.row_id, r.stage, e.number, a.number, r.copy, r.domain, r.split, r.origin, r.added_in
FROM snapshot_rows AS r
LEFT JOIN examples AS e USING (example_id)
LEFT JOIN rationales AS a USING (rationale_id)
ORDER BY r.added_in, r.snapshot_id, r.position;

DROP TABLE snapshot_rows;

-- Other sets of domains beside the labels': what was discovered, or given. The newest row of an example holds.

CREATE TABLE domain_sets (domain_set VARCHAR NOT NULL, detail VARCHAR NOT NULL, added_in BIGINT NOT NULL);

CREATE TABLE domain_labels (
    domain_set VARCHAR NOT NULL, example_id VARCHAR NOT NULL, domain VARCHAR NOT NULL, added_in BIGINT NOT NULL
);
