"""Merges a Parquet file into a Delta table, as delta-rs does it.

    merge.py TABLE FILE KEY

Rows of the file replace those of the table with the same KEY, or are added. It
prints a line of JSON: the seconds and the seconds of CPU that this took, and the
most memory, in bytes, that the process had resident meanwhile. What it holds
before, the rows of the file, counts as memory; reading them is not timed.
"""

import json
import resource
import sys
import time

import pyarrow.parquet as pq
from deltalake import DeltaTable


def cpu():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


def main(table, source, key):
    rows = pq.read_table(source)
    t = DeltaTable(table)
    began, used = time.monotonic(), cpu()
    merge = t.merge(rows, f"t.{key} = s.{key}", source_alias="s", target_alias="t")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    took = {"seconds": time.monotonic() - began, "cpu": cpu() - used}
    took["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps(took))


if __name__ == "__main__":
    main(*sys.argv[1:])
