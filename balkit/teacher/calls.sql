-- name: schema
-- The ledger. Rows are only ever added; an attempt's state is its last event.
CREATE TABLE requests (          -- what was asked, once per key
  key TEXT PRIMARY KEY,
  body TEXT NOT NULL             -- the canonical JSON that the key digests
) WITHOUT ROWID;
CREATE TABLE attempts (          -- one row per paid sending
  attempt INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  run_id TEXT NOT NULL,
  purpose TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  model TEXT NOT NULL,
  domain TEXT NOT NULL,
  stage INTEGER NOT NULL,
  example_id TEXT,
  input_picousd INTEGER NOT NULL,   -- the unit price, 1e-12 US dollars a token
  output_picousd INTEGER NOT NULL
);
CREATE INDEX attempts_by_key ON attempts (key, run_id);
CREATE INDEX attempts_by_run ON attempts (run_id);
CREATE TABLE events (            -- double-entry: the sum of a prefix is what was spent and reserved at that moment
  seq INTEGER PRIMARY KEY,
  attempt INTEGER NOT NULL REFERENCES attempts,
  state TEXT NOT NULL CHECK (state IN ('reserved', 'sent', 'succeeded', 'failed', 'unknown')),
  calls INTEGER NOT NULL,        -- the change that this event makes
  tokens INTEGER NOT NULL,
  microusd INTEGER NOT NULL,
  overrun INTEGER NOT NULL,      -- 1: the usage reported was above the reservation
  at REAL NOT NULL,              -- seconds since 1970
  UNIQUE (attempt, state)
);
CREATE TABLE replies (           -- what came back, as received; an attempt of unknown outcome may have none
  attempt INTEGER PRIMARY KEY REFERENCES attempts,
  outcome TEXT NOT NULL,
  text TEXT NOT NULL,
  finish_reason TEXT NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cost_microusd INTEGER NOT NULL,
  author TEXT NOT NULL,
  provider_id TEXT NOT NULL,
  error TEXT NOT NULL,
  raw TEXT NOT NULL
);
CREATE TABLE uses (              -- runs that were answered from the ledger, by another run's attempt
  key TEXT NOT NULL,
  run_id TEXT NOT NULL,
  domain TEXT NOT NULL,
  stage INTEGER NOT NULL,
  example_id TEXT,
  PRIMARY KEY (key, run_id)
) WITHOUT ROWID;

-- name: links
-- The hash chain over events, attempts and replies (chain.py); a ledger without it gets it with its next commit.
CREATE TABLE IF NOT EXISTS links (
  last_seq INTEGER PRIMARY KEY,  -- the last event of its commit
  digest TEXT NOT NULL           -- sha256 of the link before, and of what `linked` says of its events
);

-- name: tip
SELECT last_seq, digest FROM links ORDER BY last_seq DESC LIMIT 1;

-- name: linked
-- Later events; with the first of an attempt its row, with the last its reply.
SELECT e.*, a.*, r.*
FROM events e
LEFT JOIN attempts a ON a.attempt = e.attempt AND e.state = 'reserved'
LEFT JOIN replies r ON r.attempt = e.attempt AND e.state IN ('succeeded', 'failed', 'unknown')
WHERE e.seq > ?
ORDER BY e.seq;

-- name: unasked
-- Keys without a request.
SELECT key FROM attempts WHERE key NOT IN (SELECT key FROM requests)
UNION SELECT key FROM uses WHERE key NOT IN (SELECT key FROM requests);

-- name: answered
-- The paid replies of some keys (a JSON array), the first of each.
SELECT a.key, r.text, r.finish_reason, r.input_tokens, r.output_tokens, r.author, r.provider_id, r.raw, min(a.attempt)
FROM attempts a JOIN replies r USING (attempt)
WHERE a.key IN (SELECT value FROM json_each(?)) AND r.outcome = 'ok'
GROUP BY a.key;

-- name: use
-- Links a call to a run that was answered from the ledger, unless that run bought it.
INSERT OR IGNORE INTO uses
SELECT :key, :run_id, :domain, :stage, :example_id
WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE key = :key AND run_id = :run_id);

