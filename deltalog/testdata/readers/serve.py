"""Reads tables as others do. It answers each line of JSON on standard input:

    {"reader": "delta-rs", "path": "/a/table", "version": 7}    version may be missing

with {"rows": N, "checksum": "16 hex digits"}, as package rowsum defines it, or
{"error": "..."}. With "lines": true the answer has the rows themselves as well.
{"do": "append", "path": ..., "ids": [...]}, "optimize", "delete", "vacuum" and
"merge" have delta-rs write. It answers {} or {"error": "..."}.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import duckdb_ext
import polars
import pyarrow as pa
import rowsum
from deltalake import DeltaTable, QueryBuilder, write_deltalake


def delta_rs(path, version):
    t = DeltaTable(path, version=version)
    return pa.table(QueryBuilder().register("t", t).execute("select * from t").read_all())


def in_duckdb(path, version):
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as con:
        duckdb_ext.init(con)
        con.execute("load delta")
        con.execute("set timezone = 'UTC'")
        at = "" if version is None else ", version => %d" % version
        got = con.execute("select * from delta_scan('%s'%s)" % (path.replace("'", "''"), at)).arrow()
        return got.read_all() if hasattr(got, "read_all") else got


def in_polars(path, version):
    return polars.scan_delta(path, version=version).collect().to_arrow()


READERS = {"delta-rs": delta_rs, "duckdb": in_duckdb, "polars": in_polars}


def read(r):
    lines = list(rowsum.arrow_lines(READERS[r["reader"]](r["path"], r.get("version"))))
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
        t.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
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
