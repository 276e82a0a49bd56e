-- name: tip
-- The newest version and its digest; no row in a blank pool.
SELECT version, digest FROM versions ORDER BY version DESC LIMIT 1;

-- name: opened
-- What an opening compares with HEAD: the newest version, its digest, that of HEAD's version, and how long the file must
-- be at least: three headers of 4 KiB, then the blocks in use. (DuckDB cuts free blocks off the file's end and goes on
-- counting them in total_blocks.)
SELECT max(version) AS version, arg_max(digest, version) AS digest,
    any_value(digest) FILTER (version = $version) AS of_head,
    (
        SELECT 12288 + used_blocks * block_size FROM pragma_database_size() WHERE database_name = current_database()
    ) AS bytes
FROM versions;

-- name: committed
-- The version that a run's step made.
SELECT version FROM versions WHERE run_id = $run_id AND stage = $stage AND step = $step;

-- name: examples
-- The examples in use at a version; null parameters ask for all.
SELECT * FROM examples_in_at($version, $domain_set)
WHERE ($split IS NULL OR split = $split) AND ($domain IS NULL OR domain = $domain)
    AND ($origin IS NULL OR origin = $origin)
ORDER BY example_id;

-- name: retired_prompts
-- The prompts of the examples that are out of use at a version.
SELECT DISTINCT prompt FROM labelled_at($version) WHERE retired ORDER BY prompt;

-- name: stored
-- What these examples are at a version, the retired ones among them.
SELECT example_id, split, retired FROM labelled_at($version)
WHERE list_contains($ids, example_id)
ORDER BY example_id;

-- name: leaking
-- The examples in use outside of eval whose normalised prompt stands in eval at a version.
SELECT l.example_id
FROM labelled_at($version) AS l
SEMI JOIN eval_keys_at($version) AS k USING (prompt_key)
WHERE l.split <> 'eval' AND NOT l.retired
ORDER BY l.example_id;

-- name: changed
-- What happened to examples after $since and up to $until, a row each. Only examples that something was stored of in
-- between are looked at. A null domain: the example came and went in between.
WITH worked AS (SELECT example_id, accepted, reason FROM rationales WHERE added_in > $since AND added_in <= $until),
touched AS (
    SELECT example_id FROM labels WHERE added_in > $since AND added_in <= $until
    UNION
    SELECT example_id FROM retirements WHERE added_in > $since AND added_in <= $until
    UNION
    SELECT example_id FROM worked
),
gone AS (SELECT example_id, min(added_in) AS gone_in FROM retirements GROUP BY example_id),
labelled AS (
    SELECT example_id, max_by(domain, added_in) FILTER (added_in <= $since) AS domain,
        max_by(split, added_in) FILTER (added_in <= $since) AS split,
        max_by(domain, added_in) AS domain_now, max_by(split, added_in) AS split_now
    FROM labels SEMI JOIN touched USING (example_id)
    WHERE added_in <= $until
    GROUP BY example_id
),
states AS (
    SELECT l.*, domain IS NOT NULL AND coalesce(gone_in > $since, true) AS before,
        coalesce(gone_in > $until, true) AS after
    FROM labelled AS l LEFT JOIN gone USING (example_id)
),
kept AS (SELECT * FROM states WHERE before AND after)
SELECT domain_now AS domain, 'added' AS change, example_id, NULL AS detail FROM states WHERE after AND NOT before
UNION ALL
SELECT domain, 'retired', example_id, NULL FROM states WHERE before AND NOT after
UNION ALL
SELECT domain_now, 'moved_in', example_id, 'from ' || domain FROM kept WHERE domain <> domain_now
UNION ALL
SELECT domain, 'moved_out', example_id, 'to ' || domain_now FROM kept WHERE domain <> domain_now
UNION ALL
SELECT domain_now, 'split_changed', example_id, split || ' to ' || split_now FROM kept WHERE split <> split_now
UNION ALL
SELECT CASE WHEN s.after THEN s.domain_now WHEN s.before THEN s.domain END,
    CASE WHEN w.accepted THEN 'accepted' ELSE 'rejected' END, w.example_id, CASE WHEN NOT w.accepted THEN w.reason END
