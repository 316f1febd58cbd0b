package fleet

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Options are what one place of the fleet file says about tables: its defaults,
// a database, or a rule. What is nil or empty is not said there.
type Options struct {
	// Columns are patterns of columns; see [TableOptions.Takes]. An empty list
	// takes all.
	Columns []string `json:"columns,omitzero"`
	// Casts give columns other Delta types than those which their PostgreSQL
	// types map to: one of [CastTypes]. [NoCast] takes back what is said before.
	// Each column is said by itself. A table without such a column is as it is.
	Casts map[string]string `json:"casts,omitzero"`
	// Key lists the columns that identify a row. An empty list leaves that to
	// the source.
	Key []string `json:"key,omitzero"`
	// Freshness is how late a change may become visible in the lake.
	Freshness *time.Duration `json:"freshness,omitzero"`
	// History tells whether there is a table of every change.
	History *bool `json:"history,omitzero"`
	// SoftDelete keeps deleted rows in latest, and marks them.
	SoftDelete *bool `json:"soft_delete,omitzero"`
	// CopyOnWrite has latest written without deletion vectors.
	CopyOnWrite *bool `json:"copy_on_write,omitzero"`
	// PartitionBy lists the columns that divide the files of the tables. An empty
	// list divides them by nothing.
	PartitionBy []string `json:"partition_by,omitzero"`
	// Where is a condition in SQL on the rows to mirror. An empty one takes all.
	Where *string `json:"where,omitzero"`
	// Values say what becomes of values that the Delta type cannot hold.
	Values Values `json:"values,omitzero"`
	// Copy bounds what copies ask of the source.
	Copy CopyOptions `json:"copy,omitzero"`
}

// CopyOptions are the limits of copies that one place of the fleet file gives.
type CopyOptions struct {
	// RowsPerSecond is how many rows are read in a second. 0 stands for no limit.
	RowsPerSecond *int `json:"rows_per_second,omitzero"`
	// Connections is how many chunks are read at once. 0 stands for no limit.
	Connections *int `json:"connections,omitzero"`
	// Window is when chunks may be read.
	Window Window `json:"window,omitzero"`
}

// Rule is what holds for the tables that its patterns choose.
type Rule struct {
	// Tables are patterns as in [Database.Tables].
	Tables []string `json:"tables"`
	Options
}

// CastTypes are the types that a column can be cast to.
var CastTypes = []string{"string"}

// NoCast takes a cast back.
const NoCast = "none"

// Treatment is what becomes of a value that the Delta type cannot hold.
type Treatment string

// The treatments.
const (
	// Park parks the table.
	Park Treatment = "park"
	// Null writes NULL, and counts that.
	Null Treatment = "null"
	// Clamp writes the nearest value that the type holds, and counts that.
	Clamp Treatment = "clamp"
	// Text makes the column a string, with the values as PostgreSQL prints them.
	Text Treatment = "text"
)

// Values are the treatments of what Delta types cannot hold.
type Values struct {
	// Infinity is of dates and timestamps: Park, Null or Clamp.
	Infinity Treatment `json:"infinity,omitzero"`
	// NaN is of decimals: Park or Null.
	NaN Treatment `json:"nan,omitzero"`
	// Multidimensional is of arrays of more than one dimension: Park or Text.
	Multidimensional Treatment `json:"multidimensional,omitzero"`
}

// CopyLimits bound what copies ask of the source.
type CopyLimits struct {
	// RowsPerSecond is how many rows are read in a second. 0 is no limit.
	RowsPerSecond int
	// Connections is how many chunks are read at once. 0 is no limit.
	Connections int
	// Window is when chunks may be read. Default: [Always].
	Window Window
	// AloneRows and AloneConnections tell that a rule gives RowsPerSecond or
	// Connections: the limit is then of this table alone. Otherwise the tables of
	// the database share it.
	AloneRows, AloneConnections bool
}

