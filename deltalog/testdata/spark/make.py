"""Makes the tables in this folder with Spark and Delta:

    python make.py FOLDER JAR,JAR,...

Each is FOLDER/NAME/table, and beside it are

    rows.jsonl      the rows of the newest version, as package rowsum writes them
    versions.json   for every version, the number of rows and their checksum
    changes.jsonl   the change data feed from version 0, where the table has one

Rows come from Spark. `go test ./deltalog -run SparkWrote -update-spark` runs it
with the versions that deploy/local pins.
"""

import json
import os
import shutil
import sys
import tarfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "readers"))

import rowsum  # noqa: E402
from spark import session  # noqa: E402

root, jars = os.path.abspath(sys.argv[1]), sys.argv[2]
only = set(sys.argv[3:])
spark = session(jars)

tables = []


def table(f):
    tables.append((f.__name__.replace("_", "-"), f))
    return f


class Maker:
    def __init__(self, name):
        self.path = os.path.join(root, name, "table")
        self.name = "delta.`%s`" % self.path

    def sql(self, text, *args):
        """Runs a statement, in which T stands for the table."""
        return spark.sql(text.replace("{T}", self.name), *args)

    def create(self, columns, more="", **properties):
        p = ", ".join("'%s' = '%s'" % (k.replace("_", "."), v) for k, v in properties.items())
        self.sql("CREATE TABLE {T} (%s) USING delta %s %s" % (columns, more, "TBLPROPERTIES (%s)" % p if p else ""))

    def insert(self, select):
        self.sql("INSERT INTO {T} SELECT /*+ COALESCE(1) */ * FROM (%s)" % select)


class Conf:
    """Sets configuration for a while."""

    def __init__(self, **values):
        self.values = {k.replace("__", "."): v for k, v in values.items()}

    def __enter__(self):
        for k, v in self.values.items():
            spark.conf.set(k, v)

    def __exit__(self, *_):
        for k in self.values:
            spark.conf.unset(k)


ALL = """b boolean, i8 byte, i16 short, i32 int, i64 long, f32 float, f64 double,
 d9 decimal(9,2), d18 decimal(18,4), d38 decimal(38,10), s string, x binary, d date, t timestamp, n timestamp_ntz"""

ALL_ROWS = """VALUES
 (true, 127Y, 32767S, 2147483647, 9223372036854775807L, float('3.4028235e38'), double('1.7976931348623157e308'),
  9999999.99BD, 99999999999999.9999BD, 9999999999999999999999999999.9999999999BD, 'plain', X'00FF', DATE'9999-12-31',
  TIMESTAMP'9999-12-31 23:59:59.999999', TIMESTAMP_NTZ'9999-12-31 23:59:59.999999'),
 (false, -128Y, -32768S, -2147483648, -9223372036854775808L, float('-1.4e-45'), double('-4.9e-324'),
  -9999999.99BD, -99999999999999.9999BD, -9999999999999999999999999999.9999999999BD, '', X'', DATE'0001-01-01',
  TIMESTAMP'0001-01-02 00:00:00', TIMESTAMP_NTZ'0001-01-01 00:00:00.000001'),
 (true, 0Y, 0S, 0, 0L, float('NaN'), double('NaN'), 0.05BD, -0.0001BD, 0.0000000001BD, 'a"b\\\\c\\n\\té 中 😀', X'7F80', DATE'1969-12-31',
  TIMESTAMP'1969-12-31 23:59:59.999999', TIMESTAMP_NTZ'1970-01-01 00:00:00.000001'),
 (true, 1Y, -1S, 1, -1L, float('-0.0'), double('-Infinity'), -0.05BD, 1BD, -1BD, ' ', X'00', DATE'2024-02-29',
  TIMESTAMP'2024-02-29 12:00:00.123', TIMESTAMP_NTZ'2024-03-31 02:30:00'),
 (null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)"""


@table
def all_types(m):
    m.create(ALL)
    m.insert("SELECT * FROM " + ALL_ROWS)
    m.insert("SELECT * FROM " + ALL_ROWS)


