-- name: schema
-- Batches that were handed to a provider. A batch is open while one of its members has no end.
CREATE TABLE IF NOT EXISTS batch_members (   -- written with the members' `sent`, before the batch is made
  attempt INTEGER PRIMARY KEY REFERENCES attempts,
  token TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS batch_steps (
  token TEXT NOT NULL,           -- our name of the batch, also in its metadata
  step TEXT NOT NULL CHECK (step IN ('intended', 'submitted')),
  provider_id TEXT NOT NULL,     -- intended: the uploaded input file; submitted: the batch
  at REAL NOT NULL,              -- seconds since 1970
  PRIMARY KEY (token, step)
) WITHOUT ROWID;

-- name: step
INSERT OR IGNORE INTO batch_steps VALUES (?, ?, ?, ?);

-- name: member
INSERT INTO batch_members VALUES (?, ?);

-- name: sent
INSERT INTO events (attempt, state, calls, tokens, microusd, overrun, at) VALUES (?, 'sent', 0, 0, 0, 0, ?);

-- name: open
-- The members of batches that have no end yet, with what is reserved for them and what was asked.
SELECT m.token, a.attempt, a.key, a.run_id, q.body, a.domain, a.stage, a.example_id,
       a.input_picousd, a.output_picousd, sum(e.calls), sum(e.tokens), sum(e.microusd)
FROM batch_members m JOIN attempts a USING (attempt) JOIN events e USING (attempt) JOIN requests q USING (key)
WHERE NOT EXISTS (
  SELECT 1 FROM events f WHERE f.attempt = m.attempt AND f.state IN ('succeeded', 'failed', 'unknown')
)
GROUP BY a.attempt
ORDER BY a.attempt;

-- name: steps
SELECT token, step, provider_id, at FROM batch_steps ORDER BY at;
