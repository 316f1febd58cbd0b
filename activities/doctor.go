package activities

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/lake/pgtype"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// DoctorInput asks what stands in the way of a database's mirror.
type DoctorInput struct {
	DB fleet.Database `json:"db"`
}

// DoctorResult is what was found: what concerns the database first, then its
// tables.
type DoctorResult struct {
	// Host is who runs the server: self-run, RDS, Aurora, Cloud SQL or Azure;
	// empty where the source could not be asked.
	Host     string    `json:"host,omitempty"`
	Tables   int       `json:"tables"`
	Problems []Problem `json:"problems,omitempty"`
}

// doctorLimit is how long each of source, Kafka and lake may take.
const doctorLimit = 20 * time.Second

// Doctor looks at a database's source, topic and lake. It changes nothing there,
// but for an object that it writes into the lake and deletes. That one of them
// cannot be asked is a problem, not an error.
func (a *Activities) Doctor(ctx context.Context, in DoctorInput) (DoctorResult, error) {
	defer a.alive(ctx)()
	return a.examine(ctx, &in.DB), nil
}

// Examine is Doctor where no worker is: it asks from here, with the secrets of
// this environment.
func Examine(ctx context.Context, file *fleet.File, db *fleet.Database) (out DoctorResult, err error) {
	tls, err := file.Kafka.TLS.Config()
	if err != nil {
		return out, err
	}
	dir, err := os.MkdirTemp("", "millrace-doctor-")
	if err != nil {
		return out, fmt.Errorf("make a temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	a, err := New(Config{
		Worker: "doctor", DataDir: dir, Brokers: file.Kafka.Brokers, KafkaTLS: tls, AllowInsecure: file.AllowInsecure,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, Close(a)) }()
	return a.examine(ctx, db), nil
}

// examine looks at source, topic and lake side by side.
func (a *Activities) examine(ctx context.Context, db *fleet.Database) (out DoctorResult) {
	looks := []func(context.Context, *fleet.Database) (DoctorResult, error){a.examineSource, a.examineTopic, a.examineLake}
	found := make([]DoctorResult, len(looks))
	var g sync.WaitGroup
	for i, look := range looks {
		g.Go(func() {
			limited, cancel := context.WithTimeout(ctx, doctorLimit)
			defer cancel()
			var err error
			if found[i], err = look(limited, db); err != nil {
				found[i].Problems = append(found[i].Problems, asProblem(err, db.Name))
			}
		})
	}
	g.Wait()
	out.Host, out.Tables = found[0].Host, found[0].Tables
	for _, of := range []func(*Problem) bool{
		func(p *Problem) bool { return p.Table == "" },
		func(p *Problem) bool { return p.Table != "" },
	} {
		for i := range found {
			for _, p := range found[i].Problems {
				if of(&p) {
					out.Problems = append(out.Problems, p)
				}
			}
		}
	}
	return out
}

// asProblem makes a problem of an error that keeps a part from being asked.
func asProblem(err error, database string) Problem {
	f := Classify(err)
	r := f.Reason.For(database)
	return Problem{Code: r.Code, Sentence: r.Message, Remedy: r.Remedy, Blocking: true}
}

func (a *Activities) examineSource(ctx context.Context, db *fleet.Database) (out DoctorResult, err error) {
	sql, err := a.source(ctx, db, "doctor")
	if err != nil {
		return out, err
	}
	defer sql.Close()
	found, err := sql.Diagnose(ctx, pgsource.DiagnoseOptions{Database: db.Name, Patterns: db.Tables})
	if err != nil {
		return out, err
	}
	out.Host, out.Tables = string(found.Host), len(found.Tables)
	for _, p := range found.Problems {
		out.Problems = append(out.Problems, Problem{Code: Code(p.Code), Table: p.Table, Sentence: p.Sentence, Remedy: p.Remedy, By: p.By, Blocking: p.Blocking})
	}
	for _, t := range found.Tables {
		if p, odd := examineTypes(db, t); odd {
			out.Problems = append(out.Problems, p)
		}
	}
	return out, nil
}

