"""Writes rows as package rowsum of this module defines, from Spark's rows and
from Arrow's tables, and sums them up."""

import datetime
import hashlib
import json
import struct

EPOCH = datetime.datetime(1970, 1, 1)
DAY = datetime.date(1970, 1, 1)


def dump(value):
    """JSON without spaces, members in the order of their names."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


class Sum:
    """Adds rows up."""

    def __init__(self):
        self.rows, self.bits = 0, 0

    def add(self, line):
        digest = hashlib.sha256(line.encode()).digest()
        self.rows += 1
        self.bits = (self.bits + int.from_bytes(digest[:8], "big")) % (1 << 64)

    def __str__(self):
        return "%016x" % self.bits


def same(v):
    return v


def double(v):
    return "f:nan" if v != v else "f:" + struct.pack(">d", v).hex()


def decimal(v):
    sign, digits, exponent = v.as_tuple()
    text = "".join(map(str, digits))
    if exponent >= 0:
        whole, fraction = text + "0" * exponent, ""
    else:
        text = text.rjust(1 - exponent, "0")
        whole, fraction = text[:exponent], text[exponent:].rstrip("0")
    whole = whole.lstrip("0") or "0"
    number = whole + ("." + fraction if fraction else "")
    return "d:" + ("-" if sign and number != "0" else "") + number


def moment(v):
    if v.tzinfo is not None:
        v = v.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return "t:%d" % ((v - EPOCH) // datetime.timedelta(microseconds=1))


def date(v):
    return "D:%d" % (v - DAY).days


def binary(v):
    return "x:" + bytes(v).hex()


def present(v):
    return "v"


def pairs(key, value):
    def cell(items):
        written = [[key(k), value(v)] for k, v in items]
        return {"m": sorted(written, key=lambda pair: dump(pair[0]))}

    return cell


def fields(members):
    """members: of (name, position, cell)."""
    names = {name for name, _, _ in members}
    if {"metadata", "value"} <= names <= {"metadata", "value", "typed_value"}:
        return present
    return lambda v: {name: cell(v[at]) for name, at, cell in members}


def nullable(cell):
    return lambda v: None if v is None else cell(v)


# Spark


def spark_cell(t):
    name = t.typeName()
    if name.startswith("decimal"):
        return nullable(decimal)
    if name == "array":
        inner = spark_cell(t.elementType)
        return nullable(lambda v: [inner(e) for e in v])
    if name == "map":
        both = pairs(spark_cell(t.keyType), spark_cell(t.valueType))
        return nullable(lambda v: both(v.items()))
    if name == "struct":
        return nullable(fields([(f.name, i, spark_cell(f.dataType)) for i, f in enumerate(t.fields)]))
    return nullable(
        {
            "boolean": same, "byte": same, "short": same, "integer": same, "long": same,
            "float": double, "double": double, "string": same, "binary": binary,
            "date": date, "timestamp": moment, "timestamp_ntz": moment,
            "variant": present, "void": same,
        }[name]
    )


def spark_lines(df):
    """The rows of a data frame; session and process are in UTC."""
    row = fields([(f.name, i, spark_cell(f.dataType)) for i, f in enumerate(df.schema.fields)])
    for r in df.toLocalIterator():
        yield dump(row(r))


# Arrow


def arrow_cell(t):
    import pyarrow.types as pt

    if pt.is_dictionary(t):
        return arrow_cell(t.value_type)
    if hasattr(t, "storage_type"):
        return nullable(present) if "variant" in str(t).lower() else arrow_cell(t.storage_type)
    if pt.is_floating(t):
        return nullable(double)
    if pt.is_decimal(t):
        return nullable(decimal)
    if pt.is_timestamp(t):
        return nullable(moment)
    if pt.is_date(t):
        return nullable(date)
    if any(f(t) for f in (pt.is_binary, pt.is_large_binary, pt.is_fixed_size_binary, pt.is_binary_view)):
        return nullable(binary)
    if pt.is_map(t):
        return nullable(pairs(arrow_cell(t.key_type), arrow_cell(t.item_type)))
    if any(f(t) for f in (pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view)):
        inner = arrow_cell(t.value_type)
        return nullable(lambda v: [inner(e) for e in v])
    if pt.is_struct(t):
        return nullable(fields([(f.name, f.name, arrow_cell(f.type)) for f in t]))
    if any(f(t) for f in (pt.is_boolean, pt.is_integer, pt.is_string, pt.is_large_string, pt.is_string_view, pt.is_null)):
        return same
    raise TypeError("no rule for Arrow type %s" % t)


def micros(t):
    """An Arrow type with timestamps that Python's datetime holds."""
    import pyarrow as pa
    import pyarrow.types as pt

    if pt.is_timestamp(t) and t.unit == "ns":
        return pa.timestamp("us", t.tz)
    return t


def arrow_lines(table):
    """The rows of an Arrow table."""
    import pyarrow as pa

    want = pa.schema([f.with_type(micros(f.type)) for f in table.schema])
    if want != table.schema:
        table = table.cast(want)
    cells = [(f.name, arrow_cell(f.type)) for f in table.schema]
    for batch in table.to_batches(max_chunksize=8192):
        columns = [(name, [cell(v) for v in batch.column(i).to_pylist()]) for i, (name, cell) in enumerate(cells)]
        for r in range(batch.num_rows):
            yield dump({name: values[r] for name, values in columns})


def checksum(lines):
    s = Sum()
    for line in lines:
        s.add(line)
    return s
