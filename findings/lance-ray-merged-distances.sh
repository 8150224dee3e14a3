#!/usr/bin/env bash
# lance-ray puts rows that are not yet in the index in wrong places, unless the metric is told and is cosine.
#
# An expert would guess: vector_search gives what one scan of the same Lance table gives, with the work shared out.
#   Rows appended since the index was built are compared exactly, and merged by the same distance. A metric left out
#   is the index's, as it is in Lance.
# What happens: the parts in the index are scanned by Lance, the others are computed by lance-ray with distances of
#   its own, and both are sorted as if they were alike. For dot, Lance says 1 - product and lance-ray -product, so
#   that new rows come first. For l2, Lance says the squared distance and lance-ray its root: new rows come too early
#   where distances are above 1, too late below. With no metric told, lance-ray takes l2 whatever the index has.
#   Cosine, told in nearest, is the same in both, and so is every metric while all rows are in the index.
# Seen with: lance-ray 0.5.0, pylance 14.0.2, ray 2.60.0, numpy 2.4.6. Installs 850 MB.
# What to do: metric "cosine" in the index and in each nearest; or index all rows before a search by another metric.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  lance-ray==0.5.0 pylance==14.0.2 ray==2.60.0 pyarrow==26.0.1 numpy==2.4.6
cd "$folder"
# The second line keeps Ray on this machine's loopback.
export RAY_USAGE_STATS_ENABLED=0 LANCE_LOG=error PYTHONWARNINGS=ignore \
  RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0

"$folder/venv/bin/python" - <<'PYTHON'
import logging
import os
import sys
from importlib.metadata import version

import lance
import lance_ray
import numpy as np
import pyarrow as pa
import ray

print(*(f"{name} {version(name)}" for name in ("lance-ray", "pylance", "ray")))
ROWS, NEW, WIDTH, K, PARTITIONS = 1000, 100, 16, 10, 4
rng = np.random.default_rng(0)
raw = rng.normal(size=(ROWS + NEW, WIDTH)).astype(np.float32)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def table(vectors, first):
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
    return pa.table({"id": range(first, first + len(vectors)), "vector": column})


def search(metric, told):
    """Ids of the nearest rows: by numpy, by one Lance scan and by lance-ray, before and after all is indexed."""
    vectors = raw if metric == "l2" else unit(raw)
    query = vectors[:3].sum(axis=0) + vectors[ROWS : ROWS + 3].sum(axis=0)  # like some old rows and some new ones
    query = query if metric == "l2" else unit(query)
    distances = np.linalg.norm(vectors - query, axis=1)  # of unit vectors, the same order as by dot and by cosine
    exact = np.argsort(distances)[:K].tolist()
    place = f"{metric}-{told}.lance"
    dataset = lance.write_dataset(table(vectors[:ROWS], 0), place)
    dataset.create_index("vector", "IVF_FLAT", metric=metric, num_partitions=PARTITIONS)
    dataset = lance.write_dataset(table(vectors[ROWS:], ROWS), place, mode="append")
    nearest = {"column": "vector", "q": query, "k": K, "nprobes": PARTITIONS} | ({"metric": metric} if told else {})
    columns = ["id", "_distance"]
    scan = dataset.to_table(columns=columns, nearest=nearest)["id"].to_pylist()
    shared = lance_ray.vector_search(dataset, nearest=nearest, columns=columns, num_workers=2)["id"].to_pylist()
    dataset.create_index("vector", "IVF_FLAT", metric=metric, num_partitions=PARTITIONS, replace=True)
    indexed = lance_ray.vector_search(dataset, nearest=nearest, columns=columns, num_workers=2)["id"].to_pylist()
    return exact, scan, shared, indexed


quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
cases = [("cosine", True, True), ("dot", True, False), ("l2", True, False), ("cosine", False, False)]  # right or not
ray.init(num_cpus=2, _temp_dir=os.path.abspath("ray"), **quiet)
try:
    for metric, told, right in cases:
        case = f"{metric}, {'told' if told else 'left out'}"
        exact, scan, shared, indexed = search(metric, told)
        new = [sum(number >= ROWS for number in ids) for ids in (exact, scan, shared)]
        hits = [len(set(exact) & set(ids)) for ids in (shared, indexed)]
        print(f"{case}: new of the {K} nearest: {new[0]} by numpy, {new[1]} by Lance, {new[2]} by lance-ray;", end=" ")
        print(f"right of lance-ray's {K}: {hits[0]}, and {hits[1]} once all is indexed")
        if scan != exact or indexed != exact:
            sys.exit(f"changed: with {case}, one Lance scan or lance-ray over indexed rows alone differs from numpy")
        if (shared == exact) != right:
            sys.exit(f"changed: with {case}, lance-ray's answer is now {'wrong' if right else 'right'}")
finally:
    ray.shutdown()
print("as described")
PYTHON
