package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// unsupported are the keys that no worker acts on yet, as they are below
// defaults and databases; inRule precedes those that rules alone may not set.
// The file is refused where it gives one of them.
var unsupported = []string{
	"columns", "key", inRule + "freshness", "history", "soft_delete", "copy_on_write", "partition_by", "where",
	"values.infinity", "values.nan", "values.multidimensional",
	"copy.rows_per_second", "copy.connections", "copy.window",
	"wal_budget", "on_wal_budget",
}

// inRule precedes keys in the rules of a database.
const inRule = "rules."

// shared are the keys that defaults and databases have in common.
func (r *reader) shared(place string, d *Database) []field {
	return append(r.options(place, &d.Options), r.supported(place, []field{
		{"pool", r.pool(&d.Pool)},
		{"wal_budget", r.size(&d.WALBudget)},
		{"on_wal_budget", func(p string, n ast.Node) {
			oneOf(r, p, n, &d.OnWALBudget, []BudgetAct{OnBudgetPark, OnBudgetDropSlot})
		}},
	})...)
}

// options are the keys of one place's Options.
func (r *reader) options(place string, o *Options) []field {
	return r.supported(place, []field{
		{"columns", r.columns(&o.Columns)},
		{"casts", func(p string, n ast.Node) { r.casts(p, n, o) }},
		{"key", r.names(&o.Key)},
		{"freshness", func(p string, n ast.Node) {
			var d time.Duration
			r.duration(&d, 100*time.Millisecond, 24*time.Hour)(p, n)
			o.Freshness = &d
		}},
		{"history", r.onOff(&o.History)},
		{"soft_delete", r.onOff(&o.SoftDelete)},
		{"copy_on_write", r.onOff(&o.CopyOnWrite)},
		{"partition_by", r.names(&o.PartitionBy)},
		{"where", r.condition(&o.Where)},
		{"values", func(p string, n ast.Node) { r.object(p, n, r.values(place+"values.", &o.Values)) }},
		{"copy", func(p string, n ast.Node) { r.object(p, n, r.copies(place+"copy.", &o.Copy)) }},
	})
}

func (r *reader) values(place string, v *Values) []field {
	treat := func(into *Treatment, valid ...Treatment) func(string, ast.Node) {
		return func(p string, n ast.Node) { oneOf(r, p, n, into, valid) }
	}
	return r.supported(place, []field{
		{"infinity", treat(&v.Infinity, Park, Null, Clamp)},
		{"nan", treat(&v.NaN, Park, Null)},
		{"multidimensional", treat(&v.Multidimensional, Park, Text)},
	})
}

func (r *reader) copies(place string, c *CopyOptions) []field {
	return r.supported(place, []field{
		{"rows_per_second", r.count(&c.RowsPerSecond, 1_000_000_000)},
		{"connections", r.count(&c.Connections, 1000)},
		{"window", func(p string, n ast.Node) {
			r.parsed(p, n, func(s string) error {
				w, err := ParseWindow(s)
				c.Window = w
				return err
			})
		}},
	})
}

// supported has the keys of a place refused that nothing acts on.
func (r *reader) supported(place string, fields []field) []field {
	for i, f := range fields {
		name := place + f.key
		if !slices.Contains(r.unsupported, name) && !slices.Contains(r.unsupported, strings.TrimPrefix(name, inRule)) {
			continue
		}
		fields[i].read = func(p string, n ast.Node) {
			before := len(r.faults)
			f.read(p, n)
			if len(r.faults) > before {
				return
			}
			where := ""
			if strings.HasPrefix(name, inRule) && !slices.Contains(r.unsupported, strings.TrimPrefix(name, inRule)) {
				where = " in a rule, only for a whole database"
			}
			r.fault(p, r.places[p], "not supported yet%s: no worker would act on it; leave it out", where)
		}
	}
	return fields
}