@table
def old_parquet(m):
    """Decimals as bytes, lists of two levels, timestamps as INT96 and in milliseconds."""
    columns = "id long, d9 decimal(9,2), d18 decimal(18,4), d38 decimal(38,10), l array<int>, t timestamp"
    m.create(columns)
    rows = """SELECT * FROM VALUES
      (%d1L, 1.25BD, -2.5BD, 1234567890123456789012.5BD, array(1, 2), TIMESTAMP'2024-02-29 12:00:00.123'),
      (%d2L, -0.05BD, 0.0001BD, -0.5BD, array(), TIMESTAMP'1900-01-01 00:00:00'),
      (%d3L, null, null, null, null, null)"""
    for i, (legacy, kind) in enumerate([("true", "INT96"), ("false", "TIMESTAMP_MILLIS"), ("false", "TIMESTAMP_MICROS")]):
        with Conf(spark__sql__parquet__writeLegacyFormat=legacy, spark__sql__parquet__outputTimestampType=kind):
            m.insert(rows.replace("%d", str(i)))


@table
def nested(m):
    m.create("""id long, s struct<a: int, b: struct<c: string, d: array<decimal(20,3)>>>,
      l array<struct<x: int, y: timestamp>>, ll array<array<string>>, m map<string, int>,
      mm map<struct<k: int>, map<string, array<binary>>>, lm array<map<int, date>>, sm struct<m: map<string, struct<z: boolean>>>""")
    m.insert("""SELECT 1L, named_struct('a', 1, 'b', named_struct('c', 'x', 'd', array(1.5BD, null, -2.125BD))),
      array(named_struct('x', 1, 'y', TIMESTAMP'2024-01-01 00:00:00.000001'), null, named_struct('x', null, 'y', null)),
      array(array('a', null), array(), null), map('b', 2, 'a', 1, 'null', null),
      map(named_struct('k', 2), map('x', array(X'00', null)), named_struct('k', 1), null),
      array(map(1, DATE'2024-01-01'), map(), null), named_struct('m', map('t', named_struct('z', true), 'n', null))
      UNION ALL SELECT 2L, named_struct('a', null, 'b', null), array(), array(), map(), map(), array(), named_struct('m', null)
      UNION ALL SELECT 3L, null, null, null, null, null, null, null
      UNION ALL SELECT 4L, named_struct('a', 4, 'b', named_struct('c', null, 'd', null)), array(null), array(null),
      map('k', 4), map(named_struct('k', null), map()), array(null), named_struct('m', map())""")
    m.sql("ALTER TABLE {T} ADD COLUMNS (s.e string AFTER a, added struct<p: int, q: array<int>>)")
    m.sql("INSERT INTO {T} (id, s, added) SELECT 5L, named_struct('a', 5, 'e', 'new', 'b', null), named_struct('p', 5, 'q', array(5))")


@table
def deletion_vectors(m):
    m.create("id long, name string", delta_enableDeletionVectors="true")
    m.insert("SELECT id, concat('n', id) FROM range(0, 1000, 1, 1)")
    m.insert("SELECT id, concat('n', id) FROM range(1000, 1010, 1, 1)")
    m.sql("DELETE FROM {T} WHERE id % 7 = 3")
    m.sql("UPDATE {T} SET name = 'changed' WHERE id BETWEEN 100 AND 120")
    m.sql("DELETE FROM {T} WHERE id >= 1000")
    m.sql("""MERGE INTO {T} t USING (SELECT id, 'merged' AS name FROM range(990, 1020, 1, 1)) s ON t.id = s.id
      WHEN MATCHED AND t.id % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *""")


