"""The whole method on one screen: the loop that `balkit.run` does, by hand, on the public API.

    python recipes/three_stage.py POOL RECIPE.yaml

`balkit.run` adds what a long run needs: resume after a kill, refill of rejected rows, repeats, redistribution of what a
domain lacks, progress. Here every stage simply goes top to bottom.
"""

import hashlib
import sys

import polars as pl

import balkit

pool = balkit.Pool.open(sys.argv[1])
recipe = balkit.load_recipe(sys.argv[2])
basis = balkit.Basis.of(pool, recipe)  # real examples apart from eval, and their quotas
vectors = balkit.Vectors(pool.path / "vectors", balkit.make_encoder(recipe.vectors))
run_id = hashlib.sha256(f"by hand {recipe.run_digest()} {pool.version}".encode()).hexdigest()
rows, scores, parent = basis.real.clear(), None, None  # nothing chosen, nothing scored, no snapshot yet

with pool.lock(), balkit.Ledger(pool.path / "calls.sqlite") as ledger:
    for stage in range(1, recipe.stages + 1):
        channel = balkit.channel(ledger, recipe=recipe, labels=basis.labels, run_id=run_id, stage=stage)
        quotas = basis.quotas(stage)

        # 1. Choose representative real examples in every domain: by coverage first, then as the recipe says (by IFD).
        unused = basis.real.join(rows, on="example_id", how="anti")
        decisions = []
        for domain, quota in quotas.items():
            candidates = unused.filter(domain=domain).sort("example_id")
            method = recipe.select.first if stage == 1 or quota >= candidates.height else recipe.select.then
            known = (
                candidates.join(scores, on="example_id", how="left", maintain_order="left") if method == "ifd" else None
            )
            evidence = balkit.Evidence(
                vectors=vectors.of(candidates["prompt"].to_list()),
                chosen=vectors.of(rows.filter(domain=domain)["prompt"].unique(maintain_order=True).to_list()),
                scores=None if known is None else known["value"].fill_null(float("nan")).to_numpy(),
                reasons=None if known is None else known["reason"].to_list(),
                max_ifd=recipe.select.max_ifd,
                strata=recipe.select.strata,
            )
            decisions.append(balkit.select(candidates, quota=quota, method=method, evidence=evidence, seed=recipe.seed))
        chosen = unused.join(pl.concat(decisions).filter("kept"), on="example_id", how="semi").sort("example_id")

        # 2. The teacher works out an answer to each; one that contradicts the reference is rejected.
        answers = balkit.rationales(chosen, channel=channel)
        found = dict(answers.filter("accepted").join(chosen, on="example_id").group_by("domain").len().iter_rows())

        # 3. What a domain still lacks, the teacher writes: checked against duplicates, eval, and a second answer.
        lacking = {
            domain: quota - found.get(domain, 0) for domain, quota in quotas.items() if quota > found.get(domain, 0)
        }
        sources = balkit.Sources(
            demonstrations=basis.real,
            known=[*basis.real["prompt"], *rows["prompt"]],
            evaluation=basis.evaluation["prompt"].to_list(),
            encode=vectors.of,
        )
        made_before = pool.calls(run_id=run_id).filter(pl.col("purpose") == "synthesis").group_by("domain").len()
        written = balkit.write_examples(
            lacking,
            channel=channel,
            section=recipe.synthesis,
            sources=sources,
            seed=recipe.seed,
            start_sample=dict(made_before.iter_rows()),
        )

        # 4. Commit everything, kept or not, with the stage's snapshot: the earlier rows, then these.
        worked = pl.concat([answers, written.rationales])
        own = balkit.training_rows(
            balkit.answered(pl.concat([chosen, written.examples]), worked), stage=stage, seed=recipe.seed
        )
        pool.commit(
            balkit.Commit(
                message=f"stage {stage} by hand",
                key=(run_id, stage, "data"),
                examples=written.examples,
                rationales=worked,
                decisions=pl.concat([*decisions, written.decisions]),
                calls=ledger.calls(run_id),
                snapshot=balkit.SnapshotDraft(run_id, stage, balkit.dump_recipe(recipe), parent, own),
            )
        )
        parent = f"{run_id[:12]}-s{stage}"
        rows = pool.snapshot(parent).rows

        # 5. Train the student from its base weights; its scores steer the next stage, its accuracy is the result.
        trained = balkit.train(pool, parent, recipe=recipe, basis=basis)
        left = basis.real.join(rows, on="example_id", how="anti")
        if stage < recipe.stages and recipe.select.then == "ifd":
            scores = balkit.score(trained.path, left, recipe=recipe).filter(pl.col("name") == "ifd")
        summary = balkit.summarise(balkit.evaluate(trained.path, recipe=recipe, basis=basis), head=basis.head)
        print(f"stage {stage}: {rows.height} rows, macro accuracy {100 * (summary['macro_accuracy'] or 0):.1f} %")