FROM worked AS w LEFT JOIN states AS s USING (example_id)
ORDER BY domain, change, example_id, detail;

-- name: prompts_of
-- The prompts of the incoming examples.
SELECT example_id, prompt FROM examples SEMI JOIN incoming USING (example_id);

-- name: refused_now
-- The rows of a snapshot that could not enter one at a version, since eval or the retirements grew.
SELECT r.position, r.example_id,
    CASE WHEN e.retired THEN 'its example is retired' ELSE 'its prompt stands in the eval split' END AS problem
FROM snapshot_parts AS p
JOIN snapshot_rows AS r ON r.snapshot_id = p.part_id
JOIN labelled_at($version) AS e USING (example_id)
LEFT JOIN eval_keys_at($version) AS k ON k.prompt_key = e.prompt_key
WHERE p.snapshot_id = $snapshot_id AND (e.retired OR e.split = 'eval' OR k.prompt_key IS NOT NULL)
ORDER BY r.position;

-- name: rationales
-- Every rationale at a version, accepted or not.
SELECT rationale_id, example_id, text, answer, accepted, reason, detail, source, author
FROM rationales
WHERE added_in <= $version
ORDER BY example_id, rationale_id;

-- name: rationales_of
-- The rationales of some examples at a version, accepted or not.
SELECT rationale_id, example_id, text, answer, accepted, reason, detail, source, author
FROM rationales
SEMI JOIN (SELECT unnest($ids::VARCHAR[]) AS example_id) USING (example_id)
WHERE added_in <= $version
ORDER BY example_id, rationale_id;

-- name: parents
-- What the written examples in use at a version were written after.
SELECT example_id, parents FROM examples_at($version) WHERE origin = 'synthetic' AND len(parents) > 0
ORDER BY example_id;

-- name: reviews
-- What people said of worked answers until a version.
SELECT example_id, domain, kept, reason, detail, added_in AS version
FROM decisions
WHERE step = 'review' AND added_in <= $version
ORDER BY version, example_id, detail;

-- name: reviewed_rationales
-- The rationales of examples that a person spoke of.
SELECT rationale_id, example_id, text, answer, accepted, reason, detail, source, author
FROM rationales
SEMI JOIN (SELECT example_id FROM decisions WHERE step = 'review' AND added_in <= $version) USING (example_id)
WHERE added_in <= $version
ORDER BY example_id, rationale_id;

-- name: refused_for
-- What worked answers known at a version were refused for.
SELECT DISTINCT reason FROM rationales WHERE NOT accepted AND added_in <= $version ORDER BY reason;

-- name: questioned
-- All rationales of the examples in use of which one was refused for one of $reasons or, where $differing is asked for,
-- of which accepted ones end in different answers.
WITH asked AS (
    SELECT example_id FROM rationales
    WHERE added_in <= $version
    GROUP BY example_id
    HAVING bool_or(NOT accepted AND list_contains($reasons, reason))
        OR ($differing AND count(DISTINCT answer) FILTER (accepted) > 1)
)
SELECT e.example_id, e.prompt, e.reference, e.domain, e.split, e.origin, e.parents, a.rationale_id, a.text, a.answer,
    a.accepted, a.reason, a.detail, a.source, a.author
FROM rationales AS a
SEMI JOIN asked USING (example_id)
JOIN examples_at($version) AS e USING (example_id)
WHERE a.added_in <= $version AND ($domain IS NULL OR e.domain = $domain)
ORDER BY e.example_id, a.added_in, a.rationale_id;

-- name: rationale_calls
-- The call that wrote each rationale known at a version, and what it cost, whichever runs paid. Given ones have none.
SELECT a.rationale_id, a.source AS call_key, max(c.model) AS model, sum(c.cost_microusd)::BIGINT / 1e6 AS cost_usd
FROM rationales AS a
JOIN calls_at($version) AS c ON c.key = a.source
WHERE a.added_in <= $version
GROUP BY ALL
ORDER BY a.rationale_id;

-- name: scores
-- The scores at a version, of one checkpoint or all.
SELECT example_id, checkpoint, name, settings, value, reason
FROM scores
WHERE added_in <= $version AND ($checkpoint IS NULL OR checkpoint = $checkpoint)
ORDER BY checkpoint, name, settings, example_id;