// TableOptions are what holds for one table, with all defaults filled in.
type TableOptions struct {
	// Columns are patterns of columns; nil for all. See Takes.
	Columns []string
	// Casts are types by column; nil for none.
	Casts map[string]string
	// Key lists the columns that identify a row; nil for what the source says.
	Key []string
	// Freshness is how late a change may become visible in the lake. Default: 5s.
	Freshness time.Duration
	// History tells whether there is a table of every change. Default: true.
	History bool
	// SoftDelete keeps deleted rows in latest, and marks them. Default: false.
	SoftDelete bool
	// CopyOnWrite has latest written without deletion vectors. Default: false.
	CopyOnWrite bool
	// PartitionBy lists the columns that divide the files; nil for none.
	PartitionBy []string
	// Where is a condition in SQL on the rows to mirror; empty for all rows.
	Where string
	// Values say what becomes of what the Delta types cannot hold. Default: Park.
	Values Values
	// Copy bounds the table's copies. Default: no limits.
	Copy CopyLimits
}

// Takes tells whether a column is mirrored, by the last pattern that fits it. A
// list that begins with an exclusion takes all other columns.
func (o *TableOptions) Takes(column string) bool {
	in := len(o.Columns) == 0 || strings.HasPrefix(o.Columns[0], "!")
	for _, p := range o.Columns {
		if p, out := strings.CutPrefix(p, "!"); glob(p, column) {
			in = !out
		}
	}
	return in
}

// Defaults returns what holds for a table that no rule fits.
func (d *Database) Defaults() TableOptions {
	return resolve(&d.Options)
}

// Table returns what holds for a table: for each key what the last rule says
// that fits the table and sets it, else the database, else the default.
func (d *Database) Table(schema, name string) TableOptions {
	return resolve(d.places(schema, name)...)
}

// fits tells whether the rule holds for a table.
func (r *Rule) fits(schema, name string) bool { return Matches(r.Tables, schema, name) }

// Mirrors tells whether a table is mirrored.
func (d *Database) Mirrors(schema, name string) bool { return Matches(d.Tables, schema, name) }

// resolve lets places speak one after the other. All but the first are rules.
func resolve(places ...*Options) TableOptions {
	t := TableOptions{Freshness: 5 * time.Second, History: true, Values: Values{Infinity: Park, NaN: Park, Multidimensional: Park}, Copy: CopyLimits{Window: Always}}
	for i, o := range places {
		for k := range keys {
			keys[k].take(&t, o)
		}
		if i > 0 {
			t.Copy.AloneRows = t.Copy.AloneRows || o.Copy.RowsPerSecond != nil
			t.Copy.AloneConnections = t.Copy.AloneConnections || o.Copy.Connections != nil
		}
	}
	return t
}

// Empty tells that a place says nothing.
func (o *Options) Empty() bool {
	return !slices.ContainsFunc(keys, func(k key) bool { return k.given(o) })
}

// key is one key of Options. The casts of single columns are no keys of this
// kind: see castKey.
type key struct {
	// name is the path below the place, such as values.nan.
	name string
	// given tells whether a place sets the key, and take carries what it sets.
	given func(*Options) bool
	take  func(*TableOptions, *Options)
	// value is what holds.
	value func(*TableOptions) any
}