// examineTypes names the columns of a table that become strings though they hold
// no text, and casts that a column cannot have.
func examineTypes(db *fleet.Database, t *change.Table) (Problem, bool) {
	casts := db.Table(t.Schema, t.Name).Casts
	var texts []string
	for _, c := range t.Columns {
		m, err := pgtype.For(c, casts[c.Name])
		if err != nil {
			f := Classify(fmt.Errorf("%s: %w", t, err))
			r := f.Reason.For(db.Name)
			return Problem{Code: r.Code, Table: t.String(), Sentence: r.Message, Remedy: r.Remedy, Blocking: true}, true
		}
		if m.Type.Kind == schema.String && casts[c.Name] == "" && !pgtype.Text(c.Type) {
			texts = append(texts, fmt.Sprintf("%s (%s)", c.Name, pgtype.Name(c.Type)))
		}
	}
	if len(texts) == 0 {
		return Problem{}, false
	}
	return Problem{
		Code: "TYPE_AS_STRING", Table: t.String(),
		Sentence: fmt.Sprintf("columns of %s become strings, as PostgreSQL prints them: %s", t, strings.Join(texts, ", ")),
	}, true
}

// Limits below which a topic draws a remark.
const (
	shortRetention = 24 * time.Hour
	smallMessage   = 1 << 20
)

func (a *Activities) examineTopic(ctx context.Context, db *fleet.Database) (out DoctorResult, err error) {
	t := a.topic(db)
	s, err := a.kafka.Inspect(ctx, t)
	if err != nil {
		return out, err
	}
	for _, r := range s.Refused {
		out.Problems = append(out.Problems, Problem{Code: "TOPIC_SETTINGS", Sentence: r.Error(), Remedy: r.Remedy, By: "whoever administers Kafka", Blocking: true})
	}
	remark := func(sentence, remedy string) {
		out.Problems = append(out.Problems, Problem{Code: "TOPIC_LIMITS", Sentence: sentence, Remedy: remedy})
	}
	if t.Retention > 0 && t.Retention < shortRetention {
		remark(fmt.Sprintf("Kafka keeps the topic %s for %s alone: a lake that is away for longer has every table copied again", t.Name, t.Retention),
			"kafka.retention: 7d in the fleet file, and for a topic that exists: "+alterTopic(t.Name, "retention.ms", "604800000"))
	}
	if s.Exists && s.MaxMessageBytes > 0 && s.MaxMessageBytes < smallMessage {
		remark(fmt.Sprintf("the topic %s takes changes of at most %d bytes: a larger one parks its table", t.Name, s.MaxMessageBytes),
			alterTopic(t.Name, "max.message.bytes", "16777216"))
	}
	return out, nil
}

func alterTopic(name, setting, value string) string {
	return fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s=%s", name, setting, value)
}

// littleSpace is how much a lake's disk should have left, in bytes.
const littleSpace = 5 << 30

func (a *Activities) examineLake(ctx context.Context, db *fleet.Database) (out DoctorResult, err error) {
	l, err := a.lake(ctx, db)
	if err != nil {
		return out, err
	}
	if err := l.Probe(ctx); err != nil {
		return out, err
	}
	free, known, err := l.Free()
	if err != nil {
		return out, err
	}
	if p, little := space(free); known && little {
		out.Problems = append(out.Problems, p)
	}
	return out, nil
}

// space warns of a lake's disk that is nearly full.
func space(free int64) (p Problem, little bool) {
	return Problem{
		Code:     "DISK_FULL",
		Sentence: fmt.Sprintf("the lake's disk has %d MB left", free>>20),
		Remedy:   "free space on it, or give the lake a larger one",
	}, free < littleSpace
}
