// Package batch holds the pending changes of one table as columns.
//
// A [Batch] is history-shaped: the source columns under their Delta names, then
// the columns of [MetaFields]. [Fold] reduces history-shaped rows, of a batch
// or read back from a history table, to their net effect on each key. The
// package does no I/O.
package batch

import (
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/lake/pgtype"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// The names of the columns that follow the source columns in history.
const (
	OpColumn            = "__op"             // string: a change.Op
	EpochColumn         = "__epoch"          // integer: the position's epoch
	CommitLSNColumn     = "__commit_lsn"     // long: the position's commit LSN
	OrdinalColumn       = "__ordinal"        // long: the position's ordinal
	CommitTSColumn      = "__commit_ts"      // timestamp: when the transaction committed
	XIDColumn           = "__xid"            // long: the top-level transaction id
	SchemaVersionColumn = "__schema_version" // string: the fingerprint in hexadecimal
	UnchangedColumn     = "__unchanged"      // array of strings: Delta names of columns that were not sent; NULL when none
	IncarnationColumn   = "__incarnation"    // long: the copy that the row belongs to
)

// Indices into MetaFields.
const (
	metaOp = iota
	metaEpoch
	metaCommitLSN
	metaOrdinal
	metaCommitTS
	metaXID
	metaSchemaVersion
	metaUnchanged
	metaIncarnation
	metaCount
)

// MetaFields returns the columns that follow the source columns in history, in
// order. All are nullable.
func MetaFields() []schema.Field {
	str := schema.Type{Kind: schema.String}
	fields := [metaCount]schema.Field{
		metaOp:            {Name: OpColumn, Type: str},
		metaEpoch:         {Name: EpochColumn, Type: schema.Type{Kind: schema.Integer}},
		metaCommitLSN:     {Name: CommitLSNColumn, Type: schema.Type{Kind: schema.Long}},
		metaOrdinal:       {Name: OrdinalColumn, Type: schema.Type{Kind: schema.Long}},
		metaCommitTS:      {Name: CommitTSColumn, Type: schema.Type{Kind: schema.Timestamp}},
		metaXID:           {Name: XIDColumn, Type: schema.Type{Kind: schema.Long}},
		metaSchemaVersion: {Name: SchemaVersionColumn, Type: str},
		metaUnchanged:     {Name: UnchangedColumn, Type: schema.Type{Kind: schema.Array, Elem: &str, ElemNull: true}},
		metaIncarnation:   {Name: IncarnationColumn, Type: schema.Type{Kind: schema.Long}},
	}
	for i := range fields {
		fields[i].Nullable = true
	}
	return fields[:]
}

// Layout is how the rows of one shape of one table become history rows. It is
// immutable once made, and many batches may use it at once. Fields, Text and
// Binary are as long as Table.Columns.
type Layout struct {
	// Table is the shape. Events of any other fingerprint are refused.
	Table *change.Table
	// Fields are the Delta fields of Table.Columns, index by index.
	Fields []schema.Field
	// Text and Binary convert values of Table.Columns, index by index. Where a
	// Binary is nil, that column must come as text.
	Text, Binary []pgtype.Convert
	// Incarnation is the copy that the rows belong to.
	Incarnation int64
}

// NewLayout maps the columns of t, whose types must be resolved. names gives
// each column's Delta name, index by index; nil means that they are those of
// PostgreSQL. casts gives columns, by their names in PostgreSQL, a cast of
// [pgtype.For].
func NewLayout(t *change.Table, names []string, casts map[string]string, incarnation int64) (*Layout, error) {
	if names != nil && len(names) != len(t.Columns) {
		return nil, fmt.Errorf("map %s: %d names for %d columns", t, len(names), len(t.Columns))
	}
	l := &Layout{Table: t, Incarnation: incarnation}
	for i := range t.Columns {
		c := &t.Columns[i]
		m, err := pgtype.For(*c, casts[c.Name])
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", t, err)
		}
		name := c.Name
		if names != nil {
			name = names[i]
		}
		l.Fields = append(l.Fields, schema.Field{Name: name, Type: m.Type, Nullable: true})
		l.Text = append(l.Text, m.Text)
		l.Binary = append(l.Binary, m.Binary)
	}
	return l, nil
}

// HistoryFields returns the fields of history-shaped rows: the source columns,
// then [MetaFields].
func (l *Layout) HistoryFields() []schema.Field {
	return append(append(make([]schema.Field, 0, len(l.Fields)+metaCount), l.Fields...), MetaFields()...)
}

// Names returns the Delta names of the source columns.
func (l *Layout) Names() []string {
	names := make([]string, len(l.Fields))
	for i := range l.Fields {
		names[i] = l.Fields[i].Name
	}
	return names
}

// KeyNames returns the Delta names of the columns that key latest, in column
// order; none where there is no key.
func (l *Layout) KeyNames() []string {
	names := make([]string, len(l.Table.Key))
	for i, k := range l.Table.Key {
		names[i] = l.Fields[k].Name
	}
	return names
}

// TextColumns tells, index by index, which columns have no binary converter and
// must be read as text.
func (l *Layout) TextColumns() []bool {
	text := make([]bool, len(l.Binary))
	for i, convert := range l.Binary {
		text[i] = convert == nil
	}
	return text
}
