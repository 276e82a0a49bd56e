-- Views and table macros. They are public: coverage, coverage_by_stage, spend, lineage, and the macros whose
-- names end in _at, which take a version. They are made again after every migration.

-- The label of every example that held at a version: the newest wins.
CREATE OR REPLACE MACRO labels_at(at_version) AS TABLE
SELECT example_id, domain, split, origin
FROM labels
WHERE added_in <= at_version
QUALIFY row_number() OVER (PARTITION BY example_id ORDER BY added_in DESC) = 1;

-- Every example with its label at a version; retired ones are marked, not left out.
CREATE OR REPLACE MACRO labelled_at(at_version) AS TABLE
WITH gone AS (SELECT DISTINCT example_id FROM retirements WHERE added_in <= at_version)
SELECT e.example_id, e.prompt, e.reference, l.domain, l.split, l.origin, e.parents, e.added_in, e.prompt_key,
    gone.example_id IS NOT NULL AS retired
FROM examples AS e
JOIN labels_at(at_version) AS l USING (example_id)
LEFT JOIN gone USING (example_id)
WHERE e.added_in <= at_version;

-- The domains that a set gave examples, at a version: the newest wins.
CREATE OR REPLACE MACRO domains_at(at_version, of_set) AS TABLE
SELECT example_id, domain
FROM domain_labels
WHERE added_in <= at_version AND domain_set = of_set
QUALIFY row_number() OVER (PARTITION BY example_id ORDER BY added_in DESC) = 1;

-- `labelled_at` with the domains of a set; an example that the set does not know keeps its own. Null: everyone's own.
CREATE OR REPLACE MACRO labelled_in_at(at_version, of_set) AS TABLE
SELECT l.* REPLACE (coalesce(d.domain, l.domain) AS domain)
FROM labelled_at(at_version) AS l
LEFT JOIN domains_at(at_version, of_set) AS d USING (example_id);

-- The examples in use at a version, with the domains of a set, or with their own for null.
CREATE OR REPLACE MACRO examples_in_at(at_version, of_set) AS TABLE
SELECT example_id, prompt, reference, domain, split, origin, parents, added_in
FROM labelled_in_at(at_version, of_set)
WHERE NOT retired;

-- The examples in use at a version, as `pool.at(version).examples()` gives them.
CREATE OR REPLACE MACRO examples_at(at_version) AS TABLE SELECT * FROM examples_in_at(at_version, NULL);

-- The normalised prompts of the eval split at a version, as digests.
CREATE OR REPLACE MACRO eval_keys_at(at_version) AS TABLE
SELECT DISTINCT prompt_key FROM labelled_at(at_version) WHERE split = 'eval' AND NOT retired;

-- The train examples whose normalised prompt stands in eval at a version; a run leaves them out.
CREATE OR REPLACE MACRO leaks_at(at_version) AS TABLE
SELECT l.example_id, l.prompt_key, l.domain, l.prompt
FROM labelled_at(at_version) AS l
SEMI JOIN eval_keys_at(at_version) AS k USING (prompt_key)
WHERE l.split = 'train' AND NOT l.retired;

-- Rows per domain at a version, by a set of domains or (null) the labels'. `train` holds source and synthetic rows,
-- `rationales` are the accepted ones; tokens are estimates, UTF-8 bytes / 3, of prompts and rationales in use.
CREATE OR REPLACE MACRO coverage_in_at(at_version, of_set) AS TABLE
WITH accepted AS (
    SELECT example_id, count(*) AS n, sum(ceil(strlen(text) / 3)) AS tokens
    FROM rationales WHERE accepted AND added_in <= at_version GROUP BY example_id
),
leaking AS (SELECT example_id FROM leaks_at(at_version))
SELECT l.domain,
    count(*) FILTER (l.split = 'train' AND NOT l.retired) AS train,
    count(*) FILTER (l.split = 'train' AND l.origin = 'source' AND NOT l.retired) AS real,
    count(*) FILTER (l.split = 'dev' AND NOT l.retired) AS dev,
    count(*) FILTER (l.split = 'eval' AND NOT l.retired) AS eval,
    count(*) FILTER (l.origin = 'synthetic' AND NOT l.retired) AS synthetic,
    synthetic / nullif(count(*) FILTER (NOT l.retired), 0) AS synthetic_share,
    count(*) FILTER (l.retired) AS retired,
    coalesce(sum(a.n) FILTER (NOT l.retired), 0)::BIGINT AS rationales,
    count(k.example_id) AS leaks,
    avg(length(l.prompt)) FILTER (NOT l.retired) AS mean_prompt_chars,
    coalesce(sum(ceil(strlen(l.prompt) / 3)) FILTER (NOT l.retired), 0)::BIGINT AS prompt_tokens,
    coalesce(sum(a.tokens) FILTER (NOT l.retired), 0)::BIGINT AS rationale_tokens
