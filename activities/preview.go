package activities

import (
	"context"
	"slices"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

// PreviewInput asks what a configuration would mean at the source.
type PreviewInput struct {
	DB fleet.Database `json:"db"`
	// Running tells that the database is mirrored now; SystemID and Timeline are
	// then of its last preparation.
	Running  bool   `json:"running,omitempty"`
	SystemID string `json:"system_id,omitempty"`
	Timeline int32  `json:"timeline,omitempty"`
	// Anew asks alone what stands in the way of another slot for a database that
	// is mirrored now.
	Anew bool `json:"anew,omitempty"`
	// Known are the tables that are mirrored now.
	Known []PreviewKnown `json:"known,omitempty"`
}

// PreviewKnown is a table that is mirrored now.
type PreviewKnown struct {
	OID uint32 `json:"o"`
	// Recopied tells that the configuration has it copied again.
	Recopied bool `json:"r,omitempty"`
}

// PreviewResult says what the source and the lake have to do with it.
type PreviewResult struct {
	// Tables are those that match and are not known, and those that are to be
	// copied again.
	Tables []PreviewTable `json:"tables,omitempty"`
	// Problems are what stands in the way, and remarks.
	Problems []Problem `json:"problems,omitempty"`
}

// PreviewTable is what is to become of one table.
type PreviewTable struct {
	OID  uint32 `json:"oid"`
	Name string `json:"name"`
	// Copied tells that it will be copied. Otherwise the lake has it, and the slot
	// has what changed since.
	Copied bool `json:"copied"`
	// Rows and Bytes are the catalog's estimates; Rows is -1 where it has none.
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
}

// Preview looks at what a configuration would mean, and changes nothing.
func (a *Activities) Preview(ctx context.Context, in PreviewInput) (PreviewResult, error) {
	var out PreviewResult
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
	if in.Anew {
		return out, a.standing(ctx, sql, &in, odd, &out)
	}
	known := make(map[uint32]PreviewKnown, len(in.Known))
	for _, k := range in.Known {
		known[k.OID] = k
	}
	if err := a.standing(ctx, sql, &in, odd, &out); err != nil {
		return out, err
	}
	var due []*change.Table
	for _, t := range tables {
		if k, is := known[t.OID]; !is || k.Recopied {
			due = append(due, t)
		}
	}
	kept, err := a.kept(ctx, sql, &in, due, &out)
	if err != nil {
		return out, err
	}
	sizes, err := sql.Estimates(ctx, due)
	if err != nil {
		return out, err
	}
	for _, t := range due {
		size, here := sizes[t.OID]
		if !here {
			continue
		}
		out.Tables = append(out.Tables, PreviewTable{
			OID: t.OID, Name: t.String(), Copied: !slices.Contains(kept, t.OID), Rows: size.Rows, Bytes: size.Bytes,
		})
	}
	return out, nil
}

// standing notes what stands in the way. Of a database that runs that is what
// concerns tables to come alone, for the rest is in use.
func (a *Activities) standing(ctx context.Context, sql *pgsource.DB, in *PreviewInput, odd []pgsource.Problem, out *PreviewResult) error {
	problems := odd
	if !in.Running {
		var err error
		if problems, err = sql.Check(ctx, in.DB.Tables); err != nil {
			return err
		}
	}
	for _, p := range problems {
		if in.Running && slices.ContainsFunc(in.Known, func(k PreviewKnown) bool { return k.OID == p.OID }) {
			continue // its status says so
		}
		out.Problems = append(out.Problems, Problem{Code: Code(p.Code), Table: p.Table, Sentence: p.Sentence, Remedy: p.Remedy, Blocking: p.Blocking})
	}
	return nil
}

// kept lists the tables of a database that does not run which go on where the
// lake stands: their slot was left at the source. A topic that lacks what the slot has
// passed stands in the way.
func (a *Activities) kept(ctx context.Context, sql *pgsource.DB, in *PreviewInput, tables []*change.Table, out *PreviewResult) ([]uint32, error) {
	if in.Running || len(tables) == 0 {
		return nil, nil
	}
	slots, err := slotEpochs(ctx, sql, in.DB.Name)
	if err != nil || len(slots) == 0 {
		return nil, err
	}
	slices.Sort(slots)
	if err := a.kafka.Began(ctx, in.DB.Topic.Name, slots[len(slots)-1]); err != nil {
		f := Classify(err)
		r := f.Reason.For(in.DB.Name)
		out.Problems = append(out.Problems, Problem{Code: r.Code, Sentence: r.Message, Remedy: r.Remedy, Blocking: f.Park})
		return nil, nil
	}
	grounds, err := sql.Grounds(ctx, in.DB.Name, tables)
	if err != nil {
		return nil, err
	}
	l, err := a.lake(ctx, &in.DB)
	if err != nil {
		return nil, err
	}
	var kept []uint32
	for _, t := range tables {
		state, was, err := l.Peek(ctx, t, lake.MirrorOptions{Casts: in.DB.Table(t.Schema, t.Name).Casts})
		if err != nil {
			if Classify(err).Park {
				continue // it will be parked, or copied
			}
			return nil, err
		}
		ground := grounds[t.OID]
		if state.OID == t.OID && state.Epoch == slots[len(slots)-1] && state.Phase == lake.Live && ground != nil && was != nil &&
			was.Streamed(ground) == "" && was.Filled(ground, t) == "" {
			kept = append(kept, t.OID)
		}
	}
	return kept, nil
}

// Outside names what a database's mirror makes outside the source: its folder in
// the lake and its topics.
func Outside(db *fleet.Database) []string {
	return []string{"lake " + db.Lake + "/" + db.Name, "topic " + db.Topic.Name, "topic " + topic.SchemasTopic(db.Topic.Name)}
}

// PurgeInput asks for what a mirror made outside the source to be deleted.
type PurgeInput struct {
	DB fleet.Database `json:"db"`
}

// PurgeResult lists what was deleted.
type PurgeResult struct {
	Deleted []string `json:"deleted,omitempty"`
}

// Purge deletes the database's folder in the lake and its topics. Nothing of the
// mirror may run any more.
func (a *Activities) Purge(ctx context.Context, in PurgeInput) (PurgeResult, error) {
	var out PurgeResult
	defer a.alive(ctx)()
	l, err := a.lake(ctx, &in.DB)
	if err != nil {
		return out, err
	}
	uri, err := l.Purge(ctx)
	if err != nil {
		return out, err
	}
	topics, err := a.kafka.Delete(ctx, in.DB.Topic.Name)
	if err != nil {
		return out, err
	}
	out.Deleted = append([]string{"lake " + uri}, quoteAll("topic ", topics)...)
	return out, nil
}
