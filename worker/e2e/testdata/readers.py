"""Reads Delta tables with software that is not Millrace's: delta-rs and DuckDB.

usage: readers.py rows ENGINE < TABLES       every row, one JSON line each
       readers.py compare < TABLES           counts and checksums beside wanted rows

TABLES are JSON lines: {"name", "uri", "columns", "where", "want"}. `columns`
are those to read, null for all. `where` is SQL, or null. `want` is a file of
JSON lines, the rows as the source has them. A row is a list of cells; a cell is
null, a text, or a list of cells. Dates are days, timestamps microseconds since
1970, decimals have all digits of their scale, floats are their eight bytes, and
bytes are hexadecimal.
"""
import hashlib
import json
import struct
import sys

import duckdb
import duckdb_ext
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def query(source, columns, where):
    names = ", ".join(quoted(c) for c in columns) if columns else "*"
    return f"select {names} from {source}" + (f" where {where}" if where else "")


def read_deltalake(uri, columns, where):
    q = QueryBuilder().register("t", DeltaTable(uri)).execute(query("t", columns, where))
    return pa.table(q.read_all())


def read_duckdb(uri, columns, where):
    con = duckdb.connect()
    duckdb_ext.init(con)
    con.execute("load delta")
    con.execute("set timezone='UTC'")
    source = "delta_scan('" + uri.replace("'", "''") + "')"
    return con.execute(query(source, columns, where)).fetch_arrow_table()


engines = {"deltalake": read_deltalake, "duckdb": read_duckdb}


def number(v):
    return "NaN" if v != v else struct.pack(">d", v).hex()


def cells(a):
    """The cells of an arrow array."""
    if isinstance(a, pa.ChunkedArray):
        return [c for chunk in a.chunks for c in cells(chunk)]
    t = a.type
    if pa.types.is_dictionary(t):
        return cells(a.dictionary_decode())
    if pa.types.is_list(t) or pa.types.is_large_list(t):
        flat, out, at = cells(a.flatten()), [], 0
        for n in a.value_lengths().to_pylist():
            out.append(None if n is None else flat[at : at + n])
            at += n or 0
        return out
    if pa.types.is_timestamp(t):
        if t.unit != "us":
            raise SystemExit(f"timestamps in {t.unit}")
        a, text = a.cast(pa.int64()), str
    elif pa.types.is_date(t):
        a, text = a.cast(pa.date32()).cast(pa.int32()), str
    elif pa.types.is_boolean(t):
        text = lambda v: "true" if v else "false"
    elif pa.types.is_floating(t):
        text = number
    elif pa.types.is_decimal(t):
        text = lambda v: format(v, "f")
    elif "binary" in str(t):
        text = bytes.hex
    elif pa.types.is_integer(t) or "string" in str(t):
        text = str
    else:
        raise SystemExit(f"no cells of type {t}")
    return [None if v is None else text(v) for v in a.to_pylist()]


def checksum(rows):
    """Count and order-independent checksum."""
    n, total = 0, 0
    for row in rows:
        digest = hashlib.sha256(json.dumps(row).encode()).digest()
        n, total = n + 1, (total + int.from_bytes(digest[:16], "big")) % (1 << 128)
    return n, f"{total:032x}"


def rows_of(table):
    if table.num_columns == 0:
        return []
    return [list(r) for r in zip(*(cells(c) for c in table.columns))]


def main():
    mode = sys.argv[1]
    failed = False
    for line in sys.stdin:
        t = json.loads(line)
        if mode == "rows":
            for r in rows_of(engines[sys.argv[2]](t["uri"], t["columns"], t["where"])):
                print(json.dumps(r))
            continue
        with open(t["want"]) as f:
            want = checksum(json.loads(line) for line in f)
        for name, read in engines.items():
            have = checksum(rows_of(read(t["uri"], t["columns"], t["where"])))
            same = have == want
            failed = failed or not same
            print(f"{'equal' if same else 'DIFFERENT'} {name} {t['name']}: {have[0]} rows {have[1]}, wanted {want[0]} rows {want[1]}")
    sys.exit(1 if failed else 0)


main()