// rules reads what holds for some tables of a database.
func (r *reader) rules(p string, n ast.Node, into *[]Rule) {
	list, ok := r.resolve(n).(*ast.SequenceNode)
	if !ok {
		r.wrongKind(p, n, "a list of rules, such as [{tables: public.prices, casts: {valid_until: string}}]")
		return
	}
	for i, item := range list.Values {
		rp := p + "[" + strconv.Itoa(i) + "]"
		r.places[rp] = first(item)
		var rule Rule
		fields := append([]field{{"tables", func(p string, n ast.Node) {
			if _, one := scalar(r.resolve(n)); one {
				n = &ast.SequenceNode{BaseNode: &ast.BaseNode{}, Start: n.GetToken(), Values: []ast.Node{n}}
			}
			r.patterns(&rule.Tables)(p, n)
		}}}, r.options(inRule, &rule.Options)...)
		var refused []field
		for _, whole := range []string{"url", "password", "pool", "wal_budget", "on_wal_budget"} {
			refused = append(refused, field{whole, func(p string, n ast.Node) {
				r.fault(p, r.places[p], "%s is of a database as a whole, whose tables share one slot and its lanes; give it beside rules", whole)
			}})
		}
		before := len(r.faults)
		if !r.object(rp, item, fields, refused...) {
			continue
		}
		if !r.given(join(rp, "tables")) {
			r.faultAt(join(rp, "tables"), "missing; say which tables the rule is for, such as tables: public.prices")
		}
		if len(r.faults) == before && rule.Empty() {
			r.fault(rp, first(item), "the rule sets nothing")
		}
		*into = append(*into, rule)
	}
}

// parsed reads a text in a form of its own.
func (r *reader) parsed(p string, n ast.Node, parse func(string) error) {
	var s string
	before := len(r.faults)
	r.text(&s)(p, n)
	if len(r.faults) > before {
		return
	}
	if err := parse(s); err != nil {
		r.fault(p, n.GetToken(), "%s", err)
	}
}

// oneOf reads one of some words.
func oneOf[T ~string](r *reader, p string, n ast.Node, into *T, valid []T) {
	words := make([]string, len(valid))
	for i, v := range valid {
		words[i] = string(v)
	}
	if _, null := r.resolve(n).(*ast.NullNode); null { // null is a word here
		n = &ast.StringNode{BaseNode: &ast.BaseNode{}, Token: n.GetToken(), Value: "null"}
	}
	r.parsed(p, n, func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("%q is not valid here; the nearest valid word is %q (valid: %s)", s, nearest(s, words), strings.Join(words, ", "))
		}
		*into = T(s)
		return nil
	})
}

// onOff reads a switch.
func (r *reader) onOff(into **bool) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		s, _ := scalar(r.resolve(n))
		switch s {
		case "on", "true":
			*into = new(true)
		case "off", "false":
			*into = new(false)
		default:
			r.wrongKind(p, n, "on or off")
		}
	}
}

// count reads a limit, where 0 is none.
func (r *reader) count(into **int, high int) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		var v int
		r.number(&v, 0, high)(p, n)
		*into = &v
	}
}

// names reads a list of columns, which may be empty.
func (r *reader) names(into *[]string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		*into = []string{}
		r.texts(func(p string, at *token.Token, s string) {
			switch {
			case s == "":
				r.fault(p, at, "the name of a column is missing")
			case slices.Contains(*into, s):
				r.fault(p, at, "duplicate: %q is already in the list", s)
			default:
				*into = append(*into, s)
			}
		})(p, n)
	}
}

// columns reads patterns of columns. The one that takes all is as good as none.
func (r *reader) columns(into *[]string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		before := len(r.faults)
		r.names(into)(p, n)
		switch {
		case len(r.faults) > before:
		case len(*into) == 0:
			r.fault(p, n.GetToken(), `no columns would be left; ["*"] takes all, and ["!secret_*"] all but some`)
		case len(*into) == 1 && (*into)[0] == "*":
			*into = []string{}
		}
	}
}