FROM labelled_in_at(at_version, of_set) AS l
LEFT JOIN accepted AS a USING (example_id)
LEFT JOIN leaking AS k USING (example_id)
GROUP BY l.domain
ORDER BY train DESC, l.domain;

-- Rows per domain at a version.
CREATE OR REPLACE MACRO coverage_at(at_version) AS TABLE SELECT * FROM coverage_in_at(at_version, NULL);

-- The settled calls known at a version, one row a key and run; a later record of the same one replaces it.
-- Status `cached`: another run's call answered it, without tokens and cost.
CREATE OR REPLACE MACRO calls_at(at_version) AS TABLE
SELECT key, run_id, purpose, endpoint, model, domain, stage, example_id, attempts, input_tokens, output_tokens,
    cost_microusd, status
FROM calls
WHERE added_in <= at_version
QUALIFY row_number() OVER (PARTITION BY key, run_id ORDER BY added_in DESC, attempts DESC, cost_microusd DESC) = 1;

-- Rows per domain now.
CREATE OR REPLACE VIEW coverage AS
SELECT * FROM coverage_at((SELECT coalesce(max(version), 0) FROM versions));

-- The rows that every snapshot added to its parent's, with the ids of what they name.
CREATE OR REPLACE VIEW snapshot_rows AS
SELECT r.snapshot_id, r.position, r.row_id, r.stage, e.example_id, a.rationale_id, r.copy, r.domain, r.split, r.origin,
    r.added_in
FROM snapshot_entries AS r
LEFT JOIN examples AS e ON e.number = r.example_number
LEFT JOIN rationales AS a ON a.number = r.rationale_number;

-- Which snapshots a snapshot holds: itself and, up the line, its parents.
CREATE OR REPLACE VIEW snapshot_parts AS
WITH RECURSIVE up(snapshot_id, part_id) AS (
    SELECT snapshot_id, snapshot_id FROM snapshots
    UNION ALL
    SELECT up.snapshot_id, s.parent FROM up JOIN snapshots AS s ON s.snapshot_id = up.part_id WHERE s.parent IS NOT NULL
)
SELECT snapshot_id, part_id FROM up;

-- The rows that every stage added to its snapshot, per domain: by origin, and how many are repeats.
CREATE OR REPLACE VIEW coverage_by_stage AS
SELECT s.snapshot_id, s.run_id, s.stage, r.domain,
    count(*) AS rows,
    count(*) FILTER (r.origin = 'source' AND r.copy = 0) AS source,
    count(*) FILTER (r.origin = 'synthetic' AND r.copy = 0) AS synthetic,
    count(*) FILTER (r.copy > 0) AS repeats
FROM snapshots AS s
JOIN snapshot_rows AS r USING (snapshot_id)
GROUP BY ALL
ORDER BY s.run_id, s.stage, s.snapshot_id, r.domain;

-- What each run paid for, failed calls included; `cached` are those that other runs had bought before.
CREATE OR REPLACE VIEW spend AS
SELECT run_id, stage, domain, purpose,
    count(*) FILTER (status <> 'cached') AS calls,
    count(*) FILTER (status = 'cached') AS cached,
    sum(attempts)::BIGINT AS attempts,
    sum(input_tokens)::BIGINT AS input_tokens,
    sum(output_tokens)::BIGINT AS output_tokens,
    sum(cost_microusd)::BIGINT / 1e6 AS cost_usd
FROM calls_at((SELECT coalesce(max(version), 0) FROM versions))
GROUP BY ALL
ORDER BY run_id, stage, domain, purpose;

