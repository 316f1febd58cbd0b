"""Reads tables as others do. It answers each line of JSON on standard input:

    {"reader": "delta-rs", "path": "/a/table"}

with {"rows": N, "checksum": "16 hex digits"}, as package rowsum defines it, or
{"error": "..."}. A request may have besides:

    "version": 7                               that version
    "time": "2001-02-03T04:05:06Z"             the version of that time
    "where": [{"column": "id", "value": 5}]    for each of the conditions, the rows that meet it
    "changes": true                            the change data feed from version 0, without times
    "row_ids": true                            columns _row_id and _row_commit_version too
    "lines": true                              in the answer, "lines": the rows themselves
    "canon": "/a/canon.py"                     the checksum of its checksum(table) instead

Not every reader has all of these. The reader "parquet" reads all Parquet files below
the path. {"do": "append", "path": ..., "ids": [...]},
"optimize", "delete", "checkpoint", "vacuum" and "merge" have delta-rs write. It answers
{}, or for "vacuum" {"rows": N}, the files that it deleted, or {"error": "..."}.
"""

import glob
import json
import os
import runpy
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import duckdb_ext
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import rowsum
from deltalake import DeltaTable, QueryBuilder, write_deltalake


def sql(r, table):
    """A query of columns and literals that delta-rs and DuckDB both take."""

    def literal(v):
        return "'%s'" % v.replace("'", "''") if isinstance(v, str) else str(v)

    text = "select * from " + table
    if "where" not in r:
        return text
    return " union all ".join('%s where "%s" = %s' % (text, w["column"].replace('"', '""'), literal(w["value"])) for w in r["where"])


def delta_rs(r):
    t = DeltaTable(r["path"], version=r.get("version"))
    if r.get("changes"):
        return pa.table(t.load_cdf(starting_version=0).read_all()).drop_columns("_commit_timestamp")
    return pa.table(QueryBuilder().register("t", t).execute(sql(r, "t")).read_all())


def in_duckdb(r):
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as con:
        duckdb_ext.init(con)
        con.execute("load delta")
        con.execute("set timezone = 'UTC'")
        got = con.execute(sql(r, "delta_scan('%s')" % r["path"].replace("'", "''"))).arrow()
        return got.read_all() if hasattr(got, "read_all") else got


def in_polars(r):
    rows = polars.scan_delta(r["path"], version=r.get("version"))
    if "where" in r:
        rows = polars.concat(rows.filter(polars.col(w["column"]) == w["value"]) for w in r["where"])
    return rows.collect().to_arrow()


def parquet(r):
    files = glob.glob(os.path.join(glob.escape(r["path"]), "**", "*.parquet"), recursive=True)
    return pa.concat_tables([pq.ParquetFile(f).read() for f in files])


READERS = {"delta-rs": delta_rs, "duckdb": in_duckdb, "polars": in_polars, "parquet": parquet}
LACKS = {
    "delta-rs": {"time", "row_ids"},
    "duckdb": {"version", "time", "changes", "row_ids"},
    "polars": {"time", "changes", "row_ids"},
    "parquet": {"version", "time", "changes", "row_ids", "where"},
}


def read(r):
    lacks = LACKS[r["reader"]].intersection(r)
    if lacks:
        raise NotImplementedError("%s is not asked for %s" % (r["reader"], ", ".join(sorted(lacks))))
    rows = READERS[r["reader"]](r)
    if "canon" in r:
        n, s = runpy.run_path(r["canon"])["checksum"](rows)
        return {"rows": n, "checksum": s}
    lines = list(rowsum.arrow_lines(rows))
    s = rowsum.checksum(lines)
    answer = {"rows": s.rows, "checksum": str(s)}
    if r.get("lines"):
        answer["lines"] = sorted(lines)
    return answer


def write(r):
    """Rows have an id and a name, as the tables of the tests do that others write."""
    t = DeltaTable(r["path"])
    ids = r.get("ids", [])
    rows = pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array([r.get("name")] * len(ids), pa.string())})
    what = r["do"]
    if what == "append":
        write_deltalake(t, rows, mode="append")
    elif what == "optimize":
        t.optimize.compact()
    elif what == "delete":
        t.delete("id in (%s)" % ", ".join(map(str, ids)))
    elif what == "merge":
        t.merge(rows, "t.id = s.id", source_alias="s", target_alias="t").when_matched_update_all().when_not_matched_insert_all().execute()
    elif what == "vacuum":
        return {"rows": len(t.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False))}
    elif what == "checkpoint":
        t.create_checkpoint()
    else:
        raise ValueError(what)
    return {}


if __name__ == "__main__":
    out = sys.stdout
    sys.stdout = sys.stderr
    versions = {"delta-rs": __import__("deltalake").__version__, "duckdb": duckdb.__version__, "polars": polars.__version__}
    print(json.dumps({"ready": True, "versions": versions}), file=out, flush=True)
    for line in sys.stdin:
        try:
            r = json.loads(line)
            answer = write(r) if "do" in r else read(r)
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # a panic of Rust code is no Exception
            answer = {"error": "%s: %s" % (type(e).__name__, str(e)[:2000])}
        print(json.dumps(answer), file=out, flush=True)
