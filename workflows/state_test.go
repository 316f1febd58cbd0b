package workflows

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// payload is what Temporal takes; half of it leaves room.
const payload = 2 << 20

// tables is how many tables one database may have.
const tables = 2000

// crowded returns the state of a database of many tables with long names.
func crowded(reason *activities.Reason) *State {
	s := &State{Config: fleet.Database{
		Name: "a_database_with_a_long_name_too", Region: "eu-central-1", Pool: "default",
		Lake: "file:///a/lake/somewhere/below/a/folder/of/some/length",
	}}
	for i := range tables {
		dir := fmt.Sprintf("%s/%s/a_schema_of_some_length/a_table_with_a_rather_long_name_%06d", s.Config.Lake, s.Config.Name, i)
		info := activities.TableInfo{
			OID: uint32(1_000_000 + i), Name: fmt.Sprintf("a_schema_of_some_length.a_table_with_a_rather_long_name_%06d", i),
			Phase: "live", History: dir + "/history", Latest: dir + "/latest", Position: "12/00000FFF/FFFFFFFF/123456789", Ground: 1<<64 - 1,
		}
		if reason != nil {
			info.Phase, info.Reason = "parked", reason
		}
		s.found(&info, 0, "prepare")
	}
	for range 2 * keptRequests {
		s.note("apply", time.Time{}, strings.Repeat("x", 2*long))
	}
	return s
}

func size(t *testing.T, v any) int {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return len(b)
}

func TestAStateOfManyTablesFitsIntoAPayload(t *testing.T) {
	s := crowded(nil)
	if n := size(t, s); n > payload*3/10 {
		t.Errorf("%d tables live: %d bytes", tables, n)
	}
	s = crowded(&activities.Reason{
		Code: "PERMISSION_DENIED", Message: strings.Repeat("wörd ", 2000), Remedy: strings.Repeat("GRANT ", 2000), Since: "2026-01-01T00:00:00Z",
	})
	if n := size(t, s); n > payload*2/3 {
		t.Errorf("%d tables parked: %d bytes", tables, n)
	}
	if n := size(t, s.status(nil)); n > payload*9/10 {
		t.Errorf("status of %d tables parked: %d bytes", tables, n)
	}
}

func TestDetailsAreATableThatFits(t *testing.T) {
	s := crowded(nil)
	s.Phase = Running
	for i := range s.Tables {
		s.Tables[i].Rows = int64(i)
	}
	s.park(&s.Tables[5], &activities.Reason{Code: "KAFKA_GAP", Message: "a | pipe\nand a line", Remedy: "say `x`\nmillrace apply shop"}, LaneCommit)
	s.move(&s.Tables[7], pauses, nil, Pause)
	text := s.details()
	lines := strings.Split(text, "\n")
	if len(text) > detailed || len(lines) < 20 || lines[0] != "**running** · 1998 live · 1 paused · 1 parked" {
		t.Fatalf("%d bytes:\n%s", len(text), text)
	}
	table := lines[2:]
	if table[0] != "| table | phase | rows copied | |" || !strings.Contains(table[2], `_000005 | parked | 5 | KAFKA_GAP: a \| pipe and a line. say `+"`x` → `millrace apply shop` |") ||
		!strings.Contains(table[3], "_000007 | paused |") || !strings.Contains(table[4], "_001999 | live | 1999 |  |") {
		t.Errorf("%s", text)
	}
	last := lines[len(lines)-1]
	if want := fmt.Sprintf("… and %d more", tables-(len(table)-2-2)); last != want {
		t.Errorf("ends with %q, want %q", last, want)
	}
	for i := range s.Tables {
		s.park(&s.Tables[i], &activities.Reason{Code: "KAFKA_GAP", Message: strings.Repeat("wörd ", 200), Remedy: strings.Repeat("GRANT ", 200)}, LaneCommit)
	}
	s.enter(fails, &activities.Reason{Code: "SLOT_LOST", Message: strings.Repeat("wörd ", 900), Remedy: strings.Repeat("GRANT ", 900)}, LaneCapture)
	if text := s.details(); len(text) > 4000 || !strings.Contains(text, "**SLOT_LOST**") || !strings.Contains(text, "\nmillrace resume a_database") {
		t.Errorf("%d bytes:\n%s", len(text), text)
	}
}

func TestWhatStepsAreToldOfManyTablesFitsIntoAPayload(t *testing.T) {
	var prepared activities.PrepareResult
	var scanned activities.ScanInput
	var copied CopyInput
	s := crowded(nil)
	for i := range s.Tables {
		st := &s.Tables[i]
		prepared.Tables = append(prepared.Tables, activities.TableInfo{
			OID: st.OID, Name: st.Name, Phase: "live", History: s.absolute(st.History), Latest: s.latest(st), Position: st.At,
		})
		scanned.Known = append(scanned.Known, activities.KnownTable{OID: st.OID, Name: st.Name, Ground: st.Ground})
		copied.Tables = append(copied.Tables, CopyTable{OID: st.OID, Name: st.Name})
	}
	for name, v := range map[string]any{"preparation": prepared, "scan": scanned, "copy": copied} {
		if n := size(t, v); n > payload/2 {
			t.Errorf("%s of %d tables: %d bytes", name, tables, n)
		}
	}
}

func TestURIsComeBackAsTheyWere(t *testing.T) {
	s := &State{Config: fleet.Database{Lake: "file:///lake"}}
	for i, uri := range [][2]string{
		{"file:///lake/shop/public/a/history", "file:///lake/shop/public/a/latest"},
		{"file:///lake/shop/public/a/history", ""},
		{"file:///lake/shop/public/a/history", "file:///lake/shop/public/b/latest"},
		{"file:///elsewhere/a", "/plain/path"},
		{"", ""},
	} {
		s.found(&activities.TableInfo{OID: uint32(i), Name: fmt.Sprint("public.", i), Phase: "live", History: uri[0], Latest: uri[1]}, 0, "prepare")
		if st := s.status(nil).Tables[i]; st.History != uri[0] || st.Latest != uri[1] {
			t.Errorf("%v became %s, %s", uri, st.History, st.Latest)
		}
	}
}

func TestTablesThatAreGoneAreForgottenInTime(t *testing.T) {
	s := &State{}
	for i := range 10 * keptGone {
		s.found(&activities.TableInfo{OID: uint32(i), Name: fmt.Sprint("public.t", i), Phase: "live"}, 0, "scan")
		s.gone(func(t *TableState) bool { return t.OID == uint32(i) }, "scan")
	}
	if n := len(s.Tables); n != keptGone {
		t.Errorf("%d tables are kept", n)
	}
	if last := s.Tables[keptGone-1]; last.OID != 10*keptGone-1 || last.Phase != Gone {
		t.Errorf("the last is %+v", last)
	}
}

func TestATextIsCutBetweenRunes(t *testing.T) {
	if got := shorten("aöb", 2); got != "a…" {
		t.Errorf("cut to %q", got)
	}
	if got := shorten("abc", 3); got != "abc" {
		t.Errorf("cut to %q", got)
	}
}
