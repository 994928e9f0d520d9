"""A plugin over a table, in threads or on a cluster.

Needs pyarrow: `pip install 'plugwasm[arrow]'`.

    python examples/scale_out.py         threads of this process
    python examples/scale_out.py ray     Ray Data; RAY_ADDRESS=auto for a cluster
    python examples/scale_out.py dask    Dask; DASK_ADDRESS=tcp://scheduler:8786 for a cluster
    python examples/scale_out.py spark   Spark; spark-submit for a cluster

The mapped function, `count`, is the same everywhere.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

import plugwasm

HERE = Path(__file__).resolve().parent
ROWS = int(os.environ.get("ROWS", "20000"))
WORKERS = int(os.environ.get("WORKERS", "2"))

# `embed`: the machines of a cluster need not have the file.
ref = plugwasm.PluginRef(
    HERE / "count_vowels.wasm",
    embed=True,
    config={"vowels": "aeiouyAEIOUY"},
    limits=plugwasm.Limits(timeout=1.0),
)
count = plugwasm.MapBatches(
    ref, "count_vowels", column="text", into="vowels", returns=pa.struct([("count", pa.int64())])
)

table = pa.table({"text": [f"Line {number} of many, why not?" for number in range(ROWS)]})
parts = [table.slice(start, 1000) for start in range(0, ROWS, 1000)]


def total(vowels: pa.ChunkedArray) -> int:
    return sum(value["count"] for value in vowels.to_pylist())


def with_threads() -> int:
    with ThreadPoolExecutor(WORKERS) as threads:
        return total(pa.concat_tables(threads.map(count, parts)).column("vowels"))


def with_ray() -> int:
    import ray

    if "RAY_ADDRESS" in os.environ:
        ray.init()
    else:
        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    counted = ray.data.from_arrow(parts).map_batches(count, batch_format="pyarrow")
    return sum(row["vowels"]["count"] for row in counted.iter_rows())


def with_dask() -> int:
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    with (
        Client(os.environ["DASK_ADDRESS"])
        if "DASK_ADDRESS" in os.environ
        else Client(LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None))
    ):
        frame = dd.from_pandas(table.to_pandas(), npartitions=len(parts))
        counted = frame.map_partitions(count, meta=count(frame._meta)).compute()
        return sum(value["count"] for value in counted.vowels)


def with_spark() -> int:
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master(os.environ.get("MASTER", f"local[{WORKERS}]")).getOrCreate()
    frame = spark.createDataFrame(table.to_pandas()).repartition(len(parts))
    counted = frame.mapInArrow(count.map_arrow, "text string, vowels struct<count: bigint>")
    (row,) = counted.selectExpr("sum(vowels.count)").collect()
    return int(row[0])


if __name__ == "__main__":
    engines = {"threads": with_threads, "ray": with_ray, "dask": with_dask, "spark": with_spark}
    engine = sys.argv[1] if len(sys.argv) > 1 else "threads"
    began = time.perf_counter()
    print(f"{ROWS} lines have {engines[engine]()} vowels")
    print(
        f"{engine}, {WORKERS} workers: {time.perf_counter() - began:.1f} s, "
        "with the time that it takes to start them",
        file=sys.stderr,
    )
