package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

// Prepare makes sure that a database can be mirrored, and makes what it needs:
// topic, lake, publications and slot, in this order, so that nothing is left at
// the source when something else is missing. It may be called again at any
// time.
func (a *Activities) Prepare(ctx context.Context, in PrepareInput) (PrepareResult, error) {
	var out PrepareResult
	defer a.alive(ctx)()
	db := &in.DB
	sql, err := a.source(ctx, db, "control")
	if err != nil {
		return out, err
	}
	defer sql.Close()
	if in.SystemID != "" && !in.Anew {
		if err := sameSource(ctx, sql, in.SystemID, in.Timeline); err != nil {
			return out, err
		}
	}
	problems, err := sql.Check(ctx, db.Tables)
	if err != nil {
		return out, err
	}
	if err := blocking(problems); err != nil {
		return out, err
	}
	tables, odd, err := sql.Tables(ctx, db.Tables)
	if err != nil {
		return out, err
	}
	// Where an epoch has begun, a topic that is not there took changes with it.
	ensure := a.kafka.Ensure
	if in.Epoch > 0 && !in.Anew {
		ensure = a.kafka.Check
	}
	if err := ensure(ctx, a.topic(db)); err != nil {
		return out, err
	}
	l, err := a.lake(ctx, db)
	if err != nil {
		return out, err
	}
	if err := l.Probe(ctx); err != nil {
		return out, err
	}
	system, err := sql.System(ctx)
	if err != nil {
		return out, err
	}
	out.SystemID, out.Timeline, out.LSN = system.ID, system.Timeline, system.LSN
	var fresh bool
	if out.Epoch, fresh, err = a.epoch(ctx, sql, &in, tables); err != nil {
		return out, err
	}
	refused, grounds, err := publish(ctx, sql, db, tables, fresh)
	if err != nil {
		return out, err
	}
	if err := blocking(refused); err != nil {
		return out, err
	}
	for _, p := range refused {
		if p.Table == "" {
			a.cfg.Log.Warn(p.Sentence, "database", db.Name, "code", p.Code, "remedy", p.Remedy)
		}
	}
	if fresh {
		if out.Floor, err = a.beginEpoch(ctx, sql, db, out.Epoch); err != nil {
			return out, err
		}
	}
	if _, err := sql.EnsureSlot(ctx, db.Name, out.Epoch); err != nil {
		return out, err
	}
	out.Tables, err = a.describe(ctx, db, out.Epoch, tables, grounds, append(odd, refused...))
	return out, err
}

// publish has the tables in their publications, which are made for a fresh slot
// alone, and tells what their streams rest on now.
func publish(ctx context.Context, sql *pgsource.DB, db *fleet.Database, tables []*change.Table, fresh bool) ([]pgsource.Problem, map[uint32]*change.Ground, error) {
	_, refused, err := sql.EnsurePublications(ctx, db.Name, tables, fresh)
	if err != nil {
		return nil, nil, err
	}
	grounds, err := sql.Grounds(ctx, db.Name, tables)
	return refused, grounds, err
}

// topic is a database's topic as it ought to be.
func (a *Activities) topic(db *fleet.Database) topic.Topic {
	t := db.Topic
	return topic.Topic{Name: t.Name, Partitions: t.Partitions, Replication: t.Replication, MinISR: t.MinInSync, Retention: t.Retention}
}

// epoch finds the generation of the slot to use. The first preparation adopts
// a slot of ours that is there, if it was read into this topic; where there is
// none, or where that is asked for, it begins a generation later than any that
// the topic or the lake has seen. Later preparations insist on theirs: a slot
// that is gone has lost changes. fresh tells that the slot is yet to be made.
func (a *Activities) epoch(ctx context.Context, sql *pgsource.DB, in *PrepareInput, tables []*change.Table) (epoch uint32, fresh bool, err error) {
	if in.Epoch > 0 && !in.Anew {
		if _, err := sql.Slot(ctx, pgsource.SlotName(in.DB.Name, in.Epoch)); err != nil {
			return 0, false, err
		}
		return in.Epoch, false, a.kafka.Began(ctx, in.DB.Topic.Name, in.Epoch)
	}
	slots, err := slotEpochs(ctx, sql, in.DB.Name)
	if err != nil {
		return 0, false, err
	}
	schemas, err := a.kafka.LoadSchemas(ctx, in.DB.Topic.Name)
	if err != nil {
		return 0, false, err
	}
	seen := max(schemas.LastEpoch(), in.Epoch)
	for _, t := range tables {
		m, err := a.mirror(ctx, &in.DB, t)
		if err != nil {
			if Classify(err).Park {
				continue // describe parks the table
			}
			return 0, false, err
		}
		seen = max(seen, m.Applied().Epoch, m.State().Epoch)
		if err := m.Close(); err != nil {
			return 0, false, err
		}
	}
	if in.Anew {
		return slices.Max(append(slots, seen)) + 1, true, nil
	}
	if len(slots) > 0 && slices.Max(slots) >= seen {
		return slices.Max(slots), false, schemas.Began(slices.Max(slots))
	}
	return seen + 1, true, nil
}

