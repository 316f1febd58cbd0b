package deltalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// Tables that this package cannot write, it does not make either.
func TestWhatCannotBeWrittenIsNotMade(t *testing.T) {
	withKey := func(key string) *schema.Schema {
		s := idName()
		s.Fields[1].Metadata = json.RawMessage(fmt.Sprintf(`{%q:"1"}`, key))
		return s
	}
	for _, c := range []struct {
		name string
		o    CreateOptions
		want string
	}{
		{"constraint", CreateOptions{Schema: idName(), Properties: map[string]string{"delta.constraints.c": "id > 0"}}, "checkConstraints"},
		{"invariant", CreateOptions{Schema: withKey("delta.invariants")}, "invariants"},
		{"generated column", CreateOptions{Schema: withKey("delta.generationExpression")}, "generatedColumns"},
		{"identity column", CreateOptions{Schema: withKey("delta.identity.start")}, "identityColumns"},
		{"default", CreateOptions{Schema: withKey("CURRENT_DEFAULT")}, "allowColumnDefaults"},
		{"feature by property", CreateOptions{Schema: idName(), Properties: map[string]string{"delta.feature.domainMetadata": "supported"}}, "delta.feature.domainMetadata"},
		{"protocol by property", CreateOptions{Schema: idName(), Properties: map[string]string{"delta.minWriterVersion": "7"}}, "delta.minWriterVersion"},
		{"partition column twice", CreateOptions{Schema: idName(), PartitionColumns: []string{"id", "id"}}, "id"},
		{"no other column", CreateOptions{Schema: idName(), PartitionColumns: []string{"id", "name"}}, "partition"},
		{"partitions by a struct", CreateOptions{Schema: &schema.Schema{Fields: append(idName().Fields, schema.Field{
			Name: "s", Type: schema.Type{Kind: schema.Struct, Fields: idName().Fields}, Nullable: true,
		})}, PartitionColumns: []string{"s"}}, "column s"},
		{"no schema", CreateOptions{}, "schema"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := store.NewMemory()
			_, err := Create(t.Context(), st, c.o)
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error that names %s", err, c.want)
			}
			if _, err := Open(t.Context(), st); !errors.Is(err, ErrNotTable) {
				t.Fatalf("there is a table: %v", err)
			}
			if c.o.Properties == nil {
				return
			}
			if _, err := newTestTable(t, st).SetProperties(t.Context(), c.o.Properties); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("set later: got %v", err)
			}
		})
	}
}

// A value that is none would be taken for another, or have upkeep fail for good.
func TestPropertiesHaveValues(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	for name, values := range map[string][]string{
		PropertyAppendOnly:           {"yes", "1", " true"},
		PropertyChangeDataFeed:       {"on"},
		PropertyLogCleanup:           {"no"},
		PropertyIsolationLevel:       {"SnapshotIsolation", "x"},
		PropertyCheckpointInterval:   {"0", "-1", "ten", "1.5"},
		PropertyCheckpointPolicy:     {"v3", "V2"},
		PropertyDeletedFileRetention: {"7", "a week", "interval 1.5 days", "interval 1 month", "interval -1 day", "interval 0 hours"},
		PropertyLogRetention:         {"interval 1x days"},
		PropertyStatsColumns:         {"-2", "all"},
		PropertyColumnMapping:        {"position"},
	} {
		for _, value := range values {
			_, err := table.SetProperties(t.Context(), map[string]string{name: value})
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) || !strings.Contains(fmt.Sprint(err), name) {
				t.Errorf("%s=%s: got %v", name, value, err)
			}
		}
	}
	if _, err := table.SetProperties(t.Context(), map[string]string{
		PropertyAppendOnly: "TRUE", PropertyLogCleanup: "False", PropertyIsolationLevel: "Serializable", PropertyCheckpointInterval: "10",
		PropertyCheckpointPolicy: "classic", PropertyDeletedFileRetention: "INTERVAL 2 weeks", PropertyStatsColumns: "-1",
		"delta.unheardOf": "x", "mine": "y",
	}); err != nil {
		t.Error(err)
	}
	// What others have set before stays in nobody's way.
	othersSet(table, PropertyCheckpointInterval, "ten")
	if _, err := table.SetProperties(t.Context(), map[string]string{"mine": "z"}); err != nil {
		t.Error(err)
	}
}

// A feature that readers must know stays one.
func TestFeaturesOfReadersAreKept(t *testing.T) {
	table := newTestTable(t, store.NewMemory())
	was := table.Snapshot().Protocol()
	for name, p := range map[string]*Protocol{
		"taken out for readers": {MinReader: 3, MinWriter: 7, ReaderFeatures: []string{}, WriterFeatures: was.WriterFeatures},
		"for writers alone":     {MinReader: 3, MinWriter: 7, ReaderFeatures: was.ReaderFeatures, WriterFeatures: append([]string{FeatureV2Checkpoint}, was.WriterFeatures...)},
	} {
		if _, won, err := table.Commit(t.Context(), &Commit{Protocol: p}); won || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: won %v, error %v", name, won, err)
		}
	}
}