-- name: decisions
-- What choosing and checking steps thought of every row, of one run, one stage or all.
SELECT example_id, domain, step, method, kept, reason, gain, rank, detail, run_id, stage, added_in AS version
FROM decisions
WHERE added_in <= $version AND ($run_id IS NULL OR run_id = $run_id) AND ($stage IS NULL OR stage = $stage)
ORDER BY version, step, domain, rank NULLS LAST, example_id, method, reason, detail;

-- name: evaluations
-- What checkpoints answered, of one checkpoint or all.
SELECT checkpoint, settings, example_id, domain, split, predicted, correct, text
FROM evaluations
WHERE added_in <= $version AND ($checkpoint IS NULL OR checkpoint = $checkpoint)
ORDER BY checkpoint, settings, example_id;

-- name: calls
-- The settled teacher calls, one row a key and run, of one run or all.
SELECT * FROM calls_at($version) WHERE $run_id IS NULL OR run_id = $run_id ORDER BY run_id, key;

-- name: rejected_of
-- What the checks of a run rejected until a version, and why. What merely ranked too low to be chosen, or waits for a
-- later stage, is not in here.
SELECT domain, step, reason, count(*)::BIGINT AS rows
FROM decisions
WHERE run_id = $run_id AND NOT kept AND step <> 'select' AND reason <> 'surplus' AND added_in <= $version
GROUP BY ALL
ORDER BY domain, step, reason;

-- name: spent_of
-- What a run asked its teachers for until a version; `cached` are calls that other runs had bought before.
SELECT purpose, model, count(*) FILTER (status <> 'cached')::BIGINT AS calls,
    count(*) FILTER (status = 'cached')::BIGINT AS cached, sum(input_tokens)::BIGINT AS input_tokens,
    sum(output_tokens)::BIGINT AS output_tokens, sum(cost_microusd)::BIGINT / 1e6 AS cost_usd
FROM calls_at($version)
WHERE run_id = $run_id
GROUP BY ALL
ORDER BY purpose, model;

-- name: snapshots
-- The snapshots, without their rows.
SELECT snapshot_id, run_id, stage, parent, total_rows AS rows, digest, deficits, added_in AS version
FROM snapshots
WHERE added_in <= $version
ORDER BY added_in, snapshot_id;

-- name: coverage
-- Rows per domain at a version, the largest first.
SELECT * FROM coverage_in_at($version, $domain_set) ORDER BY train DESC, domain;

-- name: tags
-- The names of versions, the newest row of each name.
SELECT name, version FROM tags WHERE added_in <= $version
QUALIFY row_number() OVER (PARTITION BY name ORDER BY added_in DESC) = 1
ORDER BY name;

-- name: log
-- The versions, newest first, with what each added.
SELECT v.version, (
        SELECT string_agg(name, ', ' ORDER BY name) FROM (
            SELECT name, version FROM tags WHERE added_in <= $version
            QUALIFY row_number() OVER (PARTITION BY name ORDER BY added_in DESC) = 1
        ) AS t WHERE t.version = v.version
    ) AS tags, v.created_at, v.message, v.run_id, v.stage, v.step,
    (SELECT count(*) FROM examples AS e WHERE e.added_in = v.version) AS examples,
    (SELECT count(*) FROM rationales AS r WHERE r.added_in = v.version) AS rationales,
    (SELECT max(snapshot_id) FROM snapshots AS s WHERE s.added_in = v.version) AS snapshot_id,
    v.digest
FROM versions AS v
WHERE v.version <= $version
ORDER BY v.version DESC;

-- name: size
-- How many examples of a split are in use at a version.
SELECT count(*) AS rows FROM labelled_at($version) WHERE split = $split AND NOT retired;

-- name: stored_labels
-- The current labels of the incoming examples that the pool has already.
SELECT l.example_id, l.domain, l.split, l.origin
FROM labels_at($version) AS l
SEMI JOIN incoming AS i USING (example_id);

-- name: incoming_leaks
-- How many train examples stand in eval with a prompt that is among the incoming ones.
SELECT count(*) AS leaks FROM leaks_at($version) AS k SEMI JOIN incoming AS i USING (prompt_key);

