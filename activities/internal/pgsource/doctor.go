package pgsource

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// DiagnoseOptions say what [DB.Diagnose] looks at, and from when on it speaks.
type DiagnoseOptions struct {
	// Database is the name in the fleet file; Patterns choose its tables.
	Database string
	Patterns []string
	// Open is how long a transaction may be open before it is named. Zero means a
	// minute.
	Open time.Duration
	// Held is how much WAL a slot of others may hold before it is named, in bytes.
	// Zero means 1 GiB.
	Held int64
	// Skew is how far the server's clock may be from ours. Zero means 5 seconds.
	Skew time.Duration
	// Now is our clock; nil means the machine's.
	Now func() time.Time
}

// Diagnosis is what [DB.Diagnose] found.
type Diagnosis struct {
	Host     Host
	Tables   []*change.Table
	Problems []Problem
}

// Diagnose says all that [DB.Check] does, and what else may hurt later: how the
// publications are, or would be; open transactions, slots of others, timeouts,
// clocks, encodings, names. It says who can mend each, and changes nothing. An
// error means that the source could not be asked.
func (d *DB) Diagnose(ctx context.Context, o DiagnoseOptions) (Diagnosis, error) {
	o = o.complete()
	var f facts
	tables, problems, err := d.check(ctx, &f, o.Patterns)
	if err != nil {
		return Diagnosis{}, err
	}
	out := Diagnosis{Host: f.host, Tables: tables, Problems: problems}
	for _, look := range []func(context.Context, *DiagnoseOptions, *facts, []*change.Table) ([]Problem, error){
		d.lookAtSession, d.lookAtSettings, d.lookAtSlots, d.lookAtTransactions, d.lookAtPublications, d.lookAtColumns,
	} {
		found, err := look(ctx, &o, &f, tables)
		if err != nil {
			return Diagnosis{}, err
		}
		out.Problems = append(out.Problems, found...)
	}
	owners, err := d.owners(ctx, out.Problems)
	if err != nil {
		return Diagnosis{}, err
	}
	for i := range out.Problems {
		p := &out.Problems[i]
		if p.Code == "ROW_SECURITY" && (f.host == RDS || f.host == Aurora) {
			// There nobody may give BYPASSRLS; policies leave owners alone.
			p.Remedy = fmt.Sprintf("GRANT %s TO {role}; -- unless the table has FORCE ROW LEVEL SECURITY", ident(owners[p.OID]))
		}
		p.By = f.host.by(p, owners[p.OID])
	}
	d.fill(out.Problems)
	return out, nil
}

func (o DiagnoseOptions) complete() DiagnoseOptions {
	if o.Open == 0 {
		o.Open = time.Minute
	}
	if o.Held == 0 {
		o.Held = 1 << 30
	}
	if o.Skew == 0 {
		o.Skew = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// lookAtSession finds out whether a pooler is in between, whether the role gets a
// walsender, and how far the clocks are apart.
func (d *DB) lookAtSession(ctx context.Context, o *DiagnoseOptions, f *facts, _ []*change.Table) (problems []Problem, err error) {
	var pid uint32
	var known int
	var encoding, row string
	var server time.Time
	var before, after time.Time
	err = d.query(ctx, "look at the session", func(ctx context.Context, c *pgx.Conn) error {
		known = int(c.PgConn().PID())
		before = o.Now()
		err := c.QueryRow(ctx, `SELECT pg_backend_pid()::oid, current_setting('server_encoding'), current_setting('row_security'), clock_timestamp()`).
			Scan(&pid, &encoding, &row, &server)
		after = o.Now()
		return err
	})
	if err != nil {
		return nil, err
	}
	// A pooler makes up the process id that it tells clients, and keeps settings of
	// the start of a session for itself.
	if int(pid) != known || row != "off" {
		problems = append(problems, Problem{
			Code: "SOURCE_POOLER", Blocking: true,
			Sentence: "a pooler answers in the server's place, so that sessions, and what is set in them, are not ours to keep",
			Remedy:   "give the server's own host and port in url:",
		})
	} else if f.replication && f.walLevel == "logical" && !f.standby {
		var own *Error
		if _, err := d.System(ctx); errors.As(err, &own) {
			problems = append(problems, own.Problem)
		} else if err != nil {
			return nil, err
		}
	}
	if encoding == "SQL_ASCII" {
		problems = append(problems, Problem{
			Code:     "SOURCE_ENCODING",
			Sentence: fmt.Sprintf("the database %s has the encoding SQL_ASCII, which is none: text that is not UTF-8 parks its table", d.database()),
			Remedy:   "give columns with other text a cast in the fleet file: casts: {column: binary}",
		})
	}
	skew := max(server.Sub(after), before.Sub(server))
	if skew > o.Skew {
		problems = append(problems, Problem{
			Code:     "CLOCK_SKEW",
			Sentence: fmt.Sprintf("the server's clock and this worker's are %s apart, and lag is measured by both", skew.Round(time.Second)),
			Remedy:   "have both follow the same time servers: chronyc tracking",
		})
	}
	return problems, nil
}

// lookAtSettings judges settings that end connections or slots.
func (d *DB) lookAtSettings(ctx context.Context, _ *DiagnoseOptions, f *facts, _ []*change.Table) (problems []Problem, err error) {
	var sender int64 // milliseconds
	var idle *int64  // seconds; nil before PostgreSQL 18
	var keep int64   // megabytes
	err = d.query(ctx, "look at the server's settings", func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `
			SELECT (SELECT reset_val::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'),
			       (SELECT extract(epoch FROM (setting || coalesce(nullif(unit, ''), ''))::interval)::bigint FROM pg_settings WHERE name = 'idle_replication_slot_timeout'),
			       (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size')`).Scan(&sender, &idle, &keep)
	})
	if err != nil {
		return nil, err
	}
	add := func(blocking bool, code, sentence, remedy string) {
		problems = append(problems, Problem{Code: code, Sentence: sentence, Remedy: remedy, Blocking: blocking})
	}
	switch {
	case sender == 0:
		add(false, "SOURCE_TIMEOUT", "wal_sender_timeout is off, so a connection that vanished keeps the slot taken until the operating system notices", f.host.set("wal_sender_timeout", "60s", false))
	case sender < 10_000:
		add(false, "SOURCE_TIMEOUT", fmt.Sprintf("wal_sender_timeout is %s, so a short stall of the network ends the stream", time.Duration(sender)*time.Millisecond),
			f.host.set("wal_sender_timeout", "60s", false))
	}
	if idle != nil && *idle > 0 {
		add(false, "SLOT_TIMEOUT", fmt.Sprintf("idle_replication_slot_timeout invalidates a slot that nobody reads for %s: after a pause or an outage of that length every table is copied again", time.Duration(*idle)*time.Second),
			f.host.set("idle_replication_slot_timeout", "0", false))
	}
	if keep >= 0 && keep < 1024 {
		add(false, "SOURCE_WAL_SMALL", fmt.Sprintf("max_slot_wal_keep_size is %d MB, so a short stall loses the slot, and every table is copied again", keep),
			f.host.set("max_slot_wal_keep_size", "100GB", false))
	}
	return problems, nil
}

