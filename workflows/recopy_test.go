package workflows

import (
	"testing"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/change"
)

func TestATableThatLostChangesIsCopiedAgainWhenItIsResumed(t *testing.T) {
	for code, want := range map[activities.Code]Phase{"KAFKA_GAP": Waiting, "LATEST_DIVERGED": Waiting, "MALFORMED_VALUE": Live} {
		s := &State{Tables: []TableState{{OID: 1, Name: "public.a", Phase: Parked, Reason: &activities.Reason{Code: code}}}}
		live := &activities.TableInfo{OID: 1, Name: "public.a", Phase: string(Live)}
		if s.found(live, 7, "scan"); s.table(1).Phase != Parked {
			t.Errorf("parked for %s, it goes on by itself", code)
		}
		s.retry(s.table(1), Resume)
		if back := s.found(live, 7, "scan"); !back || s.table(1).Phase != want {
			t.Errorf("parked for %s, found live in the lake: %s, want %s", code, s.table(1).Phase, want)
		}
		if due, is := s.recopied()[1]; is != (want == Waiting) || is && due != 7 {
			t.Errorf("parked for %s: the copy that is due comes after %s", code, due)
		}
	}
}

func TestTheGroundOfATableUnderCopyIsJudgedWhenTheCopyHasEnded(t *testing.T) {
	s := &State{Copy: &CopyState{ID: "c"}, Tables: []TableState{{OID: 1, Name: "public.a", Phase: Copying, Ground: 7}}}
	see := func(phase Phase, ground change.Fingerprint) {
		s.found(&activities.TableInfo{OID: 1, Name: "public.a", Phase: string(phase), Ground: ground}, 0, "scan")
	}
	see(Waiting, 8) // it is not what the copy stands on
	if a := s.table(1); a.Phase != Copying || a.Ground != 7 {
		t.Errorf("while it is copied: %+v", a)
	}
	s.change(&activities.TableChange{OID: 1, Phase: string(Live)}, LaneCopy)
	see(Waiting, 8)
	if a := s.table(1); a.Phase != Waiting || !a.Recopy || a.Ground != 8 {
		t.Errorf("after its copy: %+v", a)
	}
}

func TestATableThatParksAnewWaitsForNoLook(t *testing.T) {
	s := &State{Tables: []TableState{{OID: 1, Name: "public.a", Phase: Parked, Reason: &activities.Reason{Code: "MALFORMED_VALUE"}}}}
	s.retry(s.table(1), Unpark)
	s.change(&activities.TableChange{OID: 1, Reason: &activities.Reason{Code: "KAFKA_GAP"}}, LaneCommit) // a lane that is about to end
	if a := s.table(1); a.Phase != Parked || s.judging() {
		t.Errorf("table %+v", a)
	}
}

func TestATableWhoseOptionsChangedIsCopiedAlthoughALaneReportedOfIt(t *testing.T) {
	s := &State{Phase: Preparing, Tables: []TableState{{OID: 1, Name: "public.a", Phase: Live, Recopy: true}}}
	d := &database{s: s, heard: map[uint32]int{}}
	heard := d.reports
	d.tables(&activities.TablesChanged{Tables: []activities.TableChange{{OID: 1, Position: "1/0/2/1"}}}) // of a lane that has ended
	live := &activities.TableInfo{OID: 1, Name: "public.a", Phase: string(Live)}
	d.found(live, 7, heard, "prepare")
	if !s.judging() {
		t.Fatalf("nothing looks at it any more: %+v", s.table(1))
	}
	d.found(live, 9, d.reports, "scan")
	if due, is := s.recopied()[1]; !is || due != 9 || s.judging() {
		t.Errorf("table %+v", s.table(1))
	}
}