-- name: unknown_examples
-- The incoming ids that no example of the pool has.
SELECT DISTINCT i.example_id FROM incoming AS i ANTI JOIN examples AS e USING (example_id) ORDER BY i.example_id;

-- name: usable
-- The incoming ids of examples that are in the pool and not retired.
SELECT DISTINCT l.example_id FROM labelled_at($version) AS l SEMI JOIN incoming AS i USING (example_id) WHERE NOT l.retired;

-- name: snapshot
-- One snapshot's record.
SELECT snapshot_id, digest, parent, run_id, stage, total_rows, recipe_yaml, deficits, added_in
FROM snapshots
WHERE snapshot_id = $snapshot_id;

-- name: snapshot_rows
-- All rows of a snapshot in order: those of its parents, then its own. A row whose texts are lost shows nulls.
SELECT r.position, r.row_id, r.stage, r.example_id, r.rationale_id, r.copy, r.domain, r.split, r.origin, e.prompt,
    e.reference, a.text AS rationale, a.answer, a.author
FROM snapshot_parts AS p
JOIN snapshot_rows AS r ON r.snapshot_id = p.part_id
LEFT JOIN examples AS e USING (example_id)
LEFT JOIN rationales AS a USING (rationale_id)
WHERE p.snapshot_id = $snapshot_id
ORDER BY r.position;

-- name: snapshot_block
-- The rows of a snapshot from one position up to another, in order. A row whose texts are lost is not there.
SELECT r.position, r.row_id, r.stage, e.example_id, a.rationale_id, r.copy, r.domain, r.split, r.origin, e.prompt,
    e.reference, a.text AS rationale, coalesce(a.answer, '') AS answer, a.author
FROM snapshot_parts AS p
JOIN snapshot_entries AS r ON r.snapshot_id = p.part_id
JOIN examples AS e ON e.number = r.example_number
JOIN rationales AS a ON a.number = r.rationale_number
WHERE p.snapshot_id = $snapshot_id AND r.position >= $first AND r.position < $last
ORDER BY r.position;

-- name: refused_rows
-- The rows of a snapshot, its parents' included, that may not be in one at a version, and why. The joins are by numbers
-- and carry no prompt, so that a million rows fit into the writer's memory.
WITH held AS MATERIALIZED (
    SELECT e.number, e.example_id, l.split, e.prompt_key, gone.example_id IS NOT NULL AS retired
    FROM examples AS e
    JOIN labels_at($version) AS l USING (example_id)
    LEFT JOIN (SELECT DISTINCT example_id FROM retirements WHERE added_in <= $version) AS gone USING (example_id)
),
eval_keys AS (SELECT DISTINCT prompt_key FROM held WHERE split = 'eval' AND NOT retired),
refused AS (
    SELECT r.position, r.example_number, CASE
        WHEN e.number IS NULL THEN 'its example is not in the pool'
        WHEN a.number IS NULL THEN 'its rationale is not in the pool'
        WHEN a.example_id <> e.example_id THEN 'its rationale belongs to another example'
        WHEN NOT a.accepted THEN 'its rationale was rejected'
        WHEN e.retired THEN 'its example is retired'
        WHEN e.split = 'eval' OR k.prompt_key IS NOT NULL THEN 'its prompt stands in the eval split'
    END AS problem
    FROM snapshot_parts AS p
    JOIN snapshot_entries AS r ON r.snapshot_id = p.part_id
    LEFT JOIN held AS e ON e.number = r.example_number
    LEFT JOIN rationales AS a ON a.number = r.rationale_number
    LEFT JOIN eval_keys AS k ON k.prompt_key = e.prompt_key
    WHERE p.snapshot_id = $snapshot_id AND problem IS NOT NULL
)
SELECT r.position, e.example_id, e.prompt, r.problem
FROM refused AS r
LEFT JOIN examples AS e ON e.number = r.example_number
ORDER BY r.position;

