package deltalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deploy/local"
)

// nestedScript prints the rows of a table as JSON, as delta-rs reads them, and
// fails where DuckDB's delta extension reads others, or where filters, which go
// by statistics and partition values, find others than there are. Partition
// columns under column mapping are all NULL to DuckDB's.
const nestedScript = `
import json, sys
import duckdb, duckdb_ext, pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
path, columns, mapped = sys.argv[1], sys.argv[2].split(","), sys.argv[3] != "none"
con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
duckdb_ext.init(con)
con.execute("load delta")
qb = QueryBuilder().register("t", DeltaTable(path))
names = ", ".join('"' + c + '"' for c in columns)
def line(row):
    return json.dumps([dict(v) if c == "m" and v is not None else v for c, v in row.items()], sort_keys=True, ensure_ascii=False)
def read(where, duck=True):
    b = pa.table(qb.execute(f"select {names} from t {where}").read_all()).to_pylist()
    rows = sorted(line(r) for r in b)
    if not duck: return rows
    a = sorted(line(r) for r in con.execute(f"select {names} from delta_scan('{path}') {where}").fetch_arrow_table().to_pylist())
    if mapped:
        for r in b: r[columns[1]] = None
    b = sorted(line(r) for r in b)
    assert a == b, (where, [x for x in zip(a, b) if x[0] != x[1]])
    return rows
rows = read("")
for r in rows:
    print(r)
id, part = columns[0], columns[1]
for r in rows:
    number, value = json.loads(r)[:2]
    assert read(f'where "{id}" = {number}') == [r], number
    if value is not None:
        quoted = value.replace("'", "''")
        assert read(f'where "{part}" = \'{quoted}\'', duck=not mapped) == [x for x in rows if json.loads(x)[1] == value], value
`

// asJSON writes a value as nestedScript does.
func asJSON(c *datafile.Column, row int) any {
	if !c.Valid[row] {
		return nil
	}
	switch c.Type.Kind {
	case schema.Struct:
		m := map[string]any{}
		for i, f := range c.Fields {
			m[c.Type.Fields[i].Name] = asJSON(f, row)
		}
		return m
	case schema.Map:
		m := map[string]any{}
		for i := c.Off[row]; i < c.Off[row+1]; i++ {
			m[string(c.Key.At(int(i)))] = asJSON(c.Value, int(i))
		}
		return m
	case schema.Array:
		list := []any{}
		for i := c.Off[row]; i < c.Off[row+1]; i++ {
			list = append(list, asJSON(c.Elem, int(i)))
		}
		return list
	case schema.String:
		return string(c.At(row))
	}
	return c.I64[row]
}

func TestOtherReadersSeeNestedRowsUnderEveryMapping(t *testing.T) {
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
	script := filepath.Join(t.TempDir(), "read.py")
	if err := os.WriteFile(script, []byte(nestedScript), 0o600); err != nil {
		t.Fatal(err)
	}
	str, long := schema.Type{Kind: schema.String}, schema.Type{Kind: schema.Long}
	s := nestedSchema()
	s.Fields = append(s.Fields, schema.Field{Name: "m", Type: schema.Type{Kind: schema.Map, Key: &str, Value: &long, ValueNull: true}, Nullable: true})
	for _, mode := range []string{"none", "name", "id"} {
		t.Run(mode, func(t *testing.T) {
			table, err := Create(t.Context(), tempStore(t), CreateOptions{
				Schema: s, PartitionColumns: []string{"part"}, Properties: map[string]string{PropertyColumnMapping: mode},
			})
			if err != nil {
				t.Fatal(err)
			}
			c := &Commit{}
			var want []string
			for i, part := range []string{"plain", "a/b", "100%", "c=d", "ü 😀", "x+y&z", "%41", "it's", ""} {
				b := datafile.NewBatch(s)
				for j := range 3 {
					b.Cols[0].AppendInt(int64(10*i + j))
					if part == "" {
						b.Cols[1].AppendNull()
					} else {
						b.Cols[1].AppendString(part)
					}
					if j == 1 {
						for _, col := range b.Cols[2:] {
							col.AppendNull()
						}
						continue
					}
					for _, at := range []*datafile.Column{b.Cols[2], b.Cols[3].Elem} {
						at.Fields[0].AppendInt(int64(i * j))
						at.Fields[1].AppendNull()
						at.EndStruct()
					}
					b.Cols[3].Elem.AppendNull()
					b.Cols[3].EndArray()
					for k := range j {
						b.Cols[4].Key.AppendString(fmt.Sprint("k", k))
						b.Cols[4].Value.AppendInt(int64(k))
					}
					b.Cols[4].EndMap()
				}
				for row := range b.Rows() {
					var line []any
					for _, col := range b.Cols {
						line = append(line, asJSON(col, row))
					}
					text, err := json.Marshal(line)
					if err != nil {
						t.Fatal(err)
					}
					want = append(want, string(text))
				}
				c.Add = append(c.Add, writeFile(t, table, FileOptions{Partition: map[string]*string{"part": &part}}, b))
			}
			mustCommit(t, table, c)
			cmd := exec.CommandContext(t.Context(), python, script, strings.TrimPrefix(table.Store().URI(), "file://"), strings.Join(s.Names(), ","), mode)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, errs.String())
			}
			var got []string
			for line := range strings.Lines(string(out)) {
				var values []any
				if err := json.Unmarshal([]byte(line), &values); err != nil {
					t.Fatal(err)
				}
				text, err := json.Marshal(values)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(text))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("other readers see\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
