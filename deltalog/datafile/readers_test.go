package datafile

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deploy/local"
)

// everything returns rows of all types, in row groups, pages and dictionaries of
// all kinds.
func everything(rows int) (*schema.Schema, *Batch) {
	typ := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	str, long, dec := typ(schema.String), typ(schema.Long), schema.Type{Kind: schema.Decimal, Precision: 25, Scale: 3}
	point := schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "x", Type: long, Nullable: true}, {Name: "name", Type: str, Nullable: true}, {Name: "must", Type: typ(schema.Boolean)}}}
	points := schema.Type{Kind: schema.Array, Elem: &point, ElemNull: true}
	s := &schema.Schema{Fields: []schema.Field{
		{Name: "boolean", Type: typ(schema.Boolean)},
		{Name: "byte", Type: typ(schema.Byte)},
		{Name: "short", Type: typ(schema.Short)},
		{Name: "integer", Type: typ(schema.Integer)},
		{Name: "long", Type: long},
		{Name: "float", Type: typ(schema.Float)},
		{Name: "double", Type: typ(schema.Double)},
		{Name: "decimal5", Type: schema.Type{Kind: schema.Decimal, Precision: 5, Scale: 2}},
		{Name: "decimal18", Type: schema.Type{Kind: schema.Decimal, Precision: 18, Scale: 18}},
		{Name: "decimal25", Type: dec},
		{Name: "decimal38", Type: schema.Type{Kind: schema.Decimal, Precision: 38}},
		{Name: "string", Type: str},
		{Name: "few", Type: str},
		{Name: "long string", Type: str},
		{Name: "binary", Type: typ(schema.Binary)},
		{Name: "date", Type: typ(schema.Date)},
		{Name: "timestamp", Type: typ(schema.Timestamp)},
		{Name: "timestamp_ntz", Type: typ(schema.TimestampNTZ)},
		{Name: "strings", Type: schema.Type{Kind: schema.Array, Elem: &str, ElemNull: true}},
		{Name: "longs", Type: schema.Type{Kind: schema.Array, Elem: &long}},
		{Name: "decimals", Type: schema.Type{Kind: schema.Array, Elem: &dec, ElemNull: true}},
		{Name: "nothing", Type: typ(schema.Integer)},
		{Name: "required", Type: long},
		{Name: "required longs", Type: schema.Type{Kind: schema.Array, Elem: &long}},
		{Name: "struct", Type: point},
		{Name: "required struct", Type: schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "p", Type: point}, {Name: "all", Type: points}}}},
		{Name: "map", Type: schema.Type{Kind: schema.Map, Key: &str, Value: &long, ValueNull: true}},
		{Name: "map of structs", Type: schema.Type{Kind: schema.Map, Key: &long, Value: &point, ValueNull: true}},
		{Name: "structs", Type: points},
		{Name: "lists of lists", Type: schema.Type{Kind: schema.Array, Elem: &points, ElemNull: true}},
	}}
	for i := range s.Fields {
		s.Fields[i].Nullable = !strings.HasPrefix(s.Fields[i].Name, "required")
	}
	b := NewBatch(s)
	rng := rand.New(rand.NewPCG(1, 2))
	for row := range rows {
		for i, f := range s.Fields {
			c := b.Cols[i]
			switch {
			case f.Name == "nothing", f.Nullable && rng.IntN(7) == 0, f.Nullable && row/5000%4 == 3:
				c.AppendNull()
			case f.Name == "few":
				c.AppendString([]string{"", "ä", "same", strings.Repeat("z", 70)}[rng.IntN(4)])
			case f.Name == "long string":
				c.AppendString(strings.Repeat("prefix ", 10) + strconv.Itoa(rng.IntN(1000)))
			default:
				appendRandomValue(rng, c)
			}
		}
	}
	return s, b
}