-- name: orphan_rationales
-- How many rationales, scores and evaluations belong to no example.
SELECT 'rationales' AS name, count(*) AS rows FROM rationales ANTI JOIN examples USING (example_id)
UNION ALL
SELECT 'scores', count(*) FROM scores ANTI JOIN examples USING (example_id)
UNION ALL
SELECT 'evaluations', count(*) FROM evaluations ANTI JOIN examples USING (example_id)
UNION ALL
SELECT 'labels', count(*) FROM labels ANTI JOIN examples USING (example_id);

-- name: contradictions
-- Staged rows that repeat an earlier one with another domain.
WITH first AS (SELECT example_id, min(place) AS place FROM staged GROUP BY example_id HAVING count(*) > 1)
SELECT s.place, format('{} {} {}: the same prompt and answer as {} {} {}, there with domain ''{}'', here with ''{}''',
    sn.name, sn.unit, s.number, fn.name, fn.unit, f.number, f.domain, s.domain) AS problem
FROM staged AS s
JOIN first USING (example_id)
JOIN staged AS f ON f.place = first.place
JOIN sources AS sn ON sn.source = s.source
JOIN sources AS fn ON fn.source = f.source
WHERE s.domain <> f.domain;

-- name: disagreements
-- Staged rows that the pool has with another domain or split, one for each of an example's first row.
WITH first AS (SELECT example_id, min(place) AS place FROM staged GROUP BY example_id),
wrong AS (
    SELECT s.example_id, s.place, s.source, s.number, k.domain AS domain_stored, s.domain, k.split AS split_stored
    FROM staged AS s
    JOIN first USING (place)
    JOIN known AS k ON k.example_id = s.example_id
    WHERE k.domain <> s.domain OR k.split <> $split
)
SELECT s.place, CASE WHEN s.place = w.place THEN concat_ws(chr(10),
    CASE WHEN w.domain <> w.domain_stored THEN format('{} {} {}: this prompt and answer are in the pool with domain '
        || '''{}'', here it is ''{}''; `balkit relabel` and Pool.relabel change a label',
        n.name, n.unit, w.number, w.domain_stored, w.domain) END,
    CASE WHEN w.split_stored <> $split THEN format('{} {} {}: this prompt and answer are in the pool with split '
        || '''{}'', here it is ''{}''; `balkit relabel` and Pool.relabel change a label',
        n.name, n.unit, w.number, w.split_stored, $split) END) END AS problem
FROM wrong AS w
JOIN staged AS s USING (example_id)
JOIN sources AS n ON n.source = w.source;

-- name: fresh
-- The staged examples that the pool lacks, each once, by id.
SELECT s.place, s.example_id, s.domain, s.prompt_key
FROM staged AS s
JOIN (SELECT min(place) AS place FROM staged GROUP BY example_id) AS first USING (place)
ANTI JOIN known AS k USING (example_id)
ORDER BY s.example_id;

-- name: staged_counts
-- How many rows and domains are staged, and of the examples that the pool lacks how many have no reference.
SELECT count(*) AS rows, count(DISTINCT domain) AS domains,
    count(DISTINCT example_id) FILTER (example_id NOT IN (SELECT example_id FROM known)) AS new,
    count(DISTINCT example_id) FILTER (NOT answered AND example_id NOT IN (SELECT example_id FROM known)) AS unanswered
FROM staged;

-- name: store_snapshot_rows
-- The incoming rows of a snapshot, by the numbers of what they name.
INSERT INTO snapshot_entries BY NAME
SELECT i.* EXCLUDE (example_id, rationale_id), e.number AS example_number, a.number AS rationale_number
FROM incoming AS i
LEFT JOIN examples AS e USING (example_id)
LEFT JOIN rationales AS a USING (rationale_id)
ORDER BY i.position;

-- name: lost_rows
-- The incoming rows of a stored snapshot whose example or rationale the pool lacks.
SELECT i.position, i.example_id, i.prompt, CASE WHEN r.example_number IS NULL THEN 'its example is not in the pool'
    ELSE 'its rationale is not in the pool' END AS problem
FROM snapshot_entries AS r
JOIN incoming AS i USING (position)
WHERE r.snapshot_id = $snapshot_id AND (r.example_number IS NULL OR r.rationale_number IS NULL)
ORDER BY i.position;