-- From an exported row back to its example, its rationale, the call that wrote it and what that call cost, whichever
-- runs paid. A snapshot's rows are here once, under the stage that added them; `row_id` is in every export.
CREATE OR REPLACE VIEW lineage AS
WITH bought AS (
    SELECT key, max(purpose) AS purpose, max(endpoint) AS endpoint, max(model) AS model,
        min(run_id) FILTER (status <> 'cached') AS paid_by,
        sum(attempts)::BIGINT AS attempts,
        sum(input_tokens)::BIGINT AS input_tokens,
        sum(output_tokens)::BIGINT AS output_tokens,
        sum(cost_microusd)::BIGINT / 1e6 AS cost_usd
    FROM calls_at((SELECT coalesce(max(version), 0) FROM versions))
    GROUP BY key
)
SELECT r.row_id, r.snapshot_id, s.run_id, r.stage, r.position, r.copy, r.domain, r.origin, r.example_id, r.rationale_id,
    a.author, a.source AS call_key, c.purpose, c.endpoint, c.model, c.paid_by, c.attempts, c.input_tokens,
    c.output_tokens, c.cost_usd
FROM snapshot_rows AS r
JOIN snapshots AS s USING (snapshot_id)
JOIN rationales AS a USING (rationale_id)
LEFT JOIN bought AS c ON c.key = a.source
ORDER BY s.run_id, r.position, r.row_id;

-- Each domain's real training examples at a version beside what an even share would be: head has at least that many.
CREATE OR REPLACE MACRO head_tail_at(at_version) AS TABLE
WITH counts AS (
    SELECT domain, count(*) FILTER (split = 'train' AND origin = 'source') AS real
    FROM labelled_at(at_version) WHERE NOT retired GROUP BY domain
)
SELECT domain, real, real / sum(real) OVER () AS share, avg(real) OVER () AS even_share,
    CASE WHEN real >= avg(real) OVER () THEN 'head' ELSE 'tail' END AS part,
    sum(real) OVER (ORDER BY real DESC, domain ROWS UNBOUNDED PRECEDING) / sum(real) OVER () AS cumulative_share
FROM counts
ORDER BY real DESC, domain;

CREATE OR REPLACE VIEW head_tail AS
SELECT * FROM head_tail_at((SELECT coalesce(max(version), 0) FROM versions));

-- How uneven the domains of every split are at a version. Domains without a row in the split do not count.
-- imbalance_ratio: the largest domain's rows over the smallest's. gini: 0 even, towards 1 all in one. entropy in nats;
-- effective_domains, its exponential, is how many even domains would be as diverse.
CREATE OR REPLACE MACRO imbalance_at(at_version) AS TABLE
WITH counts AS (
    SELECT split, domain, count(*) AS n FROM labelled_at(at_version) WHERE NOT retired GROUP BY split, domain
),
shares AS (
    SELECT split, n, n / sum(n) OVER (PARTITION BY split) AS p,
        row_number() OVER (PARTITION BY split ORDER BY n, domain) AS i, count(*) OVER (PARTITION BY split) AS l
    FROM counts
)
SELECT split, count(*) AS domains, sum(n)::BIGINT AS rows, max(n) AS largest, min(n) AS smallest,
    max(n) / min(n) AS imbalance_ratio, greatest(0, sum((2 * i - l - 1) * p) / any_value(l)) AS gini,
    greatest(0, -sum(p * ln(p))) AS entropy, exp(-sum(p * ln(p))) AS effective_domains
FROM shares
GROUP BY split
ORDER BY split;

CREATE OR REPLACE VIEW imbalance AS
SELECT * FROM imbalance_at((SELECT coalesce(max(version), 0) FROM versions));

-- What was refused and why, by run, stage, domain and step. What merely ranked too low to be chosen is not in here.
CREATE OR REPLACE VIEW rejections AS
SELECT run_id, stage, domain, step, method, reason, count(*) AS rows, min(example_id) AS for_example
FROM decisions
WHERE NOT kept AND step <> 'select'
GROUP BY ALL
ORDER BY run_id, stage, domain, rows DESC, step, method, reason;