def mapped(m, mode):
    m.create("id long, `old name` string, gone int, s struct<a: int, b: string>, l array<struct<p: int>>, region string",
             "PARTITIONED BY (region)", delta_columnMapping_mode=mode)
    rows = """SELECT id, concat('n', id), int(id), named_struct('a', int(id), 'b', string(id)), array(named_struct('p', int(id))),
      if(id %% 3 = 0, null, concat('r', id %% 3)) FROM range(%d, %d, 1, 1)"""
    m.insert(rows % (0, 10))
    m.sql("ALTER TABLE {T} RENAME COLUMN `old name` TO `name, with ;{}()= \n\tall`")
    m.sql("ALTER TABLE {T} DROP COLUMN gone")
    m.sql("ALTER TABLE {T} RENAME COLUMN s.a TO z")
    m.sql("ALTER TABLE {T} RENAME COLUMN region TO place")
    m.sql("ALTER TABLE {T} ADD COLUMNS (gone string)")
    m.sql("""INSERT INTO {T} SELECT 100L, 'x', named_struct('z', 7, 'b', 'y'), array(named_struct('p', 8)), 'r9', 'back'""")
    m.sql("DELETE FROM {T} WHERE place = 'r1'")


@table
def column_mapping_name(m):
    mapped(m, "name")


@table
def column_mapping_id(m):
    mapped(m, "id")


def checkpoints(m, **properties):
    m.create("id long, p int", "PARTITIONED BY (p)", delta_checkpointInterval="4", **properties)
    for i in range(6):
        m.insert("SELECT id, int(id % 3) FROM range({0}, {1}, 1, 1)".format(10 * i, 10 * i + 10))
    m.sql("DELETE FROM {T} WHERE id IN (1, 22, 43)")


@table
def checkpoint_parts(m):
    with Conf(spark__databricks__delta__checkpoint__partSize="5"):
        checkpoints(m)


@table
def checkpoint_v2_json(m):
    with Conf(spark__databricks__delta__checkpointV2__topLevelFileFormat="json", spark__databricks__delta__checkpoint__partSize="5"):
        checkpoints(m, delta_checkpointPolicy="v2", delta_enableDeletionVectors="true")


@table
def checkpoint_v2_parquet(m):
    with Conf(spark__databricks__delta__checkpointV2__topLevelFileFormat="parquet"):
        checkpoints(m, delta_checkpointPolicy="v2")


@table
def checkpoint_stats_as_struct(m):
    checkpoints(m, delta_checkpoint_writeStatsAsJson="false", delta_checkpoint_writeStatsAsStruct="true")


@table
def type_widening(m):
    m.create("id long, a byte, b short, c int, d int, e float, f decimal(5,2), g date, h array<struct<v: byte>>, k map<byte, short>",
             delta_enableTypeWidening="true", delta_feature_timestampNtz="supported")
    row = "SELECT {0}L, {1}Y, {2}S, {3}, {3}, float('0.1'), {4}BD, DATE'2024-02-29', array(named_struct('v', {1}Y)), map({1}Y, {2}S)"
    m.insert(row.format(1, 127, 32767, 2147483647, "123.45"))
    m.insert(row.format(2, -128, -32768, -2147483648, "-0.05"))
    for column, kind in [("a", "short"), ("b", "int"), ("c", "long"), ("d", "double"), ("e", "double"), ("f", "decimal(20,4)"),
                         ("g", "timestamp_ntz"), ("h.element.v", "int"), ("k.key", "int"), ("k.value", "long")]:
        m.sql("ALTER TABLE {T} ALTER COLUMN %s TYPE %s" % (column, kind))
    m.sql("ALTER TABLE {T} ALTER COLUMN a TYPE decimal(12,2)")
    m.sql("""INSERT INTO {T} SELECT 3L, 40000.25BD, 40000, 5000000000L, double(1e300), double(0.1), 12345678901.2345BD,
      TIMESTAMP_NTZ'2024-02-29 01:02:03.000004', array(named_struct('v', 70000)), map(70000, 5000000000L)""")