// beginEpoch begins an epoch in the topic and drops the slots of earlier ones,
// which nobody reads any more. It returns where the topic ended before.
func (a *Activities) beginEpoch(ctx context.Context, sql *pgsource.DB, db *fleet.Database, epoch uint32) (json.RawMessage, error) {
	ends, err := a.kafka.Ends(ctx, db.Topic.Name)
	if err != nil {
		return nil, err
	}
	floor, err := json.Marshal(ends)
	if err != nil {
		return nil, err
	}
	// Whoever began a later one meanwhile has an attempt of this fail here.
	if err := a.kafka.Begin(ctx, db.Topic.Name, epoch); err != nil {
		return nil, err
	}
	slots, err := slotEpochs(ctx, sql, db.Name)
	if err != nil {
		return nil, err
	}
	for _, earlier := range slots {
		if earlier >= epoch {
			continue
		}
		if _, err := sql.DropSlot(ctx, pgsource.SlotName(db.Name, earlier)); err != nil {
			return nil, err
		}
	}
	return floor, nil
}

// mirror opens the mirror of a table as the fleet file wants it.
func (a *Activities) mirror(ctx context.Context, db *fleet.Database, t *change.Table) (*lake.Mirror, error) {
	l, err := a.lake(ctx, db)
	if err != nil {
		return nil, err
	}
	return l.Mirror(ctx, t, lake.MirrorOptions{Casts: db.Table(t.Schema, t.Name).Casts})
}

// slotEpochs lists the generations of which the source has a slot of ours.
func slotEpochs(ctx context.Context, sql *pgsource.DB, database string) ([]uint32, error) {
	names, err := sql.SlotNames(ctx, database)
	if err != nil {
		return nil, err
	}
	var epochs []uint32
	for _, name := range names {
		i := strings.LastIndex(name, "_e")
		n, err := strconv.ParseUint(name[i+2:], 10, 32)
		if i >= 0 && err == nil {
			epochs = append(epochs, uint32(n))
		}
	}
	return epochs, nil
}

// sameSource refuses another cluster behind the same name, and one that was
// restored or failed over.
func sameSource(ctx context.Context, sql *pgsource.DB, id string, timeline int32) error {
	now, err := sql.System(ctx)
	if err != nil {
		return err
	}
	return now.Same(id, timeline)
}

// blocking joins the problems that stand in the way of the whole database into
// one error, with the first one's code and everybody's remedies.
func blocking(problems []pgsource.Problem) error {
	var first *pgsource.Problem
	var sentences, remedies []string
	for i := range problems {
		if p := &problems[i]; p.Blocking && p.Table == "" {
			if first == nil {
				first = p
			}
			sentences = append(sentences, p.Sentence)
			if p.Remedy != "" {
				remedies = append(remedies, p.Remedy)
			}
		}
	}
	if first == nil {
		return nil
	}
	return &Reasoned{
		Failure: Failure{Park: true, Database: true, Reason: Reason{
			Code: Code(first.Code), Message: strings.Join(sentences, "; "), Remedy: strings.Join(remedies, "\n"),
		}},
		Err: errors.New("source is not ready"),
	}
}

