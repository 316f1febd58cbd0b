package deltalog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
)

// datedTable makes a table whose commits' files were written at these seconds.
func datedTable(t *testing.T, properties map[string]string, seconds ...int64) (*Table, store.Store, func(v Version, at time.Time)) {
	t.Helper()
	dir := t.TempDir()
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Create(t.Context(), st, CreateOptions{Schema: idName(), Properties: properties})
	if err != nil {
		t.Fatal(err)
	}
	date := func(v Version, at time.Time) {
		t.Helper()
		if err := os.Chtimes(filepath.Join(dir, commitName(v)), at, at); err != nil {
			t.Fatal(err)
		}
	}
	for v, s := range seconds {
		if v > 0 {
			mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprint("f", v), 1)}})
		}
		date(Version(v), time.Unix(s, 0))
	}
	return table, st, date
}

func TestOpenAtTimeByFileTimes(t *testing.T) {
	// The clock went back twice: the times that count are 100, 200, 200.001,
	// 200.002, 300.
	table, st, _ := datedTable(t, nil, 100, 200, 150, 200, 300)
	for _, c := range []struct {
		millis int64
		want   Version // negative means there is none
	}{{99_999, -1}, {100_000, 0}, {199_999, 0}, {200_000, 1}, {200_001, 2}, {200_002, 3}, {299_999, 3}, {300_000, 4}, {9e12, 4}} {
		s, err := OpenAtTime(t.Context(), st, time.UnixMilli(c.millis))
		switch {
		case c.want < 0:
			if !errors.Is(err, ErrNoVersion) || !strings.Contains(err.Error(), "oldest that can be read is 0, of 1970-01-01T00:01:40Z") {
				t.Errorf("%d: %v", c.millis, err)
			}
		case err != nil:
			t.Errorf("%d: %v", c.millis, err)
		case s.Version() != c.want:
			t.Errorf("%d: version %d, want %d", c.millis, s.Version(), c.want)
		}
	}
	var got []string
	for e, err := range table.Snapshot().History(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(e.Version, " ", e.Time.UnixMilli(), " ", e.Info.Operation))
	}
	want := "4 300000 WRITE|3 200002 WRITE|2 200001 WRITE|1 200000 WRITE|0 100000 CREATE TABLE"
	if strings.Join(got, "|") != want {
		t.Fatalf("history %q", got)
	}
}

func TestOpenAtTimeOfALogWithoutItsBeginning(t *testing.T) {
	table, st, date := datedTable(t, nil, 100, 200, 300)
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, table, &Commit{Operation: "WRITE"})
	date(3, time.Unix(400, 0))
	if err := st.Delete(t.Context(), commitName(0)); err != nil {
		t.Fatal(err)
	}
	if s, err := OpenAtTime(t.Context(), st, time.Unix(350, 0)); err != nil || s.Version() != 2 {
		t.Fatalf("%v", err)
	}
	if _, err := OpenAtTime(t.Context(), st, time.Unix(250, 0)); !errors.Is(err, ErrNoVersion) || !strings.Contains(err.Error(), "is 2,") {
		t.Fatalf("%v", err)
	}
}

func TestOpenAtTimeByInCommitTimestamps(t *testing.T) {
	table, st, date := datedTable(t, map[string]string{PropertyInCommitTimestamps: "true"})
	at := time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC)
	table.now = func() time.Time { return at }
	table.headAt = at
	for i := range 3 {
		at = time.Date(2040, 5, 1+i, 0, 0, 0, 0, time.UTC)
		table.headAt = at
		mustCommit(t, table, &Commit{Operation: "WRITE"})
		date(Version(i+1), time.Unix(5, 0)) // files that were copied tell nothing
	}
	if s, err := OpenAtTime(t.Context(), st, at.Add(-time.Hour)); err != nil || s.Version() != 2 {
		t.Fatalf("%v", err)
	}
	if s, err := OpenAtTime(t.Context(), st, at); err != nil || s.Version() != 3 {
		t.Fatalf("%v", err)
	}
}

func TestInCommitTimestampsSwitchedOnLater(t *testing.T) {
	table, st, date := datedTable(t, nil, 100, 200)
	m := table.Snapshot().Metadata().Clone()
	m.Configuration = map[string]string{PropertyInCommitTimestamps: "true"}
	s := mustCommit(t, table, &Commit{Operation: "SET TBLPROPERTIES", Metadata: m, Protocol: table.Snapshot().Protocol().For(m)})
	on := time.UnixMilli(s.Info().InCommitTimestamp)
	if got := s.Metadata().Configuration[propertyInCommitVersion]; got != "2" {
		t.Fatalf("they are on from version %q", got)
	}
	if got := s.Metadata().Configuration[propertyInCommitTime]; got != fmt.Sprint(on.UnixMilli()) {
		t.Fatalf("they are on from %q", got)
	}
	date(2, time.Unix(150, 0))
	s = mustCommit(t, table, &Commit{Operation: "WRITE"})
	for at, want := range map[time.Time]Version{
		time.Unix(150, 0): 0, time.Unix(200, 0): 1, on.Add(-time.Millisecond): 1, on: 2,
		time.UnixMilli(s.Info().InCommitTimestamp): 3,
	} {
		got, err := OpenAtTime(t.Context(), st, at)
		if err != nil || got.Version() != want {
			t.Errorf("%s: want %d, got %v", at, want, err)
		}
	}
}