func appendRandomValue(rng *rand.Rand, c *Column) {
	switch c.storage() {
	case ints:
		lo, hi := rangeOf(c.Type)
		switch c.Type.Kind {
		case schema.Date:
			lo, hi = minDate, maxDate
		case schema.Timestamp, schema.TimestampNTZ:
			lo, hi = minMillis*1000, maxMillis*1000
		}
		if rng.IntN(3) == 0 {
			lo, hi = max(lo, -5), min(hi, 5)
		}
		c.AppendInt(lo + int64(rng.Uint64N(max(1, uint64(hi)-uint64(lo)))))
	case floats:
		v := rng.NormFloat64() * 1e6
		if rng.IntN(50) == 0 {
			v = []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1)}[rng.IntN(4)]
		}
		if c.Type.Kind == schema.Float {
			v = float64(float32(v))
		}
		c.AppendFloat(v)
	case wide:
		n := new(big.Int).SetUint64(rng.Uint64())
		n.Mul(n, new(big.Int).SetUint64(rng.Uint64()))
		n.Mod(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(rng.IntN(c.Type.Precision)+1)), nil))
		if rng.IntN(2) == 0 {
			n.Neg(n)
		}
		appendBig(c, n)
	case bytesOf:
		c.AppendString(text(rng.IntN(1_000_000), rng.IntN(40)))
	case list:
		for range rng.IntN(4) {
			if c.Type.ElemNull && rng.IntN(5) == 0 {
				c.Elem.AppendNull()
			} else {
				appendRandomValue(rng, c.Elem)
			}
		}
		c.EndArray()
	case mapping:
		for i := range rng.IntN(4) {
			if c.Key.Type.Kind == schema.String {
				c.Key.AppendString(strconv.Itoa(i * rng.IntN(1000)))
			} else {
				c.Key.AppendInt(int64(i))
			}
			appendRandomField(rng, c.Value, c.Type.ValueNull)
		}
		c.EndMap()
	case record:
		for i, f := range c.Fields {
			appendRandomField(rng, f, c.Type.Fields[i].Nullable)
		}
		c.EndStruct()
	}
}

func appendRandomField(rng *rand.Rand, c *Column, null bool) {
	if null && rng.IntN(5) == 0 {
		c.AppendNull()
		return
	}
	appendRandomValue(rng, c)
}

// dump writes a value as the script of TestOtherReadersAgree does.
func dump(c *Column, row int) string {
	if !c.Valid[row] {
		return "null"
	}
	switch c.storage() {
	case ints:
		return strconv.FormatInt(c.I64[row], 10)
	case floats:
		return fmt.Sprintf("%016x", math.Float64bits(c.F64[row]))
	case wide:
		return decimalText(c, row)
	case bytesOf:
		return hex.EncodeToString(c.At(row))
	}
	var elems []string
	switch c.storage() {
	case record:
		for _, f := range c.Fields {
			elems = append(elems, dump(f, row))
		}
		return "{" + strings.Join(elems, " ") + "}"
	case mapping:
		for i := c.Off[row]; i < c.Off[row+1]; i++ {
			elems = append(elems, dump(c.Key, int(i))+":"+dump(c.Value, int(i)))
		}
		return "<" + strings.Join(elems, " ") + ">"
	}
	for i := c.Off[row]; i < c.Off[row+1]; i++ {
		elems = append(elems, dump(c.Elem, int(i)))
	}
	return "[" + strings.Join(elems, " ") + "]"
}

