"""Reads tables with Spark, and writes them: python spark.py JAR,JAR,...

It answers the requests of serve.py for the reader "spark", and {"sql": "..."},
in which T in braces stands for the table at "path"; it answers that with {}.
"""

import json
import os
import sys
import time

os.environ["TZ"] = "UTC"
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
time.tzset()
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import rowsum  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402


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
    if r.get("version") is not None:
        reader = reader.option("versionAsOf", r["version"])
    lines = list(rowsum.spark_lines(reader.load(r["path"])))
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
