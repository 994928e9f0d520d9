"""`MapBatches` on real clusters of two workers on this machine: Ray Data and Dask.

They are installed for one version of Python (extra `test`), where they must not be missing. Slow,
because clusters take seconds to start.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pytest

from tests.support.guests import guest
from tests.support.paths import ROOT

if sys.version_info[:2] != (3, 12):
    pytest.skip("Ray and Dask are tested on Python 3.12", allow_module_level=True)

import pandas as pd
import pyarrow as pa

from plugwasm import FromEnvironment, MapBatches, PluginRef

COUNT_VOWELS = ROOT / "examples" / "count_vowels.wasm"
ROWS = 40_000
VOWELS = pa.struct([("count", pa.int64())])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.clusters,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),
]

PICKY = guest(
    """(func (export "picky")
      (if (i32.eq (call $input_load_u8 (i64.const 0)) (i32.const 63)) (then (call $error_set <<what is this?>>)))
      (call $echo))
    (func (export "secret") (call $give (call $config_get <<secret>>)))"""
)


def table() -> pa.Table:
    return pa.table(
        {"id": range(ROWS), "text": [f"Text number {n}, {'aeiou'[: n % 6]}" for n in range(ROWS)]}
    )


def vowels(text: str) -> int:
    return sum(text.count(letter) for letter in "aeiouAEIOU")


def expected() -> list[tuple[str, int]]:
    return [(text, vowels(text)) for text in table().column("text").to_pylist()]


def test_ray_tasks_and_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Data maps with tasks and with actors on both workers."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("CLUSTER_SECRET", raising=False)
    import ray

    def slowly_with_pid(batch: pa.Table) -> pa.Table:
        time.sleep(0.2)  # or the first worker would be done before the second has started
        return batch.append_column("pid", pa.array([os.getpid()] * batch.num_rows))

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"CLUSTER_SECRET": "of the cluster"}},
    )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        given = table()
        dataset = ray.data.from_arrow(
            [given.slice(start, ROWS // 20) for start in range(0, ROWS, ROWS // 20)]
        )
        count = MapBatches(
            PluginRef(COUNT_VOWELS), "count_vowels", column="text", into="vowels", returns=VOWELS
        )

        # Tasks: the object itself is what maps.
        done = (
            dataset.map_batches(count, batch_format="pyarrow")
            .map_batches(slowly_with_pid, batch_format="pyarrow")
            .take_all()
        )
        assert sorted((row["id"], row["text"], row["vowels"]["count"]) for row in done) == [
            (number, text, found) for number, (text, found) in enumerate(expected())
        ]
        assert len({row["pid"] for row in done} - {os.getpid()}) == 2

        # Other kinds of batches.
        few = ray.data.from_arrow(given.slice(0, 1000))
        for kind in ("pandas", "numpy"):
            done = few.map_batches(count, batch_format=kind).take_all()
            assert [(row["text"], row["vowels"]["count"]) for row in done] == expected()[:1000]

        # Actors: the class and its arguments.
        done = few.map_batches(
            MapBatches,
            fn_constructor_args=(count.ref, "count_vowels"),
            fn_constructor_kwargs={
                "column": "text",
                "into": "vowels",
                "returns": VOWELS,
                "instance_per": "thread",
            },
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=2),
        ).take_all()
        assert sorted((row["text"], row["vowels"]["count"]) for row in done) == sorted(
            expected()[:1000]
        )

        # A secret that only the workers have.
        picky = PluginRef(PICKY, config={"secret": FromEnvironment("CLUSTER_SECRET")})
        one = ray.data.from_arrow(pa.table({"text": ["fine", "?"]}))
        done = one.map_batches(
            MapBatches(picky, "secret", column="text"), batch_format="pyarrow"
        ).take_all()
        assert [row["result"] for row in done] == ["of the cluster"] * 2

        # A row that fails.
        with pytest.raises(Exception, match=r"row 1 of 2: .*what is this\?"):
            one.map_batches(
                MapBatches(picky, "picky", column="text"), batch_format="pyarrow"
            ).materialize()
    finally:
        ray.shutdown()


def test_dask_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask maps the partitions of a frame on both workers."""
    import dask
    import dask.dataframe as dd
    from dask.base import tokenize
    from distributed import Client, LocalCluster

    monkeypatch.setenv("CLUSTER_SECRET", "of the cluster")

    def slowly_with_pid(frame: pd.DataFrame) -> pd.DataFrame:
        time.sleep(0.1)
        return frame.assign(pid=os.getpid())

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "60s"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        frame: Any = dd.from_pandas(table().to_pandas(), npartitions=20)
        ref = PluginRef(COUNT_VOWELS)
        count = MapBatches(ref, "count_vowels", column="text", into="vowels")
        assert tokenize(count) == tokenize(
            MapBatches(PluginRef(COUNT_VOWELS), "count_vowels", column="text", into="vowels")
        )

        counted = frame.map_partitions(count, meta=count(frame._meta))
        assert list(counted.columns) == ["id", "text", "vowels"]
        counts = counted.vowels.str.extract(r'"count":(\d+)', expand=False).astype("int64")
        done = (
            counted.assign(vowels=counts)
            .map_partitions(
                slowly_with_pid,
                meta={"id": "int64", "text": "string", "vowels": "int64", "pid": "int64"},
            )
            .compute()
        )
        assert list(zip(done.text, done.vowels, strict=True)) == expected()
        assert set(done.pid) == set(client.run(os.getpid).values())

        picky = PluginRef(PICKY, config={"secret": FromEnvironment("CLUSTER_SECRET")})
        monkeypatch.delenv("CLUSTER_SECRET")
        secret = frame.partitions[0].map_partitions(
            MapBatches(picky, "secret", column="text"),
            meta=count(frame._meta).rename(columns={"vowels": "result"}),
        )
        assert set(secret.compute().result) == {"of the cluster"}

        two: Any = dd.from_pandas(pd.DataFrame({"text": ["fine", "?"]}), npartitions=1)
        failing = MapBatches(picky, "picky", column="text")
        with pytest.raises(Exception, match=r"row 1 of 2: .*what is this\?"):
            two.map_partitions(failing, meta=failing(two._meta)).compute()
