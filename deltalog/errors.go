package deltalog

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// Errors that a caller tells apart with [errors.Is].
var (
	// ErrNotTable says that there is no Delta table at a place.
	ErrNotTable = errors.New("not a Delta table")
	// ErrExists says that there is a table already.
	ErrExists = errors.New("table exists")
	// ErrNoVersion says that a version is not there, or no longer.
	ErrNoVersion = errors.New("no such version")
	// ErrUnsupported says that a table, or a commit to it, needs a feature
	// that this package does not have. The error names it.
	ErrUnsupported = errors.New("not supported")
	// ErrCorrupt says that a log, a data file or a vector breaks the protocol.
	// The error names the file, and the version where it is a commit.
	ErrCorrupt = errors.New("corrupt")
	// ErrInvalid says that a commit, or what else was asked for, breaks the
	// protocol or the rules of its table, and was not tried.
	ErrInvalid = errors.New("invalid request")
	// ErrConflict says that a commit was planned on a state that other writers
	// have changed meanwhile. It has to be planned again.
	ErrConflict = errors.New("conflicting commit")
	// ErrApplied says that what a commit sets out to do has been done: the table
	// holds a version of its application that is as new. It is an ErrConflict
	// too, of the kind that needs no plan.
	ErrApplied = fmt.Errorf("%w: already applied", ErrConflict)
	// ErrUncertain says that the store could not tell whether a commit took
	// place. The log will: see [Table.Refresh].
	ErrUncertain = errors.New("outcome of the commit unknown")
)

// readError is an error of a data file that is read, of this package's kind too.
type readError struct {
	error
	kind error
}

func (e *readError) Unwrap() []error { return []error{e.error, e.kind} }

// ofDataFile gives an error of package datafile this package's kind. A file whose
// columns do not fit its table is as wrong as a damaged one.
func ofDataFile(err error) error {
	switch {
	case errors.Is(err, datafile.ErrCorrupt), errors.Is(err, datafile.ErrMismatch):
		return &readError{err, ErrCorrupt}
	case errors.Is(err, datafile.ErrUnsupported):
		return &readError{err, ErrUnsupported}
	}
	return err
}
