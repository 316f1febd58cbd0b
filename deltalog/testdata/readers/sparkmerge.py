"""Merges a Parquet file into a Delta table, as Spark does it.

    sparkmerge.py TABLE FILE KEY JAR,JAR,...

Rows of the file replace those of the table with the same KEY, or are added. It
prints a line of JSON with what this took in the Java process, as took.py tells
it. Before that the session has merged into a small table, and holds the rows of
the file. Files are compressed with Zstandard.
"""

import json
import os
import sys
import tempfile

from spark import session
from took import Took


def merge(spark, table, source, key):
    spark.sql(
        f"MERGE INTO delta.`{table}` t USING {source} s ON t.{key} = s.{key} "
        "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
    ).collect()


def main(table, source, key, jars):
    out = sys.stdout
    sys.stdout = sys.stderr
    spark = session(jars)
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    spark.conf.set("spark.sql.parquet.compression.codec", "zstd")
    rows = spark.read.parquet(source).cache()
    rows.createTempView("batch")
    rows.limit(rows.count() // 2).createTempView("half")
    with tempfile.TemporaryDirectory() as small:
        at = os.path.join(small, "table")
        spark.table("half").write.format("delta").option("delta.enableDeletionVectors", "true").save(at)
        merge(spark, at, "batch", key)
    took = Took(spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid())
    merge(spark, os.path.abspath(table), "batch", key)
    print(json.dumps(took.end()), file=out, flush=True)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