// keys are the keys of Options, in the order in which they are shown.
var keys = []key{
	list("columns", func(o *Options) *[]string { return &o.Columns }, func(t *TableOptions) *[]string { return &t.Columns }),
	{
		"casts",
		func(o *Options) bool { return len(o.Casts) > 0 },
		func(t *TableOptions, o *Options) { t.Casts = castOver(t.Casts, o.Casts) },
		func(t *TableOptions) any { return t.Casts },
	},
	list("key", func(o *Options) *[]string { return &o.Key }, func(t *TableOptions) *[]string { return &t.Key }),
	pointer("freshness", func(o *Options) *time.Duration { return o.Freshness }, func(t *TableOptions) *time.Duration { return &t.Freshness }),
	pointer("history", func(o *Options) *bool { return o.History }, func(t *TableOptions) *bool { return &t.History }),
	pointer("soft_delete", func(o *Options) *bool { return o.SoftDelete }, func(t *TableOptions) *bool { return &t.SoftDelete }),
	pointer("copy_on_write", func(o *Options) *bool { return o.CopyOnWrite }, func(t *TableOptions) *bool { return &t.CopyOnWrite }),
	list("partition_by", func(o *Options) *[]string { return &o.PartitionBy }, func(t *TableOptions) *[]string { return &t.PartitionBy }),
	pointer("where", func(o *Options) *string { return o.Where }, func(t *TableOptions) *string { return &t.Where }),
	word("values.infinity", func(o *Options) Treatment { return o.Values.Infinity }, func(t *TableOptions) *Treatment { return &t.Values.Infinity }),
	word("values.nan", func(o *Options) Treatment { return o.Values.NaN }, func(t *TableOptions) *Treatment { return &t.Values.NaN }),
	word("values.multidimensional", func(o *Options) Treatment { return o.Values.Multidimensional }, func(t *TableOptions) *Treatment { return &t.Values.Multidimensional }),
	pointer("copy.rows_per_second", func(o *Options) *int { return o.Copy.RowsPerSecond }, func(t *TableOptions) *int { return &t.Copy.RowsPerSecond }),
	pointer("copy.connections", func(o *Options) *int { return o.Copy.Connections }, func(t *TableOptions) *int { return &t.Copy.Connections }),
	word("copy.window", func(o *Options) Window { return o.Copy.Window }, func(t *TableOptions) *Window { return &t.Copy.Window }),
}

// pointer is a key that is not said where it is nil.
func pointer[T any](name string, from func(*Options) *T, to func(*TableOptions) *T) key {
	return key{
		name,
		func(o *Options) bool { return from(o) != nil },
		func(t *TableOptions, o *Options) {
			if v := from(o); v != nil {
				*to(t) = *v
			}
		},
		func(t *TableOptions) any { return *to(t) },
	}
}

// word is a key that is not said where it is empty.
func word[T ~string](name string, from func(*Options) T, to func(*TableOptions) *T) key {
	return key{
		name,
		func(o *Options) bool { return from(o) != "" },
		func(t *TableOptions, o *Options) {
			if v := from(o); v != "" {
				*to(t) = v
			}
		},
		func(t *TableOptions) any { return *to(t) },
	}
}

// list is a key that is not said where it is nil. An empty list takes back what
// was said before.
func list(name string, from func(*Options) *[]string, to func(*TableOptions) *[]string) key {
	return key{
		name,
		func(o *Options) bool { return *from(o) != nil },
		func(t *TableOptions, o *Options) {
			switch v := *from(o); {
			case v == nil:
			case len(v) == 0:
				*to(t) = nil
			default:
				*to(t) = v
			}
		},
		func(t *TableOptions) any { return *to(t) },
	}
}

// castOver returns casts with others over them. Neither is changed.
func castOver(casts, over map[string]string) map[string]string {
	if len(over) == 0 {
		return casts
	}
	out := maps.Clone(casts)
	if out == nil {
		out = make(map[string]string, len(over))
	}
	maps.Copy(out, over)
	maps.DeleteFunc(out, func(_, to string) bool { return to == NoCast })
	if len(out) == 0 {
		return nil
	}
	return out
}

// castColumns lists the columns that any place casts, in order.
func castColumns(places []*Options) []string {
	var columns []string
	for _, o := range places {
		//workflowcheck:ignore the order is mended below
		columns = append(columns, slices.Collect(maps.Keys(o.Casts))...)
	}
	slices.Sort(columns)
	return slices.Compact(columns)
}