// lookAtSlots names slots of others that hold WAL, and judges ours.
func (d *DB) lookAtSlots(ctx context.Context, o *DiagnoseOptions, f *facts, _ []*change.Table) (problems []Problem, err error) {
	if f.standby {
		return nil, nil
	}
	err = d.query(ctx, "look at slots", func(ctx context.Context, c *pgx.Conn) error {
		problems = nil
		rows, _ := c.Query(ctx, `
			SELECT slot_name::text, active, coalesce(wal_status, ''), coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,
			       starts_with(slot_name::text, $1)
			FROM pg_replication_slots WHERE NOT temporary ORDER BY 1`, slotPrefix(o.Database))
		var name, status string
		var active, ours bool
		var held int64
		_, err := pgx.ForEachRow(rows, []any{&name, &active, &status, &held, &ours}, func() error {
			drop := fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", literal(name))
			switch {
			case ours && status == "lost":
				problems = append(problems, slotLost(name, "the server removed WAL that it had not read").(*Error).Problem)
			case ours:
			case status == "lost" || !active && held > o.Held:
				problems = append(problems, Problem{
					Code:     "SLOT_ABANDONED",
					Sentence: fmt.Sprintf("nobody reads the replication slot %s, and it holds %d MB of WAL", name, held>>20),
					Remedy:   drop + " -- if nobody needs it",
				})
			}
			return nil
		})
		return err
	})
	return problems, err
}

// lookAtTransactions names those that a slot could not be made beside. Sessions of
// other roles show their age to members of pg_read_all_stats alone.
func (d *DB) lookAtTransactions(ctx context.Context, o *DiagnoseOptions, f *facts, _ []*change.Table) (problems []Problem, err error) {
	err = d.query(ctx, "look for open transactions", func(ctx context.Context, c *pgx.Conn) error {
		problems = nil
		rows, _ := c.Query(ctx, `
			SELECT 0, gid, prepared, owner::text FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - $1::interval
			UNION ALL
			SELECT pid, coalesce(application_name, ''), xact_start, coalesce(usename::text, '') FROM pg_stat_activity
			WHERE backend_xid IS NOT NULL AND xact_start < clock_timestamp() - $1::interval AND pid <> pg_backend_pid()
			ORDER BY 3`, o.Open)
		var pid int32
		var name, role string
		var since time.Time
		_, err := pgx.ForEachRow(rows, []any{&pid, &name, &since, &role}, func() error {
			p := Problem{Code: "SOURCE_BLOCKED"}
			at := since.UTC().Format(time.RFC3339)
			if pid == 0 {
				// It stays until somebody ends it, and no slot can be made meanwhile.
				p.Blocking = f.oursSlots == 0
				p.Sentence = fmt.Sprintf("a transaction of %s is prepared as %s since %s, and no slot can be made beside it", role, literal(name), at)
				p.Remedy = fmt.Sprintf("ROLLBACK PREPARED %s; -- or COMMIT PREPARED, in its database", literal(name))
			} else {
				p.Sentence = fmt.Sprintf("session %d (%s) of %s has a transaction open since %s, and no slot can be made beside it", pid, name, role, at)
				p.Remedy = fmt.Sprintf("SELECT pg_terminate_backend(%d); -- unless it ends by itself", pid)
			}
			problems = append(problems, p)
			return nil
		})
		return err
	})
	return problems, err
}