// readersScript prints every value of a file as pyarrow reads it, column by
// column, and complains where filters of pyarrow or DuckDB, which go by our
// statistics, find other rows than there are.
const readersScript = `
import datetime, decimal, struct, sys
import pyarrow as pa, pyarrow.parquet as pq, duckdb
path = sys.argv[1]
decimal.getcontext().prec = 60
epoch, day = datetime.datetime(1970, 1, 1), datetime.date(1970, 1, 1)
def norm(v, t):
    if v is None: return "null"
    if pa.types.is_list(t): return "[" + " ".join(norm(x, t.value_type) for x in v) + "]"
    if pa.types.is_struct(t): return "{" + " ".join(norm(v[f.name], f.type) for f in t) + "}"
    if pa.types.is_map(t): return "<" + " ".join(norm(k, t.key_type) + ":" + norm(x, t.item_type) for k, x in v) + ">"
    if pa.types.is_boolean(t): return str(int(v))
    if pa.types.is_decimal(t): return str(int(v.scaleb(t.scale)))
    if pa.types.is_floating(t): return struct.pack(">d", v).hex()
    if pa.types.is_timestamp(t): return str(v)
    if pa.types.is_date(t): return str((v - day).days)
    if isinstance(v, bytes): return v.hex()
    if isinstance(v, str): return v.encode().hex()
    return str(v)
table = pq.read_table(path)
for name in table.schema.names:
    col = table.column(name)
    if pa.types.is_timestamp(col.type):
        assert (col.type.tz is not None) == (name == "timestamp"), col.type
        col = col.cast(pa.int64())
    print(name, *(norm(v, table.schema.field(name).type) for v in col.to_pylist()), sep=",")
con = duckdb.connect()
con.execute("set timezone='UTC'")
rows = con.execute("select count(*) from read_parquet(?)", [path]).fetchone()[0]
assert rows == table.num_rows, (rows, table.num_rows)
for name in table.schema.names:
    t = table.schema.field(name).type
    q = '"' + name + '"'
    if pa.types.is_list(t):
        n = con.execute(f"select count(*), sum(len({q})) from read_parquet(?)", [path]).fetchone()
        want = sum(len(v) for v in table.column(name).to_pylist() if v is not None)
        assert (n[1] or 0) == want, (name, n, want)
        continue
    nulls = con.execute(f"select count(*) - count({q}) from read_parquet(?)", [path]).fetchone()[0]
    assert nulls == table.column(name).null_count, (name, nulls)
    if pa.types.is_nested(t): continue
    col = table.column(name)
    values = [v for v in col.unique().to_pylist() if v is not None]
    if not values: continue
    for v in [min(values), max(values)] + values[:: max(1, len(values) // 12)]:
        mem = pa.compute.sum(pa.compute.equal(col, pa.scalar(v, t))).as_py()
        got = pq.read_table(path, filters=[(name, "=", v)], columns=[name]).num_rows
        assert got == mem, ("pyarrow", name, v, got, mem)
        if pa.types.is_timestamp(t): continue
        arg = pa.scalar(v, t).as_py()
        got = con.execute(f"select count(*) from read_parquet(?) where {q} = ?", [path, arg]).fetchone()[0]
        if pa.types.is_float32(t): continue
        assert got == mem, ("duckdb", name, v, got, mem)
`

// foreignScript prints every value of files, one after the other, as pyarrow
// reads them.
const foreignScript = `
import datetime, decimal, struct, sys
import pyarrow as pa, pyarrow.parquet as pq
decimal.getcontext().prec = 60
epoch, day = datetime.datetime(1970, 1, 1), datetime.date(1970, 1, 1)
def norm(v, t):
    if v is None: return "null"
    if pa.types.is_list(t): return "[" + " ".join(norm(x, t.value_type) for x in v) + "]"
    if pa.types.is_struct(t): return "{" + " ".join(norm(v[f.name], f.type) for f in t) + "}"
    if pa.types.is_map(t): return "<" + " ".join(norm(k, t.key_type) + ":" + norm(x, t.item_type) for k, x in v) + ">"
    if pa.types.is_boolean(t): return str(int(v))
    if pa.types.is_decimal(t): return str(int(v.scaleb(t.scale)))
    if pa.types.is_floating(t): return struct.pack(">d", v).hex()
    if pa.types.is_timestamp(t): return str((v.replace(tzinfo=None) - epoch) // datetime.timedelta(microseconds=1))
    if pa.types.is_date(t): return str((v - day).days)
    if isinstance(v, bytes): return v.hex()
    if isinstance(v, str): return v.encode().hex()
    return str(v)
for path in sys.stdin.read().splitlines():
    table = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()
    print("file", path, sep=",")
    for name in table.schema.names:
        print(name, *(norm(v, table.schema.field(name).type) for v in table.column(name).to_pylist()), sep=",")
`