-- name: differing_row
-- The first of the incoming rows that the snapshot does not hold as they are given. Texts are compared by DuckDB's
-- 64-bit hashes, made before the joins, which carry no text.
SELECT i.position
FROM (
    SELECT position, hash(row_id, stage, copy, domain, split, origin) AS entry,
        hash(example_id, prompt, reference) AS example, hash(rationale_id, rationale, author, answer) AS answer
    FROM incoming
) AS i
LEFT JOIN (
    SELECT position, example_number, rationale_number, hash(row_id, stage, copy, domain, split, origin) AS entry
    FROM snapshot_entries WHERE snapshot_id = $snapshot_id
) AS r USING (position)
LEFT JOIN (SELECT number, hash(example_id, prompt, reference) AS example FROM examples) AS e
    ON e.number = r.example_number
LEFT JOIN (SELECT number, hash(rationale_id, text, author, coalesce(answer, '')) AS answer FROM rationales) AS a
    ON a.number = r.rationale_number
WHERE (i.entry = r.entry AND i.example = e.example AND i.answer = a.answer) IS NOT TRUE
ORDER BY i.position
LIMIT 1;

-- name: differing_column
-- The column in which an incoming row differs from the snapshot's.
SELECT CASE
        WHEN r.row_id IS DISTINCT FROM i.row_id THEN 'row_id'
        WHEN r.stage IS DISTINCT FROM i.stage THEN 'stage'
        WHEN r.copy IS DISTINCT FROM i.copy THEN 'copy'
        WHEN r.domain IS DISTINCT FROM i.domain THEN 'domain'
        WHEN r.split IS DISTINCT FROM i.split THEN 'split'
        WHEN r.origin IS DISTINCT FROM i.origin THEN 'origin'
        WHEN e.example_id IS DISTINCT FROM i.example_id THEN 'example_id'
        WHEN a.rationale_id IS DISTINCT FROM i.rationale_id THEN 'rationale_id'
        WHEN e.prompt IS DISTINCT FROM i.prompt THEN 'prompt'
        WHEN e.reference IS DISTINCT FROM i.reference THEN 'reference'
        WHEN a.text IS DISTINCT FROM i.rationale THEN 'rationale'
        WHEN a.author IS DISTINCT FROM i.author THEN 'author'
        ELSE 'answer'
    END AS name
FROM (SELECT * FROM incoming WHERE position = $position) AS i
LEFT JOIN snapshot_entries AS r ON r.snapshot_id = $snapshot_id AND r.position = i.position
LEFT JOIN examples AS e ON e.number = r.example_number
LEFT JOIN rationales AS a ON a.number = r.rationale_number;

-- name: snapshot_keys
-- What makes the rows of a snapshot, its parents' included, what they are.
SELECT r.position, r.row_id, r.example_id, r.rationale_id, r.copy
FROM snapshot_parts AS p
JOIN snapshot_rows AS r ON r.snapshot_id = p.part_id
WHERE p.snapshot_id = $snapshot_id
ORDER BY r.position;

-- name: domain_sets
-- The sets of domains at a version, the newest record of each.
SELECT s.domain_set, s.detail, s.added_in AS version, (
        SELECT count(DISTINCT example_id) FROM domain_labels AS l WHERE l.domain_set = s.domain_set AND added_in <= $version
    ) AS examples, (
        SELECT count(DISTINCT domain) FROM domains_at($version, s.domain_set)
    ) AS domains
FROM domain_sets AS s
WHERE s.added_in <= $version
QUALIFY row_number() OVER (PARTITION BY s.domain_set ORDER BY s.added_in DESC) = 1
ORDER BY s.domain_set;

-- name: without_domain
-- The examples from the source that a set of domains has no domain for.
SELECT example_id FROM labelled_at($version) AS l
ANTI JOIN domains_at($version, $domain_set) AS d USING (example_id)
WHERE NOT retired AND origin = 'source'
ORDER BY example_id;

-- name: rows_by_stage
-- The rows that every stage of a run added, per domain and origin, and the real examples that its real rows are of:
-- fewer, where an example has several worked answers.
SELECT s.stage, r.domain,
    count(*) FILTER (r.copy = 0 AND r.origin = 'source') AS real,
    count(*) FILTER (r.copy = 0 AND r.origin = 'synthetic') AS synthetic,
    count(*) FILTER (r.copy > 0) AS repeats,
    count(DISTINCT r.example_number) FILTER (r.copy = 0 AND r.origin = 'source') AS examples