// lookAtPublications says what is in the way of publishing the tables, without
// publishing them.
func (d *DB) lookAtPublications(ctx context.Context, o *DiagnoseOptions, f *facts, tables []*change.Table) (problems []Problem, err error) {
	if f.standby {
		return nil, nil
	}
	pubs := wanted(o.Database)
	for _, p := range pubs {
		if err := d.readPublication(ctx, o.Database, p); err != nil {
			return nil, err
		}
		if p.exists {
			problems = append(problems, p.unfit()...)
		}
	}
	owned, err := d.ownedByUs(ctx, tables)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		p := pubs[0]
		if t.Identity == change.IdentityNone {
			p = pubs[1]
		}
		owner, known := owned[t.OID]
		switch m, in := p.tables[t.OID]; {
		case in && m.filtered:
			problems = append(problems, p.filters(t))
		case in, !known:
		case !owner.us || p.exists && !p.owned:
			problems = append(problems, p.notOwned(t, owner.name))
		}
	}
	return problems, nil
}

// ownership is whose a table is, and whether our role has the rights of that one.
type ownership struct {
	name string
	us   bool
}

func (d *DB) ownedByUs(ctx context.Context, tables []*change.Table) (map[uint32]ownership, error) {
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.OID
	}
	owned := make(map[uint32]ownership, len(tables))
	err := d.query(ctx, "look up owners", func(ctx context.Context, c *pgx.Conn) error {
		rows, _ := c.Query(ctx, `SELECT oid, pg_get_userbyid(relowner)::text, pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = ANY ($1::oid[])`, oids)
		var oid uint32
		var o ownership
		_, err := pgx.ForEachRow(rows, []any{&oid, &o.name, &o.us}, func() error {
			owned[oid] = o
			return nil
		})
		return err
	})
	return owned, err
}

// lookAtColumns names what the lake has otherwise than the source: generated
// columns, which are left out, and names that differ in case alone.
func (d *DB) lookAtColumns(ctx context.Context, _ *DiagnoseOptions, _ *facts, tables []*change.Table) (problems []Problem, err error) {
	oids := make([]uint32, len(tables))
	byOID := make(map[uint32]*change.Table, len(tables))
	folded := map[string]*change.Table{}
	for i, t := range tables {
		oids[i], byOID[t.OID] = t.OID, t
		if other := folded[strings.ToLower(t.String())]; other != nil {
			problems = append(problems, Problem{
				Code: "NAMES_COLLIDE", Table: t.String(), OID: t.OID,
				Sentence: fmt.Sprintf("%s and %s differ in case alone, so that the folders of one have a suffix in the lake", other, t),
			})
		}
		folded[strings.ToLower(t.String())] = t
		columns := map[string]string{}
		for _, c := range t.Columns {
			if other, is := columns[strings.ToLower(c.Name)]; is {
				problems = append(problems, Problem{
					Code: "NAMES_COLLIDE", Table: t.String(), OID: t.OID,
					Sentence: fmt.Sprintf("the columns %q and %q of %s differ in case alone, which Delta does not tell apart, so that one has a suffix in the lake", other, c.Name, t),
				})
			}
			columns[strings.ToLower(c.Name)] = c.Name
		}
	}
	err = d.query(ctx, "look for generated columns", func(ctx context.Context, c *pgx.Conn) error {
		rows, _ := c.Query(ctx, `
			SELECT attrelid, string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
			WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped AND attgenerated <> '' GROUP BY 1 ORDER BY 1`, oids)
		var oid uint32
		var names string
		_, err := pgx.ForEachRow(rows, []any{&oid, &names}, func() error {
			problems = append(problems, Problem{
				Code: "COLUMN_GENERATED", Table: byOID[oid].String(), OID: oid,
				Sentence: fmt.Sprintf("%s has generated columns, which are left out of the lake: %s", byOID[oid], names),
			})
			return nil
		})
		return err
	})
	return problems, err
}

// owners are the owners of the tables that problems concern, by OID.
func (d *DB) owners(ctx context.Context, problems []Problem) (map[uint32]string, error) {
	var tables []*change.Table
	for i := range problems {
		if p := &problems[i]; p.OID != 0 {
			tables = append(tables, &change.Table{OID: p.OID})
		}
	}
	owned, err := d.ownedByUs(ctx, tables)
	owners := make(map[uint32]string, len(owned))
	for oid, o := range owned {
		owners[oid] = o.name
	}
	return owners, err
}