// TestFilesOfSparkReadAsOthersReadThem compares every data file of the golden
// tables, and every file of the rows that are expected of them, with another
// reader's values.
func TestFilesOfSparkReadAsOthersReadThem(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Python")
	}
	golden, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "golden"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(golden); err != nil {
		t.Skip("needs the golden tables, in ../shared/golden beside the module")
	}
	python, err := local.Python(t.Context())
	if errors.Is(err, local.ErrNoPython) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var paths, want []string
	err = filepath.WalkDir(golden, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".parquet") && !strings.Contains(path, "_delta_log") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, "file,"+path)
		f := openBytes(t, data)
		b := readAll(t, f, f.Schema(), 0)
		for i, c := range b.Cols {
			line := b.Names[i]
			for row := range b.Rows() {
				line += "," + dump(c, row)
			}
			want = append(want, line)
		}
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", foreignScript)
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\n"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d lines of %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("another reader has\n%.300s\nnot\n%.300s", got[i], want[i])
		}
	}
	t.Logf("%d files", len(paths))
}

func TestOtherReadersAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Python")
	}
	python, err := local.Python(t.Context())
	if errors.Is(err, local.ErrNoPython) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, b := everything(26_000)
	script := filepath.Join(t.TempDir(), "readers.py")
	if err := os.WriteFile(script, []byte(readersScript), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, codec := range []Codec{Zstd, Snappy, Uncompressed} {
		data, _ := write(t, WriterOptions{Schema: s, RowGroupRows: 22_000, Codec: codec}, b)
		path := filepath.Join(t.TempDir(), "all.parquet")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), python, script, path)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != len(s.Fields) {
			t.Fatalf("%d columns, not %d", len(lines), len(s.Fields))
		}
		for i, line := range lines {
			values := strings.Split(line, ",")
			if values[0] != s.Fields[i].Name || len(values)-1 != b.Rows() {
				t.Fatalf("column %s has %d values", values[0], len(values)-1)
			}
			for row, v := range values[1:] {
				if want := dump(b.Cols[i], row); v != want {
					t.Fatalf("column %s, row %d: %s, want %s", values[0], row, v, want)
				}
			}
		}
	}
}

// tailOnly counts the reads of a file, and fails those of its beginning.
type tailOnly struct {
	b     []byte
	reads int
}

func (r *tailOnly) ReadAt(p []byte, off int64) (int, error) {
	r.reads++
	if off < int64(len(r.b)/2) {
		return 0, errors.New("no answer")
	}
	return bytes.NewReader(r.b).ReadAt(p, off)
}

// A store answers once where the end of a file tells all, and what it fails to
// answer is no damage.
func TestOpeningReadsTheEndOfAFileOnce(t *testing.T) {
	s := &schema.Schema{Fields: []schema.Field{{Name: "s", Type: schema.Type{Kind: schema.Binary}, Nullable: true}}}
	b := NewBatch(s)
	for i := range 200 {
		b.Cols[0].AppendString(strings.Repeat(strconv.Itoa(i*i*7919), 400))
	}
	data, _ := write(t, WriterOptions{Schema: s, Codec: Uncompressed}, b)
	if len(data) < 3*tailRead {
		t.Fatalf("%d bytes are too few", len(data))
	}
	r := &tailOnly{b: data}
	f, err := Open(r, int64(len(data)))
	if err != nil || r.reads != 1 {
		t.Fatalf("%d reads, %v", r.reads, err)
	}
	for _, err := range f.Read(t.Context(), s, ReadOptions{}) {
		if err == nil || errors.Is(err, ErrCorrupt) {
			t.Fatalf("got %v", err)
		}
	}
}
