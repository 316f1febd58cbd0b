package deltalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// claim is what a file's statistics say of a column.
type claim struct {
	name   string // of the column
	column int    // its place among those that are read
	nulls  int64  // negative means that nothing is said
	bounds [2]*datafile.Column

	seen     int64 // NULLs
	extremes *datafile.Column
}

// rows reads the rows of a file and compares them with its statistics.
func (c *fsck) rows(ctx context.Context, name string, f *File) error {
	claims := c.claims(f)
	for live, err := range c.s.ReadFile(ctx, f, ReadOptions{}) {
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, ErrUnsupported) {
				c.unread = errors.Join(c.unread, err)
				return nil
			}
			c.say(name, dropRows, "the data file cannot be read: %v", err)
			return nil
		}
		for i := range claims {
			claims[i].look(live.Cols[claims[i].column])
		}
	}
	for i := range claims {
		if problem := claims[i].judge(); problem != "" {
			c.say(name, rewriteIt, "the statistics of column %s do not hold: %s", claims[i].name, problem)
		}
	}
	return nil
}

// claims returns what is said of the columns whose values have an order. What
// cannot be read says nothing.
func (c *fsck) claims(f *File) []claim {
	var stats struct {
		Min   map[string]json.RawMessage `json:"minValues"`
		Max   map[string]json.RawMessage `json:"maxValues"`
		Nulls map[string]json.RawMessage `json:"nullCount"`
		Tight *bool                      `json:"tightBounds"`
	}
	if f.Stats == "" || json.Unmarshal([]byte(f.Stats), &stats) != nil {
		return nil
	}
	mapping, err := c.s.mapping()
	if err != nil {
		return nil
	}
	exact := f.Vector == nil && (stats.Tight == nil || *stats.Tight)
	var list []claim
	for i := range c.s.metadata.Schema.Fields {
		field := &c.s.metadata.Schema.Fields[i]
		key, err := storedName(c.s.metadata.Schema, mapping, field.Name)
		if !field.Type.Kind.Primitive() || field.Type.Kind == schema.Void || err != nil {
			continue
		}
		cl := claim{name: field.Name, column: i, nulls: -1, extremes: datafile.NewColumn(field.Type)}
		if n := stats.Nulls[key]; exact && n != nil && json.Unmarshal(n, &cl.nulls) != nil {
			cl.nulls = -1
		}
		cl.bounds[0] = bound(bytes.TrimSpace(stats.Min[key]), field.Type, -1)
		cl.bounds[1] = bound(bytes.TrimSpace(stats.Max[key]), field.Type, +1)
		if cl.nulls >= 0 || cl.bounds[0] != nil || cl.bounds[1] != nil {
			list = append(list, cl)
		}
	}
	return list
}

// look takes a batch of the column's values in.
func (cl *claim) look(c *datafile.Column) {
	least, greatest := -1, -1
	for row, valid := range c.Valid {
		if !valid {
			cl.seen++
			continue
		}
		if c.F64 != nil && c.F64[row] != c.F64[row] {
			continue // NaN has no place in bounds
		}
		if least < 0 || compareValues(c, row, c, least) < 0 {
			least = row
		}
		if greatest < 0 || compareValues(c, row, c, greatest) > 0 {
			greatest = row
		}
	}
	if least >= 0 {
		cl.extremes.AppendFrom(c, least)
		cl.extremes.AppendFrom(c, greatest)
	}
}

// judge says what of the claim is not so; empty if all of it is.
func (cl *claim) judge() string {
	if cl.nulls >= 0 && cl.nulls != cl.seen {
		return "the number of NULLs is another"
	}
	for row := range cl.extremes.Len() {
		if b := cl.bounds[0]; b != nil && compareValues(cl.extremes, row, b, 0) < 0 {
			return "there are values below the least"
		}
		if b := cl.bounds[1]; b != nil && compareValues(cl.extremes, row, b, 0) > 0 {
			return "there are values above the greatest"
		}
	}
	return ""
}