// describe says in which phase each table is, by its mirror in the lake, and
// which cannot be mirrored. One that waits because of its shape has a reason.
func (a *Activities) describe(ctx context.Context, db *fleet.Database, epoch uint32, tables []*change.Table, grounds map[uint32]*change.Ground, problems []pgsource.Problem) ([]TableInfo, error) {
	since := time.Now().UTC().Format(time.RFC3339)
	infos := make([]TableInfo, 0, len(tables))
	for _, t := range tables {
		info := TableInfo{OID: t.OID, Name: t.String(), Phase: string(lake.Waiting)}
		ground := grounds[t.OID]
		if ground != nil {
			info.Ground = ground.Fingerprint()
		}
		if i := slices.IndexFunc(problems, func(p pgsource.Problem) bool { return p.Table == t.String() && p.Blocking }); i >= 0 {
			p := &problems[i]
			info.Phase = "parked"
			info.Reason = &Reason{Code: Code(p.Code), Message: p.Sentence, Remedy: p.Remedy, Since: since}
			infos = append(infos, info)
			continue
		}
		m, err := a.mirror(ctx, db, t)
		if err != nil {
			f := Classify(err)
			if !f.Park {
				return nil, err
			}
			f.Reason.Since = since
			info.Phase, info.Reason = "parked", &f.Reason
			infos = append(infos, info)
			continue
		}
		state, where, at, was := m.State(), m.Info(), m.Applied(), m.Ground()
		_ = m.Close()
		info.History, info.Latest = where.History, where.Latest
		// A copy makes latest, or empties it, as the table's identity is now.
		switch {
		case t.Identity == change.IdentityNone:
			info.Latest = ""
		case info.Latest == "":
			info.Latest = strings.TrimSuffix(info.History, "history") + "latest"
		}
		if !at.IsZero() {
			info.Position = at.String()
		}
		switch {
		case state.OID != t.OID || state.Epoch != epoch || state.Phase == lake.Copying:
			// Never copied, another table, after a lost slot, or a copy whose
			// snapshot is gone.
			info.Phase = string(lake.Waiting)
		case ground == nil || was == nil || was.Streamed(ground) != "":
			// Rows may have come or gone that no change tells of.
			info.Phase = string(lake.Waiting)
		default:
			info.Phase = string(state.Phase)
			if how := was.Filled(ground, t); how != "" {
				info.Phase = string(lake.Waiting)
				err := fmt.Errorf("%s: %s: %w", t, how, lake.ErrSchemaIncompatible)
				f := Classify(err)
				info.Reason = &f.Reason
				info.Reason.Since = since
			}
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// Scan looks for tables that appeared or vanished, and publishes the new ones.
// It judges again those whose streams rest on other ground than before.
func (a *Activities) Scan(ctx context.Context, in ScanInput) (ScanResult, error) {
	var out ScanResult
	defer a.alive(ctx)()
	db := &in.DB
	sql, err := a.source(ctx, db, "control")
	if err != nil {
		return out, err
	}
	defer sql.Close()
	if in.SystemID != "" {
		if err := sameSource(ctx, sql, in.SystemID, in.Timeline); err != nil {
			return out, err
		}
	}
	tables, odd, err := sql.Tables(ctx, db.Tables)
	if err != nil {
		return out, err
	}
	known := make(map[uint32]*KnownTable, len(in.Known))
	for i := range in.Known {
		k := &in.Known[i]
		known[k.OID] = k
		if !slices.ContainsFunc(tables, func(t *change.Table) bool { return t.OID == k.OID }) {
			out.Gone = append(out.Gone, k.OID)
		}
	}
	refused, grounds, err := publish(ctx, sql, db, tables, false)
	if err != nil {
		return out, err
	}
	if err := blocking(refused); err != nil {
		return out, err
	}
	problems := append(odd, refused...)
	var look []*change.Table
	for _, t := range tables {
		k, ground := known[t.OID], grounds[t.OID]
		switch {
		case k == nil:
			look = append(look, t)
		case ground == nil || k.Parked || k.Ground == ground.Fingerprint():
		case k.Name != t.String():
			out.Parked = append(out.Parked, TableChange{OID: t.OID, Reason: renamed(k.Name, t)})
		default:
			look = append(look, t)
		}
	}
	if len(look) > 0 {
		system, err := sql.System(ctx)
		if err != nil {
			return out, err
		}
		out.LSN = system.LSN
		if out.Found, err = a.describe(ctx, db, in.Epoch, look, grounds, problems); err != nil {
			return out, err
		}
	}
	for i := range out.Found {
		if f := &out.Found[i]; known[f.OID] != nil && f.Reason != nil {
			f.Phase = "parked" // nobody has asked for a copy
		}
	}
	for i := range problems {
		p := &problems[i]
		at := slices.IndexFunc(tables, func(t *change.Table) bool { return t.String() == p.Table })
		if !p.Blocking || at < 0 || known[tables[at].OID] == nil {
			continue
		}
		out.Parked = append(out.Parked, TableChange{OID: tables[at].OID, Reason: &Reason{
			Code: Code(p.Code), Message: p.Sentence, Remedy: p.Remedy, Since: time.Now().UTC().Format(time.RFC3339),
		}})
	}
	if in.Copy != "" {
		out.CopyGone = !a.workflowRuns(ctx, in.Copy)
	}
	return out, nil
}

// workflowRuns tells whether a workflow is running; true where that cannot be
// told.
func (a *Activities) workflowRuns(ctx context.Context, id string) bool {
	d, err := a.cfg.Temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return !notFound(err)
	}
	return d.GetWorkflowExecutionInfo().GetCloseTime() == nil
}

// EmitMarker writes a marker into the source's log, in a transaction of its
// own: it arrives after everything that was committed before.
func (a *Activities) EmitMarker(ctx context.Context, in MarkerInput) error {
	if err := checkMarker(in.Token); err != nil {
		return &Reasoned{Failure: Failure{Park: true, Reason: Reason{Code: CodeInternal, Message: err.Error()}}, Err: err}
	}
	defer a.alive(ctx)()
	sql, err := a.source(ctx, &in.DB, "control")
	if err != nil {
		return err
	}
	defer sql.Close()
	_, err = sql.EmitMarker(ctx, markerPrefix, in.Token)
	return err
}

// AwaitCaughtUp waits until what is committed now at the source can be read
// from the lake.
func (a *Activities) AwaitCaughtUp(ctx context.Context, in AwaitInput) error {
	defer a.alive(ctx)()
	var waited struct {
		Reached bool   `json:"reached"`
		Why     string `json:"why"`
		Again   bool   `json:"again"`
	}
	for end := time.Now().Add(in.Timeout); ; {
		h, err := a.cfg.Temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: in.WorkflowID, UpdateName: UpdateWait, WaitForStage: client.WorkflowUpdateStageCompleted,
			Args: []any{map[string]any{"until": "caught-up", "timeout": time.Until(end), "past_parked": true}},
		})
		if err == nil {
			err = h.Get(ctx, &waited)
		}
		switch {
		case err != nil:
			return fmt.Errorf("wait for the lake: %w", err)
		case waited.Reached:
			return nil
		case !waited.Again || time.Now().After(end):
			return fmt.Errorf("wait for the lake: %s: %w", waited.Why, ErrNotCaughtUp)
		}
	}
}