// casts reads the types of columns.
func (r *reader) casts(p string, n ast.Node, o *Options) {
	valid := append([]string{NoCast}, CastTypes...)
	r.entries(p, n, func(column string, at *token.Token, value ast.Node) {
		cp := join(p, column)
		r.places[cp] = at
		if value == nil {
			r.fault(cp, at, "the value is missing; the valid type is %q", CastTypes[0])
			return
		}
		r.parsed(cp, value, func(to string) error {
			if !slices.Contains(valid, to) {
				return fmt.Errorf("a column cannot be cast to %q; the nearest valid type is %q", to, nearest(to, valid))
			}
			if o.Casts == nil {
				o.Casts = make(map[string]string)
			}
			o.Casts[column] = to
			return nil
		})
	})
}

// maxCondition is the longest condition, in bytes.
const maxCondition = 4 << 10

// condition reads a condition in SQL, which is PostgreSQL's to judge.
func (r *reader) condition(into **string) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		r.parsed(p, n, func(s string) error {
			switch {
			case len(s) > maxCondition:
				return fmt.Errorf("the condition is longer than %d bytes", maxCondition)
			case strings.ContainsRune(s, 0):
				return fmt.Errorf("the condition holds a NUL")
			}
			*into = new(strings.TrimSpace(s))
			return nil
		})
	}
}

// sizes are the units of sizes in bytes.
var sizes = []struct {
	unit  string
	bytes int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
}

// leastBudget is the least budget of WAL: a few segments.
const leastBudget = 100e6

// size reads a number of bytes, or none.
func (r *reader) size(into *int64) func(string, ast.Node) {
	return func(p string, n ast.Node) {
		r.parsed(p, n, func(s string) error {
			if s == "none" {
				*into = 0
				return nil
			}
			for _, u := range sizes {
				digits, ok := strings.CutSuffix(s, u.unit)
				if !ok {
					continue
				}
				v, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
				if err != nil || v*u.bytes < leastBudget || v > 1<<53/u.bytes {
					break
				}
				*into = v * u.bytes
				return nil
			}
			return fmt.Errorf("%q is not a size; write a whole number with its unit, at least 100MB, such as 50GB or 20GiB, or none", s)
		})
	}
}

// formatSize writes what size reads.
func formatSize(n int64) string {
	if n == 0 {
		return "none"
	}
	best := strconv.FormatInt(n, 10) + "B"
	for _, u := range sizes {
		if n%u.bytes == 0 {
			if s := strconv.FormatInt(n/u.bytes, 10) + u.unit; len(s) < len(best) {
				best = s
			}
		}
	}
	return best
}

// source tells where the file says what.
type source struct {
	// defaults and database are the lines of keys, by name.
	defaults, database map[string]int
	// rules are those of each rule, and tables those of the patterns.
	rules  []map[string]int
	tables []int
}

// sourceOf collects the lines of a database's keys.
func (r *reader) sourceOf(p string, d *Database) *source {
	line := func(path string) int {
		if at := r.places[path]; at != nil {
			return at.Position.Line
		}
		return 0
	}
	names := func(o *Options) []string {
		all := []string{"pool", "wal_budget", "on_wal_budget"}
		for i := range keys {
			all = append(all, keys[i].name)
		}
		for column := range maps.Keys(o.Casts) {
			all = append(all, castKey(column))
		}
		return all
	}
	lines := func(p string, names []string) map[string]int {
		m := make(map[string]int)
		for _, name := range names {
			if n := line(join(p, name)); n > 0 {
				m[name] = n
			}
		}
		return m
	}
	s := &source{defaults: lines("defaults", names(&d.Options)), database: lines(p, names(&d.Options))}
	for i := range d.Rules {
		s.rules = append(s.rules, lines(p+".rules["+strconv.Itoa(i)+"]", names(&d.Rules[i].Options)))
	}
	for i := range d.Tables {
		s.tables = append(s.tables, line(p+".tables["+strconv.Itoa(i)+"]"))
	}
	return s
}

// castKey is the name of the cast of one column.
func castKey(column string) string { return "casts." + column }
