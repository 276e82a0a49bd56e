-- The append-only tables. No PRIMARY KEY, UNIQUE or index: DuckDB's WAL replay has had bugs around them;
-- uniqueness is an anti-join inside the transaction. Every row says in which version it came.

CREATE TABLE versions (
    version BIGINT NOT NULL, digest VARCHAR NOT NULL, content VARCHAR NOT NULL, message VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL, run_id VARCHAR, stage BIGINT, step VARCHAR
);

CREATE TABLE examples (
    example_id VARCHAR NOT NULL, prompt VARCHAR NOT NULL, reference VARCHAR, parents VARCHAR[] NOT NULL,
    prompt_key VARCHAR NOT NULL, added_in BIGINT NOT NULL
);

CREATE TABLE labels (
    example_id VARCHAR NOT NULL, domain VARCHAR NOT NULL, split VARCHAR NOT NULL, origin VARCHAR NOT NULL,
    added_in BIGINT NOT NULL
);

CREATE TABLE retirements (example_id VARCHAR NOT NULL, reason VARCHAR NOT NULL, added_in BIGINT NOT NULL);

CREATE TABLE rationales (
    rationale_id VARCHAR NOT NULL, example_id VARCHAR NOT NULL, text VARCHAR NOT NULL, answer VARCHAR,
    accepted BOOLEAN NOT NULL, reason VARCHAR, detail VARCHAR, source VARCHAR NOT NULL, author VARCHAR NOT NULL,
    added_in BIGINT NOT NULL
);

CREATE TABLE scores (
    example_id VARCHAR NOT NULL, checkpoint VARCHAR NOT NULL, name VARCHAR NOT NULL,
    settings VARCHAR NOT NULL, value DOUBLE, reason VARCHAR, added_in BIGINT NOT NULL
);

CREATE TABLE decisions (
    run_id VARCHAR, stage BIGINT, example_id VARCHAR NOT NULL, domain VARCHAR NOT NULL, step VARCHAR NOT NULL,
    method VARCHAR NOT NULL, kept BOOLEAN NOT NULL, reason VARCHAR NOT NULL, gain DOUBLE, rank BIGINT, detail VARCHAR,
    added_in BIGINT NOT NULL
);

CREATE TABLE snapshots (
    snapshot_id VARCHAR NOT NULL, digest VARCHAR NOT NULL, parent VARCHAR, run_id VARCHAR NOT NULL,
    stage BIGINT NOT NULL, total_rows BIGINT NOT NULL, recipe_yaml VARCHAR NOT NULL, deficits VARCHAR NOT NULL,
    added_in BIGINT NOT NULL
);

CREATE TABLE snapshot_rows (
    snapshot_id VARCHAR NOT NULL, position BIGINT NOT NULL, row_id VARCHAR NOT NULL, stage BIGINT NOT NULL,
    example_id VARCHAR NOT NULL, rationale_id VARCHAR NOT NULL, copy BIGINT NOT NULL, domain VARCHAR NOT NULL,
    split VARCHAR NOT NULL, origin VARCHAR NOT NULL, added_in BIGINT NOT NULL
);

CREATE TABLE calls (
    key VARCHAR NOT NULL, run_id VARCHAR NOT NULL, purpose VARCHAR NOT NULL, endpoint VARCHAR NOT NULL,
    model VARCHAR NOT NULL, domain VARCHAR NOT NULL, stage BIGINT NOT NULL, example_id VARCHAR,
    attempts BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
    cost_microusd BIGINT NOT NULL, status VARCHAR NOT NULL, added_in BIGINT NOT NULL
);

CREATE TABLE evaluations (
    checkpoint VARCHAR NOT NULL, settings VARCHAR NOT NULL, example_id VARCHAR NOT NULL, domain VARCHAR NOT NULL,
    split VARCHAR NOT NULL, predicted VARCHAR, correct BOOLEAN NOT NULL, text VARCHAR NOT NULL, added_in BIGINT NOT NULL
);
