package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deploy/local"
)

// reading is one table for testdata/readers.py.
type reading struct {
	Name    string   `json:"name"`
	URI     string   `json:"uri"`
	Columns []string `json:"columns"`
	Where   *string  `json:"where"`
	Want    string   `json:"want"`
}

// readers runs testdata/readers.py and returns what it printed.
func readers(t testing.TB, tables []reading, args ...string) []byte {
	t.Helper()
	python, err := local.Python(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var in, out, fault bytes.Buffer
	for _, r := range tables {
		if err := json.NewEncoder(&in).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), python, append([]string{filepath.Join("testdata", "readers.py")}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &fault
	if err := cmd.Run(); err != nil {
		t.Errorf("readers.py %s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), shorten(fault.Bytes(), 3000))
	}
	return out.Bytes()
}

// foreign has readers that are not ours compare the tables of a database:
// latest with the rows of the source, history with the changes that the oracle
// saw. Nothing may change meanwhile.
func (s *site) foreign(o *oracle) {
	s.t.Helper()
	var tables []reading
	file := func(name string) (string, *json.Encoder) {
		path := filepath.Join(s.dir, fmt.Sprintf("want-%d-%s", len(tables), unfit.ReplaceAllString(name, "_")))
		f, err := os.Create(path)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { f.Close() })
		e := json.NewEncoder(f)
		e.SetEscapeHTML(false)
		return path, e
	}
	for _, table := range s.status(o.src.name).Tables {
		h := readHistory(s.t, table.History)
		columns := make([]string, len(h.columns))
		for i := range h.columns {
			columns[i] = h.columns[i].Name
		}
		path, want := file(table.Name + " history")
		where := "__op <> 'r'"
		tables = append(tables, reading{
			Name: table.Name + " history", URI: table.History, Want: path, Where: &where,
			Columns: append([]string{"__op", "__xid", "__ordinal"}, columns...),
		})
		for _, r := range o.wanted(table.Name, h) {
			row := []any{r.op, strconv.FormatUint(uint64(r.xid), 10), strconv.FormatInt(r.ordinal, 10)}
			for i, v := range r.values {
				row = append(row, foreignCell(h.columns[i].Type, v))
			}
			if err := want.Encode(row); err != nil {
				s.t.Fatal(err)
			}
		}
		if table.Latest == "" {
			continue
		}
		path, want = file(table.Name + " latest")
		tables = append(tables, reading{Name: table.Name + " latest", URI: table.Latest, Want: path, Columns: columns})
		o.src.rows(table.Name, h, func(row []any) {
			if err := want.Encode(row); err != nil {
				s.t.Fatal(err)
			}
		})
	}
	s.t.Logf("readers that are not ours:\n%s", readers(s.t, tables, "compare"))
}

// rows reads a table of the source, each row as foreign readers see it.
func (src *source) rows(table string, h *historyTable, yield func(row []any)) {
	src.t.Helper()
	names := make([]string, len(h.names))
	for i, n := range h.names {
		names[i] = pgx.Identifier{n}.Sanitize() + "::text"
	}
	c := pinned(src.t, src.url)
	defer c.Close(src.t.Context())
	rows, err := c.Query(src.t.Context(), "SELECT "+strings.Join(names, ", ")+" FROM "+regclass(table))
	if err != nil {
		src.t.Fatal(err)
	}
	texts, into := make([]*string, len(names)), make([]any, len(names))
	for i := range into {
		into[i] = &texts[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			src.t.Fatal(err)
		}
		row := make([]any, len(names))
		for i, text := range texts {
			if text == nil {
				continue
			}
			v, err := printed(h.columns[i].Type, *text)
			if err != nil {
				src.t.Fatalf("%s, column %s: %v", table, names[i], err)
			}
			row[i] = foreignCell(h.columns[i].Type, v)
		}
		yield(row)
	}
	if err := rows.Err(); err != nil {
		src.t.Fatal(err)
	}
}

// foreignCell writes a cell as testdata/readers.py does.
func foreignCell(t schema.Type, v string) any {
	if v == null {
		return nil
	}
	switch t.Kind {
	case schema.Float, schema.Double:
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(f) {
			return "NaN"
		}
		return fmt.Sprintf("%016x", math.Float64bits(f))
	case schema.Array:
		elements := []any{}
		for _, e := range splitCells(v) {
			elements = append(elements, foreignCell(*t.Elem, e))
		}
		return elements
	}
	return v
}

// splitCells takes apart what cell wrote for an array.
func splitCells(v string) (elements []string) {
	v = strings.TrimSuffix(strings.TrimPrefix(v, "["), "]")
	for len(v) > 0 {
		quoted, err := strconv.QuotedPrefix(v)
		if err != nil {
			return nil
		}
		e, _ := strconv.Unquote(quoted)
		elements = append(elements, e)
		v = strings.TrimPrefix(v[len(quoted):], ";")
	}
	return elements
}