// AtSource names what a database's mirror makes at the source: its slot and its
// publications. Epoch 0 stands for the first.
func AtSource(database string, epoch uint32) []string {
	return append([]string{"slot " + pgsource.SlotName(database, max(epoch, 1))},
		quoteAll("publication ", pgsource.PublicationNames(database))...)
}

// Drop drops slot and publications where they are ours. With Force it goes on
// where the source cannot be reached, and says what stays behind.
func (a *Activities) Drop(ctx context.Context, in DropInput) (DropResult, error) {
	var out DropResult
	defer a.alive(ctx)()
	db := &in.DB
	sql, err := a.source(ctx, db, "control")
	if err != nil {
		if !in.Force {
			return out, err
		}
		out.Left = AtSource(db.Name, in.Epoch)
		return out, nil
	}
	defer sql.Close()
	slots, err := sql.SlotNames(ctx, db.Name)
	if err != nil {
		if !in.Force {
			return out, err
		}
		out.Left = AtSource(db.Name, in.Epoch)
		return out, nil
	}
	for _, name := range slots {
		dropped, err := sql.DropSlot(ctx, name)
		switch {
		case err != nil && !in.Force:
			return out, err
		case err != nil:
			out.Left = append(out.Left, "slot "+name)
		case dropped:
			out.Dropped = append(out.Dropped, "slot "+name)
		}
	}
	dropped, left, err := sql.DropPublications(ctx, db.Name)
	if err != nil && !in.Force {
		return out, err
	}
	out.Dropped = append(out.Dropped, quoteAll("publication ", dropped)...)
	out.Left = append(out.Left, quoteAll("publication ", left)...)
	return out, nil
}

func quoteAll(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + n
	}
	return out
}