FROM snapshots AS s
JOIN snapshot_entries AS r USING (snapshot_id)
WHERE s.run_id = $run_id
GROUP BY ALL
ORDER BY ALL;

-- name: refused_by_stage
-- What a run's checks refused, by stage, domain, step and reason.
SELECT stage, domain, step, reason, count(*)::BIGINT AS rows
FROM decisions
WHERE run_id = $run_id AND NOT kept AND step <> 'select' AND reason <> 'surplus'
GROUP BY ALL
ORDER BY ALL;

-- name: refused_samples
-- A few of what a run refused for each reason, drawn evenly over domains, with texts cut to $chars. Of several worked
-- answers that were refused for it, the one that this run stored.
WITH turns AS (
    SELECT *, row_number() OVER (PARTITION BY step, reason, domain ORDER BY example_id, stage) AS turn
    FROM decisions
    WHERE run_id = $run_id AND NOT kept AND step <> 'select' AND reason <> 'surplus'
),
drawn AS (
    SELECT * FROM turns
    QUALIFY row_number() OVER (PARTITION BY step, reason ORDER BY turn, domain, example_id) <= $each
),
answered AS (
    SELECT a.example_id, a.reason,
        arg_min(a.text, {'other': v.run_id IS DISTINCT FROM $run_id, 'id': a.rationale_id}) AS text
    FROM rationales AS a SEMI JOIN drawn USING (example_id)
    JOIN versions AS v ON v.version = a.added_in
    WHERE NOT a.accepted
    GROUP BY ALL
)
SELECT d.step, d.reason, d.stage, d.domain, d.example_id, left(d.detail, 50000) AS detail,
    left(e.prompt, $chars) AS prompt, left(e.reference, $chars) AS reference, left(a.text, $chars) AS text
FROM drawn AS d
LEFT JOIN examples AS e USING (example_id)
LEFT JOIN answered AS a ON a.example_id = d.example_id AND a.reason = d.reason
ORDER BY d.step, d.reason, d.turn, d.domain, d.example_id;

-- name: ifd_by_stage
-- The IFD that a run's stages gave their candidates, and whether the next stage took the candidate. A score that was
-- stored before, by the same weights and settings, is not stored again: the stage's decisions lead to it. What stage 1
-- ranked by goes by no score, and by it later stages take the domains that give all they have.
WITH taken AS (
    SELECT DISTINCT s.stage, e.example_id
    FROM snapshots AS s
    JOIN snapshot_entries AS r USING (snapshot_id)
    JOIN examples AS e ON e.number = r.example_number
    WHERE s.run_id = $run_id
),
added AS (
    SELECT v.stage + 1 AS stage, s.example_id, s.value, s.reason, s.checkpoint, s.settings
    FROM versions AS v
    JOIN scores AS s ON s.added_in = v.version
    WHERE v.run_id = $run_id AND v.step = 'scores' AND s.name = 'ifd'
),
ranked AS (
    SELECT stage, example_id FROM decisions
    WHERE run_id = $run_id AND step = 'select' AND reason <> 'unscored: not among the candidates'
        AND method NOT IN (SELECT method FROM decisions WHERE run_id = $run_id AND step = 'select' AND stage = 1)
),
before AS (
    SELECT d.stage, d.example_id, s.value, s.reason
    FROM ranked AS d
    JOIN (SELECT DISTINCT stage, checkpoint, settings FROM added) AS a USING (stage)
    JOIN scores AS s ON (s.example_id, s.checkpoint, s.settings, s.name) = (d.example_id, a.checkpoint, a.settings, 'ifd')
),
scored AS (
    SELECT stage, example_id, value, reason FROM added
    UNION
    SELECT stage, example_id, value, reason FROM before
)
SELECT s.stage, s.value AS ifd, s.reason, t.example_id IS NOT NULL AS taken
FROM scored AS s
LEFT JOIN taken AS t USING (example_id, stage)
ORDER BY s.stage, s.example_id;

