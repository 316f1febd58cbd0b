package deltalog

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// TestKeysKeepTheirEncoding evolves the key column of a table with an upsert
// that is to replace the only row.
func TestKeysKeepTheirEncoding(t *testing.T) {
	decimal := func(precision, scale int) schema.Type {
		return schema.Type{Kind: schema.Decimal, Precision: precision, Scale: scale}
	}
	of := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	for _, c := range []struct {
		from, to   schema.Type
		value, now int64 // one value in both types
		refused    bool
	}{
		{decimal(5, 2), decimal(7, 4), 150, 15000, true},
		{decimal(5, 2), decimal(7, 2), 150, 150, false},
		{of(schema.Integer), of(schema.Double), 7, 7, true},
		{of(schema.Integer), decimal(12, 0), 7, 7, true},
		{of(schema.Integer), of(schema.Long), 7, 7, false},
		{of(schema.Date), of(schema.TimestampNTZ), 1, 86_400_000_000, true},
	} {
		for _, truncate := range []bool{false, true} {
			name := c.from.String() + " to " + c.to.String()
			if truncate {
				name += " truncated"
			}
			t.Run(name, func(t *testing.T) {
				fields := func(typ schema.Type) *schema.Schema {
					return &schema.Schema{Fields: []schema.Field{{Name: "k", Type: typ, Nullable: true}}}
				}
				memory := store.NewMemory()
				row := func(typ schema.Type, v int64) *datafile.Batch {
					b := datafile.NewBatch(fields(typ))
					if typ.Kind == schema.Double {
						b.Cols[0].AppendFloat(float64(v))
					} else {
						b.Cols[0].AppendInt(v)
					}
					return b
				}
				key := func(b *datafile.Batch) [][]byte { return [][]byte{datafile.AppendKey(nil, b.Cols, 0)} }
				table, err := Create(t.Context(), memory, CreateOptions{
					Schema: fields(c.from), Properties: map[string]string{PropertyDeletionVectors: "true", PropertyTypeWidening: "true"},
				})
				if err != nil {
					t.Fatal(err)
				}
				u, err := OpenUpserter(t.Context(), table, t.TempDir(), UpserterOptions{Keys: []string{"k"}})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = u.Close() }()
				up, old := u.Begin(), row(c.from, c.value)
				if err := up.Put(t.Context(), old, key(old)); err != nil {
					t.Fatal(err)
				}
				s, err := up.Commit(t.Context(), CommitExtras{})
				if err != nil {
					t.Fatal(err)
				}
				m := s.Metadata().Clone()
				evolved, err := evolveFields(m.Schema.Fields, fields(c.to).Fields, "", true)
				if err != nil {
					t.Fatal(err)
				}
				m.Schema = &schema.Schema{Fields: evolved}
				up = u.Begin()
				if err := up.Evolve(s.Protocol().For(m), m); err != nil {
					t.Fatal(err)
				}
				refused := c.refused && !truncate
				if truncate {
					if err := up.Truncate(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				next := row(c.to, c.now)
				err = up.Put(t.Context(), next, key(next))
				if errors.Is(err, ErrInvalid) != refused || (err == nil) == refused {
					t.Fatalf("error is %v", err)
				}
				if !refused {
					if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
						t.Fatal(err)
					}
				}
				if n, _ := mustOpen(t, memory).Snapshot().Rows(); n != 1 {
					t.Errorf("the table holds %d rows", n)
				}
				again := u.Begin()
				if refused {
					next = old
				}
				if err := again.Delete(t.Context(), key(next)); err != nil {
					t.Fatal(err)
				}
				if s, err = again.Commit(t.Context(), CommitExtras{}); err != nil {
					t.Fatal(err)
				}
				if n, _ := s.Rows(); n != 0 {
					t.Errorf("%d rows were not found", n)
				}
			})
		}
	}
}

func TestAnUpsertIsAppliedOnce(t *testing.T) {
	memory := store.NewMemory()
	_, u := newUpserter(t, memory, UpserterOptions{Keys: []string{"id"}})
	for _, c := range []struct {
		version int64
		applied bool
	}{{5, false}, {5, true}, {4, true}, {6, false}} {
		up := u.Begin()
		p := person{c.version, "once"}
		if err := up.Put(t.Context(), batchOf(p), keysOf(p.id)); err != nil {
			t.Fatal(err)
		}
		_, err := up.Commit(t.Context(), CommitExtras{Txns: []Txn{{AppID: "app", Version: c.version}}})
		if errors.Is(err, ErrApplied) != c.applied || (err != nil) != c.applied {
			t.Fatalf("version %d: error is %v", c.version, err)
		}
	}
	s := checkPeople(t, memory, people{{5, "once"}: 1, {6, "once"}: 1})
	if s.Version() != 2 {
		t.Errorf("the table has version %d", s.Version())
	}
}
