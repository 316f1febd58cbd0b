package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/lake/pgtype"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
)

const (
	// chunkBytes is about how much of a table's file one chunk reads. Larger
	// tables have larger chunks, so that there are at most maxChunks, save where
	// there are more partitions.
	chunkBytes = 256 << 20
	maxChunks  = 1000
)

// Hold takes a cut, tells its workflow, and keeps the snapshot until it is
// cancelled or the worker stops.
func (a *Activities) Hold(ctx context.Context, in HoldInput) error {
	info := activity.GetInfo(ctx)
	taking, p, taken := a.pulse(ctx)
	defer taken()
	sql, err := a.source(taking, &in.DB, "hold/"+info.WorkflowExecution.RunID)
	if err != nil {
		return err
	}
	defer sql.Close()
	p.phase(cutWithin)
	cut, err := sql.Cut(taking)
	if err != nil {
		return err
	}
	defer cut.Close()
	err = a.cfg.Temporal.SignalWorkflow(ctx, info.WorkflowExecution.ID, info.WorkflowExecution.RunID, SignalCut, Cut{
		LSN: cut.LSN, Snapshot: cut.Snapshot, SystemID: cut.System.ID, Micros: cut.Micros, Token: in.Token,
	})
	if err != nil {
		return fmt.Errorf("tell the cut: %w", err)
	}
	taken()
	tick := time.NewTicker(beatEvery(info.HeartbeatTimeout))
	defer tick.Stop()
	stopping := activity.GetWorkerStopChannel(ctx)
	var drain <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			if temporal.IsCanceledError(context.Cause(ctx)) {
				return nil // it was told to end
			}
			return ctx.Err()
		case <-stopping:
			// Chunks in flight go on for as long as the worker may take.
			stopping, drain = nil, time.After(StopGrace/2)
		case <-drain:
			return fmt.Errorf("hold the snapshot: the worker stops: %w", pgsource.ErrSnapshotGone)
		case <-tick.C:
			if err := cut.Ping(ctx); err != nil {
				return err
			}
			activity.RecordHeartbeat(ctx)
		}
	}
}

// PlanCopy begins the copy of one table in the lake and cuts the table into
// chunks.
func (a *Activities) PlanCopy(ctx context.Context, in PlanInput) (PlanResult, error) {
	var out PlanResult
	ctx, p, stop := a.pulse(ctx)
	defer stop()
	sql, err := a.source(ctx, &in.DB, "copy")
	if err != nil {
		return out, err
	}
	defer sql.Close()
	t, err := sql.Describe(ctx, in.OID)
	if err != nil {
		return out, err
	}
	p.phase(readWithin)
	chunks, err := sql.Plan(ctx, in.Cut.Snapshot, t, chunkBytes)
	for bytes := int64(chunkBytes); err == nil && len(chunks) > maxChunks && bytes < chunkBytes*maxChunks; {
		bytes *= int64(len(chunks)+maxChunks-1) / maxChunks
		p.phase(readWithin)
		chunks, err = sql.Plan(ctx, in.Cut.Snapshot, t, bytes)
	}
	if err != nil {
		return out, err
	}
	ground, err := sql.GroundAt(ctx, in.Cut.Snapshot, in.DB.Name, t)
	if err != nil {
		return out, err
	}
	p.phase(jobWithin)
	m, err := a.mirror(ctx, &in.DB, t)
	if err != nil {
		return out, err
	}
	defer m.Close()
	_, err = m.BeginCopy(ctx, lake.Copy{
		ID: in.Copy, Table: t, Cut: in.Cut.LSN, Epoch: in.Epoch, Ground: ground, Chunks: len(chunks), CutMicros: in.Cut.Micros,
	})
	if err != nil {
		return out, err
	}
	for _, c := range chunks {
		out.Chunks = append(out.Chunks, Chunk{Leaf: c.Leaf, From: c.From, To: c.To, FileNode: c.FileNode})
	}
	return out, nil
}

