package deltalog

import (
	"bytes"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace-io/millrace/deltalog/store"
)

type (
	parsedBounds struct {
		ID    *int64   `parquet:"id,optional"`
		Name  *string  `parquet:"na\"me,optional"`
		Price *int64   `parquet:"price,optional,decimal(3:12)"`
		Day   *int32   `parquet:"day,optional,date"`
		At    *int64   `parquet:"at,optional,timestamp(microsecond)"`
		X     *float64 `parquet:"x,optional"`
		Point *struct {
			Y *int32 `parquet:"y,optional"`
		} `parquet:"point,optional"`
	}
	parsedStats struct {
		NumRecords  *int64        `parquet:"numRecords,optional"`
		MinValues   *parsedBounds `parquet:"minValues,optional"`
		NullCount   *parsedBounds `parquet:"nullCount,optional"`
		TightBounds *bool         `parquet:"tightBounds,optional"`
	}
	parsedAdd struct {
		Path  string       `parquet:"path"`
		Size  int64        `parquet:"size"`
		Stats *parsedStats `parquet:"stats_parsed,optional"`
	}
	parsedRow struct {
		Add      *parsedAdd          `parquet:"add,optional"`
		Protocol *checkpointProtocol `parquet:"protocol,optional"`
		Metadata *checkpointMetadata `parquet:"metaData,optional"`
	}
)

func TestStatisticsInColumnsBecomeText(t *testing.T) {
	id, name, price, day, at, x, loose := int64(-5), `a"<é>`, int64(-1), int32(-1), int64(-1), 1e300, false
	y, rows := int32(9), int64(3)
	point := &struct {
		Y *int32 `parquet:"y,optional"`
	}{&y}
	var buf bytes.Buffer
	w := parquet.NewGenericWriter[parsedRow](&buf)
	_, err := w.Write([]parsedRow{
		{Protocol: &checkpointProtocol{MinReader: 1, MinWriter: 2}},
		{Metadata: &checkpointMetadata{ID: "t", Format: checkpointFormat{Provider: "parquet"}}},
		{Add: &parsedAdd{Path: "a", Size: 1, Stats: &parsedStats{
			NumRecords: &rows, MinValues: &parsedBounds{&id, &name, &price, &day, &at, &x, point},
			NullCount: &parsedBounds{ID: &rows}, TightBounds: &loose,
		}}},
		{Add: &parsedAdd{Path: "b", Size: 1}},
		{Add: &parsedAdd{Path: "c", Size: 1, Stats: &parsedStats{MinValues: &parsedBounds{Name: &name}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	st := store.NewMemory()
	put(t, st, checkpointRef{version: 0}.names()[0], buf.String())
	s, err := readCheckpoint(t.Context(), st, checkpointRef{version: 0})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a": `{"numRecords":3,"minValues":{"id":-5,"na\"me":"a\"<é>","price":-0.001,"day":"1969-12-31","at":"1969-12-31T23:59:59.999999Z",` +
			`"x":1e+300,"point":{"y":9}},"nullCount":{"id":3},"tightBounds":false}`,
		"b": "",
		"c": `{"minValues":{"na\"me":"a\"<é>"}}`,
	}
	for f := range s.Files() {
		if f.Stats != want[f.Path] {
			t.Errorf("%s has statistics\n%s, want\n%s", f.Path, f.Stats, want[f.Path])
		}
	}
	if f := s.File("a"); f.Rows != 3 {
		t.Fatalf("%d rows", f.Rows)
	}
}