@table
def change_data_feed(m):
    m.create("id long, name string, p int", "PARTITIONED BY (p)", delta_enableChangeDataFeed="true")
    m.insert("SELECT id, concat('n', id), int(id % 2) FROM range(0, 10, 1, 1)")
    m.sql("UPDATE {T} SET name = 'changed' WHERE id < 3")
    m.sql("DELETE FROM {T} WHERE id = 5")
    m.sql("DELETE FROM {T} WHERE p = 1")
    m.sql("""MERGE INTO {T} t USING (SELECT id, 'merged' AS name, 0 AS p FROM range(6, 12, 1, 1)) s ON t.id = s.id
      WHEN MATCHED AND t.id = 6 THEN DELETE WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *""")
    m.sql("OPTIMIZE {T}")
    m.sql("ALTER TABLE {T} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    m.insert("SELECT id, concat('v', id), 2 FROM range(20, 30, 1, 1)")
    m.sql("DELETE FROM {T} WHERE id IN (21, 22)")
    m.sql("UPDATE {T} SET name = 'again', p = 0 WHERE id = 23")
    m.sql("INSERT OVERWRITE {T} SELECT 99L, 'last', 9")


@table
def row_tracking(m):
    m.create("id long, name string", delta_enableRowTracking="true", delta_enableDeletionVectors="true")
    m.insert("SELECT id, concat('n', id) FROM range(0, 20, 1, 1)")
    m.insert("SELECT id, concat('n', id) FROM range(20, 25, 1, 1)")
    m.sql("UPDATE {T} SET name = 'changed' WHERE id = 3")
    m.sql("DELETE FROM {T} WHERE id = 4")
    m.sql("OPTIMIZE {T}")


@table
def clustering(m):
    m.create("id long, name string, at date", "CLUSTER BY (at, id)")
    for i in range(3):
        m.insert("SELECT id, concat('n', id), date_add(DATE'2024-01-01', int(id %% 5)) FROM range(%d, %d, 1, 1)" % (20 * i, 20 * i + 20))
    m.sql("OPTIMIZE {T}")
    m.insert("SELECT 100L, 'late', DATE'2024-02-01'")


@table
def timestamp_ntz(m):
    m.create("id long, at timestamp_ntz, day timestamp_ntz", "PARTITIONED BY (day)")
    m.insert("""SELECT * FROM VALUES (1L, TIMESTAMP_NTZ'2024-03-31 02:30:00.000001', TIMESTAMP_NTZ'2024-03-31 02:30:00'),
      (2L, TIMESTAMP_NTZ'1500-01-01 00:00:00', TIMESTAMP_NTZ'1500-01-01 00:00:00.000001'), (3L, null, null)""")
    m.sql("DELETE FROM {T} WHERE id = 2")


HOSTILE = ["plain", "a/b", "..", ".", "../../x", "a=b", "100%", "%2F", "%252F", " lead", "trail ", "a b", "+", "?&#", ":", "*", "\\\\\\\\",
           "q\\\"\\'`", "{}[]^|<>", "line\\nbreak\\ttab", "\\u0001\\u007f", "é", "e\\u0301", "中文", "😀", "_hidden", ".dot", "null", "NULL", "x" * 120]


@table
def hostile_partitions(m):
    m.create("id long, `p/q%é` string", "PARTITIONED BY (`p/q%é`)", delta_columnMapping_mode="none")
    rows = ", ".join("(%dL, '%s')" % (i, v) for i, v in enumerate(HOSTILE)) + ", (100L, null), (101L, '')"
    m.insert("SELECT * FROM VALUES " + rows)
    m.sql("DELETE FROM {T} WHERE `p/q%é` = 'a b'")


@table
def partition_types(m):
    m.create("id long, b boolean, i8 byte, i16 short, i32 int, i64 long, f32 float, f64 double, dec decimal(20,3), d date, t timestamp",
             "PARTITIONED BY (b, i8, i16, i32, i64, f32, f64, dec, d, t)")
    m.insert("""SELECT * FROM VALUES
      (1L, true, -128Y, -32768S, -2147483648, -9223372036854775808L, float('-0.1'), double('-1e300'), -12345678901234567.890BD, DATE'0001-01-01', TIMESTAMP'1969-12-31 23:59:59.999999'),
      (2L, false, 127Y, 32767S, 2147483647, 9223372036854775807L, float('Infinity'), double('NaN'), 0.001BD, DATE'9999-12-31', TIMESTAMP'2024-02-29 12:00:00'),
      (3L, null, null, null, null, null, null, null, null, null, null)""")


@table
def in_commit_timestamps(m):
    m.create("id long")
    m.insert("SELECT 1L")
    m.sql("ALTER TABLE {T} SET TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')")
    m.insert("SELECT 2L")
    m.insert("SELECT 3L")


@table
def evolved(m):
    """Columns that come, an overwrite, a restore, and a replaced schema."""
    m.create("id long")
    m.insert("SELECT id FROM range(0, 5, 1, 1)")
    m.sql("ALTER TABLE {T} ADD COLUMNS (name string FIRST, n int)")
    m.sql("INSERT INTO {T} (id, name) SELECT 5L, 'five'")
    m.sql("INSERT OVERWRITE {T} SELECT 'six', 6L, 6")
    m.sql("RESTORE TABLE {T} TO VERSION AS OF 3")
    spark.sql("SELECT 'text' AS id, 1.5D AS other").coalesce(1).write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(m.path)


@table
def writer_features(m):
    m.create("""id long GENERATED ALWAYS AS IDENTITY, n int NOT NULL, twice int GENERATED ALWAYS AS (n * 2), s string DEFAULT 'some'""",
             delta_feature_allowColumnDefaults="supported")
    m.sql("ALTER TABLE {T} ADD CONSTRAINT small CHECK (n < 100)")
    m.sql("INSERT INTO {T} (n) SELECT 7")


@table
def void(m):
    m.create("id long, nothing void, name string")
    m.sql("INSERT INTO {T} (id, name) SELECT 1L, 'one'")


@table
def variant(m):
    m.create("id long, v variant")
    m.sql("""INSERT INTO {T} SELECT 1L, parse_json('{"a":[1,2]}') UNION ALL SELECT 2L, null""")


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as f:
        for line in sorted(lines):
            f.write(line + "\n")


def finish(name, m):
    """Writes what the table holds, and removes what Hadoop keeps beside files, and
    versions' checksum files of all tables but one, for they are large."""
    beside = os.path.dirname(m.path)
    newest = m.sql("DESCRIBE HISTORY {T}").selectExpr("max(version)").first()[0]
    versions = {}
    for v in range(newest + 1):
        s = rowsum.checksum(rowsum.spark_lines(spark.read.format("delta").option("versionAsOf", v).load(m.path)))
        versions[v] = {"rows": s.rows, "checksum": str(s)}
    with open(os.path.join(beside, "versions.json"), "w") as f:
        json.dump(versions, f, indent=1)
        f.write("\n")
    write_lines(os.path.join(beside, "rows.jsonl"), rowsum.spark_lines(spark.read.format("delta").load(m.path)))
    if name == "change-data-feed":
        changes = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0).load(m.path)
        write_lines(os.path.join(beside, "changes.jsonl"), rowsum.spark_lines(changes.drop("_commit_timestamp")))
    for folder, _, names in os.walk(m.path):
        for n in names:
            if n.endswith(".crc") and (n.startswith(".") or name != "evolved"):
                os.remove(os.path.join(folder, n))


    if name == "hostile-partitions":
        pack(m.path)


def pack(path):
    """Puts a folder whose names not every file system takes into an archive."""

    def plain(info):
        info.mtime = info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(path + ".tar.gz", "w:gz") as archive:
        archive.add(path, "table", filter=plain)
    shutil.rmtree(path)


failed = []
for name, make in tables:
    if only and name not in only:
        continue
    shutil.rmtree(os.path.join(root, name), ignore_errors=True)
    os.makedirs(os.path.join(root, name))
    m = Maker(name)
    started = time.time()
    try:
        make(m)
        finish(name, m)
        print("%s: %.1fs" % (name, time.time() - started), flush=True)
    except Exception as e:
        failed.append(name)
        print("%s: %s" % (name, str(e)[:2000]), flush=True)
spark.stop()
sys.exit("failed: " + ", ".join(failed) if failed else 0)