// CopyChunk copies one chunk into the lake, in one commit.
func (a *Activities) CopyChunk(ctx context.Context, in ChunkInput) (ChunkResult, error) {
	var out ChunkResult
	ctx, p, stop := a.pulse(ctx)
	defer stop()
	p.phase(wholeWithin)
	select {
	case a.reading <- struct{}{}:
		defer func() { <-a.reading }()
	case <-ctx.Done():
		return out, ctx.Err()
	}
	p.phase(openWithin)
	sql, err := a.source(ctx, &in.DB, "copy")
	if err != nil {
		return out, err
	}
	defer sql.Close()
	t, err := sql.Describe(ctx, in.OID)
	if err != nil {
		return out, err
	}
	casts := in.DB.Table(t.Schema, t.Name).Casts
	asText := make([]bool, len(t.Columns))
	for i := range t.Columns {
		mapping, err := pgtype.For(t.Columns[i], casts[t.Columns[i].Name])
		if err != nil {
			return out, fmt.Errorf("map %s column %q: %w", t, t.Columns[i].Name, err)
		}
		asText[i] = mapping.Binary == nil
	}
	p.phase(jobWithin)
	m, err := a.mirror(ctx, &in.DB, t)
	if err != nil {
		return out, err
	}
	defer m.Close()
	chunk := pgsource.Chunk{Leaf: in.Chunk.Leaf, From: in.Chunk.From, To: in.Chunk.To, FileNode: in.Chunk.FileNode}
	out.Rows, out.Bytes, err = m.WriteChunk(ctx, in.Copy, in.Index, func(yield func(*change.Tuple) error) error {
		p.phase(readWithin)
		_, err := sql.CopyChunk(ctx, in.Cut.Snapshot, t, chunk, asText, func(row *change.Tuple) error {
			p.row()
			return yield(row)
		})
		p.phase(jobWithin)
		return err
	})
	if err != nil {
		return out, err
	}
	db := in.DB.Name
	a.metrics.rows.WithLabelValues(db, "copy").Add(float64(out.Rows))
	a.metrics.bytes.WithLabelValues(db, "copy").Add(float64(out.Bytes))
	return out, nil
}

// FinishCopy ends the copy of one table: latest catches up with what history
// collected meanwhile, and the table is live.
func (a *Activities) FinishCopy(ctx context.Context, in FinishInput) (FinishResult, error) {
	var out FinishResult
	ctx, p, stop := a.pulse(ctx)
	defer stop()
	sql, err := a.source(ctx, &in.DB, "copy")
	if err != nil {
		return out, err
	}
	var now *change.Ground
	t, err := sql.Describe(ctx, in.OID)
	if err == nil {
		var grounds map[uint32]*change.Ground
		grounds, err = sql.Grounds(ctx, in.DB.Name, []*change.Table{t})
		now = grounds[in.OID]
	}
	sql.Close()
	if err != nil {
		return out, err
	}
	p.phase(jobWithin)
	m, err := a.mirror(ctx, &in.DB, t)
	if err != nil {
		return out, err
	}
	defer m.Close()
	if was := m.Ground(); was != nil && now != nil {
		if how := was.Streamed(now); how != "" {
			return out, fmt.Errorf("finish the copy of %s: %w: %s", t, pgsource.ErrRewritten, how)
		}
	}
	if err := m.FinishCopy(ctx, in.Copy); err != nil {
		return out, err
	}
	if err := catchUp(ctx, p, m, t); err != nil {
		return out, err
	}
	out.Phase = string(m.State().Phase)
	return out, nil
}

// catchUp applies history to latest until nothing is left. The last look comes
// after the table is live: from then on the commit lane looks, too.
func catchUp(ctx context.Context, p *pulse, m *lake.Mirror, t *change.Table) error {
	for t.Identity != change.IdentityNone {
		p.phase(wholeWithin)
		done, err := m.CatchUp(ctx, catchUpRows)
		if err != nil && !errors.Is(err, lake.ErrFenced) {
			return err
		}
		if err := m.Refresh(ctx); err != nil {
			return err
		}
		if done && m.State().Phase == lake.Live && !m.LatestApplied().Before(m.Applied()) {
			return nil
		}
	}
	return nil
}
