package workflows

import (
	"testing"

	"github.com/millrace-io/millrace/activities"
)

func TestATableThatLostChangesIsCopiedAgainWhenItIsResumed(t *testing.T) {
	for code, want := range map[activities.Code]Phase{"KAFKA_GAP": Waiting, "LATEST_DIVERGED": Waiting, "MALFORMED_VALUE": Live} {
		s := &State{Tables: []TableState{{OID: 1, Name: "public.a", Phase: Parked, Reason: &activities.Reason{Code: code}}}}
		s.found(&activities.TableInfo{OID: 1, Name: "public.a", Phase: string(Live)})
		if got := s.table(1).Phase; got != want {
			t.Errorf("parked for %s, found live in the lake: %s, want %s", code, got, want)
		}
	}
}