-- name: ifd_ranked
-- The same of the rows that were ranked by IFD, for a run whose scores an earlier one had stored.
SELECT stage, gain AS ifd, reason, kept AS taken
FROM decisions
WHERE run_id = $run_id AND step = 'select' AND method = 'ifd' AND gain IS NOT NULL
ORDER BY stage, example_id;

-- name: evaluated
-- The answers of a split by checkpoint and settings: the rows, and the run and stage whose step stored them.
SELECT e.checkpoint, e.settings, v.run_id, v.stage, count(*) AS rows
FROM evaluations AS e
JOIN versions AS v ON v.version = e.added_in
WHERE e.split = 'eval'
GROUP BY ALL
ORDER BY ALL;

-- name: graded
-- What a checkpoint answered to eval, right or wrong, without the texts.
SELECT checkpoint, settings, example_id, domain, split, NULL::VARCHAR AS predicted, correct, '' AS text
FROM evaluations
WHERE checkpoint = $checkpoint AND settings = $settings AND split = 'eval'
ORDER BY example_id;

-- name: real_sample
-- Real train examples in use at a version, those with the lowest ids, which are digests: a random sample.
SELECT e.example_id, e.prompt, l.domain
FROM (
    SELECT example_id, domain FROM labels_at($version) AS l
    ANTI JOIN (SELECT example_id FROM retirements WHERE added_in <= $version) AS gone USING (example_id)
    WHERE split = 'train' AND origin = 'source'
    ORDER BY example_id LIMIT $rows
) AS l
JOIN examples AS e USING (example_id)
ORDER BY e.example_id;

-- name: row_sample
-- Rows of a run with their lineage and texts cut to $chars, at most $rows of them, drawn evenly over domains: in the
-- order of `turn`, domain and id the first so many are as even.
WITH turns AS (
    SELECT s.snapshot_id, r.* EXCLUDE (snapshot_id, added_in),
        row_number() OVER (PARTITION BY r.domain ORDER BY r.row_id) AS turn
    FROM snapshots AS s
    JOIN snapshot_entries AS r USING (snapshot_id)
    WHERE s.run_id = $run_id
),
kept AS (SELECT * FROM turns ORDER BY turn, domain, row_id LIMIT $rows),
worked AS (SELECT a.* FROM rationales AS a SEMI JOIN kept AS k ON k.rationale_number = a.number),
settled AS (
    SELECT c.* FROM calls AS c SEMI JOIN worked AS a ON a.source = c.key
    QUALIFY row_number() OVER (
        PARTITION BY c.key, c.run_id ORDER BY c.added_in DESC, c.attempts DESC, c.cost_microusd DESC
    ) = 1
),
bought AS (
    SELECT key, max(purpose) AS purpose, max(model) AS model, sum(cost_microusd)::BIGINT / 1e6 AS cost_usd
    FROM settled GROUP BY key
)
SELECT k.turn, k.row_id, k.snapshot_id, k.stage, k.position, k.copy, k.domain, k.origin, e.example_id, e.parents,
    a.rationale_id, a.author, a.source AS call_key, c.purpose, c.model, c.cost_usd, left(e.prompt, $chars) AS prompt,
    e.prompt AS whole_prompt, left(a.answer, $chars) AS answer, left(a.text, $chars) AS rationale
FROM kept AS k
LEFT JOIN examples AS e ON e.number = k.example_number
LEFT JOIN worked AS a ON a.number = k.rationale_number
LEFT JOIN bought AS c ON c.key = a.source
ORDER BY k.turn, k.domain, k.row_id;

-- name: shared_examples
-- Of the examples that two runs took: those of the first, of the second, and of both.
WITH taken AS (
    SELECT DISTINCT s.run_id, r.example_number
    FROM snapshots AS s
    JOIN snapshot_entries AS r USING (snapshot_id)
    WHERE s.run_id IN ($first, $second)
),
runs AS (
    SELECT example_number, bool_or(run_id = $first) AS in_first, bool_or(run_id = $second) AS in_second
    FROM taken GROUP BY example_number
)
SELECT count(*) FILTER (in_first) AS first, count(*) FILTER (in_second) AS second,
    count(*) FILTER (in_first AND in_second) AS both
FROM runs;
