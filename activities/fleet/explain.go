package fleet

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Origin is the place of the file that decides a value.
type Origin string

// The places, each of which gives way to the next.
const (
	// FromDefault is Millrace's own default.
	FromDefault Origin = "default"
	// FromDefaults is the section defaults of the file.
	FromDefaults Origin = "defaults"
	// FromDatabase is the database.
	FromDatabase Origin = "database"
	// FromRule is a rule of the database.
	FromRule Origin = "rule"
)

// Explanation says what holds for one table, and why.
type Explanation struct {
	Database string `json:"database"`
	Table    string `json:"table"`
	// Mirrored tells whether the table is mirrored if it exists, and Pattern which
	// pattern decides; empty where none fits.
	Mirrored bool   `json:"mirrored"`
	Pattern  string `json:"pattern"`
	// Line is the pattern's in the file, from 1; 0 where it is not known.
	Line int `json:"line"`
	// Values are all keys, those of the database as a whole first.
	Values []Explained `json:"values"`
}

// Explained is one key.
type Explained struct {
	// Key is its path, such as values.nan or casts.valid_until.
	Key string `json:"key"`
	// Value is what holds, as the file would say it; empty stands for nothing.
	Value string `json:"value"`
	From  Origin `json:"from"`
	// Tables are the patterns of the rule, where it is one.
	Tables []string `json:"tables,omitempty"`
	// Line is where the file says it, from 1; 0 for a default, and where it is
	// not known.
	Line int `json:"line"`
}

// Explain says what holds for a table, and why. It is about the file: whether
// there is such a table, the source alone knows.
func (d *Database) Explain(schema, name string) *Explanation {
	e := &Explanation{Database: d.Name, Table: schema + "." + name, Mirrored: d.Mirrors(schema, name)}
	if at, _ := decides(d.Tables, schema, name); at >= 0 {
		e.Pattern = d.Tables[at]
		if d.source != nil {
			e.Line = d.source.tables[at]
		}
	}
	t := d.Table(schema, name)
	for _, whole := range d.whole() {
		from, line := d.origin(whole.key, whole.given)
		e.Values = append(e.Values, Explained{Key: whole.key, Value: whole.value, From: from, Line: line})
	}
	add := func(key, value string, given func(*Options) bool) {
		x := Explained{Key: key, Value: value}
		x.From, x.Line = d.origin(key, given(&d.Options))
		for i := range d.Rules {
			r := &d.Rules[i]
			if !given(&r.Options) || !r.fits(schema, name) {
				continue
			}
			x.From, x.Tables, x.Line = FromRule, r.Tables, 0
			if d.source != nil {
				x.Line = d.source.rules[i][key]
			}
		}
		e.Values = append(e.Values, x)
	}
	for i := range keys {
		if keys[i].name != "casts" {
			add(keys[i].name, format(keys[i].value(&t)), keys[i].given)
			continue
		}
		for _, column := range castColumns(d.places(schema, name)) {
			add(castKey(column), t.Casts[column], func(o *Options) bool { return o.Casts[column] != "" })
		}
	}
	return e
}

// whole are the keys of a database as a whole that defaults can give.
func (d *Database) whole() []struct {
	key, value string
	given      bool
} {
	return []struct {
		key, value string
		given      bool
	}{
		{"pool", d.Pool, d.Pool != "default"},
		{"wal_budget", formatSize(d.WALBudget), d.WALBudget != 0},
		{"on_wal_budget", string(d.OnWALBudget), d.OnWALBudget != OnBudgetPark},
	}
}

// places lists who may speak about a table, in order.
func (d *Database) places(schema, name string) []*Options {
	places := []*Options{&d.Options}
	for i := range d.Rules {
		if d.Rules[i].fits(schema, name) {
			places = append(places, &d.Rules[i].Options)
		}
	}
	return places
}

// origin tells where a key of the database's own Options comes from. Without a
// file that is the database, where it is given.
func (d *Database) origin(key string, given bool) (Origin, int) {
	if s := d.source; s != nil {
		if line := s.database[key]; line > 0 {
			return FromDatabase, line
		}
		if line := s.defaults[key]; line > 0 {
			return FromDefaults, line
		}
		return FromDefault, 0
	}
	if given {
		return FromDatabase, 0
	}
	return FromDefault, 0
}

// format writes a value as the file would.
func format(v any) string {
	switch v := v.(type) {
	case time.Duration:
		return formatDuration(v)
	case bool:
		if v {
			return "on"
		}
		return "off"
	case []string:
		return strings.Join(v, ", ")
	}
	return fmt.Sprint(v)
}