-- name: open
-- Later attempts without an end, with what is reserved for them; those in a batch wait for its lines.
SELECT attempt, max(state = 'sent') AS sent, sum(calls), sum(tokens), sum(microusd)
FROM events
WHERE attempt > ? AND attempt NOT IN (SELECT attempt FROM batch_members)
GROUP BY attempt
HAVING NOT max(state IN ('succeeded', 'failed', 'unknown'));

-- name: spent
-- What a run has been charged, by stage and domain.
SELECT a.stage, a.domain, sum(e.calls), sum(e.tokens), sum(e.microusd)
FROM attempts a JOIN events e USING (attempt)
WHERE a.run_id = ?
GROUP BY a.stage, a.domain;

-- name: calls
-- One row per key and run: bought by attempts, or answered from the ledger at no cost.
WITH charged AS (
  SELECT attempt, sum(microusd) AS microusd,
         CASE WHEN max(state = 'succeeded') THEN 2 WHEN max(state = 'failed') THEN 0 ELSE 1 END AS end
  FROM events GROUP BY attempt
)
SELECT a.key, a.run_id, a.purpose, a.endpoint, a.model, a.domain, a.stage, a.example_id, count(*) AS attempts,
       sum(coalesce(r.input_tokens, 0)) AS input_tokens, sum(coalesce(r.output_tokens, 0)) AS output_tokens,
       sum(c.microusd) AS cost_microusd,
       CASE max(c.end) WHEN 2 THEN 'succeeded' WHEN 1 THEN 'unknown' ELSE 'failed' END AS status
FROM attempts a JOIN charged c USING (attempt) LEFT JOIN replies r USING (attempt)
WHERE :run_id IS NULL OR a.run_id = :run_id
GROUP BY a.key, a.run_id
UNION ALL
SELECT u.key, u.run_id, a.purpose, a.endpoint, a.model, u.domain, u.stage, u.example_id, 0, 0, 0, 0, 'cached'
FROM uses u JOIN attempts a ON a.attempt = (SELECT min(attempt) FROM attempts WHERE key = u.key)
WHERE (:run_id IS NULL OR u.run_id = :run_id)
  AND NOT EXISTS (SELECT 1 FROM attempts b WHERE b.key = u.key AND b.run_id = u.run_id)
ORDER BY 2, 1;

-- name: inconsistent
-- Attempts whose events and reply contradict each other.
SELECT e.attempt, group_concat(e.state, ' -> '), r.outcome
FROM (SELECT * FROM events ORDER BY seq) e LEFT JOIN replies r USING (attempt)
GROUP BY e.attempt
HAVING max(e.state = 'succeeded') <> coalesce(max(r.outcome = 'ok'), 0)
  OR sum(e.state IN ('succeeded', 'failed', 'unknown')) > 1
  OR max(e.state = 'reserved') = 0
  OR sum(e.calls) < 0 OR sum(e.tokens) < 0 OR sum(e.microusd) < 0;

-- name: keys_like
-- Keys that begin so (bound: the beginning, and the same with a last character above all digits), a few of them.
SELECT key FROM requests WHERE key >= ? AND key < ? ORDER BY key LIMIT 20;

-- name: body
SELECT body FROM requests WHERE key = ?;

-- name: attempts_at
-- All attempts at a key, with the replies.
SELECT a.attempt, a.run_id, a.domain, a.stage, a.example_id, a.input_picousd, a.output_picousd, sum(e.microusd), m.token,
       r.outcome, r.text, r.finish_reason, r.input_tokens, r.output_tokens, r.author, r.provider_id, r.error, r.raw
FROM attempts a JOIN events e USING (attempt) LEFT JOIN batch_members m USING (attempt) LEFT JOIN replies r USING (attempt)
WHERE a.key = ?
GROUP BY a.attempt
ORDER BY a.attempt;

-- name: events_at
SELECT e.attempt, e.state, e.at FROM events e JOIN attempts a USING (attempt) WHERE a.key = ? ORDER BY e.seq;

-- name: uses_at
-- Runs that were answered from the ledger.
SELECT run_id FROM uses WHERE key = ? ORDER BY run_id;

-- name: asked_before
-- Requests for one purpose that were first asked before an attempt, with their bodies.
SELECT q.key, q.body, min(a.attempt) AS first
FROM requests q JOIN attempts a USING (key)
WHERE a.purpose = ? AND q.key <> ?
GROUP BY q.key
HAVING first < ?;
