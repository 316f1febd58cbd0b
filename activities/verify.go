package activities

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/lake"
)

// differing is how many keys a proof names.
const differing = 10

// VerifyTable proves one table: the source under the cut, the table as of the
// cut rebuilt from history, and the actual latest against history as of its own
// position.
func (a *Activities) VerifyTable(ctx context.Context, in VerifyInput) (TableReport, error) {
	r := TableReport{Table: in.Name, Source: -1, History: -1, Latest: -1}
	ctx, p, stop := a.pulse(ctx)
	defer stop()
	dir, err := a.temporary("verify")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	sql, err := a.source(ctx, &in.DB, "verify")
	if err != nil {
		return r, err
	}
	defer sql.Close()
	t, err := sql.Describe(ctx, in.OID)
	if err != nil {
		return r, err
	}
	p.phase(jobWithin)
	l, err := a.lake(ctx, &in.DB)
	if err != nil {
		return r, err
	}
	m, err := a.mirror(ctx, &in.DB, t)
	if err != nil {
		return r, err
	}
	defer m.Close()
	info := m.Info()
	r.HistoryRows, r.Commits, r.Files = info.HistoryRows, info.Commits, info.Files
	source, err := l.SourceRows(ctx, m, dir, func(yield func(*change.Tuple) error) error {
		p.phase(readWithin)
		err := sql.ReadTable(ctx, in.Cut.Snapshot, t, func(row *change.Tuple) error {
			p.row()
			return yield(row)
		})
		p.phase(wholeWithin)
		return err
	})
	if err != nil {
		return r, err
	}
	defer source.Close()
	r.Source, r.Hash = source.Count(), source.Hash()

	p.phase(wholeWithin)
	asOf := change.Position{Epoch: in.Epoch, CommitLSN: in.Cut.LSN}
	history, err := l.Rebuild(ctx, m, asOf, dir)
	if errors.Is(err, lake.ErrNotCopied) {
		r.Differences = append(r.Differences, "history: "+err.Error())
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer history.Close()
	r.History = history.Count()
	p.phase(wholeWithin)
	if err := r.compare(ctx, "history as of "+in.Cut.LSN.String(), "source", source, history); err != nil {
		return r, err
	}
	if t.Identity != change.IdentityNone {
		p.phase(wholeWithin)
		latest, at, err := m.LatestRows(ctx, dir)
		if err != nil {
			return r, err
		}
		defer latest.Close()
		r.Latest = latest.Count()
		p.phase(wholeWithin)
		then, err := l.Rebuild(ctx, m, lake.After(at), dir)
		if err != nil {
			return r, err
		}
		defer then.Close()
		p.phase(wholeWithin)
		if err := r.compare(ctx, "latest at "+at.String(), "history as of it", then, latest); err != nil {
			return r, err
		}
	}
	r.Equal = len(r.Differences) == 0
	return r, nil
}

// compare adds what differs between two contents, in words.
func (r *TableReport) compare(ctx context.Context, what, against string, want, have *lake.Rows) error {
	d, err := lake.Compare(ctx, want, have, differing)
	if err != nil || d.Equal {
		return err
	}
	r.Differences = append(r.Differences, what+" differs from "+against+": "+counts(d))
	r.Differences = append(r.Differences, d.Keys...)
	return nil
}

// counts says in words how many rows differ.
func counts(d lake.Diff) string {
	return fmt.Sprintf("%d missing, %d extra, %d changed", d.Missing, d.Extra, d.Changed)
}
