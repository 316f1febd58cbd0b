"""Merges a Parquet file into a Delta table, as delta-rs does it.

    merge.py TABLE FILE KEY

Rows of the file replace those of the table with the same KEY, or are added. It
prints a line of JSON with what this took, as took.py tells it. What it holds
before, the rows of the file, counts as memory; reading them is not timed.
"""

import json
import os
import sys

import pyarrow.parquet as pq
from deltalake import DeltaTable
from took import Took


def main(table, source, key):
    rows = pq.read_table(source)
    t = DeltaTable(table)
    took = Took(os.getpid())
    merge = t.merge(rows, f"t.{key} = s.{key}", source_alias="s", target_alias="t")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    print(json.dumps(took.end()))


if __name__ == "__main__":
    main(*sys.argv[1:])
