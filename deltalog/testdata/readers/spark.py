"""Reads tables with Spark, and writes them: python spark.py JAR,JAR,...

It answers the requests of serve.py for the reader "spark", and {"sql": "..."},
in which T in braces stands for the table at "path"; it answers that with {}.
"""

import functools
import json
import os
import sys
import time

os.environ["TZ"] = "UTC"
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
time.tzset()
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import rowsum  # noqa: E402
from pyspark.sql import SparkSession, functions  # noqa: E402


def session(jars):
    s = (
        SparkSession.builder.master("local[2]")
        .config("spark.jars", jars)
        .config("spark.driver.memory", "2g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.sources.parallelPartitionDiscovery.parallelism", "2")
        .config("spark.databricks.delta.snapshotPartitions", "2")
        .getOrCreate()
    )
    s.sparkContext.setLogLevel("OFF")
    return s


def answer(spark, r):
    if "sql" in r:
        spark.sql(r["sql"].replace("{T}", "delta.`%s`" % r["path"])).collect()
        return {}
    reader = spark.read.format("delta")
    if "version" in r:
        reader = reader.option("versionAsOf", r["version"])
    if "time" in r:
        reader = reader.option("timestampAsOf", r["time"])
    if r.get("changes"):
        reader = reader.option("readChangeFeed", "true").option("startingVersion", 0)
    rows = reader.load(r["path"])
    if r.get("changes"):
        rows = rows.drop("_commit_timestamp")
    if "where" in r:
        names = ["`%s`" % w["column"].replace("`", "``") for w in r["where"]]
        some = [rows.filter(functions.col(name) == functions.lit(w["value"])) for name, w in zip(names, r["where"])]
        rows = functools.reduce(lambda a, b: a.unionAll(b), some)
    if r.get("row_ids"):
        rows = rows.selectExpr("*", "_metadata.row_id AS _row_id", "_metadata.row_commit_version AS _row_commit_version")
    lines = list(rowsum.spark_lines(rows))
    s = rowsum.checksum(lines)
    got = {"rows": s.rows, "checksum": str(s)}
    if r.get("lines"):
        got["lines"] = sorted(lines)
    return got


if __name__ == "__main__":
    out = sys.stdout
    sys.stdout = sys.stderr
    spark = session(sys.argv[1])
    print(json.dumps({"ready": True, "versions": {"spark": spark.version}}), file=out, flush=True)
    for line in sys.stdin:
        try:
            got = answer(spark, json.loads(line))
        except Exception as e:
            got = {"error": "%s: %s" % (type(e).__name__, str(e)[:2000])}
        print(json.dumps(got), file=out, flush=True)
    spark.stop()
