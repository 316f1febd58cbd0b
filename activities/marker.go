package activities

import (
	"fmt"
	"regexp"

	"github.com/millrace-io/millrace/activities/internal/topic"
)

// markerPrefix is the prefix of the logical messages that carry markers.
const markerPrefix = "millrace.marker"

// markerForm is the form of a marker's token: the id of the request that waits
// for it, and a number.
var markerForm = regexp.MustCompile(`^[!-~]+\.[0-9]{1,19}$`)

// checkMarker returns an error for what is not a marker's token. PostgreSQL lets
// every role write messages under any prefix, so capture passes over what is
// none.
func checkMarker(token string) error {
	if len(token) > topic.MaxToken {
		return fmt.Errorf("a marker of %d bytes, at most %d fit", len(token), topic.MaxToken)
	}
	if !markerForm.MatchString(token) {
		return fmt.Errorf("marker %q has not the form id.number; an id holds printable ASCII and no spaces", token)
	}
	return nil
}