// Change is a key whose value two configurations of a database do not share.
type Change struct {
	// Key is its path, such as freshness, casts.valid_until or url.
	Key string `json:"key"`
	// Old and New are the values as a file would say them; empty for nothing.
	Old string `json:"old"`
	New string `json:"new"`
}

// Cost is what a change asks for, besides a pause of the database's lanes.
type Cost string

// The costs.
const (
	// CostPause is nothing more: what is changed holds from then on.
	CostPause Cost = "pause"
	// CostCopy has what it concerns copied again, for what is there was written
	// otherwise.
	CostCopy Cost = "copy"
	// CostPark parks the database unless the topic is given the setting, too.
	CostPark Cost = "park"
)

// costs are those of the keys that cost more than a pause.
var costs = map[string]Cost{
	"columns": CostCopy, "key": CostCopy, "history": CostCopy, "soft_delete": CostCopy, "partition_by": CostCopy, "where": CostCopy,
	"values.multidimensional": CostCopy, "lake": CostCopy,
	"topic": CostPark, "kafka.partitions": CostPark, "kafka.replication": CostPark, "kafka.min_insync": CostPark, "kafka.retention": CostPark,
}

// Cost returns what the change asks for.
func (c *Change) Cost() Cost {
	if strings.HasPrefix(c.Key, castKey("")) {
		return CostCopy
	}
	return cmp.Or(costs[c.Key], CostPause)
}

// Changes lists what differs between two resolved sets of options of a table.
func Changes(before, after *TableOptions) []Change {
	var changes []Change
	note := func(key, was, is string) {
		if was != is {
			changes = append(changes, Change{key, was, is})
		}
	}
	for i := range keys {
		if keys[i].name != "casts" {
			note(keys[i].name, format(keys[i].value(before)), format(keys[i].value(after)))
			continue
		}
		for _, column := range castColumns([]*Options{{Casts: before.Casts}, {Casts: after.Casts}}) {
			note(castKey(column), before.Casts[column], after.Casts[column])
		}
	}
	return changes
}

// Changes lists what differs from another configuration of the same database as
// a whole: not which tables are mirrored, nor what holds for single tables.
func (d *Database) Changes(next *Database) []Change {
	var changes []Change
	note := func(key string, was, is any) {
		if was, is := fmt.Sprint(was), fmt.Sprint(is); was != is {
			changes = append(changes, Change{key, was, is})
		}
	}
	note("url", d.URL, next.URL)
	note("password", d.Password, next.Password)
	note("lake", d.Lake, next.Lake)
	was, is := d.bucket(), next.bucket()
	note("lake.endpoint", was.Endpoint, is.Endpoint)
	note("lake.region", was.Region, is.Region)
	note("lake.addressing", was.Addressing, is.Addressing)
	note("lake.kms_key", was.KMSKey, is.KMSKey)
	note("lake.access_key", was.AccessKey, is.AccessKey)
	note("lake.secret_key", was.SecretKey, is.SecretKey)
	note("topic", d.Topic.Name, next.Topic.Name)
	note("kafka.partitions", d.Topic.Partitions, next.Topic.Partitions)
	note("kafka.replication", d.Topic.Replication, next.Topic.Replication)
	note("kafka.min_insync", d.Topic.MinInSync, next.Topic.MinInSync)
	note("kafka.retention", formatDuration(d.Topic.Retention), formatDuration(next.Topic.Retention))
	note("temporal.heartbeat_timeout", formatDuration(d.HeartbeatTimeout), formatDuration(next.HeartbeatTimeout))
	note("allow_insecure", d.AllowInsecure, next.AllowInsecure)
	for i, w := range d.whole() {
		note(w.key, w.value, next.whole()[i].value)
	}
	return changes
}

// bucket returns what the file says of the lake's bucket.
func (d *Database) bucket() Bucket {
	if d.Bucket == nil {
		return Bucket{}
	}
	return *d.Bucket
}

// ParseTable splits schema.table, with double quotes as in SQL.
func ParseTable(s string) (schema, table string, err error) {
	parts, err := splitName(s)
	pattern := strings.HasPrefix(s, "!") || !strings.Contains(s, `"`) && strings.ContainsAny(s, "*?")
	if err != nil || len(parts) != 2 || pattern {
		return "", "", fmt.Errorf("%q is not the name of a table; write schema.table, such as public.orders", s)
	}
	return parts[0], parts[1], nil
}
